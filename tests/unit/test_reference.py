"""`governor.oracle` against golden cases written by hand, and against the tests' own oracle.

The two were written apart from each other: what both say is what the definitions say.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.oracle import Event, duration, throttles
from governor.policy import duration as policy_duration
from tests import oracle

DAY = 86400
HORIZON = 30 * DAY * 1_000_000
T0 = 1_700_000_000

DAILY = {"name": "daily", "cap": 2, "per": "campaign", "window": "1d"}
MINUTE = {"name": "minute", "spacing": "1m", "per": "campaign"}
SITE = {"name": "site", "cap": 3, "per": "user", "window": "1h"}


def shown(at: float, event_id: str, campaign: str = "C7", **fields: Any) -> Event:
    event = {"event_id": event_id, "user_id": "u", "ts": T0 + at, "campaign_id": campaign}
    return "impressions", event | fields


def clicked(at: float) -> Event:
    event = {"event_id": f"click-{at}", "user_id": "u", "ts": T0 + at, "type": "click"}
    return "engagements", event | {"impression_id": "i"}


def resting(
    *events: Event,
    rules: tuple[dict[str, Any], ...] = (DAILY,),
    horizon: int = HORIZON,
    row_limit: int = 128,
) -> dict[str, dict[str, Any]]:
    return throttles({"rules": list(rules)}, events, horizon=horizon, row_limit=row_limit)


def test_nothing_of_nothing() -> None:
    assert resting() == {}
    assert resting(shown(0, "a")) == {}
    assert resting(clicked(0)) == {}


def test_a_cap_rests_from_the_newest_until_the_oldest_of_its_limit_leaves_the_window() -> None:
    assert resting(shown(0, "a"), shown(10, "b"), shown(25, "c")) == {
        "campaign:C7": {
            "label": "campaign:C7",
            "state": "throttled",
            "factor": 0,
            "from": T0 + 25,
            "until": T0 + 10 + DAY,
            "remaining": 0,
            "reasons": ["daily"],
            "evidence": {
                "daily": {"exposures": 3, "limit": 2, "window": DAY, "until": T0 + 10 + DAY}
            },
        }
    }


def test_until_is_free_and_a_tick_before_is_not() -> None:
    two = shown(0, "a"), shown(10, "b")
    assert resting(*two, clicked(DAY - 0.000001)).keys() == {"campaign:C7"}
    assert resting(*two, clicked(DAY)) == {}


def test_rules_in_force_are_told_together_and_the_latest_until_holds() -> None:
    events = shown(0, "a"), shown(DAY - 30, "b")
    both = resting(*events, rules=(MINUTE, DAILY))["campaign:C7"]
    assert both["reasons"] == ["minute", "daily"]
    assert both["until"] == T0 + DAY + 30
    assert both["evidence"]["daily"]["until"] == T0 + DAY
    assert both["evidence"]["minute"] == {
        "exposures": 1,
        "limit": 1,
        "window": 60,
        "until": T0 + DAY + 30,
    }


def test_each_value_counts_for_itself_and_the_user_for_all() -> None:
    events = shown(0, "a", "C1"), shown(1, "b", "C2"), shown(2, "c", "C1")
    found = resting(*events, rules=(DAILY, SITE))
    assert found.keys() == {"campaign:C1", "user"}


def test_an_exposure_without_the_dimension_does_not_concern_its_rules() -> None:
    rule = {"name": "picture", "spacing": "1h", "per": "creative"}
    assert resting(shown(0, "a"), rules=(rule,)) == {}
    assert resting(shown(0, "a", creative_id="P"), rules=(rule,)).keys() == {"creative:P"}
    promo = {"name": "promo", "spacing": "1h", "per": "promo"}
    event = shown(0, "a", labels={"promo": "spring"})
    assert resting(event, rules=(promo,)).keys() == {"promo:spring"}


def test_the_same_event_again_counts_once() -> None:
    assert resting(shown(0, "a"), shown(0, "a"), shown(0, "a", unknown="field")) == {}


def test_one_impression_loaded_and_viewable_counts_once_at_its_first() -> None:
    events = (
        shown(5, "b", impression_id="i", kind="viewable"),
        shown(0, "a", impression_id="i", kind="loaded"),
    )
    assert resting(*events) == {}
    assert resting(*events, rules=(MINUTE,))["campaign:C7"]["until"] == T0 + 60


def test_two_contents_of_one_event_count_once_the_older() -> None:
    found = resting(shown(9, "a", "C2"), shown(0, "a", "C1"), rules=(MINUTE,))
    assert found.keys() == {"campaign:C1"}


def test_what_is_shadowed_shadows() -> None:
    """The first has the second's event id, the second the third's impression id."""
    events = (
        shown(0, "a", impression_id="i"),
        shown(1, "a", impression_id="j"),
        shown(2, "b", impression_id="j"),
    )
    assert resting(*events) == {}


def test_what_is_a_horizon_behind_is_forgotten() -> None:
    horizon = DAY * 1_000_000
    two = shown(0, "a"), shown(1, "b")
    rule = DAILY | {"cap": 1}
    assert resting(*two, clicked(DAY), rules=(rule,), horizon=horizon).keys() == {"campaign:C7"}
    assert resting(*two, clicked(DAY + 1), rules=(rule,), horizon=horizon) == {}


def test_a_row_remembers_only_so_many() -> None:
    many = [shown(at, f"e{at}", "C1" if at < 2 else "C2") for at in range(6)]
    assert resting(*many).keys() == {"campaign:C1", "campaign:C2"}
    assert resting(*many, row_limit=5).keys() == {"campaign:C2"}
    assert resting(*many, *map(clicked, range(9)), row_limit=6).keys() == {
        "campaign:C1",
        "campaign:C2",
    }


@pytest.mark.parametrize("text", ["500ms", "60s", "1.5h", "1d", "2w", "0.1s", "366d"])
def test_durations_are_the_policys(text: str) -> None:
    assert duration(text) == policy_duration(text)


RULES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {
                "cap": st.integers(1, 4),
                "window": st.sampled_from(("1m", "90s", "1.5m", "5m")),
                "per": st.sampled_from(("user", "campaign", "creative", "promo")),
            }
        ),
        st.fixed_dictionaries(
            {
                "spacing": st.sampled_from(("1s", "10s", "1m")),
                "per": st.sampled_from(("user", "campaign", "creative", "promo")),
            }
        ),
    ),
    min_size=1,
    max_size=5,
)
STEPS = st.sampled_from((0, 0.000001, 1, 9.999999, 10, 59.999999, 60, 60.000001, 90, 299, 300))


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events of one user with ids that clash, at times that differ by windows."""
    at = 0.0
    events: list[Event] = []
    for number in range(draw(st.integers(1, 16))):
        at += draw(STEPS)
        topic = draw(st.sampled_from(("impressions",) * 5 + ("engagements", "controls")))
        event = {
            "event_id": f"e{draw(st.integers(0, number))}",
            "user_id": "u",
            "ts": round(T0 + at, 6),
            "campaign_id": draw(st.sampled_from(("C1", "C1", "C2"))),
            "impression_id": draw(st.sampled_from((None, None, None, "i1", "i2"))),
            "creative_id": draw(st.sampled_from((None, "A", "B"))),
            "labels": draw(st.sampled_from((None, {"promo": "spring"}))),
        }
        if topic == "impressions":
            event["kind"] = draw(st.sampled_from((None, "loaded", "viewable")))
        else:
            event["type"] = "click" if topic == "engagements" else "opt_in"
        events.append((topic, {name: one for name, one in event.items() if one is not None}))
    return events


