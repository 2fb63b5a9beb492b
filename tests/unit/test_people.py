"""Homes of several partitions against the definitions of links and erasures, on random streams."""

from __future__ import annotations

import random
from typing import Any

import pytest

from governor.oracle import TooManyOrdersError, compare
from governor.oracle.people import People
from governor.policy import load
from tests.invariants import DAY, T0
from tests.unit.test_home import POLICY, Cluster, Event, control, shown

ORACLE_TOPICS = {"impressions": "impression", "engagements": "engagement", "controls": "control"}
USERS = "abcde"


def people() -> People:
    return People(load(POLICY), horizon=30 * DAY, row_limit=128)


def agree(cluster: Cluster, expected: People) -> None:
    """Every id's decision is one that the definitions admit, and so is what it has become."""
    keys = {*expected.oracle.rows, *expected.links, *USERS, "household\0h", "device\0d"}
    for key in keys:
        link = cluster.home(key).gate.redirects.get(key.encode())
        known = expected.links.get(key)
        assert (link and link.to.decode()) == (known and known.to), key
        actual = cluster.home(key).ledger.decide(key)
        try:
            answers = expected.oracle.admissible(key)
        except TooManyOrdersError:
            continue
        assert any(compare(answer, actual) == [] for answer in answers), (
            key, actual, answers,
        )  # fmt: skip


def stream(rng: random.Random, count: int, kinds: tuple[str, ...]) -> list[Event]:
    """Events of five people, some of whom become others; all times differ."""
    events: list[Event] = []
    for n in rng.sample(range(4 * count), count):
        user, kind = rng.choice(USERS), rng.choice(kinds)
        if kind == "shown":
            ids: dict[str, Any] = {"ids": {"household": "h", "device": "d"}}
            events.append(shown(user, n, **(ids if rng.random() < 0.3 else {})))
        elif kind == "link":
            events.append(control("link", user, T0 + n, to=rng.choice(USERS)))
        elif kind == "erase":
            named = {"ids": {"household": "h"}} if rng.random() < 0.3 else {}
            events.append(control("erase", user, T0 + n - rng.choice((0, 0, 3, 20)), **named))
        elif kind == "consent":
            stated = {"consent": {"retargeting": rng.random() < 0.5}}
            events.append(control("consent", user, T0 + n, **stated))
        else:
            events.append(control(kind, user, T0 + n, label="campaign:C"))
    return events


SAID = ("shown", "shown", "shown", "link", "opt_out", "opt_in", "less_often", "hide")


@pytest.mark.parametrize("seed", range(120))
def test_links_erasures_and_consent_do_what_their_definitions_say(seed: int) -> None:
    """Events come to any partition, each when all that came of the one before is done."""
    rng = random.Random(seed)
    cluster, expected = Cluster(), people()
    events = stream(rng, rng.randint(5, 40), (*SAID, "erase", "consent"))
    events += rng.sample(events, len(events) // 3)
    for event in events:
        cluster.give(rng.randrange(3), event)
        cluster.settle(rng.choice)
        assert expected.add(ORACLE_TOPICS[event[0]], event[1]) is None
    agree(cluster, expected)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_still_under_way_does_not_matter_to_links(seed: int) -> None:
    """Of ids that are linked once, though it be in a circle, the set of events alone decides."""
    rng = random.Random(seed)
    cluster, expected = Cluster(), people()
    linked: set[str] = set()
    events: list[Event] = []
    for event in stream(rng, rng.randint(5, 40), SAID):
        if event[1].get("type") == "link" and event[1]["user_id"] in linked:
            continue
        linked |= {event[1]["user_id"]} if event[1].get("type") == "link" else set()
        events.append(event)
    for topic, content in events:
        expected.add(ORACLE_TOPICS[topic], content)
    rng.shuffle(events)
    for event in events:
        cluster.give(rng.randrange(3), event)
        while rng.random() < 0.5:
            cluster.step(rng.choice)
    cluster.settle(rng.choice)
    agree(cluster, expected)
