"""Events of many users, with all that producers do to them on the way."""

from __future__ import annotations

import random
from typing import Any

from tests.integration.deployment import HOUR, MINUTE, Event
from tests.oracle import Rule

T0 = 1_790_000_000
"""Epoch seconds at which the events begin."""

RULES = (
    Rule("user-hourly", "cap", 12, HOUR, "user"),
    Rule("campaign-hourly", "cap", 3, HOUR, "campaign"),
    Rule("campaign-burst", "cap", 2, 10 * MINUTE, "campaign"),
    Rule("creative-spacing", "spacing", 1, 5 * MINUTE, "creative"),
    Rule("placement-hourly", "cap", 4, HOUR, "placement"),
)

SPAN = 40 * 60
"""Seconds from the first event to the last: less than the hour after which a decision that has
run out by the newest event may go from the topic."""


def scenario(seed: int, *, users: int = 300, events: int = 4000) -> list[Event]:
    """Events in an order and number in which they may be delivered.

    Engagements and controls among them; duplicates, late ones, events of one exposure in three
    kinds, and two contents under one event id.
    """
    rng = random.Random(seed)
    found: list[Event] = []
    for n in range(events):
        user = f'user {seed}/{rng.randrange(users)} é"\\'
        event: dict[str, Any] = {
            "event_id": f"{seed}-{n}",
            "user_id": user,
            "ts": T0 + round(rng.uniform(0, SPAN), rng.choice((0, 3, 6, 6, 6))),
        }
        kind = rng.choices(("impressions", "engagements", "controls"), (8, 2, 1))[0]
        campaign = rng.randrange(6)
        if kind == "controls":
            event["type"] = rng.choice(("opt_out", "opt_in", "less_often", "consent"))
            event["label"] = f"campaign:C{campaign}"
        else:
            event["campaign_id"] = f"C{campaign}"
            event["creative_id"] = f"C{campaign}-{rng.randrange(3)}"
        if kind == "engagements":
            event["type"] = rng.choice(("click", "dwell", "hide", "wave"))
        if kind == "impressions":
            _vary(rng, event)
        found.append((kind, event))
        if kind == "impressions" and rng.random() < 0.1:
            found.append((kind, event | _twin(rng, event)))
    found += rng.sample(found, len(found) // 10)
    rng.shuffle(found)
    return found


def _twin(rng: random.Random, event: dict[str, Any]) -> dict[str, Any]:
    """What makes of an event another that counts as the same. Ties of time are rare, as the
    oracle tries all orders of them."""
    if rng.random() < 0.1:
        return {"campaign_id": "C6"}
    later = {"ts": round(event["ts"] + rng.uniform(0.001, 2), 6)}
    if rng.random() < 0.5:
        return later
    return later | {"kind": "viewable", "event_id": f"{event['event_id']}-viewable"}


def _vary(rng: random.Random, event: dict[str, Any]) -> None:
    if rng.random() < 0.5:
        event["impression_id"] = f"shown {event['event_id']}"
    if rng.random() < 0.3:
        event["labels"] = {"placement": rng.choice(("top", "side")), "site": "news"}
    if rng.random() < 0.2:
        event |= {"advertiser_id": "A", "category": "shoes", "retargeting": True, "extra": [1]}
