"""Replays: small logs worked out by hand, the oracle, and logs that come in any order."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governor.events import Limits, decode_controls, decode_engagements, decode_impressions
from governor.fatigue.exposures import DAY, NEVER
from governor.oracle import Oracle
from governor.policy import Policy, load
from governor.records import Records
from governor.replay.linking import AGAIN, NOTHING, link
from governor.replay.log import Log, Logbook
from governor.replay.replaying import Terms, observed, replay, sample
from governor.replay.sweeping import sweep
from governor.replay.tallying import policy_found
from governor.ticks import SECOND, from_seconds
from governor.walking import HELD, LOST, SHOWN

T0 = 1_790_000_000
HOUR = 3600
DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}
Event = tuple[str, dict[str, Any]]


def shown(event_id: str, user: str, hours: float, campaign: str = "C", **more: Any) -> Event:
    return "impression", {
        "event_id": event_id,
        "user_id": user,
        "ts": T0 + hours * HOUR,
        "campaign_id": campaign,
        "impression_id": f"i-{event_id}",
        **more,
    }


def click(event_id: str, user: str, hours: float, **more: Any) -> Event:
    return "engagement", {
        "event_id": event_id,
        "user_id": user,
        "ts": T0 + hours * HOUR,
        "type": "click",
        **more,
    }


def said(event_id: str, user: str, hours: float, kind: str, **more: Any) -> Event:
    ts = T0 + hours * HOUR
    return "control", {"event_id": event_id, "user_id": user, "ts": ts, "type": kind, **more}


def logged(events: Sequence[Event], batch: int = 1000) -> Log:
    book = Logbook()
    for begin in range(0, len(events), batch):
        for topic, decode in DECODERS.items():
            some = [event for kind, event in events[begin : begin + batch] if kind == topic]
            records = Records.of((b"", json.dumps(event).encode(), -1) for event in some)
            columns, rejected = decode(records, book.labels, Limits())
            assert not rejected
            book.add(columns)
    return book.closed()


def fates(events: Sequence[Event], policy: Policy) -> dict[str, int]:
    """What becomes of each event, by its id; ids are told apart by their times."""
    log = logged(events)
    outcome = replay(log, link(log, DAY), policy)
    at = {from_seconds(event["ts"]): event["event_id"] for _, event in events}
    return {at[int(log.ts[row])]: int(outcome.verdicts.fate[n]) for n, row in enumerate(log.first)}


def test_what_a_cap_holds_back_does_not_count_towards_it() -> None:
    policy = load("rules: [{name: two, cap: 2, per: campaign, window: 1d}]")
    events = [shown(f"e{hour}", "u", hour) for hour in (0, 1, 2, 23, 24, 24.5, 25, 26)]
    # 0 and 1 are shown; 2 and 23 held back; at 24 the first has left the window, at 25 the second.
    assert fates(events, policy) == {
        "e0": SHOWN, "e1": SHOWN, "e2": HELD, "e23": HELD, "e24": SHOWN, "e24.5": HELD,
        "e25": SHOWN, "e26": HELD,
    }  # fmt: skip


def test_answers_to_what_was_held_back_are_lost() -> None:
    policy = load("rules: [{name: one, cap: 1, per: campaign, window: 1d}]")
    events = [
        shown("a", "u", 0),
        shown("b", "u", 1),
        click("k1", "u", 1.1, impression_id="i-b"),
        click("k2", "u", 1.2, impression_id="i-a"),
        click("k3", "u", 1.3, campaign_id="C"),
        click("k4", "u", 1.4, campaign_id="D"),
    ]
    # k3 names a campaign only: the last exposure of it that it can mean is b.
    found = fates(events, policy)
    assert found == {"a": SHOWN, "b": HELD, "k1": LOST, "k2": SHOWN, "k3": LOST, "k4": SHOWN}


def test_a_lost_conversion_rests_nobody() -> None:
    policy = load(
        """
        rules:
          - {name: one, cap: 1, per: campaign, window: 2h}
          - {name: bought, reaction: conversion, per: campaign, rest: 5d}
        """
    )
    buy = click("k", "u", 1.5, impression_id="i-b", type="conversion")
    events = [shown("a", "u", 0), shown("b", "u", 1), buy, shown("c", "u", 3)]
    assert fates(events, policy) == {"a": SHOWN, "b": HELD, "k": LOST, "c": SHOWN}
    events[1] = shown("b", "u", 2.5)
    events[2] = click("k", "u", 2.6, impression_id="i-b", type="conversion")
    assert fates(events, policy) == {"a": SHOWN, "b": SHOWN, "k": SHOWN, "c": HELD}


def test_what_people_said_holds_from_then_on() -> None:
    policy = load("rules: [{name: many, cap: 100, per: user, window: 1d}]")
    events = [
        shown("a", "u", 0, "C"),
        said("o", "u", 1, "opt_out", label="campaign:C"),
        shown("b", "u", 2, "C"),
        shown("c", "u", 3, "D"),
        said("i", "u", 4, "opt_in", label="campaign:C"),
        shown("d", "u", 5, "C"),
    ]
    found = fates(events, policy)
    assert found == {"a": SHOWN, "o": SHOWN, "b": HELD, "c": SHOWN, "i": SHOWN, "d": SHOWN}


def test_events_of_one_exposure_share_its_fate() -> None:
    policy = load("rules: [{name: one, cap: 1, per: campaign, window: 1d}]")
    events = [
        shown("a", "u", 0, kind="loaded"),
        shown("b", "u", 0.1, kind="viewable", impression_id="i-a"),
        shown("c", "u", 1, kind="loaded"),
        shown("d", "u", 1.1, kind="viewable", impression_id="i-c"),
    ]
    assert fates(events, policy) == {"a": SHOWN, "b": SHOWN, "c": HELD, "d": HELD}
    log = logged(events)
    assert len(observed(log, link(log, DAY)).event) == 2


def test_a_household_is_capped_whoever_of_it_is_asked_for() -> None:
    policy = load("rules: [{name: home, cap: 1, per: campaign, window: 1d, id: household}]")
    home: dict[str, Any] = {"ids": {"household": "h"}}
    events = [
        shown("a", "u", 0, **home),
        shown("b", "v", 1, **home),
        shown("c", "v", 2),
        shown("d", "w", 3, ids={"household": "other"}),
    ]
    assert fates(events, policy) == {"a": SHOWN, "b": HELD, "c": SHOWN, "d": SHOWN}


def test_a_rule_in_shadow_is_counted_and_holds_nothing_back() -> None:
    policy = load("rules: [{name: one, cap: 1, per: campaign, window: 1d, shadow: true}]")
    log = logged([shown("a", "u", 0), shown("b", "u", 1), click("k", "u", 1.1, campaign_id="C")])
    links = link(log, DAY)
    found = policy_found("p", replay(log, links, policy), observed(log, links))
    assert (found.held, found.lost) == (0, 0)
    assert [(one.shadow, one.exposures, one.engagements) for one in found.rules] == [(True, 1, 1)]


def test_the_figures_of_a_policy() -> None:
    policy = load(
        """
        rules:
          - {name: user, cap: 2, per: user, window: 1d}
          - {name: campaign, cap: 1, per: campaign, window: 1d}
        """
    )
    events = [
        shown("a", "u", 0, "C"),
        shown("b", "u", 1, "C"),  # campaign
        shown("c", "u", 2, "D"),
        shown("d", "u", 3, "C"),  # both
        shown("e", "u", 4, "E"),  # user
        shown("f", "v", 5, "C"),
        click("k", "u", 3.5, impression_id="i-d"),
        click("l", "v", 5.5, impression_id="i-f"),
        click("l", "v", 5.5, impression_id="i-f"),
        click("m", "v", 6, impression_id="nowhere"),
    ]
    log = logged(events)
    links = link(log, DAY)
    seen = observed(log, links)
    found = policy_found("p", replay(log, links, policy), seen)
    assert (found.exposures, found.held, found.engagements, found.lost) == (6, 3, 2, 1)
    assert (found.people, found.people_held) == (2, 1)
    by = {one.name: (one.exposures, one.alone, one.engagements) for one in found.rules}
    assert by == {"user": (2, 1, 1), "campaign": (2, 1, 1)}
    assert found.campaigns == {"C": (4, 2, 2, 1), "D": (1, 0, 0, 0), "E": (1, 1, 0, 0)}
    answers = links.answers[log.kinds() == 1]
    assert sorted(answers.tolist()) == [AGAIN, NOTHING, 3, 6]


def test_an_engagement_before_its_exposure_answers_it_and_by_labels_none() -> None:
    log = logged(
        [
            click("k", "u", 0, impression_id="i-a"),
            click("l", "u", 0.5, campaign_id="C"),
            shown("a", "u", 1),
        ]
    )
    assert link(log, DAY).answers.tolist() == [2, NOTHING, NOTHING]
    assert observed(log, link(log, DAY)).exposures(np.ones(1, np.bool_), T0 * SECOND + DAY, DAY)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Events of few people, each at a whole microsecond, among them controls and other ids."""
    count = draw(st.integers(1, 60))
    rng = random.Random(draw(st.integers(0, 1 << 30)))
    events: list[Event] = []
    for n in range(count):
        user, hours = rng.choice("uvw"), n * 0.4 + rng.random() * 0.3
        campaign = rng.choice("CDE")
        kind = rng.random()
        if kind < 0.75 or not events:
            more: dict[str, Any] = {"ids": {"household": "h"}} if rng.random() < 0.3 else {}
            events.append(shown(f"e{n}", user, hours, campaign, channel=rng.choice("xy"), **more))
        elif kind < 0.9:
            _, one = rng.choice(events)
            meant = {"impression_id": one.get("impression_id") or "none"}
            if rng.random() < 0.4:
                meant = {"campaign_id": campaign}
            sort = rng.choice(["click", "conversion"])
            whose = one["user_id"] if "impression_id" in meant else user
            events.append(click(f"e{n}", whose, hours, **{"type": sort} | meant))
        else:
            sort = rng.choice(["opt_out", "opt_in", "hide", "less_often"])
            label = rng.choice([f"campaign:{campaign}", "channel:x"])
            events.append(said(f"e{n}", user, hours, sort, label=label))
    for _, event in events:
        event["ts"] = round(event["ts"], 6)
    return events


