"""Events of people who come and go, with all that producers do to them on the way.

At any time some tens of thousands of people are about; every twenty events one goes and another
comes. Most events are impressions; some show the same impression again (viewable), some are
engagements and controls, a few are sent twice. Time passes by `step` an event. The same seed gives
the same events.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from aiokafka.partitioner import murmur2

__all__ = ["POLICY", "Crowd", "Event"]

POLICY = """
rules:
  - {name: user-hourly, cap: 12, per: user, window: 1h}
  - {name: campaign-burst, cap: 2, per: campaign, window: 10m}
  - {name: campaign-hourly, cap: 3, per: campaign, window: 1h}
  - {name: creative-spacing, spacing: 5m, per: creative}
  - {name: hidden, reaction: hide, per: creative, rest: 30m}
  - {name: unanswered, reaction: {ignored: 4, within: 5m, levels: 3}, per: campaign, rest: 20m}
controls: {less_often: 1h, hide: 30m}
"""

WORDS = ("less_often", "hide", "opt_out", "opt_in")
"""What people say, if a crowd is not told otherwise."""
EVENTS_A_PERSON = 20
SENT_TWICE = 0.02
REMEMBERED = 20_000


class Event(NamedTuple):
    """A record to be sent; time in milliseconds."""

    topic: str
    key: bytes
    value: bytes
    timestamp: int


class Crowd:
    """Draws events.

    Args:
        seed: of all that is random.
        about: people who are about at one time.
        start: epoch seconds of the first event.
        step: seconds from one event to the next.
        words: the types of its controls.
    """

    def __init__(
        self,
        seed: int,
        *,
        about: int,
        start: float,
        step: float,
        words: Sequence[str] = WORDS,
    ) -> None:
        self._random = random.Random(seed)
        self._about = about
        self._start = start
        self._step = step
        self._words = words
        self._number = 0
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._shown: deque[tuple[int, int, int]] = deque(maxlen=1000)

    @property
    def now(self) -> float:
        """Epoch seconds of the next event."""
        return self._start + self._number * self._step

    def draw(self, count: int) -> list[Event]:
        """The next events, in the order in which they happened."""
        drawn = []
        for _ in range(count):
            event = self._next()
            drawn.append(event)
            self._recent.append(event)
            if self._random.random() < SENT_TWICE:
                drawn.append(self._random.choice(self._recent))
        return drawn

    def again(self, count: int) -> list[Event]:
        """Events that were drawn before, to be sent again."""
        return self._random.sample(self._recent, min(count, len(self._recent)))

    def shuffled(self, events: Iterable[Event]) -> list[Event]:
        """In an order of no meaning."""
        mixed = list(events)
        self._random.shuffle(mixed)
        return mixed

    def _next(self) -> Event:
        rng, number = self._random, self._number
        self._number += 1
        ts = self._start + number * self._step + rng.random() * self._step
        user = number // EVENTS_A_PERSON + rng.randrange(self._about)
        campaign = rng.randrange(8)
        kind = rng.random()
        if kind < 0.82 or not self._shown:
            self._shown.append((number, user, campaign))
            return self._impression(f"e{number}", number, user, campaign, ts, "impression")
        if kind < 0.90:
            shown, user, campaign = rng.choice(self._shown)
            return self._impression(f"e{number}", shown, user, campaign, ts, "viewable")
        if kind < 0.99:
            shown, user, campaign = rng.choice(self._shown)
            word = rng.choice(("click", "dwell", "visit", "hide"))
            value = (
                f'{{"event_id":"e{number}","user_id":"user-{user}","ts":{ts:.6f},'
                f'"type":"{word}","impression_id":"i{shown}","campaign_id":"C{campaign}"}}'
            )
            return _event("engagements", user, value, ts)
        word = rng.choice(self._words)
        value = (
            f'{{"event_id":"e{number}","user_id":"user-{user}","ts":{ts:.6f},'
            f'"type":"{word}","label":"campaign:C{campaign}"}}'
        )
        return _event("controls", user, value, ts)

    def _impression(
        self, event_id: str, shown: int, user: int, campaign: int, ts: float, kind: str
    ) -> Event:
        value = (
            f'{{"event_id":"{event_id}","user_id":"user-{user}","ts":{ts:.6f},'
            f'"campaign_id":"C{campaign}","creative_id":"C{campaign}-{shown % 3}",'
            f'"impression_id":"i{shown}","advertiser_id":"A{campaign % 3}","kind":"{kind}",'
            '"channel":"display"}'
        )
        return _event("impressions", user, value, ts)


def _event(topic: str, user: int, value: str, ts: float) -> Event:
    return Event(topic, b"user-%d" % user, value.encode(), int(ts * 1000))


@lru_cache(maxsize=1 << 20)
def home(key: bytes, partitions: int) -> int:
    """Where Kafka's own partitioner puts a key."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions
