"""`governor verify`: silent where all is right, and precise where something is not."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from governor.partitioning import partition_of
from tests.integration.conftest import Deploy
from tests.integration.deployment import HOUR, ROOT, Deployment, Event, Message
from tests.integration.events import control, shown
from tests.integration.scenario import T0, scenario
from tests.integration.test_misrouted import send_with_librdkafka, send_without_keys
from tests.oracle import Rule

SPACING = (Rule("campaign-spacing", "spacing", 1, HOUR, "campaign"),)


def impression(user: str, event: str, ts: float, campaign: str = "C1") -> Event:
    return (
        "impressions",
        {"event_id": event, "user_id": user, "ts": ts, "campaign_id": campaign},
    )


def governed(deployment: Deployment, events: list[Event]) -> None:
    """Let a worker see these events, and stop."""
    with deployment.worker():
        deployment.send(events)
        deployment.wait_until_committed()


def last(deployment: Deployment, topic: str, key: bytes) -> Message:
    return [one for one in deployment.read(topic) if one.key == key][-1]


def test_what_a_worker_did_right_has_no_differences(deploy: Deploy) -> None:
    deployment = deploy()
    events = scenario(50)
    deployment.create_event_topics()
    deployment.send_raw([("impressions", b"x", b"no event")])
    governed(deployment, events)
    status, found = deployment.verify()
    assert (status, found["differences"]) == (0, 0), found["found"]
    assert found["events"] == len(events)
    assert found["rejected"] == 1
    users = {event["user_id"] for _, event in events}
    assert found["judged"] == found["users"] == found["rows"] == len(users)
    assert found["throttles"] > 0
    status, found = deployment.verify("--sample", "40")
    assert (status, found["differences"]) == (0, 0)
    assert 0 < found["judged"] <= 40


def test_each_thing_that_is_wrong_is_told_with_its_place(deploy: Deploy) -> None:
    deployment = deploy(rules=SPACING, partitions=1)
    users = ["altered", "lost decision", "lost row", "old row", "sound"]
    governed(deployment, [impression(user, f"1-{user}", T0) for user in users])
    old = last(deployment, "ledger", b"uold row")
    governed(deployment, [impression(user, f"2-{user}", T0 + 60, "C2") for user in users])
    altered = last(deployment, "decisions", b"altered").json()
    altered["throttles"][0]["until"] += 1
    label = altered["throttles"][0]["label"]
    deployment.send_raw(
        [
            ("decisions", b"altered", json.dumps(altered).encode()),
            ("decisions", b"lost decision", None),
            ("decisions", b"stranger", json.dumps(altered | {"id": "stranger"}).encode()),
            ("ledger", b"ulost row", None),
            ("ledger", old.key, old.value),
        ],
        partition=0,
    )
    status, found = deployment.verify()
    assert status == 1
    told = {
        (one["user"], one["what"], one["label"]): one for one in found["found"]
    }  # fmt: skip
    both = {"campaign:C1", "campaign:C2"}
    assert told.keys() == {
        ("altered", "decision", label),
        *(("lost decision", "decision", each) for each in both),
        *(("stranger", "decision", one["label"]) for one in altered["throttles"]),
        ("lost row", "row", None),
        ("old row", "row", "campaign:C2"),
        ("old row", "row", None),
    }
    wrong = told["altered", "decision", label]
    assert wrong["found"]["until"] == wrong["expected"]["until"] + 1
    offset = last(deployment, "decisions", b"altered").offset
    assert wrong["place"] == {
        "topic": deployment.topic("decisions"), "partition": 0, "offset": offset,
    }  # fmt: skip
    assert wrong["events"] == 2
    assert wrong["newest"]["topic"] == deployment.topic("impressions")
    entries = told["old row", "row", None]
    assert (entries["expected"]["impressions"], entries["found"]["impressions"]) == (2, 1)
    assert entries["place"]["offset"] == last(deployment, "ledger", b"uold row").offset


PEOPLE = """
version: test
rules:
  - {name: user-hourly, cap: 3, per: user, window: 1h}
  - {name: household-hourly, cap: 4, per: campaign, window: 1h, id: household}