POLICIES = [
    load(text)
    for text in (
        """
        rules:
          - {name: user, cap: 5, per: user, window: 6h}
          - {name: campaign, cap: 2, per: campaign, window: 4h}
          - {name: space, spacing: 30m, per: campaign}
        """,
        """
        rules:
          - {name: bought, reaction: conversion, per: campaign, rest: 6h}
          - {name: tired, reaction: {ignored: 2, within: 1h}, per: campaign, rest: 2h}
          - {name: home, cap: 3, per: "campaign x channel", window: 5h, id: household}
        """,
    )
]
SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SOME
@given(streams(), st.sampled_from(POLICIES))
def test_a_replay_decides_as_the_oracle_does(events: list[Event], policy: Policy) -> None:
    horizon = 32 * DAY
    oracle = Oracle(policy, horizon=horizon, row_limit=128)
    expected: dict[str, int] = {}
    held: set[str] = set()
    log = logged(events)
    links = link(log, DAY)
    names = {from_seconds(event["ts"]): event["event_id"] for _, event in events}
    answered = {names[int(log.ts[row])]: int(links.answers[n]) for n, row in enumerate(log.first)}
    for topic, event in sorted(events, key=lambda one: one[1]["ts"]):
        fate = SHOWN
        if topic == "impression":
            fate = HELD if _holds(oracle, event) else SHOWN
        elif answered[event["event_id"]] >= 0:
            of = names[int(log.ts[log.first[answered[event["event_id"]]]])]
            fate = LOST if of in held else SHOWN
        expected[event["event_id"]] = fate
        if fate == HELD:
            held.add(event["event_id"])
        if fate == SHOWN:
            assert oracle.add(topic, event) is None
    assert fates(events, policy) == expected


