"""The marginal likelihood of a frailty counting process, and its maximum; compiled.

Exposure j of course i (a person's exposures to one label) is answered with probability
``e theta``, ``e = weight exp(x'beta)``, where x picks a season, and the two knots each beside the
person's activity and beside the wear. theta, a person's propensity, has some distribution: masses
``softmax(eta)`` on the fixed `GRID`, near a gamma distribution's unless the data say otherwise
(g-modelling, Efron 2016; with a gamma distribution alone, as in Nielsen, Gill, Andersen and
Sorensen 1992, an ad server that stops after ignored exposures seems to keep people who cannot get
enough, where most people never answer). With
N engagements, a course's log-likelihood is, up to a constant,

    sum y x'beta + log sum_g softmax(eta)_g theta_g^N exp(R_g - sum_p theta_g^p S_p / p),

where R_g is the sum of r(e theta_g) over exposures that were answered, and S_p that of e^p over
those that were not: the logarithm of 1 - e theta to fourth order. (An exposure is answered once at
most. Taken for Poisson counts, people who are shown little seem more alike than they are, and what
comes after an answer seems to be worth too much.) r keeps an answer from being likelier than 1: it
is ``log((1 - exp(-q(z))) / z)``, q the same fourth order, next to nothing below z = .5. Without it
whoever answers the first exposure and is shown none afterwards is explained best by a propensity
without bounds, and an ad server that stops after answers bends the curve of all others.

Which exposures are made may depend on all that was observed of the person before: that factor of
the likelihood has none of these parameters (it is ignorable), so no correction is needed for ad
servers that stop after ignored exposures, or go on after answered ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled

__all__ = ["GRID", "Courses", "Estimate", "Prior", "maximize", "totals"]

GRID: Final = (0.02, 0.06, 0.14, 0.28, 0.5, 0.8, 1.25, 2.0, 3.2, 5.5, 10.0, 20.0)
"""Propensities that people may have, relative to the mean."""

_MOST_STEPS: Final = 25

_NEAR: Final = 5e-3
"""Log-likelihood that a step must promise to be gone; a standard error is half of 1."""

_LONGEST: Final = 4096
_PICKED: Final = 5
_ORDER: Final = 4

_CERTAIN: Final = 30.0
_SURELY_SMALL: Final = 0.02
"""From this e theta on r is looked at; it is less than 1e-8 below."""

_GRID = np.array(GRID)
_LOG_GRID = np.log(_GRID)


class Courses(NamedTuple):
    """What the likelihood is of. Exposures that are not measurable are not among these.

    Attributes:
        start: (courses + 1,) where each course begins; the last one's end.
        engaged: (exposures,) 1 for engaged, else 0.
        weight: (exposures,) probability that an engagement would have been seen by now; 0 where an
            exposure is to tell nothing, and is not engaged.
        activity, season, knot: (exposures,) the lower knot of activity, the season, and the lower
            knot of wear.
        blend, part: (exposures,) how far activity and wear lie from the lower knot to the next, in
            [0, 1); 0 at the last knot.
        importance: (courses,) how much a course counts.
    """

    start: NDArray[np.int64]
    engaged: NDArray[np.float64]
    weight: NDArray[np.float64]
    activity: NDArray[np.int64]
    season: NDArray[np.int64]
    knot: NDArray[np.int64]
    blend: NDArray[np.float64]
    part: NDArray[np.float64]
    importance: NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """A normal distribution of the parameters: mean, and precision (parameters, parameters)."""

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Where the penalized likelihood is largest.

    Attributes:
        parameters: activity's knots, seasons, wear's knots (the first is 0), and eta.
        covariance: sandwich (people are independent, nothing else is assumed), plus what the
            prior leaves uncertain.
        value: the penalized log-likelihood.
        converged: whether the gradient vanished.
    """

    parameters: NDArray[np.float64]
    covariance: NDArray[np.float64]
    value: float
    converged: bool


