"""Homes of a few partitions, with a queue for what they send one another in Kafka's place: events
come to any partition, and each id's row is where, and what, it would be had they come rightly."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from governor.events import Limits
from governor.gate import Gate
from governor.ledger import Ledger
from governor.partitioning import partition_of
from governor.policy import load
from governor.records import Records
from streams.home import Home
from streams.pipeline import ingest
from streams.repartition import TOPIC
from tests.invariants import DAY, T0

POLICY = """
rules:
  - {name: user-daily, cap: 3, per: user, window: 1d}
  - {name: household-daily, cap: 3, per: user, window: 1d, id: household}
  - {name: device-daily, cap: 3, per: user, window: 1d, id: device}
"""
NOW = (T0 + 86400) * 1000
SECRET = b"secret"

Event = tuple[str, dict[str, Any]]


class Cluster:
    """Partitions that send one another what is not theirs, and the workers' changelog."""

    def __init__(self, partitions: int = 3, *, retention: int = 7 * DAY) -> None:
        self.retention = retention
        self.homes = [Home(n, partitions, self._ledger(), self._gate()) for n in range(partitions)]
        self.outcomes: Counter[str] = Counter()
        self.queues: list[deque[Records]] = [deque() for _ in self.homes]

    def _ledger(self) -> Ledger:
        return Ledger(load(POLICY), horizon=30 * DAY)

    def _gate(self) -> Gate:
        return Gate(secret=SECRET, retention=self.retention)

    def give(self, partition: int, *events: Event) -> None:
        """Let events arrive on a partition; what it sends on waits in the queues."""
        for kind, event in events:
            records = Records.of([(b"any", json.dumps(event).encode(), NOW)])
            self._ingest(kind, self.homes[partition], records)

    def settle(self, choose: Callable[[Sequence[int]], int] = lambda waiting: waiting[0]) -> None:
        """Deliver what waits, the next from the partition that ``choose`` says, until all rests."""
        while self.step(choose):
            pass

    def step(self, choose: Callable[[Sequence[int]], int]) -> bool:
        """Deliver one of the records that wait; whether there was any."""
        waiting = [n for n, queue in enumerate(self.queues) if queue]
        if waiting:
            n = choose(waiting)
            self._ingest(TOPIC, self.homes[n], self.queues[n].popleft())
        return bool(waiting)

    def _ingest(self, kind: str, home: Home, records: Records) -> None:
        ingested = ingest(kind, home, records, Limits())
        assert not ingested.rejected, ingested.rejected
        self.outcomes += ingested.outcomes
        for n, parts in home.forwards.take().items():
            self.queues[n].extend(parts)

    def home(self, key: str) -> Home:
        return self.homes[partition_of(key.encode(), len(self.homes))]

    def exposures(self, key: str) -> int:
        """How many exposures the rule on all ads counts for an id."""
        for throttle in (self.home(key).ledger.decide(key) or {"throttles": []})["throttles"]:
            if throttle["label"] == "user":
                (evidence,) = throttle["evidence"].values()
                return int(evidence["exposures"])
        return 0


def shown(user: str, n: int, **fields: Any) -> Event:
    return (
        "impressions",
        {"event_id": f"{user}-{n}", "user_id": user, "ts": T0 + n, "campaign_id": "C", **fields},
    )


def control(kind: str, user: str, ts: float, **fields: Any) -> Event:
    event_id = f"{kind} {user} {ts} {fields}"
    return ("controls", {"event_id": event_id, "user_id": user, "ts": ts, "type": kind, **fields})


@pytest.mark.parametrize("seed", range(5))
def test_events_count_wherever_they_arrive(seed: int) -> None:
    rng = random.Random(seed)
    cluster = Cluster()
    for user in ("a", "b", "c", "d", "é"):
        for n in range(4):
            cluster.give(rng.randrange(3), shown(user, n))
    cluster.settle(rng.choice)
    assert [cluster.exposures(user) for user in ("a", "b", "c", "d", "é")] == [4] * 5
    assert sum(len(home.ledger) for home in cluster.homes) == 5


def test_each_id_of_an_event_has_a_row_in_its_own_place() -> None:
    cluster = Cluster()
    for n in range(2):
        cluster.give(0, shown("a", n, ids={"household": "h"}))
        cluster.give(1, shown("b", n, ids={"household": "h", "device": "d"}))
    cluster.settle()
    assert cluster.exposures("household\0h") == 4
    assert cluster.exposures("a") == cluster.exposures("device\0d") == 0
    assert sum(len(home.ledger) for home in cluster.homes) == 4


def test_an_event_counts_once_in_the_outcomes() -> None:
    cluster = Cluster(1)
    cluster.give(0, shown("a", 0, ids={"household": "h", "device": "d"}), shown("b", 1))
    assert cluster.outcomes == {"applied": 2}


def test_what_was_erased_does_not_come_back() -> None:
    cluster = Cluster()
    before = [shown("a", n) for n in range(4)]
    for event in before:
        cluster.give(0, event)
    cluster.settle()
    cluster.give(1, control("erase", "a", T0 + 10))
    cluster.settle()
    for event in before:
        cluster.give(2, event)
    cluster.settle()
    assert cluster.outcomes["erased"] == 4
    for n in range(20, 23):
        cluster.give(2, shown("a", n))
    cluster.settle()
    assert cluster.home("a").gate.erasures.erased(b"a") == (T0 + 10) * 10**6


def test_a_mark_outlives_a_restart_and_ends_with_the_retention() -> None:
    cluster = Cluster(1, retention=DAY)
    cluster.give(0, control("erase", "a", T0))
    gate = cluster.homes[0].gate
    logged = gate.take()
    assert all(b"a" not in key[1:] or len(key) == 9 for key, _ in logged)
    other = Gate(secret=SECRET, retention=DAY)
    rest = other.load(Records.of([(b"ua", b"row", 0), *((key, value, 0) for key, value in logged)]))
    assert [rest.key(i) for i in range(len(rest))] == [b"ua"]
    assert other.erasures.erased(b"a") == T0 * 10**6
    other.erasures.expire(T0 * 10**6 + DAY)
    assert other.erasures.erased(b"a") is not None
    other.erasures.expire(T0 * 10**6 + DAY + 1)
    assert other.erasures.erased(b"a") is None
    assert [value for _, value in other.take()] == [None]
