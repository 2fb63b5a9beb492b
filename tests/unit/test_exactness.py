"""The compiled ledger against the oracle, on streams made to hurt.

Few users, ads and ids, so that caps fire and ids clash; times that differ by exactly a window,
give or take a tick; engagements and controls among the exposures; all of it shuffled, some of it
delivered twice, cut into batches anywhere. ``HYPOTHESIS_PROFILE=fuzz`` looks much longer.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from tests import oracle
from tests.invariants import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    Engine,
    Event,
    answers_as_oracle,
    is_admissible,
    order_does_not_matter,
    replay_changes_nothing,
    survives_restart,
    topic_says_what_is_decided,
    until_is_never_earlier,
)
from tests.oracle import SECOND, Oracle, Rule, TooManyOrdersError

MANY = settings(
    max_examples=10_000 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEWER = settings(MANY, max_examples=MANY.max_examples // 2)

PER = ("user", "campaign", "creative", "promo")
WINDOWS = (MINUTE, MINUTE + 1, 90 * SECOND, 5 * MINUTE)
DISTANCES = (SECOND, 10 * SECOND, MINUTE)
START = T0 * SECOND


@dataclass(frozen=True)
class Case:
    """A policy and a stream. ``batches`` is what arrives: events may recur in it."""

    rules: tuple[Rule, ...]
    horizon: int
    row_limit: int
    batches: tuple[tuple[Event, ...], ...]

    @property
    def events(self) -> list[Event]:
        return [event for batch in self.batches for event in batch]

    @property
    def users(self) -> list[str]:
        return sorted({event["user_id"] for _, event in self.events})

    def engine(self) -> Engine:
        return Engine(self.rules, horizon=self.horizon, row_limit=self.row_limit)

    def oracle(self) -> Oracle:
        return Oracle(self.rules, horizon=self.horizon, row_limit=self.row_limit)


@st.composite
def policies(draw: st.DrawFn) -> tuple[Rule, ...]:
    rules = []
    for i in range(draw(st.integers(1, 6))):
        per = draw(st.sampled_from(PER))
        if draw(st.booleans()):
            limit, window = draw(st.integers(1, 4)), draw(st.sampled_from(WINDOWS))
            rules.append(Rule(f"r{i}", "cap", limit, window, per))
        else:
            rules.append(Rule(f"r{i}", "spacing", 1, draw(st.sampled_from(DISTANCES)), per))
    return tuple(rules)


@st.composite
def cases(draw: st.DrawFn, *, within_two_horizons: bool = False) -> Case:
    """A stream; rows that are two horizons behind may be forgotten when the ledger publishes."""
    rules = draw(policies())
    horizon = max(rule.window for rule in rules) + draw(st.sampled_from((0, 1, SECOND, MINUTE)))
    steps = {0, 1, 2, SECOND, 10 * SECOND, horizon - 1, horizon, horizon + 1}
    steps |= {rule.window + nudge for rule in rules for nudge in (-1, 0, 1)}
    differences = st.sampled_from(sorted(steps | {-step for step in steps}))

    times = [START]
    events: list[Event] = []
    for i in range(draw(st.integers(1, draw(st.sampled_from((8, 16, 32)))))):
        ts = draw(st.sampled_from(times)) + draw(differences)
        if within_two_horizons:
            ts = min(max(ts, START), START + 2 * horizon - 1)
        times.append(ts)
        events.append((draw(TOPICS), draw(event_bodies(i)) | {"ts": oracle.seconds(ts)}))

    arrivals = events + draw(st.lists(st.sampled_from(events), max_size=5))
    arrivals = draw(st.permutations(arrivals))
    batches = []
    while arrivals:
        size = draw(st.integers(1, len(arrivals)))
        batches.append(tuple(arrivals[:size]))
        arrivals = arrivals[size:]
    return Case(rules, horizon, draw(st.sampled_from((3, 5, 128))), tuple(batches))


TOPICS = st.sampled_from(("impression",) * 6 + ("engagement", "control"))
USERS = st.sampled_from(("u1", "u1", "u1", "u2", "u3", "u4"))


@st.composite
def event_bodies(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """Fields that make sense on every topic: type says nothing on an impression."""
    again = number > 0 and draw(st.integers(0, 5)) == 0
    event: dict[str, Any] = {
        "event_id": f"e{draw(st.integers(0, number)) if again else number}",
        "user_id": draw(USERS),
        "campaign_id": draw(st.sampled_from(("C1", "C1", "C2"))),
        "type": "opt_in",
    }
    optional = {
        "impression_id": st.sampled_from((None, None, None, "i1", "i2", "i3")),
        "creative_id": st.sampled_from((None, "A", "B")),
        "labels": st.sampled_from(
            (None, None, {}, {"promo": "spring"}, {"promo": "autumn", "x": "y"})
        ),
        "kind": st.sampled_from((None, None, "loaded", "viewable")),
    }
    drawn = {name: draw(values) for name, values in optional.items()}
    return event | {name: value for name, value in drawn.items() if value is not None}


@MANY
@given(cases())
def test_equal_after_every_batch(case: Case) -> None:
    engine, expected = case.engine(), case.oracle()
    for batch in case.batches:
        engine.feed(*batch)
        for topic, event in batch:
            assert expected.add(topic, event) is None
        try:
            answers_as_oracle(engine, expected)
        except TooManyOrdersError:
            reject()
    assert engine.rejected == []


@MANY
@given(cases(within_two_horizons=True))
def test_topic_equals_the_ledger_after_every_flush(case: Case) -> None:
    engine, expected = case.engine(), case.oracle()
    for batch in case.batches:
        engine.feed(*batch)
        for topic, event in batch:
            expected.add(topic, event)
        engine.publish()
        topic_says_what_is_decided(engine, case.users)
    try:
        answers_as_oracle(engine, expected)
    except TooManyOrdersError:
        reject()


@MANY
@given(cases(), st.randoms(use_true_random=False))
def test_order_and_batches_do_not_matter(case: Case, shuffled: random.Random) -> None:
    one, other = case.engine(), case.engine()
    for batch in case.batches:
        one.feed(*batch)
    events = case.events
    shuffled.shuffle(events)
    other.feed(*events)
    order_does_not_matter(one, other, case.users)


@FEWER
@given(cases(within_two_horizons=True))
def test_replaying_everything_changes_nothing(case: Case) -> None:
    engine = case.engine()
    for batch in case.batches:
        engine.feed(*batch)
    engine.publish()
    replay_changes_nothing(engine, case.events)


@FEWER
@given(cases(within_two_horizons=True), st.integers(0, 30))
def test_a_restart_changes_nothing(case: Case, crash_after: int) -> None:
    engine, steady = case.engine(), case.engine()
    for i, batch in enumerate(case.batches):
        engine.feed(*batch)
        steady.feed(*batch)
        engine.publish()
        if i == crash_after % len(case.batches):
            survives_restart(engine, case.users, [e for b in case.batches[: i + 1] for e in b])
            engine = engine.restarted()
    for user_id in case.users:
        assert oracle.compare(steady.decide(user_id), engine.decide(user_id)) == []


@FEWER
@given(cases())
def test_until_is_never_earlier_after_one_more_exposure(case: Case) -> None:
    """The exposure is new, under ids of its own, and finds room in the row."""
    engine = Engine(case.rules, horizon=case.horizon)
    newest = 0
    for i, (topic, event) in enumerate(case.events):
        alone = {name: value for name, value in event.items() if name != "impression_id"}
        alone |= {"event_id": f"alone-{i}", "user_id": "u1"}
        newest = max(newest, oracle.ticks(event["ts"]))
        before = engine.decide()
        engine.feed((topic, alone))
        until_is_never_earlier(before, engine.decide(), newest)


SPELLINGS: tuple[Callable[[dict[str, Any]], str], ...] = (
    lambda event: json.dumps(event, separators=(",", ":")),
    lambda event: json.dumps(dict(reversed(event.items())), indent="\t"),
    lambda event: json.dumps({"x": {"y": [1, None]}} | event),
    lambda event: json.dumps(event | {"x": None, "retargeting": False, "segment": None}),
    lambda event: json.dumps(event).replace("C", "\\u0043").replace("user", "us\\u0065r"),
    lambda event: json.dumps(event | {"ts": 0}).replace('"ts": 0', f'"ts": {event["ts"]}e0'),
    lambda event: json.dumps(event | {"ts": 0}).replace('"ts": 0', f'"ts":{event["ts"]:.6f}'),
)


@FEWER
@given(cases(within_two_horizons=True), st.sampled_from(SPELLINGS))
def test_the_spelling_of_an_event_does_not_matter(
    case: Case, spelled: Callable[[dict[str, Any]], str]
) -> None:
    one, other = case.engine(), case.engine()
    for batch in case.batches:
        one.feed(*batch)
        other.feed(*batch, spelled=spelled)
    order_does_not_matter(one, other, case.users)
    assert "applied" not in one.feed(*case.events, spelled=spelled)


def test_thousands_of_users_in_one_ledger() -> None:
    """Rows that grow and take over each other's runs: each answers for its own user alone."""
    chance = random.Random(3)
    rules = (
        Rule("user-daily", "cap", 6, DAY, "user"),
        Rule("campaign-hourly", "cap", 2, HOUR, "campaign"),
        Rule("breathing-space", "spacing", 1, MINUTE, "campaign"),
    )
    engine = Engine(rules, horizon=2 * DAY, row_limit=24)
    expected = Oracle(rules, horizon=2 * DAY, row_limit=24)
    events: list[Event] = []
    for i in range(24_000):
        event = {
            "event_id": f"{i}",
            "user_id": f"person-{chance.randrange(1500)}",
            "ts": T0 + chance.randrange(3 * 86400) + i / 1_000_000,
            "campaign_id": f"C{chance.randrange(40)}",
        }
        events.append(("impression", event))
    for first in range(0, len(events), 5000):
        batch = events[first : first + 5000]
        engine.feed(*batch)
        for topic, event in batch:
            expected.add(topic, event)
    for user_id in expected.rows:
        is_admissible(expected, user_id, engine.decide(user_id))
    assert len(engine.ledger) == len(expected.rows)
    engine.publish()
    topic_says_what_is_decided(engine, expected.rows)
    replay_changes_nothing(engine, events)
    survives_restart(engine, expected.rows, events)
