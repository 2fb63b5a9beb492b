"""What is held of a person, and that an erasure reaches all of it, through a real Kafka."""

from __future__ import annotations

import json

from tests.integration.commands import governor
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, Event, wait_for
from tests.integration.events import control, shown
from tests.integration.scenario import T0
from tests.integration.test_misrouted import send_with_librdkafka, send_without_keys

POLICY = """
version: test
rules:
  - {name: user-daily, cap: 2, per: user, window: 1d}
  - {name: device-daily, cap: 2, per: user, window: 1d, id: device}
  - {name: household-daily, cap: 2, per: user, window: 1d, id: household}
"""
PERSON = ("--user", "Ursula 7", "--id", "device=d-7")
NAMES = (b"Ursula 7", b"d-7", b"cookie-7")
"""By which the person is known: a user id, a device, and a cookie that was linked."""


def history(user: str, device: str, cookie: str) -> list[Event]:
    """What a person saw and did before anything is asked; with a neighbour in the household."""
    ids = {"device": device, "household": "h 1"}
    click = {"event_id": f"click {user}", "user_id": user, "ts": T0 + 3, "type": "click"}
    return [
        *(shown(cookie, n) for n in range(3)),
        *(shown(user, 10 + n, ids=ids) for n in range(3)),
        ("engagements", click | {"campaign_id": "C1", "ids": ids}),
        control("less_often", user, 15, label="campaign:C1"),
        control("link", cookie, 20, to=user),
    ]


def told(deployment: Deployment, *events: Event) -> None:
    """Send events of every partitioner, so that some are forwarded, and wait for the workers."""
    send_with_librdkafka(deployment, list(events[::2]))
    send_without_keys(deployment, list(events[1::2]))
    deployment.wait_until_committed()


def kept(deployment: Deployment, topic: str) -> dict[bytes, bytes]:
    """What compaction leaves of a topic."""
    newest = {message.key: message.value for message in deployment.read(topic)}
    return {key: value for key, value in newest.items() if key is not None and value is not None}


def mentions(deployment: Deployment, topic: str) -> list[bytes]:
    """The keys under which one of the person's names stands, in key or value."""
    return [
        key
        for key, value in kept(deployment, topic).items()
        if any(name in key + b" " + value for name in NAMES)
    ]


def test_all_that_is_held_is_told_and_an_erasure_reaches_it(deploy: Deploy) -> None:
    """Rows and decisions of all ids, links, dead letters, what is on its way; and no replay of
    what was before brings the person back."""
    deployment = deploy(policy=POLICY, purge_interval="1s", erasure_key="a secret of this test")
    deployment.create_event_topics()
    worker = deployment.worker()
    before = history("Ursula 7", "d-7", "cookie-7")
    others = history("Otto 8", "d-8", "cookie-8")
    told(deployment, *before, *others)
    bad = {"event_id": "b", "user_id": "Ursula 7", "campaign_id": "C1", "ts": "yesterday"}
    deployment.send_raw(
        [
            ("impressions", b"Ursula 7", json.dumps(bad).encode()),
            ("impressions", b"x", b"not JSON, but it says cookie-7"),
            ("impressions", b"x", b"not JSON, but it says d-7"),
            ("impressions", b"x", b"not JSON, and it says Otto 8"),
        ]
    )
    deployment.wait_until_committed()

    held = json.loads(governor(deployment, "access", *PERSON))
    by_id = {one["id"]: one for one in held["ids"]}
    assert by_id.keys() == {"Ursula 7", "d-7", "cookie-7"}
    assert by_id["Ursula 7"]["was"] == [{"id": "cookie-7", "id_type": "user"}]
    assert by_id["cookie-7"]["became"] == {"id": "Ursula 7", "id_type": "user"}
    row = by_id["Ursula 7"]["row"]
    assert [len(row[kind]) for kind in ("exposures", "engagements", "controls")] == [6, 1, 1]
    assert by_id["Ursula 7"]["decision"]["throttles"][0]["reasons"] == ["user-daily"]
    assert len(by_id["d-7"]["row"]["exposures"]) == 3
    (why,) = by_id["Ursula 7"]["rules"]
    assert (why["rule"], why["state"], why["count"]) == ("user-daily", "throttled", 6)
    assert len(held["dead_letters"]) == 3

    said = governor(deployment, "erase", *PERSON)
    assert "3 dead letters withdrawn" in said
    deployment.wait_until_committed()
    for topic in ("ledger", "decisions", "deadletters"):
        assert mentions(deployment, topic) == []
    assert len(kept(deployment, "deadletters")) == 1
    marks = [key for key in kept(deployment, "ledger") if key[:1] == b"e"]
    assert len(marks) == 3
    assert all(len(key) == 9 for key in marks)

    told(deployment, *before)
    deployment.send(before)
    deployment.wait_until_committed()
    for topic in ("ledger", "decisions", "deadletters"):
        assert mentions(deployment, topic) == []
    assert worker.metrics().total("governor_events_total", outcome="erased") >= len(before)
    again = json.loads(governor(deployment, "access", *PERSON))
    assert [one["row"] for one in again["ids"]] == [None, None]
    assert [one["decision"] for one in again["ids"]] == [None, None]
    assert again["dead_letters"] == []
    # What is of others stays: the neighbour, and the household that both belong to.
    assert {"Otto 8", "household\0h 1", "device\0d-8"} <= deployment.published().keys()

    wait_for(lambda: not deployment.read("repartition"), "purge of what was forwarded and applied")
    assert json.loads(governor(deployment, "access", *PERSON))["repartition"] == []
    assert worker.stop() == 0


def test_a_mark_holds_after_a_crash_and_the_person_may_come_back(deploy: Deploy) -> None:
    """By what happens after the erasure, and by nothing from before it."""
    deployment = deploy(policy=POLICY)
    worker = deployment.worker()
    before = history("Ursula 7", "d-7", "cookie-7")
    deployment.send(before)
    deployment.wait_until_committed()
    deployment.send([control("erase", "Ursula 7", 100, ids={"device": "d-7"})])
    deployment.wait_until_committed()
    worker.kill()
    deployment.worker()
    deployment.send(before)
    deployment.send([shown("Ursula 7", 200, ids={"device": "d-7"})])
    deployment.wait_until_committed()
    assert deployment.published().keys() == {"household\0h 1"}
    deployment.send([shown("Ursula 7", 210), shown("cookie-7", 220), shown("cookie-7", 230)])
    deployment.wait_until_committed()
    published = deployment.published()
    assert published["Ursula 7"]["throttles"][0]["until"] == T0 + 86400 + 200
    assert "redirect" not in published["cookie-7"]
