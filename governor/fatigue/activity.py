"""How active a person is: a factor of the pace at which they are shown ads of any kind.

Heavy users reach higher depths, and may answer more or less than others. A person's activity is the
mean, given all that was counted, of a factor lambda ~ Gamma(c, c) of an average person's pace. It
is of *all* ads together, as one that is not shown any more leaves its place to another; how often
somebody was shown one label would depend on their answers to it. Where the places stay empty (a
log of one advertiser, who stops bidding for a person), the pace of those who seem to have been
stopped is compared with what it was, and less is expected of their time after that.

Taking the past of each exposure alone would have the answers tell of activity as well: those who
did not answer and are still shown the ad are less active than they seemed at first, which counts
twice if what is known of them changes. A factor that is the same at all exposures of a person is
part of their propensity, and stays there.

Exposures come in bursts, so counts are worth less than a Poisson process's by a factor, which is
estimated as c is: from the counts of the two halves of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.exposures import DAY, Exposures

__all__ = ["Pace", "activities"]

_LEAST: Final = 50
"""People from whom on one can tell how they differ."""

_MISSED: Final = 5.0
"""Exposures to a label that a person should have had since their last one, if it was stopped."""

_MANY: Final = 0.05
"""Share of people who must seem to have been stopped for their pace to be looked at."""


@dataclass(frozen=True)
class Pace:
    """How people differ in activity.

    Attributes:
        shape: c of the gamma distribution of lambda.
        burst: by how much less a count tells than a Poisson process's.
        daily: exposures a day of an average person, of all labels.
        own: to the label, while it is shown.
        left: the share of `daily` that people have whom the label is not shown to any more.
    """

    shape: float
    burst: float
    daily: float
    own: float
    left: float


def activities(
    exposures: Exposures, order: NDArray[np.int64], begin: NDArray[np.int64]
) -> tuple[NDArray[np.float64], Pace] | None:
    """E[lambda] of each course (a person's exposures to the label); None where nothing else was
    shown.

    Args:
        order: the label's exposures, sorted by (course, ts).
        begin: where each course begins, and the end.
    """
    courses = len(begin) - 1
    since, until = int(exposures.ts.min()), int(exposures.ts.max())
    counts = np.zeros((courses, 4))
    _count(exposures.person, exposures.ts, order, begin, since, until, counts)
    shown, others, early = counts[:, 0], counts[:, 1], counts[:, 2]
    days = (until - since) / DAY
    if courses < _LEAST or others.sum() < courses or days <= 0.0:
        return None
    shape, burst = _spread(early / days, (shown - early) / days, days)
    span = (exposures.ts[order[begin[1:] - 1]] - exposures.ts[order[begin[:-1]]]) / DAY
    after, repeats = counts[:, 3], shown - others - 1.0
    rest = (until - exposures.ts[order[begin[1:] - 1]]) / DAY
    known, left = np.ones(courses), 1.0
    for _ in range(5):
        stopped = rest * known * _rate(repeats, span * known) > _MISSED
        time = days - rest + rest * np.where(stopped, left, 1.0)
        daily = _rate(shown, time * known)
        known = (shape + shown / burst) / (shape + time * daily / burst)
        if stopped.mean() > _MANY:
            left = min(1.0, _rate(after[stopped], (rest * known)[stopped]) / daily)
    return known, Pace(shape, burst, daily, _rate(repeats, span * known), left)


def _rate(count: NDArray[np.float64], days: NDArray[np.float64]) -> float:
    whole = float(days.sum())
    return float(count.sum()) / whole if whole > 0 else 0.0


def _spread(
    first: NDArray[np.float64], second: NDArray[np.float64], days: float
) -> tuple[float, float]:
    """c and the burst factor: the halves' covariance is lambda's variance, the rest is noise.

    Args:
        first, second: exposures in either half of the time, over all its days.
    """
    mean = float((first + second).mean()) / 2
    together = float(np.cov(first, second)[0, 1])
    noise = (float(np.var(first) + np.var(second)) / 2 - together) / mean
    shape = mean**2 / max(together, 1e-9)
    return float(np.clip(shape, 0.2, 50.0)), float(np.clip(noise * days, 1.0, 20.0))


@compiled
def _count(
    person: NDArray[np.uint64],
    ts: NDArray[np.int64],
    order: NDArray[np.int64],
    begin: NDArray[np.int64],
    since: int,
    until: int,
    counts: NDArray[np.float64],
) -> None:
    """Of each course's person: all exposures, those to other labels, those in the first half of the
    time, and those after the course's last one."""
    half = since + (until - since) // 2
    for c in range(len(begin) - 1):
        head, tail = order[begin[c]], order[begin[c + 1] - 1]
        first, last = head, tail
        while first > 0 and person[first - 1] == person[head]:
            first -= 1
        while last + 1 < len(person) and person[last + 1] == person[head]:
            last += 1
        counts[c, 0] = last - first + 1
        counts[c, 1] = counts[c, 0] - (begin[c + 1] - begin[c])
        counts[c, 3] = last - tail
        for i in range(first, last + 1):
            if ts[i] < half:
                counts[c, 2] += 1.0
