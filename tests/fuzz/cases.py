"""Random policies and streams made to hurt: few people, ads and ids, so that rules fire and ids
clash; times that differ by exactly a window, give or take a tick; everything shuffled, some of it
delivered twice, cut into batches anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from governor.fatigue.curves import ALL, KNOTS, STRATA, Curve, CurveSet
from governor.fatigue.versions import Version
from governor.policy import Cap, Fatigue, Ignored, Policy, Reaction, Spacing, written

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND

Event = tuple[str, dict[str, Any]]
"""Which input topic, and the JSON object."""

CLOCK_CHANGES = (
    ("Europe/Berlin", 1_761_440_400),
    ("Europe/Berlin", 1_743_296_400),
    ("America/New_York", 1_762_063_200),
    ("America/Havana", 1_741_496_400),
    ("America/Havana", 1_762_059_600),
    ("America/Sao_Paulo", 1_541_300_400),
    ("Asia/Beirut", 1_743_285_600),
    ("Africa/Cairo", 1_745_532_000),
    ("Australia/Lord_Howe", 1_759_588_200),
    ("Pacific/Apia", 1_325_239_200),
    ("Asia/Kathmandu", 1_761_440_400),
)
"""Zones, and epoch seconds at which their clocks are set, most of them at midnight."""

WINDOWS = (MINUTE, 90 * SECOND, 10 * MINUTE, HOUR, 6 * HOUR, DAY)
CHANNELS = ("web", "ctv")
CAMPAIGNS = ("C1", "C1", "C2", "C3")
CATEGORIES = ("211", "Casinos & Gambling", "shoes")
ENGAGEMENTS = ("click", "conversion", "hide", "complaint", "dwell", "wave")


@dataclass(frozen=True)
class Features:
    """What a case has besides caps and spacings."""

    modifiers: bool = False
    calendar: bool = False
    reactions: bool = False
    controls: bool = False
    consent: bool = False
    ids: bool = False
    crowded: bool = False
    ties: bool = False
    widened: bool = False
    linked: bool = False
    erased: bool = False
    fatigue: bool = False
    restarted: bool = False
    """One person at a time, so that no row is two horizons behind and forgotten."""


@dataclass(frozen=True)
class Case:
    """A policy and a stream. ``batches`` is what arrives: events may recur in it."""

    seed: int
    features: Features
    policy: dict[str, Any]
    later: dict[str, Any] | None
    """The policy from half of the batches on."""
    horizon: int
    row_limit: int
    batches: tuple[tuple[Event, ...], ...]
    versions: tuple[Version | None, Version | None] = (None, None)
    """Curves from the beginning on, and others from half of the batches on."""
    changes: frozenset[int] = field(default_factory=frozenset)
    """Ticks at which clocks were set near this stream."""

    @property
    def events(self) -> list[Event]:
        """All of them, as often as they arrive."""
        return [event for batch in self.batches for event in batch]


def case(seed: int, features: Features, *, users: int = 12, most: int = 32) -> Case:
    """The case of a seed."""
    chance = random.Random(seed)
    policy = random_policy(chance, features)
    later = random_policy(chance, features) if features.widened else None
    if later is not None:
        # What was not taken in, or was over and let go, no later policy brings back.
        same = ("exclude", "consent", "controls")
        later |= {key: policy[key] for key in same if key in policy}
    policies = [Policy.model_validate(each) for each in (policy, later) if each is not None]
    longest = max(looks_back(each) for each in policies)
    horizon = longest + chance.choice((0, 1, MINUTE, longest))
    changes = chance.sample(CLOCK_CHANGES, 1) if features.calendar else []
    at = (changes[0][1] if changes else 1_750_000_000 + chance.randrange(10**6)) * SECOND
    steps = sorted(_steps(policies, horizon))
    events: list[Event] = []
    for user in range(1 if features.restarted else chance.randint(1, users)):
        events += _person(chance, f"u{user}", at, steps, features, changes, chance.randint(1, most))
    arrivals = events + chance.choices(events, k=len(events) // 8)
    if not features.linked and chance.random() < 0.8:
        chance.shuffle(arrivals)
    batches = []
    while arrivals:
        size = chance.randint(1, len(arrivals))
        batches.append(tuple(arrivals[:size]))
        arrivals = arrivals[size:]
    row_limit = chance.choice((2, 3, 5, 8)) if features.crowded else 128
    return Case(
        seed,
        features,
        policy,
        later,
        horizon,
        row_limit,
        tuple(batches),
        _versions(chance, at) if features.fatigue else (None, None),
        frozenset(change * SECOND for _, change in changes),
    )


# --- Policies -----------------------------------------------------------------------------------


def random_policy(chance: random.Random, features: Features) -> dict[str, Any]:
    """A policy as a file says it; pointless rules and all."""
    rules = [_rule(chance, f"r{i}", features) for i in range(chance.randint(1, 6))]
    policy: dict[str, Any] = {"version": "fuzz", "rules": rules}
    if features.modifiers:
        policy["ads"] = [_item(chance) for _ in range(chance.randint(1, 2))]
        if chance.random() < 0.5:
            policy["sensitive"] = {
                "categories": ["Alcoholic Beverages", "181"],
                "multiplier": chance.choice((1.5, 2, 3)),
            }
        policy["shadow"] = chance.random() < 0.1
        policy["exclude"] = {"ids": ["u3"], "prefixes": ["h3"]}
        policy["holdout"] = {"share": 0.3, "ungoverned": 0.1, "salt": str(chance.random())}
    if features.calendar:
        policy["timezone"] = chance.choice(("UTC", "Europe/Berlin", "America/Havana"))
    if features.reactions:
        policy["attribution"] = [_attribution(chance) for _ in range(chance.randint(1, 3))]
        policy["lifecycle"] = {
            "engaged": written(chance.choice(WINDOWS)),
            "customer": written(chance.choice(WINDOWS)),
        }
    if features.controls:
        policy["controls"] = {
            "less_often": written(chance.choice(WINDOWS)),
            "hide": written(chance.choice(WINDOWS)),
        }
    if features.consent:
        policy["consent"] = {"required": chance.random() < 0.2}
    return policy


def _rule(chance: random.Random, name: str, features: Features) -> dict[str, Any]:
    per = ["user", "campaign", "creative", "promo"]
    per += ["campaign x channel", "channel x promo x campaign", "category"] * features.modifiers
    rule: dict[str, Any] = {"name": name, "per": chance.choice(per)}
    kinds = ["cap", "cap", "spacing"] + ["reaction", "ignored", "ignored"] * features.reactions
    kinds += ["fatigue"] * 8 * features.fatigue
    kind = chance.choice(kinds)
    if kind == "cap":
        rule["cap"] = chance.randint(1, 4)
        if features.calendar and chance.random() < 0.7:
            rule["calendar"] = chance.choice(("day", "day", "week", "month"))
        else:
            rule["window"] = written(chance.choice(WINDOWS))
    elif kind == "spacing":
        rule["spacing"] = written(chance.choice((SECOND, 10 * SECOND, MINUTE, HOUR)))
    elif kind == "fatigue":
        floor = chance.choice((0.2, 0.4, 0.7))
        rule["fatigue"] = {"floor": floor, "probability": chance.choice((0.51, 0.7, 0.9))}
        if chance.random() < 0.5:
            rule["fatigue"]["full"] = floor + 0.25
    elif kind == "reaction":
        rule |= {"reaction": chance.choice(ENGAGEMENTS), "rest": written(chance.choice(WINDOWS))}
    else:
        rule["reaction"] = {
            "ignored": chance.randint(1, 3),
            "within": written(chance.choice(WINDOWS)),
            "levels": chance.randint(1, 3),
        }
        rule["rest"] = written(chance.choice(WINDOWS))
    if features.modifiers:
        _modify(chance, rule, kind)
    match = rule.setdefault("match", {})
    if features.reactions and chance.random() < 0.25:
        states = ("prospect", "engaged", "customer", "lapsed")
        match["lifecycle"] = chance.sample(states, chance.randint(1, 3))
    if not match:
        del rule["match"]
    if features.ids and chance.random() < 0.5:
        rule["id"] = "household"
    return rule


def _modify(chance: random.Random, rule: dict[str, Any], kind: str) -> None:
    if kind != "reaction" and chance.random() < 0.3:
        rule["count"] = "viewable"
    if chance.random() < 0.3:
        key, values = chance.choice(
            (("channel", CHANNELS), ("campaign", ("C1", "C2")), ("promo", ("spring",)))
        )
        rule["match"] = {key: chance.sample(values, chance.randint(1, len(values)))}
    rule["shadow"] = chance.random() < 0.2


def _attribution(chance: random.Random) -> dict[str, Any]:
    item: dict[str, Any] = {"window": written(chance.choice(WINDOWS))}
    if chance.random() < 0.7:
        item["type"] = chance.sample(ENGAGEMENTS, chance.randint(1, 2))
    if chance.random() < 0.5:
        item["match"] = {"campaign": chance.sample(sorted(set(CAMPAIGNS)), 2)}
    return item


def _item(chance: random.Random) -> dict[str, Any]:
    match = chance.choice(
        ({"channel": ["ctv"]}, {"campaign": ["C1", "C3"]}, {"promo": ["spring"]}, {"x": ["y"]})
    )
    says = chance.choice(
        (
            {"weight": chance.choice((0.33, 0.5, 1.5, 2, 3))},
            {"weight": 0.5, "measurable": False},
            {"measurable": False},
            {"priority": "always"},
        )
    )
    return {"match": match, **says}


def _versions(chance: random.Random, at: int) -> tuple[Version, Version | None]:
    return _version(chance, at), _version(chance, at) if chance.random() < 0.5 else None


def _version(chance: random.Random, at: int) -> Version:
    """Curves of some campaigns, creatives and categories, most of which decline."""
    labels = [f"campaign:{each}" for each in sorted(set(CAMPAIGNS))]
    labels += ["creative:A", "creative:B", *(f"category:{each}" for each in CATEGORIES)]
    curves = {label: _curve(chance, label) for label in labels if chance.random() < 0.6}
    curves[ALL] = _curve(chance, ALL)
    category_of = {"campaign:C1": "category:shoes"} if chance.random() < 0.5 else {}
    ages = (0, MINUTE, HOUR, DAY)
    return Version(
        CurveSet(at, 30 * DAY, curves, category_of, {}, ages, (0.1, 0.4, 0.9, 1.0)),
        at - chance.choice((0, HOUR, 2 * DAY, 30 * DAY)),
    )


def _curve(chance: random.Random, label: str) -> Curve:
    slope = chance.choice((0.0, -0.3, -0.6, -1.0))
    level = [slope * knot * chance.uniform(0.7, 1.1) for knot in KNOTS]
    edges = sorted(chance.uniform(0.01, 4) for _ in range(STRATA - 2))
    return Curve(
        label=label,
        base=tuple(chance.uniform(0.01, 0.6) for _ in range(STRATA)),
        edges=tuple(edges),
        shape=chance.choice((0.4, 1.0, 3.0)),
        recovery=chance.choice((0, MINUTE, HOUR, DAY)),
        level=tuple(level),
        spread=tuple(min(knot, 1.0) * chance.choice((0.01, 0.1, 0.3)) for knot in KNOTS),
        exposures=1e4,
        engagements=1e3,
        people=1000,
        coverage=1.0,
        identified=chance.random() < 0.85,
        worth=chance.choice((0.6, 20.0, 20.0)),
    )


def looks_back(policy: Policy) -> int:
    """The history, in ticks, that a policy's rules need."""
    times = policy.sensitive.multiplier if policy.sensitive else 100
    longest = 0
    for rule in policy.rules:
        if isinstance(rule, Cap):
            longest = max(longest, rule.window)
        if isinstance(rule, Spacing):
            longest = max(longest, rule.window * times // 100)
        if isinstance(rule, Reaction):
            longest = max(longest, rule.rest * times // 100)
        if isinstance(rule, Ignored):
            rest = (rule.rest << (rule.levels - 1)) * times // 100
            longest = max(longest, rule.within + rest)
        if isinstance(rule, Fatigue):
            longest = max(longest, 9 * DAY)
        if rule.lifecycle:
            longest = max(longest, policy.lifecycle.engaged, policy.lifecycle.customer)
    return longest


def _steps(policies: list[Policy], horizon: int) -> set[int]:
    """Differences of time at which something may turn."""
    steps = {1, 2, SECOND, 10 * SECOND, MINUTE, horizon - 1, horizon, horizon + 1}
    for policy in policies:
        for rule in policy.rules:
            for name in ("window", "rest", "within"):
                at = getattr(rule, name, 0)
                steps |= {at - 1, at, at + 1} if at else set()
        for item in policy.attribution:
            steps |= {item.window - 1, item.window, item.window + 1}
        for at in (policy.controls.less_often, policy.controls.hide, policy.lifecycle.engaged):
            steps |= {at - 1, at, at + 1} if at <= horizon else set()
    return steps


# --- Streams ------------------------------------------------------------------------------------


def _person(
    chance: random.Random,
    user: str,
    at: int,
    steps: list[int],
    features: Features,
    changes: list[tuple[str, int]],
    count: int,
) -> list[Event]:
    """Events of one person, some of them near a change of clocks."""
    times = [at + chance.choice(steps)]
    events: list[Event] = []
    taken: set[int] = set()
    small = [step for step in steps if step <= HOUR] or steps
    for i in range(count):
        ts = chance.choice(times) + chance.choice(steps if chance.random() < 0.3 else small)
        if changes and chance.random() < 0.6:
            ts = at + chance.choice((-1, 1)) * chance.randrange(2 * DAY)
            ts += chance.choice((0, 0, -(ts % DAY), -(ts % HOUR)))
        while ts in taken and not features.ties:
            ts += 1
        if features.ties and len(taken) > 3 and chance.random() < 0.05:
            ts = chance.choice(sorted(taken))
        taken.add(ts)
        times = [*times[-6:], ts]
        events.append(_event(chance, f"{user}-{i}", user, ts, features, changes, events))
    return events


def _event(
    chance: random.Random,
    event_id: str,
    user: str,
    ts: int,
    features: Features,
    changes: list[tuple[str, int]],
    before: list[Event],
) -> Event:
    if before and chance.random() < 0.05:
        event_id = chance.choice(before)[1]["event_id"]
    event: dict[str, Any] = {"event_id": event_id, "user_id": user, "ts": _seconds(ts)}
    topics = ["impression"] * 6 + ["engagement"] * (4 if features.reactions else 1)
    topics += ["control"] * (3 if features.controls else 0)
    topics += ["statement"] * features.consent + ["erase"] * features.erased
    topic = chance.choice(topics)
    if features.ids and chance.random() < 0.6:
        event["ids"] = {"household": chance.choice(("h1", "h2", "h3"))}
    if features.calendar and chance.random() < 0.2:
        zone = chance.choice((changes[0][0], changes[0][0], "Asia/Tokyo", "Mars/Base"))
        event["tz"] = zone
    if topic == "impression":
        return topic, event | _impression(chance, user, features)
    if topic == "engagement":
        return topic, event | _engagement(chance, user, before)
    event.pop("ids", None)
    if topic == "statement":
        return "control", event | {"type": "consent", "consent": _consent(chance)}
    if topic == "erase":
        back = chance.choice((0, 1, MINUTE, HOUR))
        return "control", event | {"type": "erase", "ts": _seconds(ts - back)}
    kind = chance.choice(("opt_out", "opt_in", "less_often", "less_often", "hide"))
    label = chance.choice(("campaign:C1", "campaign:C1", "promo:spring", "creative:A"))
    if kind != "hide" and chance.random() < 0.3:
        return "control", event | {"type": kind}
    if chance.random() < 0.1:
        return "control", event | {"type": kind, "campaign_id": "C1", "channel": "web"}
    return "control", event | {"type": kind, "label": label}


def _consent(chance: random.Random) -> dict[str, Any]:
    return {"retargeting": chance.random() < 0.6}


def _impression(chance: random.Random, user: str, features: Features) -> dict[str, Any]:
    fields: dict[str, Any] = {"campaign_id": chance.choice(CAMPAIGNS)}
    optional: dict[str, tuple[Any, ...]] = {
        "impression_id": (None, None, f"{user}-i1", f"{user}-i2", f"{user}-i3"),
        "creative_id": (None, "A", "B"),
        "labels": (None, None, {}, {"promo": "spring"}, {"promo": "autumn", "x": "y"}),
        "kind": (None, None, "loaded", "viewable", "viewable"),
    }
    if features.modifiers:
        optional["channel"] = (None, *CHANNELS)
        optional["category"] = (None, *CATEGORIES)
        optional["segment"] = (None, None, "young")
        optional["measurable"] = (None, None, None, False)
        optional["invalid"] = (None,) * 20 + (True,)
    if features.consent:
        optional["retargeting"] = (None, True)
        optional["consent"] = (None,) * 12 + (_consent(chance),)
    drawn = {name: chance.choice(values) for name, values in optional.items()}
    return fields | {name: value for name, value in drawn.items() if value is not None}


def _engagement(chance: random.Random, user: str, before: list[Event]) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": chance.choice(ENGAGEMENTS)}
    if chance.random() < 0.6:
        fields["impression_id"] = f"{user}-i{chance.randint(1, 4)}"
    if "impression_id" not in fields or chance.random() < 0.3:
        fields["campaign_id"] = chance.choice(CAMPAIGNS)
        if chance.random() < 0.3:
            fields["creative_id"] = chance.choice(("A", "B"))
        if chance.random() < 0.2:
            fields["category"] = chance.choice(CATEGORIES)
    return fields


def _seconds(ticks: int) -> int | float:
    return ticks // SECOND if ticks % SECOND == 0 else ticks / SECOND
