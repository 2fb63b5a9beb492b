"""Curves as the compiled rule takes them: which one holds for each ad under each rule.

A rule per creative goes by the curve of the creative, or of what stands above it while that has
none of its own: campaign, category, all. A rule per campaign passes over creatives, one per
category over campaigns too; a rule per anything else goes by the curve of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.fatigue.curves import Tables, unknown
from governor.fatigue.versions import Version
from governor.policy import Fatigue
from governor.rules import CURVED, Rules, Selector, Span

__all__ = ["Asked", "Worn", "curve_for", "worn"]


class Asked:
    """Columns of `Worn.asked`."""

    FLOOR = 0
    PROBABILITY = 1
    FULL = 2  # 0 where there is no share
    SIZE = 3


class Worn(NamedTuple):
    """The arrays."""

    curve: NDArray[np.int32]  # (ads, selectors): row of `tables`; means nothing for other selectors
    tables: Tables
    asked: NDArray[np.float64]  # (rules, Asked.SIZE)
    since: NDArray[np.int64]  # one element: from when on people have been observed


def worn(rules: Rules, version: Version | None, ads: int) -> Worn:
    """Curves for a policy, with room for so many ads, each to be filled in."""
    asked = np.zeros((len(rules.policy.rules), Asked.SIZE))
    for number, rule in enumerate(rules.policy.rules):
        if isinstance(rule, Fatigue):
            asked[number] = rule.floor, rule.probability, rule.full or 0.0
    curves = unknown(0) if version is None else version.curves
    return Worn(
        np.zeros((ads, len(rules.selectors)), np.int32),
        curves.tables,
        asked,
        np.array([0 if version is None else version.since], np.int64),
    )


def curve_for(version: Version, selector: Selector, labels: Mapping[str, str]) -> int:
    """The row of the tables that holds for an ad under a selector of a rule of fatigue."""
    if selector.sort != Span.FATIGUE:
        return 0
    passed_over = CURVED.index(selector.finest) if selector.finest in CURVED else len(CURVED)
    known = [
        f"{dimension}:{labels[dimension]}" if i >= passed_over and dimension in labels else None
        for i, dimension in enumerate(CURVED)
    ]
    return version.curves.rows[version.curves.resolve(*known)]
