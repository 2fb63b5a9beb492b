"""Exposure-response curves: what an exposure gives, by how worn the ad is for the person.

**Wear** is the depth that is not forgotten: a person's earlier exposures to the label, each
counting ``2 ** -(elapsed / recovery)``. Where recovery is not known it is the plain number of
earlier exposures. A curve holds the logarithm of ``f`` at `KNOTS` of wear; between knots it is
linear, beyond the last one constant. ``f`` of the first exposure is 1.

A `CurveSet` never changes; its version is a hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.ticks import SECOND

__all__ = [
    "ALL", "ENOUGH", "KNOTS", "STRATA", "Curve", "CurveSet", "Depth", "Tables", "unknown",
]  # fmt: skip

KNOTS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 16.0, 24.0, 40.0)
"""Wear at which curves are estimated."""

STRATA: Final = 9
"""Strata of activity on other ads: 0 is unknown, the others hold about equally many people."""

ENOUGH: Final = 60.0
"""Engagements below which a label's own data identify nothing."""

ALL: Final = "all"
"""The label of the curve from which a category that is not known starts."""


@dataclass(frozen=True)
class Depth:
    """One line of the report: the k-th exposures of people to a label.

    Attributes:
        depth: k, from 1; the last line holds all deeper ones too.
        exposures: measurable ones.
        engagements: of these.
        naive: their rate over the first exposures' rate; nan where there is no first engagement.
        estimate: what fatigue leaves of an exposure's effect, averaged over these exposures.
        low, high: the 95% credible band of ``estimate``.
        identified: whether ``estimate`` can be told from selection.
    """

    depth: int
    exposures: int
    engagements: int
    naive: float
    estimate: float
    low: float
    high: float
    identified: bool


@dataclass(frozen=True)
class Curve:
    """What exposures to one label give.

    Attributes:
        label: ``creative:B2``, ``campaign:C7``, ``category:shoes`` or ``all``.
        base: expected engagements of a first exposure, by stratum; its first element is of people
            whose activity is not known.
        edges: activity (other exposures a day) from which on each stratum but the first two begins;
            `STRATA` - 2 numbers, rising.
        shape: of the gamma distribution of people's propensity, whose mean is 1.
        recovery: ticks in which wear halves; 0 where it is not known to recover.
        level: log f at `KNOTS`.
        spread: its standard deviation there.
        exposures, engagements, people: measurable ones that went into it, after discounting.
        coverage: share of exposures that were measurable.
        identified: whether fatigue can be told from selection here.
        reason: why not, in words; empty where it is.
        source: ``own`` data, or the label whose curve this one is for want of them.
        worth: what an exposure gives these days to somebody of average propensity, relative to a
            first exposure: the mean of base and f over what was shown lately, over ``base[0]``.
        outliers: hashes of people left out because nobody engages like that.
        depths: the lines of the report.
    """

    label: str
    base: tuple[float, ...]
    edges: tuple[float, ...]
    shape: float
    recovery: int
    level: tuple[float, ...]
    spread: tuple[float, ...]
    exposures: float
    engagements: float
    people: int
    coverage: float
    identified: bool
    reason: str = ""
    source: str = "own"
    worth: float = 1.0
    outliers: tuple[int, ...] = ()
    depths: tuple[Depth, ...] = ()

    def at(self, wear: float) -> tuple[float, float, float]:
        """``f`` at a wear with its 95% band: (low, estimate, high)."""
        log_f = float(np.interp(wear, KNOTS, self.level))
        sd = float(np.interp(wear, KNOTS, self.spread))
        return math.exp(log_f - 1.96 * sd), math.exp(log_f), math.exp(log_f + 1.96 * sd)


class Tables(NamedTuple):
    """Curves as arrays for compiled code: one row a curve, the last row that of `ALL`.

    Attributes:
        base: (curves, `STRATA`) float64.
        edges: (curves, `STRATA` - 2) float64.
        shape: (curves,) float64.
        recovery: (curves,) int64, ticks, 0 for not known.
        level, spread: (curves, knots) float64.
        usable: (curves,) uint8; 0 where no decision may rest on it.
        worth: (curves,) float64.
        ages, seen: (n,) int64 ticks and float64: the share of engagements that have come at an age.
    """

    base: NDArray[np.float64]
    edges: NDArray[np.float64]
    shape: NDArray[np.float64]
    recovery: NDArray[np.int64]
    level: NDArray[np.float64]
    spread: NDArray[np.float64]
    usable: NDArray[np.uint8]
    worth: NDArray[np.float64]
    ages: NDArray[np.int64]
    seen: NDArray[np.float64]


