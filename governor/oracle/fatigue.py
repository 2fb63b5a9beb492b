"""When a person is tired of a label, by definition: docs/fatigue.md in plain Python.

Everything is summed anew for every exposure; of the curves it takes the numbers only.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from governor.fatigue.curves import KNOTS, Curve
from governor.fatigue.versions import Version
from governor.oracle.events import Entry
from governor.oracle.rows import Row
from governor.oracle.settlement import answers, settled
from governor.policy import Ad, Fatigue, Policy

__all__ = ["Tired", "curve_of", "tired"]

SECOND = 1_000_000
HOUR, DAY = 3600 * SECOND, 86_400 * SECOND
WEEK, MONTH = 7 * DAY, 30 * DAY
HYSTERESIS = 1.2
UPPER_975 = 1.959963984540054
DECLINED = 0.9


class Tired(NamedTuple):
    """What holds of a label from its newest exposure on."""

    rest: int
    """For so long, in ticks."""
    share: float
    """Bid at it; 0 to show nothing."""
    expected: float
    probability: float


def curve_of(version: Version, per: Sequence[str], labels: Mapping[str, str]) -> Curve:
    """The curve of an ad for a rule: the finest that there is, not finer than the rule's labels."""
    curves = version.curves
    for dimension in ("creative", "campaign", "category")[_finest(per) :]:
        label = f"{dimension}:{labels[dimension]}" if dimension in labels else ""
        if dimension == "category" and not label and "campaign" in labels and _finest(per) < 2:
            # Known from other ads of the campaign.
            label = curves.category_of.get(f"campaign:{labels['campaign']}", "")
        if label in curves.curves:
            return curves.curves[label]
    return curves.curves["all"]


def _finest(per: Sequence[str]) -> int:
    order = ("creative", "campaign", "category")
    return next((i for i, dimension in enumerate(order) if dimension in per), len(order))


@dataclass(frozen=True)
class _Course:
    """A person's exposures to one label, oldest first, and the curve that they go by."""

    shown: Sequence[Entry]
    row: Row
    policy: Policy
    curve: Curve
    version: Version
    stratum: int
    answered: Mapping[Entry, int]
    dark: frozenset[Entry]
    """Of which an answer could not have been seen."""

    def wear(self, at: int, *, including: bool) -> float:
        """How worn the label is at a time, with or without what is shown at that time."""
        before = [e for e in self.shown if e.ts < at or (including and e.ts == at)]
        recovery = self.curve.recovery
        return sum(2.0 ** (-(at - e.ts) / recovery) if recovery else 1.0 for e in before)

    def expected_until(self, i: int) -> float:
        """Lambda: engagements expected of an average person by the first ``i`` exposures."""
        return math.fsum(
            self._known(e)
            * self.curve.base[self.stratum]
            * math.exp(_between(self.wear(e.ts, including=False), self.curve.level))
            for e in self.shown[:i]
            if e not in self.dark
        )

    def engaged_until(self, i: int) -> int:
        """N: engagements by the first ``i`` exposures."""
        return sum(e in self.answered for e in self.shown[:i] if e not in self.dark)

    def _known(self, e: Entry) -> float:
        """How much of what will come of an exposure has come."""
        if e in self.answered or settled(e, self.policy, self.row.now):
            return 1.0
        ages, seen = self.version.curves.ages, self.version.curves.seen
        age = self.row.now - e.ts
        after = bisect_right(ages, age)
        if after == 0 or after == len(ages):
            return seen[0] if after == 0 else seen[-1]
        part = (age - ages[after - 1]) / (ages[after] - ages[after - 1])
        return seen[after - 1] + part * (seen[after] - seen[after - 1])

    def mean(self, wear: float, i: int) -> float:
        """What an exposure gives at a wear, after the first ``i``, relative to a first one."""
        a = self.curve.shape
        propensity = (a + self.engaged_until(i)) / (a + self.expected_until(i))
        return math.exp(_between(wear, self.curve.level)) * propensity

    def below(self, wear: float, floor: float) -> float:
        """The probability that it gives less than the floor."""
        sd, i = _between(wear, self.curve.spread), len(self.shown)
        propensity = self.curve.shape + self.engaged_until(i)
        shape = 1.0 / ((1.0 + 1.0 / propensity) * math.exp(min(sd * sd, 50.0)) - 1.0)
        return gamma_below(floor * shape / self.mean(wear, i), shape)

    def threshold(self, share: float) -> float:
        """A share of what the label's exposures give these days, relative to what a first one of
        such a person gives, and at most so much of that."""
        usual = self.curve.worth * self.curve.base[0]
        return share * min(1.0, usual / self.curve.base[self.stratum])

    def streak(self, floor: float) -> int:
        """Rests in a row that were followed by an exposure without an answer."""
        streak = 0
        for i, e in enumerate(self.shown):
            if e in self.dark:
                continue
            if e in self.answered:
                streak = 0
            elif i > 0 and e.ts - self.shown[i - 1].ts >= HOUR * 2 ** min(streak, 20):
                streak += self.mean(self.wear(e.ts, including=False), i) < floor
        return streak

    def tired_below(self, floor: float, probability: float) -> bool:
        """Whether it is probable enough that the next exposure gives less than the floor, and the
        label, not only the person, has surely declined."""
        wear = self.wear(self.shown[-1].ts, including=True)
        level, sd = _between(wear, self.curve.level), _between(wear, self.curve.spread)
        return (
            self.mean(wear, len(self.shown)) < floor
            and math.exp(level + UPPER_975 * sd) < DECLINED
            and self.below(wear, floor) >= probability
        )

    def rest(self, floor: float, streak: int) -> int:
        """Until the expected engagement is back at the floor plus hysteresis, found by halving
        thirty days down to a second; or the back-off."""
        wear, i = self.wear(self.shown[-1].ts, including=True), len(self.shown)
        recovery = self.curve.recovery
        if recovery == 0 or self.mean(0.0, i) < floor * HYSTERESIS:
            return min(MONTH, HOUR << min(streak, 20))

        def back(after: int) -> bool:
            return self.mean(wear * 2.0 ** (-after / recovery), i) >= floor * HYSTERESIS

        low, high = 0, MONTH
        if not back(high):
            return high
        while high - low > SECOND:
            middle = (low + high) // 2
            low, high = (low, middle) if back(middle) else (middle, high)
        return max(HOUR, high)


