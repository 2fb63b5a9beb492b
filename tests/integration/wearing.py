"""A stream in which ads wear: what dashboards and alerts of fatigue have to tell of.

People are shown `WORN` once a day and answer it less and less, `STEADY` as ever, and `PLAIN`, some
of whose exposures are on the radio, where nobody can answer. Times are those of events: all of it
can be sent at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from tests.integration.deployment import Event
from tests.integration.scenario import T0

POLICY = """
version: wearing
rules:
  - {name: tired, fatigue: {floor: 0.7, probability: 0.7}, per: campaign}
attribution: [{window: 10m}]
ads:
  - {match: {surface: radio}, measurable: false}
holdout: {share: 20%, salt: wearing}
"""

WORN, STEADY, PLAIN = "worn", "steady", "plain"
CAMPAIGNS = (WORN, STEADY, PLAIN)

PEOPLE, DAY = 1_000, 86_400
RATE, LEFT = 0.2, 0.7
"""Of answers to a first exposure, and what each exposure to `WORN` leaves of it."""
ON_RADIO = 0.3
"""Of exposures to `PLAIN`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One exposure."""

    user: str
    name: str
    campaign: str
    ts: float
    answered: bool
    surface: str = "web"

    @property
    def measurable(self) -> bool:
        """Whether an answer could have been seen."""
        return self.surface != "radio"

    def events(self) -> Iterator[Event]:
        """What a producer sends of it."""
        ids = {"user_id": self.user, "impression_id": self.name}
        shown = {"campaign_id": self.campaign, "creative_id": f"{self.campaign}/a"}
        yield (
            "impressions",
            {"event_id": self.name, "ts": self.ts, "surface": self.surface, **ids, **shown},
        )
        if self.answered:
            click = {"event_id": f"{self.name}/click", "ts": self.ts + 5, "type": "click"}
            yield "engagements", {**click, **ids}


class Audience:
    """People and chance; the same in every run."""

    def __init__(self) -> None:
        self._chance = random.Random(11)
        self._rates = [RATE * self._chance.gammavariate(4, 1 / 4) for _ in range(PEOPLE)]
        self._count = 0

    def usual(self) -> list[Shown]:
        """Twelve days in which nothing is out of the ordinary."""
        found = []
        for person in range(PEOPLE):
            found += [self._show(person, STEADY, self._time(0, 12)) for _ in range(8)]
            found += [self._show(person, PLAIN, self._time(0, 12)) for _ in range(4)]
            begins = self._chance.uniform(0, 11)
            found += [
                self._show(person, WORN, self._time(begins + n, begins + n + 0.2), LEFT**n)
                for n in range(min(self._chance.randint(1, 8), int(12 - begins)))
            ]
        return found

    def ignoring(self) -> list[Shown]:
        """Three days in which nobody answers `STEADY` any more."""
        return [*self._of_steady(12, 15, 0.0), *self._after(17)]

    def answering(self) -> list[Shown]:
        """Three days in which they answer as before."""
        return [*self._of_steady(17, 20, 1.0), *self._after(22)]

    def on_radio(self) -> list[Shown]:
        """A day on which nearly everything is on the radio."""
        return [
            self._show(person, PLAIN, self._time(22, 23), 0.0, "radio")
            for person in range(PEOPLE)
            for _ in range(40)
        ]

    def seen_again(self) -> list[Shown]:
        """A day on which everything can be answered again."""
        return [
            self._show(person, STEADY, self._time(23, 24))
            for person in range(PEOPLE)
            for _ in range(10)
        ]

    def _of_steady(self, begin: float, end: float, left: float) -> list[Shown]:
        return [
            self._show(person, STEADY, self._time(begin, end), left) for person in range(PEOPLE)
        ]

    def _after(self, day: float) -> list[Shown]:
        """What makes everything before settle, in every partition."""
        return [self._show(person, PLAIN, self._time(day, day + 0.1)) for person in range(100)]

    def _time(self, begin: float, end: float) -> float:
        return round(T0 + self._chance.uniform(begin, end) * DAY, 3)

    def _show(
        self, person: int, campaign: str, ts: float, left: float = 1.0, surface: str = ""
    ) -> Shown:
        self._count += 1
        on_radio = campaign == PLAIN and self._chance.random() < ON_RADIO
        surface = surface or ("radio" if on_radio else "web")
        answered = surface != "radio" and self._chance.random() < self._rates[person] * left
        user = f"person {person}"
        return Shown(user, f"{user}/{self._count}", campaign, ts, answered, surface)


def events_of(shown: Iterable[Shown]) -> list[Event]:
    """In the order of their times."""
    events = chain.from_iterable(one.events() for one in shown)
    return sorted(events, key=lambda event: event[1]["ts"])
