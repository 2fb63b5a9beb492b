"""A seeded schedule of faults: which, in what order, and where inside a flush.

Worker faults happen to one worker after the other and are two thirds of all; most of them are
placed by failpoint in the flush sequence, at a flush soon after the worker has its partitions.
The others happen to the broker, the group or the producers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from streams.failpoints import NAMES

__all__ = ["Fault", "schedule"]

SHARES = {
    "kill in a flush": 28,
    "stop in a flush": 16,
    "error in a flush": 8,
    "kill": 6,
    "stop": 6,
    "worker added": 6,
    "worker removed": 6,
    "broker kill": 5,
    "eviction": 9,
    "duplicated": 5,
    "reordered": 5,
}
"""Of a hundred faults."""

IN_A_FLUSH = {"kill in a flush": "kill", "stop in a flush": "stop", "error in a flush": "error"}
"""What the failpoint does."""

TO_A_WORKER = (*IN_A_FLUSH, "kill", "stop")
SOON = 12
"""Flushes within which a failpoint acts."""


@dataclass(frozen=True)
class Fault:
    """One of the schedule."""

    kind: str
    failpoints: str = ""
    """As GOVERNOR_FAILPOINTS has it, for those inside a flush."""
    after: float = 0.0
    """Seconds from the worker's readiness, for others that happen to a worker."""


def schedule(count: int, seed: int) -> tuple[list[Fault], list[Fault]]:
    """Faults that happen to workers, and the others, each in order; ``count`` in all.

    Workers are added and removed in turns.
    """
    rng = random.Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(round(share * count / 100))]
    for kind in SHARES:
        if kind not in kinds:
            kinds.append(kind)
    while len(kinds) < count:
        kinds.append("kill in a flush")
    while len(kinds) > count:
        kinds.remove(max(SHARES, key=kinds.count))
    rng.shuffle(kinds)
    # Each name comes about equally often, in an order of its own for each kind.
    names = {kind: _cycle(rng) for kind in IN_A_FLUSH}
    to_workers, others = [], []
    for kind in kinds:
        if kind in IN_A_FLUSH:
            name = names[kind].pop()
            names[kind] = names[kind] or _cycle(rng)
            number = rng.randint(2, SOON)
            to_workers.append(Fault(kind, f"{name}={IN_A_FLUSH[kind]}#{number}"))
        elif kind in TO_A_WORKER:
            to_workers.append(Fault(kind, after=rng.uniform(0.0, 6.0)))
        else:
            others.append(Fault(kind))
    return to_workers, _in_turns(others)


def _cycle(rng: random.Random) -> list[str]:
    return rng.sample(NAMES, len(NAMES))


def _in_turns(faults: list[Fault]) -> list[Fault]:
    """The same, with additions and removals of workers in turns, an addition first."""
    ordered, turn = [], 0
    for fault in faults:
        if fault.kind in ("worker added", "worker removed"):
            kind = ("worker added", "worker removed")[turn % 2]
            ordered.append(Fault(kind))
            turn += 1
        else:
            ordered.append(fault)
    return ordered