@allocating
def _masses(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
    eta = parameters[len(parameters) - len(_GRID) :]
    masses = np.exp(eta - eta.max())
    return np.asarray(masses / masses.sum())


@compiled
def _bounded(z: float) -> tuple[float, float, float]:
    """r(z), and its first and second derivatives by log z."""
    q = z * (1.0 + z * (1.0 / 2.0 + z * (1.0 / 3.0 + z / 4.0)))
    if q > _CERTAIN:
        return -math.log(z), -1.0, 0.0
    first = z * (1.0 + z * (1.0 + z * (1.0 + z)))
    second = z * (1.0 + z * (2.0 + z * (3.0 + 4.0 * z)))
    odds = math.expm1(q)
    slope = first / odds
    value = math.log(odds / z) - q
    return value, slope - 1.0, second / odds - slope * slope * (odds + 1.0)


@allocating
def _posterior(
    n: float,
    sums: NDArray[np.float64],
    masses: NDArray[np.float64],
    bound: NDArray[np.float64],
    out: NDArray[np.float64],
) -> float:
    """The masses given N, S and the sums of r, into ``out``; the logarithm of the course's
    probability."""
    highest = -1e300
    for g in range(len(_GRID)):
        out[g] = math.log(masses[g] + 1e-300) + n * _LOG_GRID[g] + bound[g]
        power = 1.0
        for p in range(_ORDER):
            power *= _GRID[g]
            out[g] -= power * sums[p] / (p + 1)
        highest = max(highest, out[g])
    whole = 0.0
    for g in range(len(_GRID)):
        out[g] = math.exp(out[g] - highest)
        whole += out[g]
    for g in range(len(_GRID)):
        out[g] /= whole
    return highest + math.log(whole)


@allocating
def _columns(
    courses: Courses,
    j: int,
    first_season: int,
    first_knot: int,
    at: NDArray[np.int64],
    x: NDArray[np.float64],
) -> None:
    """Which parameters exposure ``j`` has, and how much of each."""
    at[0] = courses.activity[j]
    at[1] = at[0] + (1 if courses.blend[j] > 0.0 else 0)
    x[0], x[1] = 1.0 - courses.blend[j], courses.blend[j]
    at[2], x[2] = first_season + courses.season[j], 1.0
    at[3] = first_knot + courses.knot[j]
    at[4] = at[3] + (1 if courses.part[j] > 0.0 else 0)
    x[3], x[4] = 1.0 - courses.part[j], courses.part[j]


@allocating
def _pass(  # noqa: C901 - one sweep, as every array of it is met in each step
    courses: Courses,
    parameters: NDArray[np.float64],
    first_season: int,
    first_knot: int,
    derivatives: int,
    gradient: NDArray[np.float64],
    information: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> float:
    """The log-likelihood; with ``derivatives`` 1 also gradient and information, with 2 squares.

    The parameter at ``first_knot`` is fixed at 0 by the prior.
    """
    size = len(parameters)
    first_mass = size - len(_GRID)
    masses = _masses(parameters)
    posterior = np.zeros(len(_GRID))
    value = 0.0
    weights = 0.0
    score = np.zeros(size)
    touched = np.zeros(size, np.int64)
    v = np.zeros((size, _ORDER))
    sums, moments = np.zeros(_ORDER), np.zeros(_ORDER)
    e = np.zeros(_LONGEST)
    bound, bend = np.zeros(len(_GRID)), np.zeros(len(_GRID))
    slopes = np.zeros((size, len(_GRID)))
    at, x = np.zeros(_PICKED, np.int64), np.zeros(_PICKED)
    gradient[:] = 0.0
    information[:] = 0.0
    if derivatives == 2:
        squares[:] = 0.0
    for c in range(len(courses.start) - 1):
        omega = courses.importance[c]
        begin, end = courses.start[c], min(courses.start[c + 1], courses.start[c] + _LONGEST)
        if omega == 0.0 or begin == end:
            continue
        n, likelihood = 0.0, 0.0
        count = 0
        sums[:] = 0.0
        bound[:] = 0.0
        for j in range(begin, end):
            e[j - begin] = 0.0
            if courses.weight[j] == 0.0:
                continue
            _columns(courses, j, first_season, first_knot, at, x)
            logarithm = 0.0
            for i in range(_PICKED):
                logarithm += x[i] * parameters[at[i]]
            each = courses.weight[j] * math.exp(logarithm)
            y = courses.engaged[j]
            near = y > 0.0 and each * _GRID[-1] > _SURELY_SMALL
            if near:
                e[j - begin] = each
                for g in range(len(_GRID)):
                    more, bend[g], _ = _bounded(each * _GRID[g])
                    bound[g] += more
            each *= 1.0 - y
            if y == 0.0:
                e[j - begin] = each
            power = 1.0
            for p in range(_ORDER):
                power *= each
                sums[p] += power
            n += y
            likelihood += y * logarithm
            if derivatives:
                for i in range(_PICKED):
                    if x[i] > 0.0:
                        if v[at[i], 0] == 0.0 and score[at[i]] == 0.0:
                            touched[count] = at[i]
                            count += 1
                        power = x[i]
                        for p in range(_ORDER):
                            power *= each
                            v[at[i], p] += power
                        score[at[i]] += y * x[i]
                        if near:
                            for g in range(len(_GRID)):
                                slopes[at[i], g] += x[i] * bend[g]
        likelihood += _posterior(n, sums, masses, bound, posterior)
        value += omega * likelihood
        if not derivatives:
            continue
        moments[:] = 0.0
        for g in range(len(_GRID)):
            power = posterior[g]
            for p in range(_ORDER):
                power *= _GRID[g]
                moments[p] += power
        weights += omega
        for i in range(count):
            row, mean = touched[i], 0.0
            for g in range(len(_GRID)):
                power = 1.0
                for p in range(_ORDER):
                    power *= _GRID[g]
                    slopes[row, g] -= power * v[row, p]
                mean += posterior[g] * slopes[row, g]
            score[row] += mean
            gradient[row] += omega * score[row]
            for g in range(len(_GRID)):
                slopes[row, g] -= mean
                across = omega * posterior[g] * slopes[row, g]
                information[row, first_mass + g] -= across
                information[first_mass + g, row] -= across
                bend[g] = across
            for m in range(i + 1):
                other, shared = touched[m], 0.0
                for g in range(len(_GRID)):
                    shared += bend[g] * slopes[other, g]
                information[row, other] -= shared
                if m < i:
                    information[other, row] -= shared
        for g in range(len(_GRID)):
            gradient[first_mass + g] += omega * (posterior[g] - masses[g])
            information[first_mass + g, first_mass + g] -= omega * posterior[g]
            for h in range(len(_GRID)):
                information[first_mass + g, first_mass + h] += omega * posterior[g] * posterior[h]
        for j in range(begin, end):
            if e[j - begin] == 0.0:
                continue
            _columns(courses, j, first_season, first_knot, at, x)
            each, power = 0.0, omega
            if courses.engaged[j] > 0.0:
                for g in range(len(_GRID)):
                    _, _, curvature = _bounded(e[j - begin] * _GRID[g])
                    each -= omega * posterior[g] * curvature
            else:
                for p in range(_ORDER):
                    power *= e[j - begin]
                    each += (p + 1) * moments[p] * power
            for i in range(_PICKED):
                for m in range(_PICKED):
                    information[at[i], at[m]] += each * x[i] * x[m]
        if derivatives == 2:
            for g in range(len(_GRID)):
                score[first_mass + g] = posterior[g] - masses[g]
                touched[count] = first_mass + g
                count += 1
            for i in range(count):
                for m in range(count):
                    squares[touched[i], touched[m]] += (
                        omega * omega * score[touched[i]] * score[touched[m]]
                    )
        for i in range(count):
            v[touched[i], :] = 0.0
            slopes[touched[i], :] = 0.0
            score[touched[i]] = 0.0
    for g in range(len(_GRID)):
        information[first_mass + g, first_mass + g] += weights * masses[g]
        for h in range(len(_GRID)):
            information[first_mass + g, first_mass + h] -= weights * masses[g] * masses[h]
    return value


def maximize(
    courses: Courses,
    begin: NDArray[np.float64],
    prior: Prior,
    first_season: int,
    first_knot: int,
    steps: int = _MOST_STEPS,
) -> Estimate:
    """Newton's method with halved steps, from ``begin``; see `Estimate`."""
    size = len(begin)
    gradient, information = np.zeros(size), np.zeros((size, size))
    squares = np.zeros((size, size))

    def look(at: NDArray[np.float64], derivatives: int) -> float:
        value = _pass(
            courses, at, first_season, first_knot, derivatives, gradient, information, squares
        )
        away = at - prior.mean
        return float(value - 0.5 * away @ prior.precision @ away)

    at = begin.copy()
    value = look(at, 1)
    converged = False
    for _ in range(steps):
        slope = gradient - prior.precision @ (at - prior.mean)
        step = _newton_step(information + prior.precision, slope)
        if float(slope @ step) < _NEAR:
            converged = True
            break
        at, value = _go(look, at, value, step)
    look(at, 2)
    inverse = np.linalg.inv(_positive(information + prior.precision))
    # The prior counts as one more observation, so that what the data do not say stays as wide.
    covariance = inverse @ (squares + prior.precision) @ inverse
    return Estimate(at, covariance, value, converged)


def _go(
    look: Callable[[NDArray[np.float64], int], float],
    at: NDArray[np.float64],
    value: float,
    step: NDArray[np.float64],
) -> tuple[NDArray[np.float64], float]:
    """A step, halved until it is uphill; leaves the derivatives of where it ends."""
    for halved in range(12):
        tried = at + 0.5**halved * step
        found = look(tried, 1)
        if found >= value - 1e-9:
            return tried, found
    return at, look(at, 1)


def _positive(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix with its eigenvalues raised to be positive."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    raised = np.maximum(np.abs(values), 1e-8 * max(1.0, float(np.abs(values).max())))
    return np.asarray((vectors * raised) @ vectors.T)


def _newton_step(
    information: NDArray[np.float64], slope: NDArray[np.float64]
) -> NDArray[np.float64]:
    step = np.linalg.solve(_positive(information), slope)
    # No parameter (all are logarithms) moves by more than a factor of e^2 at once.
    return np.asarray(step * min(1.0, 2.0 / max(1e-12, float(np.abs(step).max()))))


@allocating
def totals(
    courses: Courses,
    parameters: NDArray[np.float64],
    first_season: int,
    first_knot: int,
    engaged: NDArray[np.float64],
    expected: NDArray[np.float64],
    after: NDArray[np.float64],
) -> None:
    """Of each course N, Lambda, and the part of Lambda that follows the first engagement."""
    at, x = np.zeros(_PICKED, np.int64), np.zeros(_PICKED)
    for c in range(len(courses.start) - 1):
        engaged[c], expected[c], after[c] = 0.0, 0.0, 0.0
        for j in range(courses.start[c], courses.start[c + 1]):
            _columns(courses, j, first_season, first_knot, at, x)
            logarithm = 0.0
            for i in range(_PICKED):
                logarithm += x[i] * parameters[at[i]]
            e = courses.weight[j] * math.exp(logarithm)
            expected[c] += e
            if engaged[c] > 0.0:
                after[c] += e
            engaged[c] += courses.engaged[j]
