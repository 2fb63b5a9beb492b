"""Whether one user's decision and row are what the user's events say, and how they differ if not.

Equal means, as everywhere in the governor: at the row's newest event, the throttles agree in
label, state, ``from``, ``until``, factor and reasons. What must be is `governor.oracle`'s word; the
compiled engine has no part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from governor.decisions import GRACE
from governor.fatigue.versions import Version
from governor.oracle import Entry, Oracle, Row, TooManyOrdersError, by_scope
from governor.policy import Policy
from governor.ticks import from_seconds

__all__ = ["Difference", "Event", "Found", "Judge", "Place", "Skipped", "Verdict"]

Event = tuple[str, Mapping[str, Any]]
"""The topic, ``impressions``, ``engagements`` or ``controls``, and the JSON object."""

_Differing = tuple[str, str | None, Any, Any, "Place"]
"""What is different: decision or row, its label, expected, found, and where."""

Throttles = Mapping[str, Mapping[str, Any]]
"""By label, match and state."""


@dataclass(frozen=True)
class Place:
    """A record in Kafka; offset None for one that is not there."""

    topic: str
    partition: int
    offset: int | None

    def __str__(self) -> str:
        where = "no record" if self.offset is None else f"offset {self.offset}"
        return f"{self.topic}[{self.partition}] {where}"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the events say."""

    user: str
    label: str | None
    """None where it is not about a label: a row's entries, a record where none may be."""
    what: str
    """``decision`` or ``row``."""
    expected: Any
    found: Any
    place: Place
    events: int
    """Events of this user."""
    newest: Place | None
    """Where the newest of them is."""

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return asdict(self)


class Skipped:
    """Why a user is not judged."""

    MOVING = "their events were still under way while this ran"
    BEFORE = "they were last seen so early that events before the span may count"
    AFTER = "they had events after the span"
    TIES = "they had so many events at one instant that their order decides"
    ORDER = "what they said, or links and erasures, came so close together that order decides"
    LATE = "their newest event is beyond the history: a forgotten row may have begun anew"


@dataclass
class Verdict:
    """What the comparison of some users found."""

    policy: str = ""
    """The version of the policy that the users were judged by."""
    events: int = 0
    rejected: int = 0
    users: int = 0
    judged: int = 0
    throttles: int = 0
    """Expected of the users judged."""
    rows: int = 0
    decisions: int = 0
    overdue: int = 0
    """Decisions that have run out for everybody and are still there."""
    skipped: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    """Decisions by the version of the policy that they name."""
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Take in what was found of other users."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.differences else 0


@dataclass(frozen=True)
class Found:
    """What Kafka has of one user."""

    decision: Mapping[str, Any] | None
    decision_at: Place
    row: Mapping[str, Any] | None
    """What the row decides, in the form of the decision record."""
    live: Mapping[str, int] | None
    """What counts in the row, by topic; None when there is no row."""
    row_at: Place