@dataclass(frozen=True)
class CurveSet:
    """The curves of all labels as of one time.

    Attributes:
        reference: event time, ticks, at which what was observed weighs 1.
        forgetting: ticks in which an observation's weight halves.
        curves: by label; `ALL` is always there.
        category_of: a campaign's category, both as labels.
        campaign_of: a creative's campaign, both as labels.
        ages, seen: the share of engagements that come within an age (ticks) of their exposure.
    """

    reference: int
    forgetting: int
    curves: Mapping[str, Curve]
    category_of: Mapping[str, str] = field(default_factory=dict)
    campaign_of: Mapping[str, str] = field(default_factory=dict)
    ages: tuple[int, ...] = (0,)
    seen: tuple[float, ...] = (1.0,)

    @cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits of the content's SHA-256."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def resolve(self, creative: str | None, campaign: str | None, category: str | None) -> str:
        """The label of the curve that holds for an ad: the finest that has one.

        Args:
            creative, campaign, category: labels (``campaign:C7``), None for those that are to be
                passed over: a rule per campaign passes over the creative.
        """
        known = [creative, campaign, category]
        if campaign is None and creative is not None:
            known[1] = self.campaign_of.get(creative)
        if category is None and known[1] is not None:
            known[2] = self.category_of.get(known[1])
        return next((label for label in known if label is not None and label in self.curves), ALL)

    def curve(self, label: str) -> Curve:
        """The curve of a label, or the one that it starts from."""
        if label in self.curves:
            return self.curves[label]
        if label.startswith("creative:"):
            return self.curves[self.resolve(label, None, None)]
        return self.curves[self.resolve(None, label, None)]

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Which row of `tables` a label's curve is."""
        labels = sorted(label for label in self.curves if label != ALL)
        return {label: i for i, label in enumerate([*labels, ALL])}

    @cached_property
    def tables(self) -> Tables:
        """The curves for compiled code, in the order of `rows`."""
        curves = [self.curves[label] for label in self.rows]
        return Tables(
            np.array([each.base for each in curves]),
            np.array([each.edges for each in curves]),
            np.array([each.shape for each in curves]),
            np.array([each.recovery for each in curves], np.int64),
            np.array([each.level for each in curves]),
            np.array([each.spread for each in curves]),
            np.array([each.identified for each in curves], np.uint8),
            np.array([each.worth for each in curves]),
            np.array(self.ages, np.int64),
            np.array(self.seen),
        )

    def to_json(self) -> str:
        """Canonical: the same curves give the same text."""
        fields = {
            "reference": self.reference,
            "forgetting": self.forgetting,
            "curves": [asdict(self.curves[label]) for label in sorted(self.curves)],
            "category_of": dict(self.category_of),
            "campaign_of": dict(self.campaign_of),
            "ages": self.ages,
            "seen": self.seen,
        }
        return json.dumps(_without_nan(fields), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> CurveSet:
        """What `to_json` wrote.

        Raises:
            ValueError: for anything else.
        """
        try:
            fields = json.loads(text)
            curves = [_curve(each) for each in fields["curves"]]
            return cls(
                reference=int(fields["reference"]),
                forgetting=int(fields["forgetting"]),
                curves={each.label: each for each in curves},
                category_of=dict(fields["category_of"]),
                campaign_of=dict(fields["campaign_of"]),
                ages=tuple(fields["ages"]),
                seen=tuple(fields["seen"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a set of curves: {error!r}") from error


def _curve(fields: dict[str, Any]) -> Curve:
    tuples = {key: tuple(v) for key, v in fields.items() if isinstance(v, list) and key != "depths"}
    depths = tuple(
        Depth(**(each | {"naive": math.nan if each["naive"] is None else each["naive"]}))
        for each in fields["depths"]
    )
    return Curve(**(fields | tuples | {"depths": depths}))


def _without_nan(value: Any) -> Any:
    """The value with None for nan, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def unknown(reference: int, forgetting: int = 30 * 86_400 * SECOND) -> CurveSet:
    """Before anything was observed: nothing is known to tire anybody."""
    flat = tuple(0.0 for _ in KNOTS)
    curve = Curve(
        label=ALL, base=(0.01,) * STRATA, edges=(1e9,) * (STRATA - 2), shape=1.0, recovery=0,
        level=flat, spread=tuple(1.0 if knot else 0.0 for knot in KNOTS),
        exposures=0.0, engagements=0.0, people=0, coverage=0.0,
        identified=False, reason="nothing has been observed",
    )  # fmt: skip
    return CurveSet(reference=reference, forgetting=forgetting, curves={ALL: curve})
