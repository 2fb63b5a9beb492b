"""`governor.oracle` against golden cases written by hand."""

from __future__ import annotations

from typing import Any

from governor.oracle import Event, Oracle
from governor.policy import Policy

DAY = 86400
HORIZON = 30 * DAY * 1_000_000
T0 = 1_700_000_000

DAILY = {"name": "daily", "cap": 2, "per": "campaign", "window": "1d"}
MINUTE = {"name": "minute", "spacing": "1m", "per": "campaign"}
SITE = {"name": "site", "cap": 3, "per": "user", "window": "1h"}


def shown(at: float, event_id: str, campaign: str = "C7", **fields: Any) -> Event:
    event = {"event_id": event_id, "user_id": "u", "ts": T0 + at, "campaign_id": campaign}
    return "impression", event | fields


def clicked(at: float) -> Event:
    event = {"event_id": f"click-{at}", "user_id": "u", "ts": T0 + at, "type": "click"}
    return "engagement", event | {"impression_id": "i"}


def resting(
    *events: Event,
    rules: tuple[dict[str, Any], ...] = (DAILY,),
    horizon: int = HORIZON,
    row_limit: int = 128,
) -> dict[str, dict[str, Any]]:
    """By label, what the oracle says of one user after these events."""
    policy = Policy.model_validate({"rules": list(rules)})
    oracle = Oracle(policy, horizon=horizon, row_limit=row_limit)
    for topic, event in events:
        assert oracle.add(topic, event) is None
    decision = oracle.decide("u") or {"throttles": []}
    return {one["label"]: one for one in decision["throttles"]}


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
    """Beyond that, what its rules need: for a cap of two the newest two of each campaign."""
    many = [shown(at, f"e{at}", "C1" if at < 3 else "C2") for at in range(6)]
    assert resting(*many)["campaign:C1"]["evidence"]["daily"]["exposures"] == 3
    few = resting(*many, row_limit=1)
    assert few["campaign:C1"]["evidence"]["daily"]["exposures"] == 2
    assert few["campaign:C1"]["until"] == T0 + 1 + DAY
