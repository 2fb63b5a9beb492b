"""What is said of two rules of which one makes the other pointless, held against their definitions.

Refused: whenever the pointless one rests a label, so does the other, whatever is shown. Warned
about: so it is as long as nothing is shown that the other holds back.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from governor.oracle import Oracle
from governor.policy import Policy, PolicyError, load

SECOND = 1_000_000
DAY = 86_400 * SECOND
TIMES = ("1m", "2m", "10m", "1h", "3h", "1d", "2d", "7d")
STEPS = (1, SECOND, 60 * SECOND, 120 * SECOND, 600 * SECOND, 3600 * SECOND, DAY)
CLOCK_CHANGE = 1_761_350_000 * SECOND
"""The day before clocks are set back in Berlin."""


def random_rule(chance: random.Random, name: str, kind: str, per: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"name": name, "per": per}
    if kind == "cap":
        rule |= {"cap": chance.randint(1, 4), "window": chance.choice(TIMES)}
    elif kind == "calendar":
        period = chance.choice(("day", "week", "month"))
        rule |= {"cap": chance.randint(1, 6), "calendar": period}
    elif kind == "spacing":
        rule["spacing"] = chance.choice(TIMES)
    elif kind == "reaction":
        rule |= {"reaction": chance.choice(("click", "visit")), "rest": chance.choice(TIMES)}
    else:
        ignored = {"ignored": chance.randint(1, 2), "within": "1m", "levels": chance.randint(1, 3)}
        rule |= {"reaction": ignored, "rest": chance.choice(TIMES)}
    if kind != "reaction" and chance.random() < 0.3:
        rule["count"] = "viewable"
    return rule


def random_policy(chance: random.Random) -> dict[str, Any]:
    kinds = ("cap", "calendar", "spacing", "reaction", "ignored")
    kind = chance.choice(kinds)
    per = chance.choice(("user", "campaign", "creative", "campaign x creative"))
    other = chance.choice((kind, *kinds)), chance.choice((per, per, "campaign x creative"))
    policy: dict[str, Any] = {
        "rules": [random_rule(chance, "a", kind, per), random_rule(chance, "b", *other)],
        "timezone": chance.choice(("UTC", "Europe/Berlin")),
    }
    if chance.random() < 0.4:
        weight = chance.choice((0.33, 0.5, 2, 3))
        policy["ads"] = [{"match": {"campaign": "C1"}, "weight": weight}]
    if chance.random() < 0.3:
        policy["sensitive"] = {"categories": ["211"], "multiplier": chance.choice((1.5, 2, 4))}
    return policy


def said_of(policy: dict[str, Any]) -> tuple[str, bool] | None:
    """Which of the two is called pointless, and whether it was refused."""
    try:
        told, refused = load(json.dumps(policy)).warnings, False
    except PolicyError as error:
        told, refused = tuple(error.mistakes), True
    names = [one.message.split()[0] for one in told if " fire" in one.message]
    return (names[0], refused) if names else None


class Ruled:
    """One rule of a policy, and what it rests."""

    def __init__(self, policy: dict[str, Any], name: str) -> None:
        rules = [rule for rule in policy["rules"] if rule["name"] == name]
        alone = Policy.model_validate(policy | {"rules": rules})
        self.oracle = Oracle(alone, horizon=400 * DAY, row_limit=500)

    def add(self, topic: str, event: dict[str, Any]) -> None:
        assert self.oracle.add(topic, event) is None

    def resting(self, now: int) -> list[dict[str, str]]:
        """Labels at rest, each as its dimensions with their values."""
        decision = self.oracle.decide("u") or {"throttles": []}
        return [
            dict(part.split(":") for part in each["label"].split(" x ") if part != "user")
            for each in decision["throttles"]
            if each["from"] <= now / SECOND < each["until"]
        ]


def stream(chance: random.Random) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Times, topics and events; some a tick before or after what they could be about."""
    now = CLOCK_CHANGE + chance.randrange(2 * DAY)
    for i in range(20):
        now += chance.choice(STEPS) + chance.choice((-1, 0, 0, 1))
        labels = {"campaign_id": chance.choice(("C1", "C2")), "creative_id": chance.choice("AB")}
        event = {"event_id": str(i), "user_id": "u", "ts": now / SECOND, **labels}
        if chance.random() < 0.25:
            yield now, "engagement", event | {"type": chance.choice(("click", "visit"))}
        else:
            kind = chance.choice(("viewable", "viewable", "impression"))
            category = "211" if labels["creative_id"] == "A" else "shoes"
            yield now, "impression", event | {"kind": kind, "category": category}


@pytest.mark.parametrize("seed", range(8))
def test_a_rule_that_is_called_pointless_never_rests_a_label_alone(seed: int) -> None:
    chance = random.Random(seed)
    judged = 0
    while judged < 10:
        policy = random_policy(chance)
        said = said_of(policy)
        if said is None:
            continue
        judged += 1
        pointless, refused = said
        lax, strict = Ruled(policy, pointless), Ruled(policy, "ab".replace(pointless, ""))
        for now, topic, event in stream(chance):
            clock = {"event_id": f"at-{now}", "user_id": "u", "ts": now / SECOND, "type": "opt_in"}
            for each in (lax, strict):
                each.add("control", clock)
            held = strict.resting(now)
            for labels in lax.resting(now):
                assert any(one.items() <= labels.items() for one in held), (policy, now)
            ad = {"campaign": event["campaign_id"], "creative": event["creative_id"]}
            shown = topic == "impression"
            if refused or not shown or not any(one.items() <= ad.items() for one in held):
                for each in (lax, strict):
                    each.add(topic, event)
