"""What the governor must answer, in plain Python: the definitions, with no engine behind them.

Written to be read beside docs/policy.md and to check the compiled ledger against: it parses JSON
by itself, counts time in integers, looks at every pair of entries, however slow that is, and
shares nothing with the ledger but the policy and the decoding of consent strings. Where an answer
of the ledger differs from this package, one of the two misreads the definitions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from governor.fatigue.versions import Version
from governor.oracle.events import (
    SECOND,
    Entry,
    RejectedError,
    decode,
    key_of,
    seconds,
    ticks,
)
from governor.oracle.rows import Arrival, Joined, Row, entries_of, rekeyed, row_of
from governor.oracle.rules import Decision, decide, items
from governor.oracle.settlement import answers
from governor.oracle.ties import TooManyOrdersError, orders
from governor.policy import Cap, Policy, Spacing

__all__ = [
    "SECOND",
    "Decision",
    "Entry",
    "Event",
    "Oracle",
    "RejectedError",
    "Row",
    "TooManyOrdersError",
    "by_scope",
    "compare",
    "decode",
    "key_of",
    "only",
    "seconds",
    "ticks",
]

Event = tuple[str, bytes | Mapping[str, Any] | None]
"""``impression``, ``engagement`` or ``control``, and the JSON, as bytes or parsed."""


class Oracle:
    """Rows of many ids. ``add`` takes events in any order, ``admissible`` answers.

    Args:
        policy: what governs; it may be replaced at any time.
        horizon: how far back a row remembers, in ticks.
        row_limit: how many entries of each kind a row remembers, whatever the rules.
        version: of the curves that rules of fatigue go by; it may be replaced too.
    """

    def __init__(
        self, policy: Policy, *, horizon: int, row_limit: int, version: Version | None = None
    ) -> None:
        self.policy = policy
        self.version = version
        self.horizon = horizon
        self.row_limit = row_limit
        self.rows: dict[str, list[Arrival]] = defaultdict(list)
        """By key of the row, all that was ever accepted, in the order in which it came."""

    def add(self, topic: str, value: bytes | Mapping[str, Any] | None) -> str | None:
        """Record an event; the reason code if it is a dead letter, which changes nothing."""
        try:
            entries = decode(topic, value, self.policy.consent)
        except RejectedError as rejection:
            return rejection.reason
        if not self.excluded(entries):
            for entry in entries:
                self.rows[entry.key].append(entry)
        return None

    def excluded(self, entries: Sequence[Entry]) -> bool:
        """Whether an event is not taken in, by all that it says to the rows of its ids."""
        named = any(self.policy.exclude.covers(e.key.rpartition("\0")[2]) for e in entries)
        erases = any(e.topic == "control" and e.type == "erase" for e in entries)
        return any(e.invalid for e in entries) or (named and not erases)

    def merge(self, key: str, known: str, at: int) -> None:
        """What a link at a time, in ticks, does: all that is held of an id is another's."""
        moved = rekeyed(self.rows.pop(key, []), known)
        if moved:
            self.rows[known].append(Joined(at, moved))

    def erase(self, key: str, until: int) -> None:
        """Up to a time, in ticks, nothing is held of an id any more, nor will be."""
        erasure = {"event_id": "erase", "user_id": "of", "type": "erase", "ts": seconds(until)}
        (entry,) = decode("control", erasure)
        self.rows[key].append(replace(entry, key=key))

    def entries(self, key: str) -> set[Entry]:
        """All that was ever accepted of an id, and of those that became it."""
        return set(entries_of(self.rows.get(key, ())))

    def decide(self, key: str) -> Decision | None:
        """The decision of an id by one order of ties, of which the ledger may choose another."""
        return self.decided(self.row(key))

    def row(self, key: str) -> Row | None:
        """What the id's row is by that order; None if it holds nothing."""
        arrivals = self.rows.get(key)
        if not arrivals:
            return None
        smaller = sorted(self.entries(key), key=lambda e: (e.event_id, e.content))
        rank = {entry: place for place, entry in enumerate(smaller)}
        return row_of(arrivals, self.policy, self.horizon, self.row_limit, rank)

    def decided(self, row: Row | None) -> Decision | None:
        """The decision that follows from a row."""
        return decide(row, self.policy, self.version) if row else None

    def answered(self, key: str) -> list[tuple[int, str, int, bool]]:
        """What became of an id's exposures by one order of ties, as `answers_of` says it."""
        return self.answers_of(self.row(key))

    def answers_of(self, row: Row | None) -> list[tuple[int, str, int, bool]]:
        """Of each exposure of a row that counts: its time, its campaign, when it was first
        answered (-1: it was not) and whether an answer could have been seen, in order."""
        if row is None:
            return []
        first = answers(row, self.policy)
        return sorted(
            (
                e.ts,
                e.labels["campaign"],
                first.get(e, -1),
                e.measurable
                and not row.refused
                and all(ad.measurable for ad in items(e, self.policy)),
            )
            for e in row.shown
            if all(ad.priority != "always" for ad in items(e, self.policy))
        )

    def admissible(self, key: str) -> list[Decision | None]:
        """Every decision of an id that some order of ties explains; nearly always one."""
        answers: list[Decision | None] = []
        for row in self.admissible_rows(key):
            answer = self.decided(row)
            if not any(compare(answer, other) == [] for other in answers):
                answers.append(answer)
        return answers

    def admissible_rows(self, key: str, *, every_tie: bool = False) -> Iterator[Row | None]:
        """What the id's row is, by each order of ties that could matter to a decision; or, with
        ``every_tie``, to anything."""
        arrivals = self.rows.get(key)
        if not arrivals:
            yield None
            return
        plain = all(isinstance(rule, Cap | Spacing) for rule in self.policy.rules)
        entries = self.entries(key)
        said = any(e.topic != "impression" or e.zone or e.consent is not None for e in entries)
        every_tie = every_tie or said or not plain
        for rank in orders(entries, self.row_limit, every_tie=every_tie):
            yield row_of(arrivals, self.policy, self.horizon, self.row_limit, rank)