def _holds(oracle: Oracle, event: Mapping[str, Any]) -> bool:
    """Whether any decision in force at the event's time is of its labels."""
    labels = {"campaign": event["campaign_id"], "channel": event["channel"]}
    keys = [event["user_id"], *(f"{kind}\0{one}" for kind, one in event.get("ids", {}).items())]
    return any(
        throttle["state"] != "shadow"
        and throttle["from"] <= event["ts"]
        and (throttle["until"] is None or event["ts"] < throttle["until"])
        and (
            throttle["label"] == "user"
            or all(labels.get(a) == b for a, b in _parts(throttle["label"]))
        )
        for key in keys
        for throttle in (oracle.decide(key) or {"throttles": []})["throttles"]
    )


def _parts(label: str) -> list[tuple[str, str]]:
    return [(part.partition(":")[0], part.partition(":")[2]) for part in label.split(" x ")]


@SOME
@given(streams(), st.integers(1, 9), st.integers(10, 70), st.randoms(use_true_random=False))
def test_a_log_is_the_same_however_it_was_cut_and_shuffled(
    events: list[Event], small: int, large: int, rng: random.Random
) -> None:
    one = logged(events, large)
    mixed = list(events)
    rng.shuffle(mixed)
    other = logged(mixed, small)
    assert (one.ts == other.ts).all()
    assert (one.event == other.event).all()
    assert (one.source == other.source).all()
    a = replay(one, link(one, DAY), POLICIES[0])
    b = replay(other, link(other, DAY), POLICIES[0])
    assert (a.verdicts.fate == b.verdicts.fate).all()
    assert (a.verdicts.rules == b.verdicts.rules).all()


