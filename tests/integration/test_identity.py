"""Several ids, links, erasure, access and history through a real Kafka."""

from __future__ import annotations

import gzip
import json
from typing import Any

from streams.client import Client
from tests.integration.commands import governor, seen_by
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, Event, wait_for
from tests.integration.scenario import T0, scenario

POLICY = """\
version: ids
rules:
  - {name: user-day, cap: 3, per: user, window: 1d}
  - {name: household-day, cap: 5, per: user, window: 1d, id: household}
"""
AT = T0 + 100.0


def shown(user: str, n: int, **fields: Any) -> Event:
    event = {"event_id": f"{user}-{n}", "user_id": user, "ts": T0 + n, "campaign_id": "C"}
    return "impressions", {**event, **fields}


def control(kind: str, user: str, ts: float, **fields: Any) -> Event:
    event = {"event_id": f"{kind}-{user}-{ts}", "user_id": user, "ts": ts, "type": kind}
    return "controls", {**event, **fields}


def governed(deploy: Deploy, **settings: Any) -> Deployment:
    deployment = deploy(partitions=4, erasure_key="secret", purge_interval="200ms", **settings)
    (deployment.folder / "policy.yaml").write_text(POLICY)
    return deployment


def keys_of(deployment: Deployment, topic: str) -> dict[bytes, bytes | None]:
    """A compacted topic as compaction leaves it."""
    return {one.key: one.value for one in deployment.read(topic) if one.key is not None}


def test_ids_and_links_decide_together(deploy: Deploy) -> None:
    deployment = governed(deploy)
    worker = deployment.worker()
    deployment.send(shown("a", n, ids={"household": "h"}) for n in range(2))
    deployment.send(shown("b", n, ids={"household": "h", "device": "d"}) for n in range(2, 5))
    deployment.wait_until_committed()

    def household_rests(reader: Client) -> bool:
        both = {"user": "a", "household": "h"}
        return (
            reader.allowed({"user": "a"}, {}, AT).allowed
            and reader.allowed(both, {}, AT).reasons == ("household-day",)
            and reader.allowed({"user": "b"}, {}, AT).reasons == ("user-day",)
        )

    seen_by(deployment, household_rests, "the household's throttle")
    record = json.loads(keys_of(deployment, "decisions")[b"household\0h"] or b"")
    assert (record["id"], record["id_type"]) == ("h", "household")

    worker.kill()
    deployment.send([control("link", "a", T0 + 50, to="known"), shown("known", 60)])
    worker = deployment.worker()
    deployment.wait_until_committed()
    deployment.send([shown("a", 61)])
    deployment.wait_until_committed()
    seen_by(
        deployment,
        lambda reader: all(
            reader.allowed({"user": user}, {}, AT).reasons == ("user-day",)
            for user in ("a", "known")
        ),
        "the union of both ids",
    )
    record = json.loads(keys_of(deployment, "decisions")[b"a"] or b"")
    assert record == {"id": "a", "redirect": "known"}
    assert worker.stop() == 0


def test_a_person_is_shown_what_is_held_and_erased(deploy: Deploy) -> None:
    deployment = governed(deploy)
    worker = deployment.worker()
    before = [
        *(shown("anonymous", n, ids={"device": "d"}) for n in range(4)),
        *(shown("known", n) for n in range(10, 14)),
        control("link", "anonymous", T0 + 20, to="known"),
        *(shown("other", n) for n in range(4)),
    ]
    deployment.send(before)
    bad = json.dumps({"event_id": "bad", "user_id": "known", "ts": "never"}).encode()
    fine = json.dumps({"event_id": "bad", "user_id": "other", "ts": "never"}).encode()
    deployment.send_raw([("impressions", b"known", bad), ("impressions", b"other", fine)])
    deployment.wait_until_committed()
    deployment.wait_until_committed()

    asked = "--user", "known", "--id", "device=d"
    held = json.loads(governor(deployment, "access", *asked))
    rows = {(one["id_type"], one["id"]): one for one in held["ids"]}
    assert set(rows) == {("user", "known"), ("device", "d"), ("user", "anonymous")}
    assert rows["user", "known"]["row"]
    assert rows["user", "known"]["decision"]["throttles"]
    assert rows["user", "known"]["was"] == [{"id": "anonymous", "id_type": "user"}]
    assert rows["user", "anonymous"]["became"] == {"id": "known", "id_type": "user"}
    assert [json.loads(one["message"])["user_id"] for one in held["dead_letters"]] == ["known"]
    assert "other" not in json.dumps(held)

    assert "1 dead letters withdrawn" in governor(deployment, "erase", *asked)
    deployment.wait_until_committed()
    decisions, changelog = keys_of(deployment, "decisions"), keys_of(deployment, "ledger")
    for key in (b"known", b"anonymous", b"device\0d"):
        assert decisions.get(key) is None
        assert changelog.get(b"u" + key) is None
        assert changelog.get(b"r" + key) is None
    assert decisions[b"other"] is not None
    assert not any(
        b"known" in key or b"anonymous" in key
        for key, value in changelog.items()
        if value is not None
    )
    letters = deployment.dead_letters()
    assert [json.loads(one["message"])["user_id"] for one in letters] == ["other"]
    wait_for(lambda: not deployment.read("repartition"), "an empty repartition topic")
    gone = json.loads(governor(deployment, "access", *asked))
    assert [one["row"] for one in gone["ids"]] == [None, None]
    assert not gone["dead_letters"]

    assert worker.stop() == 0
    worker = deployment.worker()
    deployment.send(before[:8])
    deployment.wait_until_committed()
    assert keys_of(deployment, "decisions").get(b"known") is None
    assert worker.metrics()("governor_users") == 1
    assert worker.stop() == 0


def test_history_fills_the_ledger_and_says_what_it_cannot_know(deploy: Deploy) -> None:
    deployment = deploy(partitions=3)
    worker = deployment.worker()
    events = scenario(51, users=50, events=1200)
    file = deployment.folder / "history.jsonl.gz"
    with gzip.open(file, "wt") as lines:
        for topic, event in events:
            lines.write(json.dumps({"topic": topic, **event}) + "\n")
        lines.write("not an event\n")
    told = governor(deployment, "backfill", file)
    assert f"{len(events) + 1:,} events applied" in told
    deployment.assert_decides(events)
    assert [letter["reason"] for letter in deployment.dead_letters()] == ["malformed"]
    assert worker.metrics().total("governor_forwarded_total") == 0

    again = governor(
        deployment, "backfill", "--topic", deployment.topic("impressions"), "--until", "2999-01-01"
    )
    assert "events applied" in again
    deployment.assert_decides(events)
    held = sum(map(len, deployment.oracle(events).rows.values()))
    assert worker.metrics()("governor_exposures_held") == held
    assert worker.stop() == 0