@dataclass(frozen=True)
class Judge:
    """Judges rows of one partition.

    Args:
        policy: the one that the workers have.
        horizon: the worker's history, in ticks.
        row_limit: the worker's.
        watermark: the newest event of the partition, in ticks.
        version: of curves that rules of fatigue go by; None where there is none.
    """

    policy: Policy
    horizon: int
    row_limit: int
    watermark: int
    version: Version | None = None

    def judge(
        self,
        user: str,
        events: Sequence[Event],
        newest_at: Place | None,
        found: Found,
        verdict: Verdict,
    ) -> str | None:
        """Compare, and note in ``verdict`` what differs; why not, where it cannot be judged.

        Args:
            user: whose row it is.
            events: all of this user, in the order in which they probably came.
            newest_at: where the newest of them is.
            found: what Kafka has.
            verdict: of the run so far.
        """
        return self.judge_by(user, self._orders(events), newest_at, found, verdict)

    def judge_by(
        self,
        key: str,
        oracles: Iterable[Oracle],
        newest_at: Place | None,
        found: Found,
        verdict: Verdict,
    ) -> str | None:
        """Compare with what follows from events in one order, or in another that they may have had.

        Where order decides, and none explains what is there, nothing is called different.
        """
        first: _Expected | None = None
        held: set[Entry] = set()
        differences: list[_Differing] = []
        order_decides = False
        for oracle in oracles:
            expected = _Expected.of(oracle.decide(key), oracle.row(key))
            if first is None:
                first, held = expected, oracle.entries(key)
            elif expected == first:
                continue
            else:
                order_decides = True
            try:
                differences = self._differing(oracle, key, expected, found)
            except TooManyOrdersError:
                return _skip(verdict, Skipped.TIES)
            if not differences:
                break
        assert first is not None, "there is at least one order"
        if differences and order_decides:
            return _skip(verdict, Skipped.ORDER)
        newest = max((entry.ts for entry in held), default=0)
        late = bool(held) and newest <= self.watermark - self.horizon
        if differences and late and found.live is not None:
            return _skip(verdict, Skipped.LATE)
        verdict.judged += 1
        verdict.throttles += len(first.throttles)
        verdict.overdue += bool(found.decision) and first.ends <= self.watermark - GRACE
        verdict.differences += [
            Difference(key, label, what, want, have, place, len(held), newest_at)
            for what, label, want, have, place in differences
        ]
        return None

    def _orders(self, events: Sequence[Event]) -> Iterator[Oracle]:
        """Oracles told these events: as they came, and, for words on consent, in other orders."""
        orders = [list(events)]
        if any("consent" in event for _, event in events):
            orders += [
                sorted(events, key=lambda one: one[1]["ts"]),
                sorted(events, key=lambda one: "consent" in one[1]),
                sorted(events, key=lambda one: "consent" not in one[1]),
            ]
        for order in orders:
            oracle = Oracle(
                self.policy,
                horizon=self.horizon,
                row_limit=self.row_limit,
                version=self.version,
            )
            for topic, event in order:
                oracle.add(topic.removesuffix("s"), event)
            yield oracle

    def _differing(
        self, oracle: Oracle, key: str, expected: _Expected, found: Found
    ) -> list[_Differing]:
        newest = max((entry.ts for entry in oracle.entries(key)), default=0)
        gone = newest <= self.watermark - 2 * self.horizon
        over = expected.ends <= self.watermark - GRACE
        differences: list[_Differing] = []
        for looked_at in (_decision, _row):
            by_one = list(looked_at(expected, found, gone, over))
            others = _others(oracle, key) if by_one else ()
            if all(list(looked_at(other, found, gone, over)) for other in others):
                differences += by_one
        return differences


def _skip(verdict: Verdict, reason: str) -> str:
    verdict.skipped[reason] += 1
    return reason


@dataclass(frozen=True)
class _Expected:
    """What must be of one user, by one order of simultaneous events."""

    throttles: Throttles
    live: Mapping[str, int]

    @classmethod
    def of(cls, decision: Mapping[str, Any] | None, row: Row | None) -> _Expected:
        counts = (len(row.shown), len(row.engaged), len(row.said)) if row else (0, 0, 0)
        topics = ("impressions", "engagements", "controls")
        return cls(by_scope(decision), dict(zip(topics, counts, strict=True)))

    @property
    def ends(self) -> float:
        """When the last throttle ends, in ticks."""
        untils = [one["until"] for one in self.throttles.values()]
        return max((inf if each is None else from_seconds(each) for each in untils), default=0)


def _others(oracle: Oracle, user: str) -> Iterator[_Expected]:
    for row in oracle.admissible_rows(user):
        yield _Expected.of(oracle.decided(row), row)


_Told = Iterator[_Differing]


def _decision(expected: _Expected, found: Found, gone: bool, over: bool) -> _Told:
    """What differs of the published decision, which may be absent once it is over."""
    if found.decision is not None or not (gone or over):
        for label, want, got in _differences(expected.throttles, by_scope(found.decision)):
            yield "decision", label, want, got, found.decision_at


def _row(expected: _Expected, found: Found, gone: bool, _over: bool) -> _Told:
    """What differs of what the row decides, and of what it holds."""
    if found.live is None:
        if not gone and any(expected.live.values()):
            yield "row", None, dict(expected.live), None, found.row_at
        return
    for label, want, got in _differences(expected.throttles, by_scope(found.row)):
        yield "row", label, want, got, found.row_at
    if any(count != found.live[topic] for topic, count in expected.live.items()):
        yield "row", None, dict(expected.live), dict(found.live), found.row_at


def _differences(expected: Throttles, found: Throttles) -> list[tuple[str, Any, Any]]:
    return [
        (label, expected.get(label), found.get(label))
        for label in sorted(expected.keys() | found.keys())
        if _telling(expected.get(label)) != _telling(found.get(label))
    ]


def _telling(throttle: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """What must agree of a throttle, its times as whole ticks."""
    if throttle is None:
        return None
    until = throttle["until"]
    return (
        throttle["state"],
        throttle["factor"],
        from_seconds(throttle["from"]),
        None if until is None else from_seconds(until),
        tuple(throttle["reasons"]),
    )