@given(RULES, histories(), st.sampled_from((3, 5, 128)), st.randoms(use_true_random=False))
def test_both_oracles_say_the_same(
    rules: list[dict[str, Any]], events: list[Event], row_limit: int, chance: random.Random
) -> None:
    named = [{"name": f"r{i}"} | rule for i, rule in enumerate(rules)]
    horizon = 300 * 1_000_000
    arrivals = events + chance.sample(events, len(events) // 2)
    chance.shuffle(arrivals)
    other = oracle.Oracle(map(_other, named), horizon=horizon, row_limit=row_limit)
    for topic, event in arrivals:
        assert other.add(topic.removesuffix("s"), event) is None
    found = throttles({"rules": named}, arrivals, horizon=horizon, row_limit=row_limit)
    record = {"id": "u", "throttles": list(found.values())} if found else None
    try:
        admissible = other.admissible("u")
    except oracle.TooManyOrdersError:
        return
    assert [] in [oracle.compare(each, record) for each in admissible]


def _other(rule: dict[str, Any]) -> tuple[Any, ...]:
    """The rule as the tests' oracle takes it."""
    time = policy_duration(rule.get("window") or rule["spacing"])
    kind = "cap" if "cap" in rule else "spacing"
    return rule["name"], kind, rule.get("cap", 1), time, rule["per"]
