"""Whether one user's decision and row are what the user's events say, and how they differ if not.

Equal means, as everywhere in the governor: at the row's newest event, the throttles agree in
label, state, ``from``, ``until``, factor and reasons. What must be is `governor.oracle`'s word; the
compiled engine has no part in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from governor import oracle
from governor.decisions import GRACE
from governor.oracle import Event
from governor.ticks import from_seconds

__all__ = ["Difference", "Found", "Judge", "Place", "Skipped", "Verdict"]

ORDERS = 200
"""Orders of simultaneous exposures that are tried before an answer is called wrong."""

Throttles = Mapping[str, Mapping[str, Any]]
"""By label."""


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
    LATE = "their newest event is beyond the history: a forgotten row may have begun anew"


@dataclass
class Verdict:
    """What the comparison of some users found."""

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
    """Judges users of one partition.

    Args:
        policy: as its file says it.
        horizon: the worker's history, in ticks.
        row_limit: the worker's.
        watermark: the newest event of the partition, in ticks.
    """

    policy: Mapping[str, Any]
    horizon: int
    row_limit: int
    watermark: int

    def judge(
        self,
        user: str,
        events: Sequence[Event],
        newest_at: Place | None,
        found: Found,
        verdict: Verdict,
    ) -> None:
        """Compare, and note in ``verdict`` what differs."""
        expected = self._expected(events, 0)
        newest = oracle.newest(events)
        ends = max((from_seconds(one["until"]) for one in expected.values()), default=0)
        gone = newest <= self.watermark - 2 * self.horizon
        differences = [
            Difference(user, label, what, want, have, place, len(events), newest_at)
            for what, label, want, have, place in (
                *self._decision(
                    events, expected, found, may_lack=gone or ends <= self.watermark - GRACE
                ),
                *self._row(events, expected, found, may_lack=gone),
            )
        ]
        late = bool(events) and newest <= self.watermark - self.horizon
        if differences and late and found.live is not None:
            verdict.skipped[Skipped.LATE] += 1
            return
        verdict.judged += 1
        verdict.throttles += len(expected)
        verdict.overdue += bool(found.decision) and ends <= self.watermark - GRACE
        verdict.differences += differences

    def _expected(self, events: Sequence[Event], ties: int) -> Throttles:
        """What must be decided of one user: all that this module knows of the rules."""
        return oracle.throttles(
            self.policy, events, horizon=self.horizon, row_limit=self.row_limit, ties=ties
        )

    def _live(self, events: Sequence[Event]) -> Mapping[str, int | None]:
        return oracle.live(events, horizon=self.horizon, row_limit=self.row_limit)

    def _decision(
        self, events: Sequence[Event], expected: Throttles, found: Found, *, may_lack: bool
    ) -> Iterator[tuple[str, str | None, Any, Any, Place]]:
        if found.decision is None and may_lack:
            return
        have = _throttles(found.decision)
        for label, want, got in self._compare(events, expected, have):
            yield "decision", label, want, got, found.decision_at

    def _row(
        self, events: Sequence[Event], expected: Throttles, found: Found, *, may_lack: bool
    ) -> Iterator[tuple[str, str | None, Any, Any, Place]]:
        if found.live is None:
            if not may_lack and events:
                yield "row", None, dict(self._live(events)), None, found.row_at
            return
        for label, want, got in self._compare(events, expected, _throttles(found.row)):
            yield "row", label, want, got, found.row_at
        held = self._live(events)
        if any(count not in (None, found.live[topic]) for topic, count in held.items()):
            yield "row", None, dict(held), dict(found.live), found.row_at

    def _compare(
        self, events: Sequence[Event], expected: Throttles, found: Throttles
    ) -> list[tuple[str, Any, Any]]:
        """Label, what was expected, what is there; for each label that differs."""
        differences = _differences(expected, found)
        if differences and oracle.tied(events):
            for ties in range(1, ORDERS):
                if not _differences(self._expected(events, ties), found):
                    return []
        return differences


def _throttles(decision: Mapping[str, Any] | None) -> Throttles:
    return {one["label"]: one for one in decision["throttles"]} if decision else {}


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
    return (
        throttle["state"],
        throttle["factor"],
        from_seconds(throttle["from"]),
        from_seconds(throttle["until"]),
        tuple(throttle["reasons"]),
    )
