"""``governor traffic``: an ad server and its audience, made up, for a deployment to be tried with.

A person comes, as often as they do (few come often, most seldom), and the server has an ad of one
of the few campaigns that follow this person. It asks `streams.client` whether the ad may be shown,
as a real one would, and obeys but for a share of times; what is shown may be clicked, the less
the more often this person has seen the campaign. All events are of now.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaProducer

from streams import topics
from streams.client import Client
from streams.settings import Settings

__all__ = ["Audience", "Occasion", "Totals", "send"]

FOLLOWING = 3
"""Campaigns that follow one person."""
TICK = 0.05
SAID_EVERY = 5.0
_CLICKED = 0.05
_WEAR = 0.8
"""What an ad's appeal is multiplied by with each exposure."""
_BOUGHT = 0.1
"""Share of clicks that end in a purchase."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """A place for an ad in front of a person."""

    user: str
    campaign: int
    chance: float
    """In [0, 1): how easily this one clicks; lower is easier."""

    @property
    def labels(self) -> dict[str, str]:
        """Of the ad."""
        return {
            "campaign": f"campaign-{self.campaign}",
            "creative": f"creative-{self.campaign}",
            "advertiser": f"advertiser-{self.campaign % 10}",
            "category": f"IAB{self.campaign % 26 + 1}",
            "channel": "display",
        }


class Audience:
    """People who come, the same in every run with the same seed.

    Args:
        users: how many there are.
        campaigns: how many there are; `FOLLOWING` of them follow each person.
        seed: of all chances.
    """

    def __init__(self, users: int, campaigns: int, seed: int = 1) -> None:
        self._users = users
        self._campaigns = campaigns
        self._rng = np.random.default_rng(seed)

    def occasions(self, count: int) -> Iterator[Occasion]:
        """The next ``count``."""
        # A cubed uniform number: a tenth of the people make half of the visits.
        who = (self._rng.random(count) ** 3 * self._users).astype(np.int64)
        which = self._rng.integers(0, FOLLOWING, count)
        for user, slot, chance in zip(who, which, self._rng.random(count), strict=True):
            campaign = int(user * 31 + slot * 17) % self._campaigns
            yield Occasion(f"user-{user}", campaign, float(chance))


@dataclass
class Totals:
    """What has happened so far."""

    counted: Counter[str] = field(default_factory=Counter)
    """Occasions shown, held_back and defied (shown although it said stop), clicks, purchases."""
    seen: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Exposures, by user and campaign."""

    def __str__(self) -> str:
        names = ("shown", "held_back", "defied", "clicks", "purchases")
        return ", ".join(f"{self.counted[name]:,} {name.replace('_', ' ')}" for name in names)


async def send(
    settings: Settings,
    audience: Audience,
    rate: float,
    seconds: float | None,
    defiance: float,
    say: Callable[[str], None],
) -> Totals:
    """Send events until the time is over, or for ever.

    Args:
        settings: where Kafka is.
        audience: who comes.
        rate: occasions a second.
        seconds: how long; None for ever.
        defiance: share of refused occasions that are used all the same.
        say: is told the totals every few seconds.

    Raises:
        LookupError: there are no topics: no worker has been started yet.
    """
    totals = Totals()
    rng = np.random.default_rng(2)
    connection = topics.connection(settings)
    producer = AIOKafkaProducer(**connection, acks="all", linger_ms=20, enable_idempotence=True)
    async with Client(topic_prefix=settings.topic_prefix, **connection) as client, producer:
        began = told = time.monotonic()
        done = 0
        while seconds is None or time.monotonic() - began < seconds:
            due = int((time.monotonic() - began) * rate) - done
            for occasion in audience.occasions(due):
                await _serve(occasion, client, producer, settings, totals, rng.random() < defiance)
            done += due
            if time.monotonic() - told >= SAID_EVERY:
                told = time.monotonic()
                say(str(totals))
            await asyncio.sleep(TICK)
        await producer.flush()
    return totals


async def _serve(
    occasion: Occasion,
    client: Client,
    producer: AIOKafkaProducer,
    settings: Settings,
    totals: Totals,
    defiant: bool,
) -> None:
    """Show an ad, or not, and send what comes of it."""
    now = time.time()
    if not client.allowed({"user": occasion.user}, occasion.labels, now).allowed:
        totals.counted["defied" if defiant else "held_back"] += 1
        if not defiant:
            return
    depth = totals.seen[occasion.user, occasion.campaign]
    totals.seen[occasion.user, occasion.campaign] += 1
    totals.counted["shown"] += 1
    shown = f"{occasion.user}-{occasion.campaign}-{now:.6f}"
    labels = {f"{name}_id" if name in _IDS else name: at for name, at in occasion.labels.items()}
    impression = {"event_id": shown, "impression_id": shown, "ts": now, "surface": "web", **labels}
    await _write(producer, settings.topic("impressions"), occasion.user, impression)
    appeal = _CLICKED * _WEAR**depth
    for kind, counted, share in (("click", "clicks", 1.0), ("conversion", "purchases", _BOUGHT)):
        if occasion.chance < appeal * share:
            totals.counted[counted] += 1
            answer = {"event_id": f"{shown}-{kind}", "impression_id": shown, "type": kind}
            await _write(
                producer,
                settings.topic("engagements"),
                occasion.user,
                {**answer, "ts": now + 0.001, **labels},
            )


_IDS = ("campaign", "creative", "advertiser")


async def _write(
    producer: AIOKafkaProducer, topic: str, user: str, event: dict[str, object]
) -> None:
    value = json.dumps({**event, "user_id": user}).encode()
    await producer.send(topic, value, key=user.encode())