def test_ties_stand_by_kind_and_then_by_the_hash_of_their_ids() -> None:
    events = [shown(f"e{n}", "u", 0) for n in range(100)] + [click("k", "u", 0, campaign_id="C")]
    one, other = logged(events), logged(events[::-1], 7)
    assert (one.event == other.event).all()
    assert (np.diff(one.event[:100].astype(np.float64)) > 0).all()
    assert one.kinds()[-1] == 1


def test_slices_of_a_replay_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [shown(f"e{n}", f"u{n % 7}", n / 5, "CD"[n % 2]) for n in range(300)]
    log = logged(events)
    links = link(log, DAY)
    whole = replay(log, links, POLICIES[0])
    monkeypatch.setattr("governor.replay.replaying.SLICE", 7)
    told: list[int] = []
    cut = replay(log, links, POLICIES[0], tell=told.append)
    assert (whole.verdicts.fate == cut.verdicts.fate).all()
    assert told == sorted(told)
    assert told[-1] == len(log)


def test_tighter_caps_hold_back_more_and_keep_less() -> None:
    events = [shown(f"e{n}", f"u{n % 9}", n / 4, "CD"[n % 2]) for n in range(400)]
    events += [click(f"k{n}", f"u{n % 9}", n / 4 + 0.1, impression_id=f"i-e{n}") for n in (1, 350)]
    found, share = sweep(logged(events), "campaign", 7 * DAY, Terms(), caps=(1, 2, 8, 100))
    assert share == 1.0
    held = [one.held for one in found]
    assert held == sorted(held, reverse=True)
    assert held[-1] == 0
    # Nine people, two campaigns each: a cap of one in a week lets 18 through in these four days.
    assert found[0].held == 400 - 18
    assert [one.lost for one in found] == [1, 1, 1, 0]


def test_a_sample_is_of_whole_people() -> None:
    person = np.repeat(np.arange(1, 2001, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15), 5)
    chosen = sample(person, 1000)
    assert chosen.reshape(-1, 5).any(1).tolist() == chosen.reshape(-1, 5).all(1).tolist()
    assert 500 < chosen.sum() < 1500
    assert sample(person, 10_000).all()


def test_nobody_is_known_to_have_answered_later_than_now() -> None:
    log = logged([shown("a", "u", 0), click("k", "u", 5, impression_id="i-a")])
    seen = observed(log, link(log, DAY))
    known = partial(seen.exposures, np.ones(1, np.bool_), within=DAY)
    before, after = known(now=(T0 + 4 * HOUR) * SECOND), known(now=(T0 + 6 * HOUR) * SECOND)
    assert (before.engaged_at.tolist(), before.settled.tolist()) == ([NEVER], [False])
    assert after.engaged.tolist() == [True]
    assert known(now=T0 * SECOND + DAY).settled.tolist() == [True]