"""


def people(count: int) -> list[Event]:
    """Of each number a person with a device and half a household, a cookie that becomes theirs, and
    every third erased: what comes after that counts anew."""
    events: list[Event] = []
    for n in range(count):
        user, cookie = f"person {n}", f"cookie {n}"
        ids = {"household": f"h{n // 2}", "device": f"d{n}"}
        events += [shown(user, 10 * at, ids=ids) for at in range(3)]
        events += [shown(cookie, 5 + 10 * at) for at in range(2)]
        refusal = {"consent": {"retargeting": False}} if n % 4 == 0 else {}
        events.append(control("consent", cookie, 6, **refusal))
        events.append(control("opt_out", user, 7, label="campaign:C2"))
        events.append(control("link", cookie, 100, to=user))
        if n % 3 == 0:
            events.append(control("erase", user, 200, ids={"device": f"d{n}"}))
            events += [shown(user, 300 + at, ids=ids) for at in range(2)]
    return events


def test_people_of_several_ids_and_partitions_are_judged(deploy: Deploy) -> None:
    """Linked, erased, misrouted, and rows of households: all of them, and what is wrong is told."""
    deployment = deploy(policy=PEOPLE)
    deployment.create_event_topics()
    events = people(30)
    with deployment.worker():
        send_with_librdkafka(deployment, events[::3])
        send_without_keys(deployment, events[1::3])
        deployment.send(events[2::3])
        deployment.wait_until_committed()
    status, found = deployment.verify()
    assert (status, found["differences"]) == (0, 0), found["found"]
    assert found["not_judged"] == {}
    published = deployment.published()
    assert found["judged"] >= len(published.keys() | {f"person {n}" for n in range(30)})

    households = [key for key in published if key.startswith("household\0")]
    cookies = [key for key, record in published.items() if "redirect" in record]
    altered = published[households[0]]
    altered["throttles"][0]["until"] += 1
    wrong = {
        households[0]: json.dumps(altered).encode(),
        cookies[0]: json.dumps({"id": cookies[0], "redirect": "nobody"}).encode(),
        cookies[1]: None,
    }
    for key, value in wrong.items():
        where = partition_of(key.encode(), 4)
        deployment.send_raw([("decisions", key.encode(), value)], partition=where)
    status, found = deployment.verify()
    assert status == 1
    assert {(one["user"], one["what"]) for one in found["found"]} == {
        (key, "decision") for key in wrong
    }
    redirected = next(one for one in found["found"] if one["user"] == cookies[1])
    assert redirected["expected"] == published[cookies[1]]
    assert redirected["found"] is None


def test_whom_it_cannot_judge_it_says(deploy: Deploy) -> None:
    deployment = deploy(rules=SPACING, partitions=1, history="1d", max_future="5m")
    deployment.create_event_topics()
    now = int(time.time()) - 3 * 86400  # within the topics' retention
    sent = {
        now - 80_500: impression("early", "e1", now - 80_500),
        now - 80_000: impression("both", "e2", now - 80_000),
        now: impression("both", "e3", now),
        now + 87_000: impression("new", "e4", now + 87_000),
    }
    for seconds, event in sent.items():
        topic, content = event
        key, value = content["user_id"].encode(), json.dumps(content).encode()
        deployment.send_raw([(topic, key, value)], timestamp=seconds * 1000)
    governed(deployment, [])
    assert deployment.verify()[0] == 0
    status, found = deployment.verify("--from", str(now - 60))
    assert (status, found["differences"]) == (0, 0), found["found"]
    assert found["judged"] == 1
    assert sum(found["not_judged"].values()) == 2
    status, found = deployment.verify("--to", str(now + 60))
    assert (status, found["judged"]) == (0, 2)
    assert list(found["not_judged"].values()) == [1]
    # What the workers have not committed yet is nobody's fault.
    deployment.send([impression("new", "e5", now + 87_100, "C9")])
    status, found = deployment.verify()
    assert (status, found["judged"]) == (0, 2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"topic_prefix": "nobody."}, "GOVERNOR_TOPIC_PREFIX"),
        ({"group": "nobody"}, "GOVERNOR_GROUP"),
    ],
)
def test_where_there_is_nothing_to_compare_it_says_what_to_set(
    deploy: Deploy, settings: dict[str, str], said: str
) -> None:
    deployment = deploy(rules=SPACING, partitions=1)
    governed(deployment, [impression("u", "e", T0)])
    finished = subprocess.run(
        [sys.executable, "-m", "streams.cli", "verify"],
        env=deployment.environment(**settings) | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 2
    assert said in finished.stderr.decode()
    assert b"Traceback" not in finished.stderr
