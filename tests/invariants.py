"""The ledger driven by raw events, and what must hold of it whatever the events.

:class:`Engine` takes events as producers send them, through the real decoders, and keeps what a
deployment would: the compacted decisions topic and the changelog. The functions below it are the
invariants; each raises AssertionError with what differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from governor.decisions import GRACE
from governor.events import (
    Limits,
    Rejected,
    decode_controls,
    decode_engagements,
    decode_impressions,
)
from governor.ledger import Ledger, Taken
from governor.records import Records
from tests import oracle
from tests.oracle import SECOND, Decision, Oracle, Rule, policy_of

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND
T0 = 1_700_000_000
"""Epoch seconds at which the tests' streams begin."""

NOT_YET = (T0 + 3 * 365 * 86400) * 1000
"""A broker's timestamp, in milliseconds, under which no event of the tests is too old or new."""

DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}

Event = tuple[str, dict[str, Any]]
"""Which input topic, and the JSON object."""


class Engine:
    """A ledger with its decoders, and what it has published so far."""

    def __init__(
        self, rules: Iterable[Rule], *, horizon: int = 30 * DAY, row_limit: int = 128
    ) -> None:
        self.rules = list(rules)
        self.horizon = horizon
        self.row_limit = row_limit
        self.ledger = Ledger(policy_of(self.rules), horizon=horizon, row_limit=row_limit)
        self.rejected: list[Rejected] = []
        self.topic: dict[str, dict[str, Any]] = {}
        """The compacted decisions topic."""
        self.changelog: list[tuple[bytes | None, bytes | None, int]] = []

    def feed(
        self, *events: Event, spelled: Callable[[dict[str, Any]], str] = json.dumps
    ) -> dict[str, int]:
        """Apply a batch, in this order; how many events met which outcome."""
        counts: dict[str, int] = {}
        for topic, group in groupby(events, key=lambda event: event[0]):
            values = [(None, spelled(event).encode(), NOT_YET) for _, event in group]
            columns, rejected = DECODERS[topic](Records.of(values), self.ledger.labels, Limits())
            self.rejected += rejected
            for outcome, count in self.ledger.apply(columns).counts().items():
                counts[outcome] = counts.get(outcome, 0) + count
        return {outcome: count for outcome, count in counts.items() if count}

    def decide(self, user_id: str = "u1") -> Decision | None:
        return self.ledger.decide(user_id)

    def publish(self, decided_at: int = 0) -> Taken:
        """Flush what changed to the decisions topic and the changelog."""
        taken = self.ledger.take(decided_at)
        for i in range(len(taken.decisions)):
            key, value = taken.decisions.key(i), taken.decisions.value(i)
            assert key is not None
            if value is None:
                self.topic.pop(key.decode(), None)
            else:
                self.topic[key.decode()] = json.loads(value)
        for i in range(len(taken.changelog)):
            self.changelog.append((taken.changelog.key(i), taken.changelog.value(i), 0))
        return taken

    def restarted(self) -> Engine:
        """A new engine that has read the changelog, as a worker does after a crash."""
        other = Engine(self.rules, horizon=self.horizon, row_limit=self.row_limit)
        other.ledger.load(Records.of(self.changelog))
        other.topic = dict(self.topic)
        other.changelog = list(self.changelog)
        return other

    def rows(self) -> dict[bytes, bytes | None]:
        """The compacted changelog: newest value by key."""
        return {key: value for key, value, _ in self.changelog if key is not None}


def answers_as_oracle(engine: Engine, expected: Oracle) -> None:
    """Every user's decision is one that the definitions admit."""
    for user_id in expected.rows:
        is_admissible(expected, user_id, engine.decide(user_id))


def is_admissible(expected: Oracle, user_id: str, actual: Decision | None) -> None:
    """One user's decision is one that the definitions admit."""
    differences = [oracle.compare(one, actual) for one in expected.admissible(user_id)]
    assert [] in differences, f"{user_id}: {min(differences, key=len)}"


def order_does_not_matter(one: Engine, other: Engine, users: Iterable[str]) -> None:
    """Two engines that were given one multiset of events, and nothing published in between."""
    for user_id in users:
        assert oracle.compare(one.decide(user_id), other.decide(user_id)) == []
    one.publish()
    other.publish()
    assert one.rows() == other.rows()
    assert one.topic.keys() == other.topic.keys()
    for user_id, decision in one.topic.items():
        assert oracle.compare(decision, other.topic[user_id]) == []


def replay_changes_nothing(engine: Engine, events: Sequence[Event]) -> None:
    """Delivering again what a published engine has had changes no row and publishes nothing."""
    rows, topic, entries = engine.rows(), dict(engine.topic), engine.ledger.entries
    counts = engine.feed(*events)
    assert "applied" not in counts
    assert engine.ledger.dirty == 0
    assert engine.ledger.entries == entries
    taken = engine.publish()
    assert len(taken.decisions) == 0
    assert all(key is None or key[:1] == b"a" for key, _, _ in _triples(taken.changelog))
    assert engine.rows() == rows
    assert engine.topic == topic


def until_is_never_earlier(before: Decision | None, after: Decision | None, now: int) -> None:
    """One more exposure, under caps and spacing, ends no throttle earlier; ``now`` is the row's
    newest tick after it, by which a throttle may have run out."""
    left = {throttle["label"]: throttle for throttle in (after or {"throttles": []})["throttles"]}
    for throttle in (before or {"throttles": []})["throttles"]:
        for rule, evidence in throttle["evidence"].items():
            if oracle.ticks(evidence["until"]) <= now:
                continue
            label = throttle["label"]
            assert label in left, f"{label} was freed by an exposure"
            assert rule in left[label]["evidence"], f"{label}: {rule} was lifted by an exposure"
            assert left[label]["evidence"][rule]["until"] >= evidence["until"]
            assert left[label]["until"] >= evidence["until"]


def topic_says_what_is_decided(engine: Engine, users: Iterable[str]) -> None:
    """After a flush the topic's record is the ledger's answer.

    The counts in the evidence may be older: a record is written anew when the throttles change,
    not when an old exposure turns up that changes none. And what everybody's clock has left
    behind may be gone from the topic: for readers it has run out.
    """
    for user_id in users:
        published, decided = engine.topic.get(user_id), engine.decide(user_id)
        if published is None and decided is not None:
            last = max(oracle.ticks(throttle["until"]) for throttle in decided["throttles"])
            if last <= engine.ledger.newest - GRACE:
                continue
        assert oracle.compare(_uncounted(decided), _uncounted(published)) == []


def survives_restart(engine: Engine, users: Iterable[str], events: Sequence[Event]) -> None:
    """Rows written to the changelog and read back answer the same, and know what they had."""
    engine.publish()
    restarted = engine.restarted()
    assert len(restarted.ledger) == len(engine.ledger)
    assert restarted.ledger.entries == engine.ledger.entries
    assert restarted.ledger.newest == engine.ledger.newest
    for user_id in users:
        assert oracle.compare(engine.decide(user_id), restarted.decide(user_id)) == []
    replay_changes_nothing(restarted, events)


def _uncounted(decision: Decision | None) -> Decision | None:
    if decision is None:
        return None
    throttles = [
        throttle
        | {
            "evidence": {
                rule: {name: value for name, value in one.items() if name != "exposures"}
                for rule, one in throttle["evidence"].items()
            }
        }
        for throttle in decision["throttles"]
    ]
    return {"id": decision["id"], "throttles": throttles}


def _triples(records: Records) -> list[tuple[bytes | None, bytes | None, int]]:
    return [(records.key(i), records.value(i), 0) for i in range(len(records))]
