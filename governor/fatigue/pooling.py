"""Curves of few engagements lean on those of their kind: creatives on their campaign, campaigns on
their category, categories on all.

At each knot, siblings' logarithms of f are taken for draws from a normal distribution around their
parent's, whose variance between siblings is DerSimonian and Laird's (1986) estimate, at least
`_LEAST_BETWEEN` squared; each is then moved to its posterior mean. A category's curve is that
distribution: what a campaign of it gives before anything is known of the campaign.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from governor.fatigue.curves import ALL, ENOUGH, KNOTS, Curve, Depth

__all__ = ["pooled"]

_LEAST_BETWEEN: Final = 0.15
_ALONE: Final = 0.4
"""Standard deviations of log f between siblings: at least, and where there are no siblings."""

_NONE: Final = "it can be told of none of its campaigns"


def pooled(
    own: Mapping[str, Curve], category_of: Mapping[str, str], campaign_of: Mapping[str, str]
) -> dict[str, Curve]:
    """The curves of labels leaning on their parents, the categories' and `ALL`.

    Args:
        own: curves of campaigns and creatives, each of its own data alone.
        category_of, campaign_of: parents, all as labels.
    """
    campaigns = {label: each for label, each in own.items() if label.startswith("campaign:")}
    out: dict[str, Curve] = {}
    families: dict[str, list[Curve]] = {}
    for label, curve in campaigns.items():
        families.setdefault(category_of.get(label, ALL), []).append(curve)
    whole = _parent(ALL, list(campaigns.values()))
    out[ALL] = whole
    for category, members in families.items():
        if category != ALL:
            out[category] = _lean(_parent(category, members), whole, _between(members))
    for label, curve in campaigns.items():
        parent = out[category_of.get(label, ALL)]
        out[label] = _lean(curve, parent, _between(families[category_of.get(label, ALL)]))
    creatives = [curve for label, curve in own.items() if label not in campaigns]
    for curve in creatives:
        parent = out.get(campaign_of.get(curve.label, ALL), whole)
        out[curve.label] = _lean(curve, parent, np.full(len(KNOTS), _LEAST_BETWEEN))
    return out


def _sound(curves: Iterable[Curve]) -> list[Curve]:
    return [each for each in curves if each.identified]


def _between(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Standard deviation between siblings at each knot."""
    sound = _sound(curves)
    if len(sound) < 2:
        return np.full(len(KNOTS), _ALONE)
    level = np.array([each.level for each in sound])
    weight = 1.0 / np.maximum(np.array([each.spread for each in sound]) ** 2, 1e-6)
    total = weight.sum(axis=0)
    mean = (weight * level).sum(axis=0) / total
    excess = (weight * (level - mean) ** 2).sum(axis=0) - (len(sound) - 1)
    scale = total - (weight**2).sum(axis=0) / total
    return np.asarray(np.sqrt(np.maximum(excess / np.maximum(scale, 1e-9), _LEAST_BETWEEN**2)))


def _parent(label: str, members: Sequence[Curve]) -> Curve:
    """What a label's members have in common: the distribution that a new member is drawn from."""
    sound = _sound(members) or list(members)
    between = _between(members)
    spread = np.array([each.spread for each in sound])
    weight = 1.0 / (np.maximum(spread, 1e-3) ** 2 + between**2)
    total = weight.sum(axis=0)
    level = (weight * np.array([each.level for each in sound])).sum(axis=0) / total
    level[0] = 0.0
    wide = np.sqrt(1.0 / total + between**2)
    wide[0] = 0.0
    people = np.array([max(1, each.people) for each in sound], np.float64)
    share = people / people.sum()
    largest = max(sound, key=lambda each: each.engagements)
    identified = any(each.identified for each in members)
    return Curve(
        label=label,
        base=tuple(map(float, share @ np.array([each.base for each in sound]))),
        edges=largest.edges,
        shape=float(np.exp(share @ np.log([each.shape for each in sound]))),
        recovery=largest.recovery,
        level=tuple(map(float, level)),
        spread=tuple(map(float, wide)),
        exposures=sum(each.exposures for each in members),
        engagements=sum(each.engagements for each in members),
        people=sum(each.people for each in members),
        coverage=sum(each.coverage * each.exposures for each in members)
        / max(1.0, sum(each.exposures for each in members)),
        identified=identified,
        reason="" if identified else largest.reason if len(members) == 1 else _NONE,
        worth=float(np.exp(share @ np.log([each.worth for each in sound]))),
    )


def _lean(own: Curve, parent: Curve, between: NDArray[np.float64]) -> Curve:
    """``own`` moved towards its parent; a copy of the parent's shape where it has too little."""
    if not parent.identified:
        return own
    little = own.engagements < ENOUGH
    if not own.identified and not little:
        return own
    variance = np.maximum(np.array(own.spread) ** 2, 1e-9)
    if little:
        # Its own numbers may be anything, all-zero and all-one included.
        variance = np.maximum(variance, 1.0)
    apart = between**2
    weight = apart / (apart + variance)
    level = weight * np.array(own.level) + (1.0 - weight) * np.array(parent.level)
    spread = np.sqrt(apart * variance / (apart + variance))
    level[0], spread[0] = 0.0, 0.0
    moved = level - np.array(own.level)
    return replace(
        own,
        level=tuple(map(float, level)),
        spread=tuple(map(float, spread)),
        shape=parent.shape if little else own.shape,
        worth=parent.worth if little else own.worth,
        recovery=parent.recovery if little or own.recovery == 0 else own.recovery,
        identified=True,
        reason="",
        source=parent.label if little else "own",
        depths=tuple(_moved(line, moved, spread) for line in own.depths),
    )


def _moved(line: Depth, moved: NDArray[np.float64], spread: NDArray[np.float64]) -> Depth:
    """A line of the report after its curve was moved, by what it moved at that depth."""
    wear = line.depth - 1.0
    estimate = line.estimate * math.exp(float(np.interp(wear, KNOTS, moved)))
    was = math.log(max(line.high, 1e-12) / max(line.low, 1e-12)) / 2.0
    half = min(was, 1.96 * float(np.interp(wear, KNOTS, spread))) if wear else 0.0
    return replace(
        line,
        estimate=estimate,
        low=estimate * math.exp(-half),
        high=estimate * math.exp(half),
        identified=half < 1.0,
    )
