"""`governor.oracle` as tests call it: with rules in short, and answers that depend on no tie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from governor import oracle
from governor.oracle import (
    SECOND,
    Decision,
    RejectedError,
    TooManyOrdersError,
    compare,
    decode,
    only,
    seconds,
    ticks,
)
from governor.policy import Policy

__all__ = [
    "SECOND",
    "Decision",
    "Oracle",
    "RejectedError",
    "Rule",
    "TooManyOrdersError",
    "compare",
    "decode",
    "only",
    "policy_of",
    "seconds",
    "ticks",
]


class Rule(NamedTuple):
    """A cap or a spacing in short."""

    name: str
    kind: str
    """``cap`` or ``spacing``."""
    limit: int
    """Exposures a cap allows; 1 for spacing."""
    window: int
    """Look-back of a cap, distance of a spacing, in ticks."""
    per: str
    """A dimension, or the key of a custom label."""


def policy_of(rules: Iterable[Sequence[Any]], version: str = "test") -> Policy:
    """The policy with these rules, pointless ones included, which a file could not hold."""
    written = []
    for rule in (Rule(*each) for each in rules):
        time = f"{rule.window // SECOND}.{rule.window % SECOND:06d}s"
        entry: dict[str, object] = {"name": rule.name, "per": rule.per}
        entry |= {"spacing": time} if rule.kind == "spacing" else {}
        entry |= {"cap": rule.limit, "window": time} if rule.kind == "cap" else {}
        written.append(entry)
    return Policy.model_validate({"version": version, "rules": written})


class Oracle(oracle.Oracle):
    """The oracle of a policy, or of rules in short."""

    def __init__(
        self, rules: Policy | Iterable[Sequence[Any]], *, horizon: int, row_limit: int
    ) -> None:
        policy = rules if isinstance(rules, Policy) else policy_of(rules)
        super().__init__(policy, horizon=horizon, row_limit=row_limit)

    def held(self) -> int:
        """How many entries all rows hold together, by some order of ties."""
        rows = filter(None, map(self.row, list(self.rows)))
        return sum(len(row.exposures) + len(row.engagements) + len(row.controls) for row in rows)
