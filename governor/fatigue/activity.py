"""How active a person is, as far as one can know at each exposure.

Heavy users reach higher depths, and may answer more or less than others. What is known of a
person's activity grows while they are watched; at each exposure it is the mean, given the past, of
a factor lambda ~ Gamma(c, c) that multiplies the rates at which the person is shown this label and
everything else. As nothing but the past enters, an ad server that stops showing a label (for
whatever reason that was observed) does not bend it: how often somebody was shown the label *in all*
would, as that depends on their answers.

Exposures come in bursts, so counts are worth less than a Poisson process's by a factor, which is
estimated as c is: from the counts of two halves of a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.exposures import DAY, Exposures

__all__ = ["Pace", "activities"]


@dataclass(frozen=True)
class Pace:
    """How people differ in activity.

    Attributes:
        shape: c of the gamma distribution of lambda.
        burst: by how much less a count tells than a Poisson process's.
        before, beside, own: exposures a day of an average person: to other labels before the first
            one to this, to others while this is shown, and to this.
    """

    shape: float
    burst: float
    before: float
    beside: float
    own: float


def activities(
    exposures: Exposures, order: NDArray[np.int64], begin: NDArray[np.int64], since: int
) -> tuple[NDArray[np.float64], Pace] | None:
    """E[lambda | past] at each exposure of ``order``; None where nothing else was shown.

    Args:
        order: the label's exposures, sorted by (course, ts).
        begin: where each course begins, and the end.
        since: from when on people are watched, ticks.
    """
    courses = len(begin) - 1
    counts = np.zeros((courses, 6))
    _count(exposures.person, exposures.ts, order, begin, since, counts)
    if courses < 50 or counts[:, 1].sum() + counts[:, 3].sum() < courses:
        return None
    shape, burst = _spread(counts)
    time, before, span, beside, repeats = (counts[:, i] for i in range(5))
    pace = Pace(shape, burst, *(_rate(before, time), _rate(beside, span), _rate(repeats, span)))
    for _ in range(4):
        told = time * pace.before + span * (pace.beside + pace.own)
        seen = before + beside + repeats
        known = (shape + seen / burst) / (shape + told / burst)
        pace = Pace(
            shape, burst,
            _rate(before, time * known), _rate(beside, span * known), _rate(repeats, span * known),
        )  # fmt: skip
    out = np.zeros(len(order))
    _filter(
        exposures.person, exposures.ts, order, begin, since,
        shape, burst, pace.before / DAY, pace.beside / DAY, pace.own / DAY, out,
    )  # fmt: skip
    return out, pace


def _rate(count: NDArray[np.float64], days: NDArray[np.float64]) -> float:
    whole = float(days.sum())
    return float(count.sum()) / whole if whole > 0 else 0.0


def _spread(counts: NDArray[np.float64]) -> tuple[float, float]:
    """c and the burst factor: the halves' covariance is lambda's variance, the rest is noise."""
    time, before = counts[:, 0], counts[:, 1]
    known = time >= 1.0
    if known.mean() > 0.5 and before.sum() > 0:
        halves, days = counts[known, 5], time[known]
        first, second = halves / days, (before[known] - halves) / days
    else:
        # Nothing before: the time while the label is shown, which is known to less people.
        long = counts[:, 2] >= 1.0
        if long.sum() < 50:
            return 1.0, 2.0
        days = counts[long, 2]
        first = second = (counts[long, 3] + counts[long, 4]) / days
        mean = float(first.mean())
        variance = float(np.var(first)) - 2.0 * mean * float((1.0 / days).mean())
        return float(np.clip(mean**2 / max(variance, 1e-9), 0.2, 50.0)), 2.0
    mean = float((first + second).mean()) / 2
    together = float(np.cov(first, second)[0, 1])
    noise = (float(np.var(first) + np.var(second)) / 2 - together) / mean
    burst = noise / float((1.0 / days).mean())
    shape = mean**2 / max(together, 1e-9)
    return float(np.clip(shape, 0.2, 50.0)), float(np.clip(burst, 1.0, 20.0))


@compiled
def _count(
    person: NDArray[np.uint64],
    ts: NDArray[np.int64],
    order: NDArray[np.int64],
    begin: NDArray[np.int64],
    since: int,
    counts: NDArray[np.float64],
) -> None:
    """Of each course: days before, exposures then; days from first to last, others and own then;
    exposures in the first half of the days before."""
    for c in range(len(begin) - 1):
        head, tail = order[begin[c]], order[begin[c + 1] - 1]
        counts[c, 0] = (ts[head] - since) / DAY
        counts[c, 2] = (ts[tail] - ts[head]) / DAY
        counts[c, 4] = begin[c + 1] - begin[c] - 1
        counts[c, 3] = (tail - head) - counts[c, 4]
        half = since + (ts[head] - since) // 2
        i = head - 1
        while i >= 0 and person[i] == person[head]:
            counts[c, 1] += 1.0
            if ts[i] < half:
                counts[c, 5] += 1.0
            i -= 1


@compiled
def _filter(
    person: NDArray[np.uint64],
    ts: NDArray[np.int64],
    order: NDArray[np.int64],
    begin: NDArray[np.int64],
    since: int,
    shape: float,
    burst: float,
    before: float,
    beside: float,
    own: float,
    out: NDArray[np.float64],
) -> None:
    for c in range(len(begin) - 1):
        head = order[begin[c]]
        earlier = head
        while earlier > 0 and person[earlier - 1] == person[head]:
            earlier -= 1
        for place in range(begin[c], begin[c + 1]):
            i = order[place]
            told = (ts[head] - since) * before + (ts[i] - ts[head]) * (beside + own)
            # The exposure by which the course began is not counted: it was waited for.
            seen = i - earlier - (1.0 if place > begin[c] else 0.0)
            out[place] = (shape + seen / burst) / (shape + told / burst)
