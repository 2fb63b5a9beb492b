"""What a person's next exposure is expected to give, relative to a first one; compiled.

Given the curve of a label, the person's N engagements and Lambda expected ones, their propensity is
Gamma(a + N, a + Lambda) (Nielsen, Gill, Andersen and Sorensen 1992), and the next exposure is
expected to give ``f(wear) (a + N) / (a + Lambda)`` of what a first one gives on average. Both
factors are uncertain; their product is taken for a gamma variable with the product's mean and
variance, of which the share below the floor is the probability of being tired.

People who never answered are not thereby tired: a person is held back only where the *curve* has
declined for sure, however little they answer.

All functions take and give plain numbers, call nothing outside this module but ``math``, and give
the same result in compiled code as in Python up to the last digits.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.curves import KNOTS, Tables

__all__ = [
    "HYSTERESIS",
    "LONGEST_REST",
    "SHORTEST_REST",
    "Response",
    "expectation",
    "gamma_below",
    "log_factor",
    "respond",
    "rest",
    "seen_share",
    "soft_factor",
    "stratum_of",
    "threshold",
    "wear_of",
]

HYSTERESIS: Final = 1.2
"""A rest lasts until the expected engagement is so many times the floor."""

SHORTEST_REST: Final = 3_600_000_000
"""Ticks: the first back-off where recovery is not known, and no rest is shorter; an hour."""

LONGEST_REST: Final = 30 * 86_400_000_000
"""Ticks: no rest is longer; thirty days."""

_SURE: Final = 1.959963984540054
"""Standard deviations: a curve has declined where its 97.5% upper bound has."""

_DECLINED: Final = 0.9
"""A curve has declined where it is surely below this."""

_KNOTS = np.array(KNOTS)
_LN2: Final = math.log(2.0)


class Response(NamedTuple):
    """What is known of a person's next exposure to a label.

    Attributes:
        expected: engagement relative to a first exposure's.
        below: the probability that it is below the floor.
        factor: the share at which to bid on; 1 where the person is not tired.
        tired: 1 where ``below`` is as probable as was asked, else 0.
        rest: ticks from the newest exposure until it is worth asking again; 0 where not tired.
    """

    expected: float
    below: float
    factor: float
    tired: int
    rest: int


@compiled
def stratum_of(activity: float, edges: NDArray[np.float64]) -> int:
    """The stratum of an activity (other exposures a day); nan is 0, unknown."""
    if math.isnan(activity):
        return 0
    stratum = 1
    for edge in edges:
        if activity >= edge:
            stratum += 1
    return stratum


@compiled
def seen_share(age: int, ages: NDArray[np.int64], seen: NDArray[np.float64]) -> float:
    """The share of engagements that have come ``age`` ticks after their exposure."""
    if age <= ages[0]:
        return float(seen[0])
    for i in range(1, len(ages)):
        if age < ages[i]:
            part = (age - ages[i - 1]) / (ages[i] - ages[i - 1])
            return float(seen[i - 1] + part * (seen[i] - seen[i - 1]))
    return float(seen[-1])


@compiled
def wear_of(times: NDArray[np.int64], count: int, now: int, recovery: int) -> float:
    """The wear at ``now`` of the exposures ``times[:count]``; those not before ``now`` are none."""
    wear = 0.0
    for i in range(count):
        if times[i] < now:
            wear += 1.0 if recovery == 0 else math.exp(-_LN2 * (now - times[i]) / recovery)
    return wear


@compiled
def _between(wear: float, values: NDArray[np.float64]) -> float:
    if wear <= 0.0:
        return float(values[0])
    for k in range(1, len(_KNOTS)):
        if wear < _KNOTS[k]:
            part = (wear - _KNOTS[k - 1]) / (_KNOTS[k] - _KNOTS[k - 1])
            return float(values[k - 1] + part * (values[k] - values[k - 1]))
    return float(values[-1])


@compiled
def log_factor(wear: float, curve: int, tables: Tables) -> float:
    """log f at a wear, by the row ``curve`` of the tables."""
    return _between(wear, tables.level[curve])


@compiled
def expectation(wear: float, stratum: int, curve: int, tables: Tables) -> float:
    """Expected engagements of a measurable exposure of an average person: a summand of Lambda."""
    return float(tables.base[curve, stratum]) * math.exp(log_factor(wear, curve, tables))


@compiled
def gamma_below(x: float, shape: float) -> float:
    """P(X < x) for X ~ Gamma(shape, 1): the regularized lower incomplete gamma function.

    Abramowitz and Stegun 6.5.29 below shape + 1, and the continued fraction 6.5.31 (by Lentz's
    method) above; the error is below 1e-10.
    """
    if x <= 0.0:
        return 0.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1.0:
        term = 1.0 / shape
        total = term
        for n in range(1, 1000):
            term *= x / (shape + n)
            total += term
            if term < total * 1e-12:
                break
        return min(1.0, total * scale)
    b = x + 1.0 - shape
    c = 1e300
    d = 1.0 / b
    h = d
    for n in range(1, 1000):
        an = -n * (n - shape)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        h *= d * c
        if abs(d * c - 1.0) < 1e-12:
            break
    return max(0.0, 1.0 - scale * h)


@compiled
def _moments(
    wear: float, engaged: float, expected: float, curve: int, tables: Tables
) -> tuple[float, float]:
    """Mean of f times propensity, and the shape of the gamma variable that stands for it."""
    shape = tables.shape[curve] + engaged
    spread = _between(wear, tables.spread[curve])
    variance = math.exp(min(spread * spread, 50.0))
    mean = math.exp(log_factor(wear, curve, tables)) * shape / (tables.shape[curve] + expected)
    return mean, 1.0 / ((1.0 + 1.0 / shape) * variance - 1.0)


@compiled
def _declined(wear: float, curve: int, tables: Tables) -> bool:
    spread = _between(wear, tables.spread[curve])
    return math.exp(log_factor(wear, curve, tables) + _SURE * spread) < _DECLINED


@compiled
def threshold(floor: float, stratum: int, curve: int, tables: Tables) -> float:
    """A rule's floor, relative to a first exposure of somebody of a stratum.

    The rule's is a share of what the label's exposures give these days: where all are worn, nobody
    is held back for being as worn as everybody, and who sees more ads and answers more is worth
    more. It is never more than that share of a first exposure.
    """
    base = tables.base[curve]
    return floor * min(1.0, float(tables.worth[curve] * base[0] / base[stratum]))


@compiled
def respond(
    wear: float,
    engaged: float,
    expected: float,
    streak: int,
    floor: float,
    probability: float,
    curve: int,
    tables: Tables,
) -> Response:
    """What the person's next exposure gives if it is made now.

    Args:
        wear: of all exposures to the label so far, as of the newest one or later.
        engaged: N, the person's engagements with the label.
        expected: Lambda, the sum of `expectation` over measurable exposures that are settled (or
            times `seen_share`, where they are pending).
        streak: rests in a row that ended without an engagement after them: each doubles the
            back-off where recovery is not known.
        floor: the rule's, as `threshold` has it; probability: the rule's.
        curve: the row of the tables; where it may not be used nobody is tired.
    """
    mean, shape = _moments(wear, engaged, expected, curve, tables)
    below = gamma_below(floor * shape / mean, shape)
    tired = (
        tables.usable[curve] != 0
        and below >= probability
        and mean < floor
        and _declined(wear, curve, tables)
    )
    if not tired:
        return Response(mean, below, 1.0, 0, 0)
    return Response(
        mean,
        below,
        soft_factor(mean, floor),
        1,
        rest(wear, engaged, expected, streak, floor, curve, tables),
    )


@compiled
def soft_factor(expected: float, floor: float) -> float:
    """The share at which to bid on: 1 at the floor and above, in proportion below it."""
    return min(1.0, max(0.0, expected / floor))


@compiled
def rest(
    wear: float,
    engaged: float,
    expected: float,
    streak: int,
    floor: float,
    curve: int,
    tables: Tables,
) -> int:
    """Ticks until the expected engagement is back at `HYSTERESIS` times the floor.

    Where wear is not known to recover, or even a person without wear would stay below, the rest is
    `SHORTEST_REST` doubled ``streak`` times: ask again, ever more rarely.
    """
    wanted = floor * HYSTERESIS
    recovery = int(tables.recovery[curve])
    back_off = min(LONGEST_REST, SHORTEST_REST * (1 << min(streak, 20)))
    mean, _ = _moments(0.0, engaged, expected, curve, tables)
    if recovery == 0 or mean < wanted:
        return back_off
    low, high = 0, LONGEST_REST
    if _after(high, wear, engaged, expected, curve, tables) < wanted:
        return high
    while high - low > 1_000_000:
        middle = (low + high) // 2
        if _after(middle, wear, engaged, expected, curve, tables) < wanted:
            low = middle
        else:
            high = middle
    return max(SHORTEST_REST, high)


@compiled
def _after(
    elapsed: int, wear: float, engaged: float, expected: float, curve: int, tables: Tables
) -> float:
    worn = wear * math.exp(-_LN2 * elapsed / tables.recovery[curve])
    mean, _ = _moments(worn, engaged, expected, curve, tables)
    return mean
