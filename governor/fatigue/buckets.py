"""What a label brought, bucket by bucket of event time, beside what its curve led to expect.

A bucket counts once everything that was shown in it is settled in every partition, so it is what it
is for good, and the detectors see each once. Of each measurable exposure ``base f(wear) E[theta]``
is expected, with E[theta] = (a + N) / (a + Lambda) of the person's exposures to the label before it
(Nielsen, Gill, Andersen and Sorensen 1992): who is left to be shown the ad is taken into account,
and so is normal wear.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.curves import CurveSet, Tables
from governor.fatigue.detector import Observed
from governor.fatigue.exposures import Exposures, past
from governor.fatigue.response import log_factor, stratum_of
from governor.ticks import SECOND

__all__ = ["BUCKET", "WATCHED", "observed", "settled_before"]

BUCKET = 900 * SECOND
"""Ticks: a quarter of an hour."""

WATCHED = ("campaign", "creative")
"""Dimensions whose labels are watched."""


def settled_before(exposures: Exposures, clock: int, longest: int) -> int:
    """The end of the last bucket of which all is known.

    Args:
        exposures: all that are held.
        clock: up to when everything of every partition is known, ticks.
        longest: the longest attribution window, ticks.
    """
    until = clock - longest
    open_ones = exposures.ts[~exposures.settled]
    if len(open_ones):
        until = min(until, int(open_ones.min()))
    return max(0, until // BUCKET * BUCKET)


def observed(
    exposures: Exposures, curves: CurveSet, dimension: str, since: int, first: int, end: int
) -> dict[str, list[Observed]]:
    """Buckets of every label of one of `WATCHED`, oldest first, those without exposures left out.

    Args:
        exposures: of people observed whole.
        curves: what is expected by.
        since: from when on people have been observed, ticks.
        first, end: ticks of the first bucket and of the end of the last.
    """
    codes, names = exposures.labels(dimension)
    known = past(exposures, dimension, since)
    rows = curves.rows
    row = np.array([rows[curves.curve(f"{dimension}:{name}").label] for name in names], np.int64)
    expected = np.zeros(len(exposures))
    _expect(
        known.order, known.start, known.before, row, codes.astype(np.int64), exposures.ts,
        exposures.measurable, exposures.engaged, curves.tables, expected,
    )  # fmt: skip
    inside = exposures.measurable & (exposures.ts >= first) & (exposures.ts < end) & (codes >= 0)
    bucket = exposures.ts[inside] // BUCKET
    place = codes[inside].astype(np.int64) * (1 << 40) + bucket
    which, at = np.unique(place, return_inverse=True)
    shown = np.bincount(at, minlength=len(which))
    answered = np.bincount(at, weights=exposures.engaged[inside], minlength=len(which))
    hoped = np.bincount(at, weights=expected[inside], minlength=len(which))
    found: dict[str, list[Observed]] = {}
    for k, key in enumerate(which.tolist()):
        label, start = f"{dimension}:{names[key >> 40]}", (key & ((1 << 40) - 1)) * BUCKET
        one = Observed(
            start, start + BUCKET, int(shown[k]), round(float(answered[k])), float(hoped[k])
        )
        found.setdefault(label, []).append(one)
    return found


@compiled
def _expect(
    order: NDArray[np.int64],
    start: NDArray[np.int64],
    before: NDArray[np.float64],
    row: NDArray[np.int64],
    code: NDArray[np.int64],
    ts: NDArray[np.int64],
    measurable: NDArray[np.bool_],
    engaged: NDArray[np.bool_],
    tables: Tables,
    expected: NDArray[np.float64],
) -> None:
    for course in range(len(start) - 1):
        first = order[start[course]]
        curve = row[code[first]]
        stratum = stratum_of(before[course], tables.edges[curve])
        shape, recovery = tables.shape[curve], tables.recovery[curve]
        answers, hoped, wear, last = 0.0, 0.0, 0.0, ts[first]
        for place in range(start[course], start[course + 1]):
            i = order[place]
            if recovery > 0:
                wear *= 2.0 ** (-(ts[i] - last) / recovery)
            last = ts[i]
            one = tables.base[curve, stratum] * math.exp(log_factor(wear, curve, tables))
            wear += 1.0
            if measurable[i]:
                expected[i] = one * (shape + answers) / (shape + hoped)
                hoped += one
                answers += engaged[i]
