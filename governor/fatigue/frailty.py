"""Estimates curves from exposures: a stratified gamma-frailty counting process.

Engagement at an exposure has the rate ``base[s] f(wear) theta``, theta ~ Gamma(a, a) a person's
propensity for the label (Andersen and Gill 1982; Nielsen, Gill, Andersen and Sorensen 1992), s the
stratum of the person's activity on other ads.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from governor.fatigue.curves import ALL, KNOTS, STRATA, Curve, CurveSet, Depth, unknown
from governor.fatigue.exposures import DAY, Exposures, past

__all__ = ["FORGETTING", "MOST_DEPTH", "fit", "naive"]

FORGETTING: Final = 60 * DAY
"""Ticks in which an observation's weight halves."""

MOST_DEPTH: Final = 12
"""Depths reported one by one; the last line holds all deeper ones."""


def naive(exposures: Exposures, dimension: str = "campaign", label: int = 0) -> NDArray[np.float64]:
    """Engagements over exposures by depth, relative to the first: (`MOST_DEPTH`,).

    This is what selection bends: it falls because the unlucky are shown more, and rises because
    heavy users click more. nan at depths without exposures, and everywhere without a first
    engagement.
    """
    codes, _ = exposures.labels(dimension)
    depth = np.minimum(past(exposures, dimension).depth, MOST_DEPTH)
    counted = exposures.measurable & (codes == label) & (exposures.settled | exposures.engaged)
    shown = np.bincount(depth[counted], minlength=MOST_DEPTH + 1)[1:]
    answered = np.bincount(depth[counted & exposures.engaged], minlength=MOST_DEPTH + 1)[1:]
    rate = np.full(MOST_DEPTH, np.nan)
    np.divide(answered, shown, out=rate, where=shown > 0)
    return rate / rate[0] if rate[0] > 0 else np.full(MOST_DEPTH, np.nan)


def fit(exposures: Exposures, previous: CurveSet | None = None, *, now: int) -> CurveSet:
    """The curves of every creative, campaign and category, and of all together.

    Args:
        exposures: of people observed whole.
        previous: the set before, from which labels without exposures keep their curves.
        now: event time, ticks, the reference of forgetting; what is later is left out.
    """
    base = previous or unknown(now, FORGETTING)
    curves = dict(base.curves)
    for dimension in ("campaign", "creative"):
        codes, names = exposures.labels(dimension)
        for code, name in enumerate(names):
            if np.any(codes == code):
                curves[f"{dimension}:{name}"] = _fit_label(exposures, dimension, code, name)
    curves[ALL] = _fit_label(exposures, "user", 0, ALL)
    return CurveSet(now, FORGETTING, curves, base.category_of, base.campaign_of)


def _fit_label(exposures: Exposures, dimension: str, code: int, name: str) -> Curve:
    codes, _ = exposures.labels(dimension)
    depth = past(exposures, dimension).depth
    use = exposures.measurable & (codes == code)
    shown = np.bincount(np.minimum(depth[use], MOST_DEPTH), minlength=MOST_DEPTH + 1)[1:]
    hit = use & exposures.engaged
    answered = np.bincount(np.minimum(depth[hit], MOST_DEPTH), minlength=MOST_DEPTH + 1)[1:]
    rates = naive(exposures, dimension, code)
    finite = np.where(np.isfinite(rates) & (rates > 0), rates, 1.0)
    level = np.log(np.interp(KNOTS, np.arange(MOST_DEPTH), finite))
    spread = np.interp(KNOTS, np.arange(MOST_DEPTH), 1.0 / np.sqrt(answered + 1.0))
    spread[0] = level[0] = 0.0
    rate = (answered.sum() + 0.5) / (shown.sum() + 50.0)
    return Curve(
        label=name if name == ALL else f"{dimension}:{name}",
        base=(float(rate),) * STRATA, edges=(1e9,) * (STRATA - 2), shape=1.0, recovery=0,
        level=tuple(map(float, level)), spread=tuple(map(float, spread)),
        exposures=float(shown.sum()), engagements=float(answered.sum()),
        people=len(np.unique(exposures.person[use])),
        coverage=float(use.sum() / max(1, (codes == code).sum())),
        identified=bool(answered.sum() > 100),
        depths=tuple(
            Depth(k + 1, int(shown[k]), int(answered[k]), float(rates[k]), math.exp(level[0]),
                  0.0, 10.0, False)
            for k in range(MOST_DEPTH)
        ),
    )  # fmt: skip
