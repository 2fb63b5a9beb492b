"""What a curve leads to expect of each exposure, given what went before it; compiled.

The summands of a detector's `Observed.expected`: ``base f E[theta | past]``, where the past is what
had been seen by the time of the exposure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.curves import CurveSet, Tables
from governor.fatigue.detector import Observed
from governor.fatigue.exposures import Exposures, Past, past
from governor.fatigue.response import expectation, stratum_of

__all__ = ["expected", "observed"]

_LN2 = np.log(2.0)


def expected(
    exposures: Exposures, curves: CurveSet, dimension: str, code: int, before: Past | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices of a label's measurable exposures, and what was to be expected of each."""
    known = before or past(exposures, dimension)
    codes, names = exposures.labels(dimension)
    curve = curves.rows[curves.curve(f"{dimension}:{names[code]}").label]
    order = known.order[codes[known.order] == code]
    activity = known.before if np.isfinite(known.before).mean() >= 0.8 else known.elsewhere
    out = np.zeros(len(order))
    _expect(
        order, known.course[order], exposures.ts, exposures.measurable, exposures.engaged,
        exposures.engaged_at, activity, curves.tables, curve, out,
    )  # fmt: skip
    counted = exposures.measurable[order]
    return order[counted], out[counted]


@compiled
def _expect(
    order: NDArray[np.int64],
    course: NDArray[np.int64],
    ts: NDArray[np.int64],
    measurable: NDArray[np.bool_],
    engaged: NDArray[np.bool_],
    engaged_at: NDArray[np.int64],
    activity: NDArray[np.float64],
    tables: Tables,
    curve: int,
    out: NDArray[np.float64],
) -> None:
    recovery = tables.recovery[curve]
    shape = tables.shape[curve]
    wear, total, stratum, head = 0.0, 0.0, 0, 0
    for j in range(len(order)):
        i = order[j]
        if j == 0 or course[j] != course[j - 1]:
            wear, total, head = 0.0, 0.0, j
            stratum = stratum_of(activity[course[j]], tables.edges[curve])
        elif recovery > 0:
            wear *= np.exp(-_LN2 * (ts[i] - ts[order[j - 1]]) / recovery)
        answers = 0.0
        for m in range(head, j):
            if engaged[order[m]] and engaged_at[order[m]] <= ts[i]:
                answers += 1.0
        each = expectation(wear, stratum, curve, tables)
        out[j] = each * (shape + answers) / (shape + total)
        if measurable[i]:
            total += each
        wear += 1.0


def observed(
    exposures: Exposures, which: NDArray[np.int64], each: NDArray[np.float64], width: int
) -> list[Observed]:
    """What `expected` gave, in buckets of ``width`` ticks of event time."""
    if len(which) == 0:
        return []
    bucket = exposures.ts[which] // width
    first = int(bucket.min())
    place = bucket - first
    shown = np.bincount(place)
    answered = np.bincount(place, exposures.engaged[which])
    told = np.bincount(place, each)
    found = []
    for b in np.flatnonzero(shown):
        start = (first + int(b)) * width
        found.append(
            Observed(start, start + width, int(shown[b]), int(answered[b]), float(told[b]))
        )
    return found
