"""The demo's arithmetic: which exposures came after a limit was reached, and what they brought.

An exposure is *excess* when a rule was in force on it before its page view began: a server that
asks for the person's decision would not have shown it. What one page view shows is shown at one
instant, so no part of it is in excess of another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from governor import policy
from governor.policy import Cap, Spacing
from governor.ticks import SECOND
from streams.demo_sample import Exposure, Page

__all__ = ["Episode", "Person", "Tally"]

Rule = Cap | Spacing


@dataclass
class Episode:
    """A limit reached and not free since: the exposures that it grew by."""

    rule: Rule
    user: str
    label: str
    first: int
    """When the first of the exposures that reached the limit was; epoch seconds."""
    reached: int
    until: float
    last: int
    shown: int
    """Exposures from ``first`` to ``last``."""
    excess: int = 0


@dataclass
class Person:
    """What one person met."""

    user: str
    exposures: int = 0
    clicks: int = 0
    excess: int = 0
    items: Counter[str] = field(default_factory=Counter)


class Tally:
    """Counts of a stream of page views in the order of their times.

    Args:
        rules: the policy's; its caps and spacings count.
        obey: leave out what is in excess, as if it had been held back; it then counts towards no
            limit either.
    """

    def __init__(self, rules: Iterable[policy.Rule], *, obey: bool = False) -> None:
        self.rules = [rule for rule in rules if isinstance(rule, Cap | Spacing)]
        self.obey = obey
        self.people: dict[str, Person] = {}
        self.exposures = self.clicks = 0
        self.excess = self.excess_clicks = 0
        self.excess_by_rule: Counter[str] = Counter()
        self.excess_clicks_by_rule: Counter[str] = Counter()
        self.episodes: list[Episode] = []
        self._shown: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._latest: dict[tuple[str, str, str], Episode] = {}

    @property
    def rate_before(self) -> float:
        """Clicks per exposure, of those that were not in excess."""
        return _ratio(self.clicks - self.excess_clicks, self.exposures - self.excess)

    @property
    def rate_after(self) -> float:
        """Clicks per exposure, of those in excess."""
        return _ratio(self.excess_clicks, self.excess)

    @property
    def share(self) -> float:
        """Of all exposures, those in excess."""
        return _ratio(self.excess, self.exposures)

    def add(self, page: Page) -> list[tuple[Exposure, list[Episode]]]:
        """Count a page view; return what of it was in excess, and of which limits."""
        excess = [(one, found) for one in page if (found := self.in_force(one))]
        for one in page:
            self._count(one)
        for one, found in excess:
            self._count_excess(one, found)
        held = {one.item for one, _ in excess} if self.obey else set()
        for one in page:
            if one.item not in held:
                self._show(one)
        return excess

    def in_force(self, one: Exposure) -> list[Episode]:
        """The limits that are reached for this exposure at its time."""
        found = (self._latest.get((rule.name, one.user, _label(rule, one))) for rule in self.rules)
        return [episode for episode in found if episode and episode.until > one.ts]

    def _count(self, one: Exposure) -> None:
        person = self.people.setdefault(one.user, Person(one.user))
        person.exposures += 1
        person.items[one.item] += 1
        person.clicks += one.clicked
        self.exposures += 1
        self.clicks += one.clicked

    def _count_excess(self, one: Exposure, found: list[Episode]) -> None:
        self.people[one.user].excess += 1
        self.excess += 1
        self.excess_clicks += one.clicked
        for episode in found:
            episode.excess += 1
            self.excess_by_rule[episode.rule.name] += 1
            self.excess_clicks_by_rule[episode.rule.name] += one.clicked

    def _show(self, one: Exposure) -> None:
        for label in {_label(rule, one) for rule in self.rules}:
            self._shown[one.user, label].append(one.ts)
        for rule in self.rules:
            self._evaluate(rule, one)

    def _evaluate(self, rule: Rule, one: Exposure) -> None:
        label = _label(rule, one)
        times = self._shown[one.user, label]
        if len(times) < rule.limit:
            return
        until = times[-rule.limit] + rule.window / SECOND
        if until <= one.ts:
            return
        key = rule.name, one.user, label
        episode = self._latest.get(key)
        if episode is None or episode.until <= one.ts:
            episode = self._latest[key] = Episode(
                rule, one.user, label, times[-rule.limit], one.ts, until, one.ts, rule.limit
            )
            self.episodes.append(episode)
        else:
            episode.until, episode.last = until, one.ts
            episode.shown += 1


def _label(rule: Rule, one: Exposure) -> str:
    return "user" if rule.per == ("user",) else f"{rule.per[0]}:{one.item}"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
