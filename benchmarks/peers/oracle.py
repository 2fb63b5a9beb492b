"""What the jobs must answer, computed in plain Python, and how an output differs from it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.load import HotLoad

__all__ = ["Verdict", "caps", "check_caps", "check_counts", "counts"]

HOUR = 3_600_000
MINUTE = 60_000


@dataclass(frozen=True)
class Verdict:
    """How an output compares, counted in answers.

    `superseded` are decisions that were left out while a newer one of the same user and campaign
    is there, or that had run out by the end of their partition; `missing` are all others left out.
    """

    expected: int
    right: int
    superseded: int
    missing: int
    wrong: int
    unexpected: int

    @property
    def faults(self) -> int:
        """Answers that differ in whatever way."""
        return self.superseded + self.missing + self.wrong + self.unexpected

    def agrees(self, coalesces: bool) -> bool:
        """Whether nothing is amiss; a superseded decision may be left out with `coalesces`."""
        return self.faults - (self.superseded if coalesces else 0) == 0

    def __str__(self) -> str:
        named = {
            "superseded": self.superseded,
            "missing": self.missing,
            "wrong": self.wrong,
            "unexpected": self.unexpected,
        }
        faults = [f"{count:,} {name}" for name, count in named.items() if count]
        return ", ".join([f"{self.right:,} of {self.expected:,} right", *faults])


def caps(load: HotLoad, limit: int, window: int, per_campaign: bool) -> NDArray[np.int64]:
    """Per event until when (milliseconds) it throttles its user (and campaign), or -1."""
    until = np.full(len(load.times), -1, np.int64)
    recent: dict[int, deque[int]] = {}
    for i, (ts, owner) in enumerate(
        zip(load.times.tolist(), _owners(load, per_campaign).tolist(), strict=True)
    ):
        times = recent.setdefault(owner, deque(maxlen=limit))
        times.append(ts)
        if len(times) == limit and times[0] > ts - window:
            until[i] = times[0] + window
    return until


def check_caps(
    load: HotLoad,
    expected: NDArray[np.int64],
    observed: Iterable[tuple[int, int]],
    per_campaign: bool,
) -> Verdict:
    """Compare with the decisions observed: event and until, in milliseconds."""
    seen: dict[int, int] = {}
    wrong = unexpected = 0
    for event, until in observed:
        if seen.get(event) == until:
            continue
        seen[event] = until
        if expected[event] < 0:
            unexpected += 1
        elif expected[event] != until:
            wrong += 1
    owners = _owners(load, per_campaign)
    newest: dict[int, int] = {}
    for event in seen:
        owner = int(owners[event])
        newest[owner] = max(newest.get(owner, -1), event)
    ends = np.zeros(load.partitions, np.int64)
    np.maximum.at(ends, load.partition, load.times)
    run_out = expected <= ends[load.partition]
    superseded = missing = 0
    (due,) = np.nonzero(expected >= 0)
    for event in due.tolist():
        if event not in seen:
            if run_out[event] or newest.get(int(owners[event]), -1) > event:
                superseded += 1
            else:
                missing += 1
    right = len(due) - superseded - missing - wrong
    return Verdict(len(due), right, superseded, missing, wrong, unexpected)


def counts(load: HotLoad) -> dict[tuple[int, int], int]:
    """Impressions by user and minute (its start in seconds), but for the tail's.

    What closes the others' windows leaves its own open.
    """
    times = load.times[: load.events]
    windows = (times - times % MINUTE) // 1000
    users = load.pairs[0][: load.events]
    return dict(Counter(zip(users.tolist(), windows.tolist(), strict=True)))


def check_counts(
    expected: Mapping[tuple[int, int], int], observed: Mapping[tuple[int, int], int]
) -> Verdict:
    """Compare with the last count observed of each user and minute."""
    missing = len(expected.keys() - observed.keys())
    unexpected = len(observed.keys() - expected.keys())
    wrong = sum(count != expected[cell] for cell, count in observed.items() if cell in expected)
    right = len(expected) - missing - wrong
    return Verdict(len(expected), right, 0, missing, wrong, unexpected)


def _owners(load: HotLoad, per_campaign: bool) -> NDArray[np.int64]:
    users, campaigns = load.pairs
    return users * (load.campaigns if per_campaign else 1) + campaigns * per_campaign
