"""Estimates curves from exposures: a stratified gamma-frailty counting process.

An exposure is answered with the rate ``base(activity) season[b] f(wear) theta`` (Andersen and Gill
1982; Nielsen, Gill, Andersen and Sorensen 1992): activity is how much the person is shown of
everything (`governor.fatigue.activity`), b the time at which it was made, and theta the person's
propensity for the label. All are found together where the marginal likelihood, with weak priors, is
largest (`governor.fatigue.likelihood`). Against the naive curve:

- theta takes up that those who go on are not those who began;
- activity takes up that heavy users, who reach higher depths, may answer more or less;
- seasons take up that higher depths are reached later;
- exposures that are too new to be settled count by the share of answers that come so early.

What it cannot know is said by ``identified``: where nobody is shown the ad after they answered,
propensity and fatigue look the same; where nothing else was shown to anybody, so do activity and
fatigue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.activity import activities
from governor.fatigue.curves import (
    ALL,
    ENOUGH,
    KNOTS,
    STRATA,
    Curve,
    CurveSet,
    Depth,
    unknown,
)
from governor.fatigue.exposures import DAY, Exposures, Past, past
from governor.fatigue.likelihood import (
    GRID,
    Courses,
    Estimate,
    Prior,
    maximize,
    totals,
)
from governor.fatigue.pooling import pooled
from governor.fatigue.response import stratum_of

__all__ = ["FORGETTING", "MOST_DEPTH", "Fitted", "estimate", "fit", "naive"]

FORGETTING: Final = 60 * DAY
"""Ticks in which an observation's weight halves."""

MOST_DEPTH: Final = 12
"""Depths reported one by one; the last line holds all deeper ones."""

RECOVERIES: Final = tuple(round(16 * DAY * 2.0 ** (-k / 2)) for k in range(13))
"""Half-lives of wear that are tried, from 16 days to a quarter of one."""

_TRIED: Final = (2, 6, 10)
"""Which of them are tried first; then, if the best is better than none, those beside it, two steps
and then one away."""

_GLANCE: Final = 4
"""Steps that a half-life is tried with."""

_SEASONS: Final = 14
_SEASON_LEAST: Final = DAY // 4
_SPREAD: Final = (0.02, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 0.95, 0.99)
"""Quantiles of activity at which the base is estimated; between them it is log-linear."""

_SEASON: Final = len(_SPREAD)
_KNOT: Final = _SEASON + _SEASONS
_MASS: Final = _KNOT + len(KNOTS)
_SIZE: Final = _MASS + len(GRID)
"""Parameters: activity, seasons, wear, masses of propensity."""

_DEEPEST: Final = 64
"""Exposures of a course that are looked at; later ones tell nothing more."""

_FIXED: Final = 1e8
"""Precision of a parameter that is not free."""

_STRATIFIED: Final = 0.8
"""Share of courses whose activity must be known for strata to hold."""

_REPEATS: Final = 20.0
"""Expected engagements after a first one, below which propensity cannot be told from fatigue."""


_ALWAYS: Final = 0.3
_FEW: Final = 0.03
_TOO_OFTEN: Final = 0.25
"""Where most first exposures are answered more often than this, nothing is said about wear."""

_UNSURE: Final = 1.0
"""The most that the logarithm of a half-life may be unsure by."""

_LATELY: Final = 5 * DAY
"""Before the newest exposure: of this time exposures are what they give these days."""

_GAIN: Final = 3.0
"""Log-likelihood that a recovery must gain over none."""

_RESTED: Final = (1, 2, 4)
"""How many times the half-life of each exposure's wear is tried for that of all of it together."""


class Fitted(NamedTuple):
    """One label's estimate before pooling."""

    curve: Curve
    covariance: NDArray[np.float64]


@dataclass(frozen=True)
class _Label:
    """The columns of one label's measurable exposures, sorted by (course, ts)."""

    exposures: NDArray[np.int64]
    person: NDArray[np.uint64]
    courses: Courses
    wear_times: NDArray[np.int64]
    place: NDArray[np.int64]
    begin: NDArray[np.int64]
    depth: NDArray[np.int32]
    edges: NDArray[np.float64]
    strata: NDArray[np.int64]
    stratified: bool
    shown: int