def only(answers: Sequence[Decision | None]) -> Decision | None:
    """The one admissible decision, where events were chosen so that no tie matters."""
    assert len(answers) == 1, f"the answer depends on a tie: {answers}"
    return answers[0]


def compare(expected: Decision | None, actual: Decision | None) -> list[str]:
    """What differs between two decisions of an id, in words; nothing if they are equal.

    The order of throttles means nothing, that of reasons does; times are equal to the tick.
    """
    want, have = by_scope(expected), by_scope(actual)
    differences = [f"{scope}: throttle is missing" for scope in want.keys() - have.keys()]
    differences += [f"{scope}: throttle is not expected" for scope in have.keys() - want.keys()]
    if (expected is None) != (actual is None):
        differences.append(f"expected {expected and 'a decision'}, not {actual and 'a decision'}")
    elif expected is not None and actual is not None:
        for name in ("id", "id_type", "arm"):
            if expected.get(name) != actual.get(name):
                differences.append(
                    f"{name}: expected {expected.get(name)!r}, not {actual.get(name)!r}"
                )
    if len(have) != len((actual or {"throttles": []})["throttles"]):
        differences.append("a label is throttled twice")
    for scope in want.keys() & have.keys():
        differences += _compare_fields(scope, want[scope], have[scope])
    return sorted(differences)


def by_scope(decision: Mapping[str, Any] | None) -> dict[str, Decision]:
    """Throttles by what there can be only one of: label, match, and whether it is in shadow."""
    return {
        each["label"]
        + (f" where {each['match']}" if "match" in each else "")
        + {"shadow": " in shadow", "softened": " softened"}.get(each["state"], ""): each
        for each in (decision or {"throttles": []})["throttles"]
    }


def _compare_fields(path: str, expected: Any, actual: Any) -> list[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        names = sorted(expected.keys() | actual.keys())
        return [
            difference
            for name in names
            for difference in _compare_fields(
                f"{path}.{name}", expected.get(name, "<absent>"), actual.get(name, "<absent>")
            )
        ]
    if _is_number(expected) and _is_number(actual):
        same = ticks(expected) == ticks(actual)
    else:
        same = type(expected) is type(actual) and expected == actual
    return [] if same else [f"{path}: expected {expected!r}, not {actual!r}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