def tired(
    rule: Fatigue, shown: Sequence[Entry], row: Row, policy: Policy, version: Version
) -> Tired | None:
    """Whether a person is tired of a label.

    Args:
        shown: the exposures to it that the rule counts, newest first.
    """
    curve = curve_of(version, rule.per, shown[0].labels)
    if not curve.identified:
        return None
    dark = frozenset(
        e
        for e in shown
        if row.refused or not e.measurable or any(not ad.measurable for ad in _items(e, policy))
    )
    stratum = _stratum(rule, shown[-1], row, policy, version, curve)
    oldest_first = shown[::-1]
    course = _Course(oldest_first, row, policy, curve, version, stratum, answers(row, policy), dark)
    wear = course.wear(shown[0].ts, including=True)
    floor = course.threshold(rule.floor)
    mean, streak = course.mean(wear, len(shown)), course.streak(floor)
    below = course.below(wear, floor)
    if course.tired_below(floor, rule.probability):
        return Tired(course.rest(floor, streak), 0.0, mean, below)
    if rule.full is None:
        return None
    full = course.threshold(rule.full)
    if course.tired_below(full, rule.probability):
        share = max(1, min(9, math.floor(10 * (mean - floor) / (full - floor) + 0.5))) / 10
        return Tired(course.rest(full, streak), share, mean, below)
    return None


def _items(e: Entry, policy: Policy) -> list[Ad]:
    return [
        ad
        for ad in policy.ads
        if all(e.labels.get(key) in values for key, values in ad.match.items())
    ]


def _stratum(
    rule: Fatigue, first: Entry, row: Row, policy: Policy, version: Version, curve: Curve
) -> int:
    """By exposures a day to other labels in the week before the first; 0 where less than a day of
    it was observed."""
    since = max(version.since, row.now - row.horizon, row.cut)
    known = min(first.ts - since, WEEK)
    if known < DAY:
        return 0
    others = [
        e
        for e in row.shown
        if first.ts - WEEK <= e.ts < first.ts
        and not any(ad.priority == "always" for ad in _items(e, policy))
        and not _same(rule, e, first)
    ]
    activity = len(others) / (known / DAY)
    return 1 + sum(activity >= edge for edge in curve.edges)


def _same(rule: Fatigue, e: Entry, other: Entry) -> bool:
    """Whether an exposure has the label of another that the rule is about."""
    if any(e.labels.get(key) not in values for key, values in rule.match.items()):
        return False
    if rule.per == ("user",):
        return True
    return all(e.labels.get(key) == other.labels[key] for key in rule.per)


def _between(wear: float, values: Sequence[float]) -> float:
    """The value at a wear, linear between knots, constant beyond the last."""
    for k in range(1, len(KNOTS)):
        if KNOTS[k - 1] <= wear < KNOTS[k]:
            part = (wear - KNOTS[k - 1]) / (KNOTS[k] - KNOTS[k - 1])
            return values[k - 1] + part * (values[k] - values[k - 1])
    return values[-1]


def gamma_below(x: float, shape: float) -> float:
    """P(X < x) for X ~ Gamma(shape, 1), by its series of positive terms."""
    if x <= 0.0:
        return 0.0
    if x > shape + 40.0 * math.sqrt(shape) + 400.0:
        return 1.0  # the rest is less than exp(-200)
    terms = [1.0 / shape]
    while terms[-1] > 1e-17 * terms[0] or len(terms) < x:
        terms.append(terms[-1] * x / (shape + len(terms)))
    log_total = math.log(math.fsum(terms))
    return min(1.0, math.exp(shape * math.log(x) - x - math.lgamma(shape) + log_total))