class _Other(NamedTuple):
    """What could be the case instead: with which weight, the label, and its parameters."""

    weight: float
    label: _Label
    parameters: NDArray[np.float64]


class _Found(NamedTuple):
    """What `_search` gives back: the label by its best recovery, the estimate, who was left out,
    what the recovery being unsure comes to, and what lines are by, where it is another law."""

    label: _Label
    recovery: int
    estimate: Estimate
    outliers: NDArray[np.uint64]
    others: tuple[_Other, ...]
    lines: tuple[_Label, Estimate] | None = None


def naive(exposures: Exposures, dimension: str = "campaign", label: int = 0) -> NDArray[np.float64]:
    """Engagements over exposures by depth, relative to the first: (`MOST_DEPTH`,).

    This is what selection bends: it falls because the unlucky are shown more, and rises because
    heavy users click more. nan at depths without exposures, and everywhere without a first
    engagement.
    """
    codes, _ = exposures.labels(dimension)
    depth = past(exposures, dimension).depth
    counted = exposures.measurable & (codes == label) & (exposures.settled | exposures.engaged)
    return _naive(depth[counted], exposures.engaged[counted])[0]


def _naive(
    depth: NDArray[np.int32], engaged: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    line = np.minimum(depth, MOST_DEPTH)
    shown = np.bincount(line, minlength=MOST_DEPTH + 1)[1:]
    answered = np.bincount(line[engaged], minlength=MOST_DEPTH + 1)[1:]
    rate = np.full(MOST_DEPTH, np.nan)
    np.divide(answered, shown, out=rate, where=shown > 0)
    relative = rate / rate[0] if rate[0] > 0 else np.full(MOST_DEPTH, np.nan)
    return relative, shown, answered


def fit(
    exposures: Exposures,
    previous: CurveSet | None = None,
    *,
    now: int,
    forgetting: int = FORGETTING,
) -> CurveSet:
    """The curves of every creative, campaign and category, and of all together.

    Args:
        exposures: of people observed whole.
        previous: the set before, from which labels without exposures keep their curves.
        now: event time, ticks, the reference of forgetting; what is later is left out.
    """
    base = previous or unknown(now, forgetting)
    arrival = _arrival(exposures)
    own = {}
    for dimension in ("campaign", "creative"):
        before = past(exposures, dimension)
        codes, names = exposures.labels(dimension)
        for code in np.unique(codes[codes >= 0]):
            fitted = estimate(
                exposures, dimension, int(code), now=now, forgetting=forgetting,
                arrival=arrival, before=before,
            )  # fmt: skip
            own[f"{dimension}:{names[code]}"] = fitted.curve
    category_of = _parents(exposures, "campaign", "category")
    campaign_of = _parents(exposures, "creative", "campaign")
    found = pooled(own, category_of, campaign_of) if own else {}
    return CurveSet(
        now,
        forgetting,
        {**base.curves, **found},
        {**base.category_of, **category_of},
        {**base.campaign_of, **campaign_of},
        tuple(int(each) for each in arrival[0]),
        tuple(float(each) for each in arrival[1]),
    )


def _parents(exposures: Exposures, lower: str, upper: str) -> dict[str, str]:
    """Of each label the one of the next dimension that most of its exposures have."""
    codes, names = exposures.labels(lower)
    above, parents = exposures.labels(upper)
    both = (codes >= 0) & (above >= 0)
    if not np.any(both):
        return {}
    pairs, count = np.unique(np.stack([codes[both], above[both]]), axis=1, return_counts=True)
    return {
        f"{lower}:{names[code]}": f"{upper}:{parents[parent]}"
        for code, parent in pairs[:, np.argsort(count, kind="stable")].T
    }


def estimate(
    exposures: Exposures,
    dimension: str,
    code: int,
    *,
    now: int,
    forgetting: int = FORGETTING,
    arrival: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None,
    before: Past | None = None,
) -> Fitted:
    """One label's curve from its own exposures alone."""
    names = exposures.labels(dimension)[1]
    name = ALL if dimension == "user" else f"{dimension}:{names[code]}"
    label = _gather(
        exposures, before or past(exposures, dimension), dimension, code, now, forgetting,
        arrival or _arrival(exposures),
    )  # fmt: skip
    prior = _prior(label)
    found = _search(label, prior)
    return Fitted(
        _describe(found, name, exposures), found.estimate.covariance[_KNOT:_MASS, _KNOT:_MASS]
    )


def _arrival(exposures: Exposures) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ages, and the share of all engagements that have come by then: an empirical distribution."""
    final = exposures.engaged & exposures.settled & exposures.measurable
    late = np.sort(exposures.engaged_at[final] - exposures.ts[final])
    if len(late) < 20 or late[-1] <= 0:
        return np.zeros(1, np.int64), np.ones(1)
    shares = np.linspace(0.0, 1.0, 33)
    ages = np.quantile(late, shares, method="higher").astype(np.int64)
    ages, first = np.unique(ages, return_index=True)
    last = np.append(first[1:], len(shares)) - 1
    return ages, shares[last]


def _gather(
    exposures: Exposures,
    before: Past,
    dimension: str,
    code: int,
    now: int,
    forgetting: int,
    arrival: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> _Label:
    codes, _ = exposures.labels(dimension)
    chosen = (codes[before.order] == code) & (exposures.ts[before.order] <= now)
    order = before.order[chosen & (before.depth[before.order] <= _DEEPEST)]
    _, first, own = np.unique(before.course[order], return_index=True, return_inverse=True)
    begin = np.append(first, len(order)).astype(np.int64)
    which = before.course[order[first]] if len(first) else np.zeros(0, np.int64)
    frozen = _activity(before, which)
    edges = _edges(frozen)
    strata = np.array([stratum_of(each, edges) for each in frozen], np.int64)
    found = activities(exposures, order, begin) if len(first) else None
    counted = exposures.measurable[order]
    kept = order[counted]
    known = found[0][own[counted]] if found else np.ones(len(kept))
    knot, blend = _between(np.log(known), _quantiles(np.log(known)))
    pending = ~exposures.settled[kept] & ~exposures.engaged[kept]
    weight = np.ones(len(kept))
    weight[pending] = np.interp(now - exposures.ts[kept[pending]], *arrival)
    oldest = exposures.ts[order[begin[:-1]]] if len(first) else np.zeros(0, np.int64)
    courses = Courses(
        np.searchsorted(own[counted], np.arange(len(begin))).astype(np.int64),
        exposures.engaged[kept].astype(np.float64),
        weight,
        knot,
        _seasons(exposures.ts[kept]),
        np.zeros(len(kept), np.int64),
        blend,
        np.zeros(len(kept)),
        np.exp2(-(now - oldest) / forgetting),
    )
    return _Label(
        kept, exposures.person[order[first]], courses, exposures.ts[order],
        np.flatnonzero(counted), begin, before.depth[kept], edges, strata, found is not None,
        int(chosen.sum()),
    )  # fmt: skip


def _quantiles(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rising knots, at least a tenth apart (values are logarithms)."""
    if len(values) == 0:
        return np.arange(len(_SPREAD), dtype=np.float64)
    knots = np.quantile(values, _SPREAD)
    return np.asarray(knots[0] + np.cumsum(np.append(0.0, np.maximum(np.diff(knots), 0.1))))


def _between(
    values: NDArray[np.float64], knots: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The lower knot, and how far each value lies to the next one; constant outside."""
    low = np.clip(np.searchsorted(knots, values, "right") - 1, 0, len(knots) - 1)
    width = np.append(np.diff(knots), 1.0)[low]
    return low, np.where(low < len(knots) - 1, np.clip((values - knots[low]) / width, 0, 1), 0.0)


def _activity(before: Past, which: NDArray[np.int64]) -> NDArray[np.float64]:
    """Exposures a day to other ads, of each course: before it, else over all the time."""
    known = before.before[which]
    enough = len(which) > 0 and np.mean(np.isfinite(known)) >= _STRATIFIED
    return known if enough else before.elsewhere[which]


def _edges(activity: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = activity[np.isfinite(activity)]
    if len(finite) == 0:
        return np.full(STRATA - 2, 1e9)
    return np.asarray(np.quantile(finite, np.linspace(0, 1, STRATA)[1:-1]))


def _seasons(ts: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(ts) == 0:
        return np.zeros(0, np.int64)
    width = max(_SEASON_LEAST, (int(ts.max()) - int(ts.min())) // _SEASONS + 1)
    return np.asarray((ts - ts.min()) // width)


def _prior(label: _Label) -> Prior:
    """Weak: a curve changes little from knot to knot, a season from bin to bin, strata alike."""
    mean = np.zeros(_SIZE)
    precision = np.zeros((_SIZE, _SIZE))
    rate = (label.courses.engaged.sum() + 0.5) / (label.courses.weight.sum() + 50.0)
    mean[:_SEASON] = math.log(rate)
    _walk(precision, 0, _SEASON, np.full(_SEASON - 1, 0.7))
    precision[range(_SEASON), range(_SEASON)] += 0.1
    _walk(precision, _SEASON, _SEASONS, np.full(_SEASONS - 1, 0.3))
    precision[range(_SEASON, _KNOT), range(_SEASON, _KNOT)] += 4.0
    _walk(precision, _KNOT, len(KNOTS), np.minimum(0.3 * np.sqrt(np.diff(KNOTS)), 0.6))
    precision[_KNOT, _KNOT] += _FIXED
    # Masses: a gamma distribution of variance 1, on a grid that is even in its logarithm.
    grid = np.array(GRID)
    mean[_MASS:] = np.log(grid) - grid + np.log(np.gradient(np.log(grid)))
    mean[_MASS:] -= mean[_MASS:].mean()
    _walk(precision, _MASS, len(GRID), np.full(len(GRID) - 1, 0.7))
    precision[range(_MASS, _SIZE), range(_MASS, _SIZE)] += 0.05
    return Prior(mean, precision)


def _walk(
    precision: NDArray[np.float64], first: int, count: int, step: NDArray[np.float64]
) -> None:
    for k in range(count - 1):
        at = first + k
        tight = 1.0 / step[k] ** 2
        precision[at, at] += tight
        precision[at + 1, at + 1] += tight
        precision[at, at + 1] -= tight
        precision[at + 1, at] -= tight


def _search(label: _Label, prior: Prior) -> _Found:
    """The recovery and parameters with the largest likelihood, and who was left out."""
    odd = _outliers(label)
    if np.any(odd):
        importance = np.where(odd, 0.0, label.courses.importance)
        label = replace(label, courses=label.courses._replace(importance=importance))
    left_out = label.person[odd]
    plain = _worn(label, 0)
    none = maximize(plain.courses, prior.mean, prior, _SEASON, _KNOT)
    if plain.courses.engaged.sum() < ENOUGH:
        # It leans on its kind for its recovery too: there may be thousands like it.
        return _Found(plain, 0, none, left_out, ())
    tried = {i: _glance(label, RECOVERIES[i], none.parameters, prior) for i in _TRIED}
    best = max(tried, key=lambda i: tried[i].value)
    gain = tried[best].value - none.value
    if gain <= _GAIN:
        # Whether wear recovers at all is open.
        worn = _worn(label, RECOVERIES[best])
        other = _Other(
            1.0 / (1.0 + math.exp(-max(-50.0, min(gain, _GAIN)))), worn, tried[best].parameters
        )
        return _Found(plain, 0, none, left_out, (other,))
    for away in (2, 1):
        for i in (best - away, best + away):
            if 0 <= i < len(RECOVERIES):
                tried[i] = _glance(label, RECOVERIES[i], tried[best].parameters, prior)
        best = max(tried, key=lambda i: tried[i].value)
    recovery, sure = _vertex({i: each.value for i, each in tried.items()}, best)
    worn = _worn(label, recovery)
    found = maximize(worn.courses, tried[best].parameters, prior, _SEASON, _KNOT)
    others = []
    for apart in (sure, 1.0 / sure):
        there = round(recovery * apart)
        at = _glance(label, there, found.parameters, prior)
        others.append(_Other(0.5, _worn(label, there), at.parameters))
    return _by_either_law(_Found(worn, recovery, found, left_out, tuple(others)), prior)


def _by_either_law(found: _Found, prior: Prior) -> _Found:
    """Beside wear of which each exposure's share fades since it was made, wear that fades as a
    whole since the last exposure: lines are by the likeliest, and what others would say counts as
    much as they are likely."""
    tried = [(found.label, found.estimate)]
    for times in _RESTED:
        rested = _worn(found.label, 0, times * found.recovery)
        begin = found.estimate.parameters
        tried.append((rested, maximize(rested.courses, begin, prior, _SEASON, _KNOT, _GLANCE)))
    values = np.array([each.value for _, each in tried])
    likely = np.exp(values - values.max())
    likely /= likely.sum()
    best = int(likely.argmax())
    others = [
        _Other(float(likely[k]), label, each.parameters)
        for k, (label, each) in enumerate(tried)
        if k != best
    ]
    if best == 0:
        return found._replace(others=(*found.others, *others))
    label, each = tried[best]
    whole = maximize(label.courses, each.parameters, prior, _SEASON, _KNOT)
    return found._replace(others=tuple(others), lines=(label, whole))


def _vertex(values: dict[int, float], best: int) -> tuple[int, float]:
    """The half-life at which a parabola through the best one's log-likelihood and its neighbours'
    is highest, and its standard error as a factor."""
    step = math.log(2.0) / 2.0
    longer, shorter = values.get(best - 1, -np.inf), values.get(best + 1, -np.inf)
    bend = 2.0 * values[best] - longer - shorter
    if not math.isfinite(bend) or bend <= 0.0:
        return RECOVERIES[best], math.exp(2.0 * step)
    away = float(np.clip(step * (longer - shorter) / (2.0 * bend), -step, step))
    error = min(step / math.sqrt(bend), _UNSURE)
    return round(RECOVERIES[best] * math.exp(away)), math.exp(error)


def _first_rates(label: _Label, found: Estimate) -> NDArray[np.float64]:
    """What each exposure would give on average if it were a first one."""
    courses, parameters = label.courses, found.parameters
    masses = np.exp(parameters[_MASS:] - parameters[_MASS:].max())
    log = (1.0 - courses.blend) * parameters[courses.activity]
    log += courses.blend * parameters[np.minimum(courses.activity + 1, _SEASON - 1)]
    log += parameters[_SEASON + courses.season]
    return np.asarray(np.exp(log) * (masses @ np.array(GRID)) / masses.sum())


def _glance(label: _Label, recovery: int, begin: NDArray[np.float64], prior: Prior) -> Estimate:
    worn = _worn(label, recovery)
    return maximize(worn.courses, begin, prior, _SEASON, _KNOT, _GLANCE)


def _worn(label: _Label, recovery: int, rested: int = 0) -> _Label:
    """The label by wear whose half-life is ``recovery``, and that fades as a whole by half within
    ``rested`` ticks without exposure; 0 for never."""
    knot = np.zeros(len(label.exposures), np.int64)
    part = np.zeros(len(label.exposures))
    knots = np.array(KNOTS)
    _place(label.wear_times, label.begin, label.place, recovery, rested, knots, knot, part)
    return replace(label, courses=label.courses._replace(knot=knot, part=part))


@compiled
def _place(
    ts: NDArray[np.int64],
    begin: NDArray[np.int64],
    place: NDArray[np.int64],
    recovery: int,
    rested: int,
    knots: NDArray[np.float64],
    knot: NDArray[np.int64],
    part: NDArray[np.float64],
) -> None:
    """The knots beside the wear of each measurable exposure; all exposures wear."""
    j = 0
    for c in range(len(begin) - 1):
        wear = 0.0
        for i in range(begin[c], begin[c + 1]):
            if i > begin[c] and recovery > 0:
                wear *= math.exp(-0.6931471805599453 * (ts[i] - ts[i - 1]) / recovery)
            if j < len(place) and place[j] == i:
                left = wear
                if i > begin[c] and rested > 0:
                    left *= math.exp(-0.6931471805599453 * (ts[i] - ts[i - 1]) / rested)
                k = 0
                while k + 1 < len(knots) and knots[k + 1] <= left:
                    k += 1
                knot[j] = k
                if k + 1 < len(knots):
                    part[j] = (left - knots[k]) / (knots[k + 1] - knots[k])
                else:
                    part[j] = 0.0
                j += 1
            wear += 1.0


def _outliers(label: _Label) -> NDArray[np.bool_]:
    """Courses that answer nearly always, where hardly any do: programs, or clocks gone wrong.

    The lower 99.9% bound of their share of answers is above `_ALWAYS`. Where more than `_FEW` of
    people do, it is what people do here.
    """
    start = label.courses.start
    shown = np.diff(start).astype(np.float64)
    answered = np.add.reduceat(np.append(label.courses.engaged, 0.0), start[:-1]) * (shown > 0)
    z = 3.09
    share = (answered + z * z / 2) / (shown + z * z)
    low = share - z / (shown + z * z) * np.sqrt(
        np.maximum(answered * (shown - answered) / np.maximum(shown, 1.0), 0.0) + z * z / 4
    )
    odd = low > _ALWAYS
    return odd if odd.sum() <= _FEW * len(odd) else np.zeros(len(odd), np.bool_)


def _totals(
    label: _Label, found: Estimate
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    size = len(label.courses.importance)
    engaged, expected, after = np.zeros(size), np.zeros(size), np.zeros(size)
    totals(label.courses, found.parameters, _SEASON, _KNOT, engaged, expected, after)
    return engaged, expected, after


def _describe(search: _Found, name: str, exposures: Exposures) -> Curve:
    label, recovery, found, outliers, others, law = search
    engaged, _, after = _totals(label, found)
    if _answered_too_often(label, found):
        found, others, law = _flat(found), (), None
        rate = float(label.courses.engaged[label.depth == 1].mean())
        base: tuple[float, ...] = (rate,) * STRATA
        frequent = f"{rate:.0%} answer the first exposure: so often that factors do not multiply"
    else:
        base, frequent = _base(label, found), ""
    counts = label.courses.importance > 0
    reason = frequent or _why_not(label, float(engaged[counts].sum()), float(after[counts].sum()))
    level = found.parameters[_KNOT:_MASS]
    variance = np.diag(found.covariance)[_KNOT:_MASS]
    masses = np.exp(found.parameters[_MASS:])
    masses /= masses.sum()
    mean = float(masses @ np.array(GRID))
    second = float(masses @ np.array(GRID) ** 2)
    return Curve(
        label=name,
        base=base,
        edges=tuple(map(float, label.edges)),
        shape=mean**2 / max(second - mean**2, 1e-3),
        recovery=recovery,
        level=tuple(float(each) for each in level - level[0]),
        spread=tuple(float(math.sqrt(max(0.0, each))) for each in variance),
        exposures=float(len(label.exposures)),
        engagements=float(engaged.sum()),
        people=len(engaged),
        coverage=len(label.exposures) / label.shown if label.shown else 0.0,
        identified=not reason,
        reason=reason,
        worth=_worth(label, base, level),
        outliers=tuple(int(each) for each in outliers),
        depths=_lines(*(law or (label, found)), others, exposures, not reason),
    )


def _answered_too_often(label: _Label, found: Estimate) -> bool:
    """Whether most exposures are answered so often that the likelihood's fourth order is none."""
    first = label.courses.engaged[label.depth == 1]
    if len(first) == 0 or first.mean() <= _TOO_OFTEN:
        return False
    return bool(np.mean(_first_rates(label, found) > _TOO_OFTEN) > 0.5)


def _flat(found: Estimate) -> Estimate:
    """The same without a word on wear: it may be anything."""
    parameters, covariance = found.parameters.copy(), found.covariance.copy()
    parameters[_KNOT:_MASS] = 0.0
    covariance[_KNOT:_MASS] = covariance[:, _KNOT:_MASS] = 0.0
    loose = np.arange(_KNOT + 1, _MASS)
    covariance[loose, loose] = 1.0
    parameters[_MASS:] = 0.0
    return replace(found, parameters=parameters, covariance=covariance)


def _base(label: _Label, found: Estimate) -> tuple[float, ...]:
    """What a first exposure gives on average, by the stratum that is known before it."""
    courses = label.courses
    if len(label.exposures) == 0:
        return (0.01,) * STRATA
    gives = _first_rates(label, found)
    first = label.depth == 1
    whole = float(gives[first].mean()) if np.any(first) else float(gives.mean())
    own = np.repeat(label.strata, np.diff(courses.start))
    out = [whole]
    for stratum in range(1, STRATA):
        here = first & (own == stratum)
        out.append(float(gives[here].mean()) if here.sum() >= 20 else whole)
    return tuple(out)


def _worth(label: _Label, base: tuple[float, ...], level: NDArray[np.float64]) -> float:
    """See `Curve`; of the exposures of the last `_LATELY`."""
    if len(label.exposures) == 0:
        return 1.0
    ts = label.wear_times[label.place]
    late = ts > ts.max() - _LATELY
    left, _ = _left(label, level, late)
    stratum = np.repeat(label.strata, np.diff(label.courses.start))[late]
    return float((np.array(base)[stratum] * left).mean()) / base[0]


def _why_not(label: _Label, engagements: float, after: float) -> str:
    if engagements < ENOUGH:
        return f"there are {engagements:.0f} of the {ENOUGH:.0f} engagements that it takes"
    if not label.stratified:
        return "how active people are cannot be known: hardly anything else was shown to them"
    if after < _REPEATS:
        return "hardly anybody is shown it again after an answer: fatigue looks like propensity"
    return ""


def _lines(
    label: _Label,
    found: Estimate,
    others: tuple[_Other, ...],
    exposures: Exposures,
    identified: bool,
) -> tuple[Depth, ...]:
    final = exposures.settled[label.exposures] | exposures.engaged[label.exposures]
    relative, shown, answered = _naive(
        label.depth[final], exposures.engaged[label.exposures[final]]
    )
    level = found.parameters[_KNOT:_MASS]
    covariance = found.covariance[_KNOT:_MASS, _KNOT:_MASS]
    line = np.minimum(label.depth, MOST_DEPTH)
    lines = []
    for k in range(1, MOST_DEPTH + 1):
        here = line == k
        if not np.any(here):
            continue
        f, slope = _left(label, level, here)
        mean = float(f.mean())
        variance = max(0.0, float(slope @ covariance @ slope)) / float(f.sum()) ** 2
        for other in others:
            instead = _left(other.label, other.parameters[_KNOT:_MASS], here)[0].mean()
            variance += other.weight * (float(instead) / mean - 1.0) ** 2
        sd = math.sqrt(variance)
        lines.append(
            Depth(
                k, int(shown[k - 1]), int(answered[k - 1]), float(relative[k - 1]), mean,
                mean * math.exp(-1.96 * sd), mean * math.exp(1.96 * sd), identified and sd < 0.5,
            )
        )  # fmt: skip
    return tuple(lines)


def _left(
    label: _Label, level: NDArray[np.float64], here: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """f of some exposures, and the derivative of their sum by the level of each knot."""
    knot, part = label.courses.knot[here], label.courses.part[here]
    upper = np.minimum(knot + 1, len(KNOTS) - 1)
    f = np.exp((1.0 - part) * level[knot] + part * level[upper])
    slope = np.bincount(knot, (1.0 - part) * f, len(KNOTS))
    return np.asarray(f), np.asarray(slope + np.bincount(upper, part * f, len(KNOTS)))
