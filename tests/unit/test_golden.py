"""Cases written and worked out by hand: what the ledger must answer, one rule of it a test.

Times are seconds after ``T0``. Most tests ask :func:`until`: when the rest of a label ends, None
when it may be shown. Tests take no fixture, so that the mutation check can call them too.
"""

from __future__ import annotations

import json
from typing import Any

from governor.decisions import GRACE
from tests.invariants import DAY, HOUR, MINUTE, T0, Engine, Event
from tests.oracle import SECOND, Decision, Rule

TICK = 1 / SECOND
CUT = 1
"""A row from which something was pushed out remembers so, as one more entry."""


def shown(at: float, event_id: str | None = None, *, user: str = "u1", **fields: Any) -> Event:
    """An impression of campaign C7, unless the fields say otherwise."""
    event = {"event_id": event_id or f"shown-{at}", "user_id": user, "ts": T0 + at}
    return "impression", event | {"campaign_id": "C7"} | fields


def clicked(at: float, event_id: str | None = None, *, user: str = "u1") -> Event:
    """An engagement with some other campaign: it moves the row's clock."""
    event = {"event_id": event_id or f"clicked-{at}", "user_id": user, "ts": T0 + at}
    return "engagement", event | {"type": "click", "campaign_id": "other"}


def opted_in(at: float, event_id: str | None = None, *, user: str = "u1") -> Event:
    event = {"event_id": event_id or f"opted-in-{at}", "user_id": user, "ts": T0 + at}
    return "control", event | {"type": "opt_in"}


def cap(limit: int, window: int, per: str = "campaign", name: str = "the-cap") -> Rule:
    return Rule(name, "cap", limit, window, per)


def spacing(distance: int, per: str = "campaign", name: str = "the-spacing") -> Rule:
    return Rule(name, "spacing", 1, distance, per)


def throttles(decision: Decision | None) -> dict[str, dict[str, Any]]:
    return {t["label"]: t for t in (decision or {"throttles": []})["throttles"]}


def until(engine: Engine, label: str = "campaign:C7", user: str = "u1") -> float | None:
    """When a label's rest ends, in seconds after ``T0``, to the tick."""
    throttle = throttles(engine.decide(user)).get(label)
    return None if throttle is None else round(throttle["until"] - T0, 6)


# ---- Caps --------------------------------------------------------------------------------------


def test_one_below_the_limit_is_free() -> None:
    engine = Engine([cap(3, HOUR)])
    engine.feed(shown(0), shown(10))
    assert engine.decide() is None


def test_at_the_limit_the_whole_record() -> None:
    engine = Engine([cap(3, HOUR)])
    engine.feed(shown(0), shown(10), shown(20.5))
    assert engine.decide() == {
        "id": "u1",
        "throttles": [
            {
                "label": "campaign:C7",
                "state": "throttled",
                "factor": 0,
                "from": T0 + 20.5,
                "until": T0 + 3600,
                "remaining": 0,
                "reasons": ["the-cap"],
                "evidence": {
                    "the-cap": {
                        "exposures": 3,
                        "limit": 3,
                        "window": 3600,
                        "until": T0 + 3600,
                    }
                },
            }
        ],
    }


def test_above_the_limit_until_follows_the_limit_th_newest() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(10), shown(25), shown(40))
    assert until(engine) == 25 + 3600
    evidence = throttles(engine.decide())["campaign:C7"]["evidence"]["the-cap"]
    assert (evidence["exposures"], evidence["limit"]) == (4, 2)


def test_a_cap_of_one_rests_for_the_whole_window() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0))
    assert until(engine) == 3600


def test_one_tick_before_until_the_cap_holds() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(10), clicked(3600 - TICK))
    assert until(engine) == 3600


def test_at_until_the_cap_is_free() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(10), clicked(3600))
    assert engine.decide() is None


def test_an_exposure_exactly_one_window_old_has_left_it() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(3600))
    assert engine.decide() is None


def test_an_exposure_one_tick_short_of_a_window_old_is_in_it() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(3600 - TICK))
    assert until(engine) == 3600


def test_evidence_counts_what_lies_in_the_window_alone() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(1), shown(10), shown(3600), shown(3601))
    evidence = throttles(engine.decide())["campaign:C7"]["evidence"]["the-cap"]
    assert evidence == {"exposures": 3, "limit": 2, "window": 3600, "until": T0 + 3600 + 3600}


def test_exposures_of_one_instant_count_each() -> None:
    engine = Engine([cap(3, HOUR)])
    engine.feed(shown(5, "a"), shown(5, "b"))
    assert engine.decide() is None
    engine.feed(shown(5, "c"))
    assert until(engine) == 5 + 3600


def test_limits_and_counts_of_more_than_one_digit() -> None:
    engine = Engine([cap(10, HOUR)])
    engine.feed(*(shown(at) for at in range(9)))
    assert engine.decide() is None
    for count in (10, 11, 99, 100, 101):
        engine.feed(*(shown(at) for at in range(count)))
        assert until(engine) == count - 10 + 3600
        evidence = throttles(engine.decide())["campaign:C7"]["evidence"]["the-cap"]
        assert (evidence["exposures"], evidence["limit"]) == (count, 10)


# ---- Spacing -----------------------------------------------------------------------------------


def test_spacing_rests_from_the_newest_exposure() -> None:
    engine = Engine([spacing(MINUTE)])
    engine.feed(shown(0), shown(30))
    assert until(engine) == 30 + 60
    throttle = throttles(engine.decide())["campaign:C7"]
    assert throttle["from"] == T0 + 30
    assert throttle["evidence"]["the-spacing"] == {
        "exposures": 2,
        "limit": 1,
        "window": 60,
        "until": T0 + 90,
    }


def test_spacing_holds_one_tick_before_its_end_and_not_at_it() -> None:
    engine = Engine([spacing(MINUTE)])
    engine.feed(shown(0), clicked(60 - TICK))
    assert until(engine) == 60
    engine.feed(clicked(60))
    assert engine.decide() is None


def test_spacing_is_not_moved_by_an_older_exposure() -> None:
    engine = Engine([spacing(MINUTE)])
    engine.feed(shown(30), shown(0))
    assert until(engine) == 90


# ---- Several rules -----------------------------------------------------------------------------


def test_of_several_windows_the_latest_until_counts_and_all_are_named() -> None:
    engine = Engine([cap(3, DAY, name="daily"), cap(2, HOUR, name="hourly"), spacing(MINUTE)])
    engine.feed(shown(0), shown(100), shown(200))
    throttle = throttles(engine.decide())["campaign:C7"]
    assert throttle["until"] == T0 + 86400
    assert throttle["from"] == T0 + 200
    assert throttle["reasons"] == ["daily", "hourly", "the-spacing"]
    ends = {rule: evidence["until"] - T0 for rule, evidence in throttle["evidence"].items()}
    assert ends == {"daily": 86400, "hourly": 3700, "the-spacing": 260}


def test_reasons_stand_in_the_order_of_the_policy() -> None:
    rules = [spacing(MINUTE), cap(2, HOUR, "user", "user-hourly"), cap(1, HOUR), cap(2, DAY)]
    rules[3] = rules[3]._replace(name="daily")
    engine = Engine(rules)
    engine.feed(shown(0), shown(10))
    assert throttles(engine.decide())["campaign:C7"]["reasons"] == [
        "the-spacing",
        "the-cap",
        "daily",
    ]
    assert throttles(engine.decide())["user"]["reasons"] == ["user-hourly"]


def test_only_rules_in_force_are_named() -> None:
    engine = Engine([cap(2, DAY, name="daily"), cap(2, HOUR, name="hourly")])
    engine.feed(shown(0), shown(10), clicked(3600))
    throttle = throttles(engine.decide())["campaign:C7"]
    assert throttle["reasons"] == ["daily"]
    assert list(throttle["evidence"]) == ["daily"]


# ---- Labels ------------------------------------------------------------------------------------


def test_each_campaign_is_counted_alone() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(1, campaign_id="C8"), shown(2, campaign_id="C8"))
    assert until(engine, "campaign:C7") is None
    assert until(engine, "campaign:C8") == 1 + 3600


def test_user_counts_all_ads_under_the_label_user() -> None:
    engine = Engine([cap(3, HOUR, "user")])
    engine.feed(shown(0), shown(1, campaign_id="C8"), shown(2, campaign_id="C9"))
    assert list(throttles(engine.decide())) == ["user"]
    assert until(engine, "user") == 3600


def test_every_dimension_has_its_own_labels() -> None:
    dimensions = ("campaign", "creative", "advertiser", "category", "channel", "surface")
    engine = Engine([cap(1, HOUR, per, f"per-{per}") for per in ("user", *dimensions)])
    fields = {"creative_id": "K1", "advertiser_id": "A1", "category": "shoes", "channel": "web"}
    engine.feed(shown(0, **fields, surface="top"))
    reasons = {label: t["reasons"] for label, t in throttles(engine.decide()).items()}
    assert reasons == {
        "user": ["per-user"],
        "campaign:C7": ["per-campaign"],
        "creative:K1": ["per-creative"],
        "advertiser:A1": ["per-advertiser"],
        "category:shoes": ["per-category"],
        "channel:web": ["per-channel"],
        "surface:top": ["per-surface"],
    }


def test_a_custom_label_is_a_dimension() -> None:
    engine = Engine([cap(2, HOUR, "promo")])
    engine.feed(shown(0, labels={"promo": "spring", "size": "L"}))
    engine.feed(shown(1, labels={"promo": "spring"}), shown(2, labels={"promo": "autumn"}))
    assert list(throttles(engine.decide())) == ["promo:spring"]
    assert until(engine, "promo:spring") == 3600


def test_a_rule_does_not_concern_exposures_without_its_label() -> None:
    engine = Engine([cap(1, HOUR, "creative")])
    engine.feed(shown(0), shown(1, labels={"promo": "spring"}), shown(2, creative_id=None))
    assert engine.decide() is None


def test_one_value_in_two_dimensions_makes_two_labels() -> None:
    engine = Engine([cap(2, HOUR), cap(2, HOUR, "creative", "per-creative")])
    engine.feed(shown(0, creative_id="C7"), shown(1, campaign_id="C8", creative_id="C7"))
    assert list(throttles(engine.decide())) == ["creative:C7"]


def test_one_value_in_another_field_is_another_ad() -> None:
    engine = Engine([cap(1, HOUR, per, f"per-{per}") for per in ("creative", "advertiser")])
    engine.feed(shown(0, user="u1", creative_id="X"), shown(0, user="u2", advertiser_id="X"))
    assert list(throttles(engine.decide("u1"))) == ["creative:X"]
    assert list(throttles(engine.decide("u2"))) == ["advertiser:X"]


def test_labels_survive_json() -> None:
    odd = 'a"b\\c/d\x01\x7f\n\t€ 日本 \U0001f9e6 e\u0301 </script>'
    engine = Engine([cap(1, HOUR), cap(1, HOUR, "promo", "per-promo")])
    engine.feed(shown(0, campaign_id=odd, labels={"promo": odd[::-1]}))
    assert set(throttles(engine.decide())) == {f"campaign:{odd}", f"promo:{odd[::-1]}"}
    engine.publish()
    assert set(throttles(engine.topic["u1"])) == {f"campaign:{odd}", f"promo:{odd[::-1]}"}


# ---- Order, duplicates, ids --------------------------------------------------------------------


def test_a_late_event_completes_a_cap() -> None:
    engine = Engine([cap(3, HOUR)])
    engine.feed(shown(0), shown(100))
    assert engine.decide() is None
    engine.feed(shown(50))
    assert until(engine) == 3600


def test_a_late_event_moves_until_on() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(100))
    assert until(engine) == 3600
    engine.feed(shown(50))
    assert until(engine) == 50 + 3600


def test_a_late_event_that_changes_no_throttle_still_counts_in_evidence() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(50), shown(100), shown(0))
    assert until(engine) == 50 + 3600
    assert throttles(engine.decide())["campaign:C7"]["evidence"]["the-cap"]["exposures"] == 3


def test_backwards_is_as_good_as_forwards() -> None:
    events = [shown(at) for at in (0, 7, 30, 31, 600)]
    forwards, backwards = Engine([cap(3, HOUR)]), Engine([cap(3, HOUR)])
    forwards.feed(*events)
    backwards.feed(*reversed(events))
    assert forwards.decide() == backwards.decide()
    assert until(backwards) == 30 + 3600


def test_the_same_event_again_does_nothing() -> None:
    engine = Engine([cap(2, HOUR)])
    assert engine.feed(shown(0, "a"), shown(0, "a")) == {"applied": 1, "duplicate": 1}
    engine.publish()
    assert engine.feed(shown(0, "a")) == {"duplicate": 1}
    assert engine.ledger.dirty == 0
    assert engine.ledger.entries == 1
    assert engine.decide() is None


def test_the_same_event_in_another_spelling_does_nothing() -> None:
    engine = Engine([cap(2, HOUR)])
    event = shown(0.25, "a", creative_id="K", kind="viewable", retargeting=True)
    other = shown(1, "b", impression_id="i", kind="loaded", labels={})
    assert engine.feed(event, other) == {"applied": 2}
    assert engine.feed(event, other, spelled=nested) == {"duplicate": 2}
    assert engine.feed(event, other, spelled=reversed_and_spread) == {"duplicate": 2}


def nested(event: dict[str, Any]) -> str:
    return json.dumps({"x": [{"event_id": 1}]} | event)


def reversed_and_spread(event: dict[str, Any]) -> str:
    return json.dumps(dict(reversed(event.items())), indent=1)


def test_of_two_contents_of_an_event_the_earlier_counts_whichever_comes_first() -> None:
    early, late = shown(5, "a", campaign_id="C1"), shown(10, "a", campaign_id="C2")
    for events in ((early, late), (late, early)):
        engine = Engine([cap(1, HOUR)])
        for event in events:
            engine.feed(event)
        assert list(throttles(engine.decide())) == ["campaign:C1"]
        assert until(engine, "campaign:C1") == 5 + 3600


def test_of_two_contents_at_one_time_one_counts_whichever_comes_first() -> None:
    contents = [shown(5, "a", campaign_id=campaign) for campaign in ("C1", "C2")]
    answers = []
    for events in (contents, contents[::-1]):
        engine = Engine([cap(1, HOUR)])
        for event in events:
            engine.feed(event)
        assert len(throttles(engine.decide())) == 1
        answers.append(engine.decide())
    assert answers[0] == answers[1]


def test_an_event_sent_again_with_another_time_counts_once() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0, "a"), shown(10, "a"), shown(20, "a"))
    assert engine.decide() is None


def test_a_content_that_does_not_count_still_moves_the_clock() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0, "a"), shown(3600, "a"))
    assert engine.decide() is None


def test_loaded_impression_and_viewable_of_one_exposure_count_once_at_the_first() -> None:
    events = [
        shown(0, "a", impression_id="i", kind="loaded"),
        shown(1, "b", impression_id="i"),
        shown(3, "c", impression_id="i", kind="viewable"),
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        engine = Engine([cap(1, HOUR), cap(2, HOUR, "user", "user-hourly")])
        for i in order:
            engine.feed(events[i])
        assert list(throttles(engine.decide())) == ["campaign:C7"]
        assert until(engine) == 3600
        assert throttles(engine.decide())["campaign:C7"]["from"] == T0


def test_exposures_without_an_impression_id_are_each_their_own() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0, "a"), shown(1, "b", impression_id=""), shown(2, "c", impression_id=None))
    assert until(engine) == 1 + 3600


def test_an_impression_id_that_reads_like_an_event_id_is_another_thing() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0, "17"), shown(1, "18", impression_id="17"))
    assert until(engine) == 3600


def test_an_exposure_that_does_not_count_still_stands_before_larger_ones() -> None:
    """b is the second content of event a; c is b's exposure again: the smallest of the chain."""
    engine = Engine([cap(1, HOUR, "creative")])
    engine.feed(shown(2, "c", impression_id="i", creative_id="K3"))
    engine.feed(shown(1, "a", impression_id="i", creative_id="K2"))
    assert list(throttles(engine.decide())) == ["creative:K2"]
    engine.feed(shown(0, "a", creative_id="K1"))
    assert list(throttles(engine.decide())) == ["creative:K1"]


def test_an_engagement_under_an_exposures_event_id_hides_nothing() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(clicked(0, "a"), opted_in(1, "a"), shown(2, "a"))
    assert until(engine) == 2 + 3600


def test_two_users_do_not_mix() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0, "a", user="u1"), shown(1, "a", user="u2"), shown(2, "b", user="u2"))
    assert until(engine, user="u1") is None
    assert until(engine, user="u2") == 1 + 3600
    engine.feed(clicked(9000, user="u2"))
    engine.feed(shown(3, "b", user="u1"))
    assert until(engine, user="u1") == 3600
    assert until(engine, user="u2") is None


def test_a_user_nobody_heard_of_has_no_decision() -> None:
    engine = Engine([cap(1, HOUR)])
    assert engine.decide("nobody") is None
    engine.feed(shown(0, user="u1"))
    assert engine.decide("u") is None
    assert engine.decide("u11") is None
    assert engine.decide("") is None


def test_ids_that_share_all_but_their_last_byte_are_different() -> None:
    long, other = "x" * 511, "y" * 511
    engine = Engine([cap(2, HOUR)])
    for last in "ab":
        engine.feed(shown(0, f"{long}1", user=long + last, campaign_id=long + last))
    engine.feed(shown(1, f"{long}2", user=f"{long}a", campaign_id=f"{long}a"))
    assert engine.decide(f"{long}b") is None
    assert until(engine, f"campaign:{long}a", f"{long}a") == 3600
    fields = {"user": f"{long}b", "campaign_id": f"{long}b"}
    engine.feed(shown(2, "s", impression_id=f"{other}1", **fields))
    engine.feed(shown(3, "t", impression_id=f"{other}2", **fields))
    assert until(engine, f"campaign:{long}b", f"{long}b") == 2 + 3600


def test_short_ids_of_every_length_find_their_rows() -> None:
    users = [letter * length for length in range(1, 40) for letter in "aé"]
    engine = Engine([cap(1, HOUR)])
    engine.feed(*(shown(i, user=user) for i, user in enumerate(users)))
    assert [until(engine, user=user) for user in users] == [i + 3600 for i in range(len(users))]


# ---- What is kept ------------------------------------------------------------------------------


def test_an_entry_exactly_one_horizon_old_is_forgotten() -> None:
    """Seen by its twin: the second content of event a counts once the first is forgotten."""
    engine = Engine([cap(1, HOUR)], horizon=HOUR)
    engine.feed(shown(0, "a", campaign_id="C1"), shown(100, "a", campaign_id="C2"))
    engine.feed(clicked(3600 - TICK))
    assert list(throttles(engine.decide())) == ["campaign:C1"]
    engine.feed(clicked(3600))
    assert list(throttles(engine.decide())) == ["campaign:C2"]
    assert engine.ledger.entries == 3


def test_an_exposure_exactly_one_horizon_old_is_forgotten_at_the_next() -> None:
    """A row of exposures alone lets go of its end as it gets a newer one."""
    for newest, counts in ((3600 - TICK, "campaign:C1"), (3600, "campaign:C2")):
        engine = Engine([cap(1, HOUR)], horizon=HOUR)
        engine.feed(shown(0, "a", campaign_id="C1"), shown(100, "a", campaign_id="C2"))
        engine.feed(shown(newest))
        assert set(throttles(engine.decide())) == {counts, "campaign:C7"}


def test_an_exposure_exactly_one_horizon_late_is_not_taken_in() -> None:
    engine = Engine([cap(1, HOUR)], horizon=HOUR)
    engine.feed(shown(3600))
    assert engine.feed(shown(0)) == {"late": 1}
    assert engine.ledger.entries == 1
    assert engine.feed(shown(TICK)) == {"applied": 1}


def test_an_event_older_than_the_horizon_is_not_taken_in() -> None:
    engine = Engine([cap(1, HOUR)], horizon=HOUR)
    engine.feed(clicked(3600))
    assert engine.feed(shown(0)) == {"late": 1}
    assert engine.ledger.entries == 1
    assert engine.feed(shown(TICK)) == {"applied": 1}
    assert until(engine) == 3600 + TICK


def test_row_limit_keeps_the_newest() -> None:
    engine = Engine([cap(2, HOUR)], row_limit=3)
    engine.feed(*(shown(at) for at in range(4)))
    assert engine.ledger.entries == 3 + CUT
    assert engine.ledger.overflow == 1
    assert until(engine) == 2 + 3600
    assert engine.feed(shown(0)) == {"overflow": 1}
    assert until(engine) == 2 + 3600


def test_what_a_rule_asks_about_is_kept_however_crowded_the_row_is() -> None:
    engine = Engine([cap(2, HOUR)], row_limit=3)
    engine.feed(shown(0, campaign_id="C1"), shown(1, campaign_id="C1"), shown(2), shown(3))
    assert engine.ledger.entries == 4
    assert engine.ledger.overflow == 0
    assert set(throttles(engine.decide())) == {"campaign:C1", "campaign:C7"}
    assert engine.feed(shown(-1, campaign_id="C1")) == {"overflow": 1}


def test_row_limit_lets_a_late_event_in_that_is_newer_than_the_oldest() -> None:
    engine = Engine([cap(2, HOUR)], row_limit=3)
    engine.feed(shown(0), shown(10, campaign_id="C1"), shown(20, campaign_id="C2"))
    engine.feed(shown(5, campaign_id="C1"))
    assert list(throttles(engine.decide())) == ["campaign:C1"]
    assert until(engine, "campaign:C1") == 5 + 3600


def test_row_limit_holds_for_each_kind_alone() -> None:
    engine = Engine([cap(2, HOUR)], row_limit=2)
    engine.feed(shown(0), shown(1), *(clicked(at) for at in (2, 3, 4, 5)), opted_in(6))
    assert engine.ledger.entries == 5 + CUT
    assert engine.ledger.overflow == 2
    assert until(engine) == 3600


def test_how_far_back_a_row_was_cut_outlasts_a_restart_also_where_the_event_itself_was_let_go() -> (
    None
):
    engine = Engine([cap(2, HOUR)], row_limit=3)
    engine.feed(*(shown(at) for at in (10, 20, 30)))
    engine.publish()
    assert engine.feed(shown(5)) == {"overflow": 1}
    assert engine.ledger.entries == 3 + CUT
    engine.publish()
    assert engine.restarted().ledger.entries == 3 + CUT
    assert engine.feed(shown(5)) == {"overflow": 1}
    assert engine.ledger.dirty == 0


def test_row_limit_leaves_what_is_older_and_of_another_kind() -> None:
    engine = Engine([cap(2, HOUR)], row_limit=2)
    engine.feed(clicked(0, "a"), opted_in(1), shown(2), shown(3), shown(4))
    assert engine.ledger.entries == 4 + CUT
    assert until(engine) == 3 + 3600
    assert engine.feed(clicked(0, "a"), opted_in(1)) == {"duplicate": 2}


def test_what_the_row_limit_pushed_out_no_longer_stands_before_its_twin() -> None:
    engine = Engine([cap(2, HOUR, "user")], row_limit=2)
    engine.feed(shown(0, "a", campaign_id="C1"), shown(1, "a", campaign_id="C2"))
    assert engine.decide() is None
    engine.feed(shown(2, "b", campaign_id="C3"))
    assert until(engine, "user") == 1 + 3600


def test_what_stays_when_the_row_limit_pushes_out_still_stands_before_its_twin() -> None:
    engine = Engine([cap(2, HOUR, "user")], row_limit=3)
    engine.feed(shown(0, "x", campaign_id="C0"))
    engine.feed(shown(1, "a", campaign_id="C1"), shown(2, "a", campaign_id="C2"))
    engine.feed(shown(3, "b", campaign_id="C3"))
    assert until(engine, "user") == 1 + 3600


def test_a_row_filled_with_every_kind_goes_on() -> None:
    limit = 1024
    engine = Engine([cap(limit, HOUR)], row_limit=limit)
    for make in (clicked, opted_in, shown):
        engine.feed(*(make(at) for at in range(limit)))
    assert engine.ledger.entries == 3 * limit
    engine.feed(shown(limit), clicked(limit), opted_in(limit))
    assert engine.ledger.entries == 3 * limit + CUT
    assert until(engine) == 1 + 3600


def test_an_engagement_moves_the_clock_on_and_frees() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0), clicked(100))
    assert until(engine) == 3600
    engine.feed(clicked(4000))
    assert engine.decide() is None


def test_a_control_moves_the_clock_on_and_frees() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0), opted_in(3600))
    assert engine.decide() is None


def test_engagements_and_controls_are_no_exposures() -> None:
    engine = Engine([cap(1, HOUR, "user"), cap(1, HOUR, "campaign", "other")])
    engine.feed(clicked(0), opted_in(1))
    assert engine.decide() is None


# ---- Time --------------------------------------------------------------------------------------


def test_fractions_of_seconds_are_exact_to_the_microsecond() -> None:
    engine = Engine([cap(2, 60 * SECOND + 1)])
    engine.feed(shown(0.000001), shown(59.999999))
    assert until(engine) == 60.000002
    engine.feed(clicked(60.000001))
    assert until(engine) == 60.000002
    engine.feed(clicked(60.000002))
    assert engine.decide() is None


def test_times_are_written_with_no_needless_decimals() -> None:
    engine = Engine([cap(1, HOUR), spacing(MINUTE + SECOND // 4, "user")])
    engine.feed(shown(0.5))
    taken = engine.publish((T0 + 7) * SECOND + 120)
    text = (taken.decisions.value(0) or b"").decode()
    assert f'"from":{T0}.5,' in text
    assert f'"until":{T0 + 3600}.5,' in text
    assert f'"until":{T0 + 60}.75,' in text
    assert '"window":3600,' in text
    assert '"window":60.25,' in text
    assert text.endswith(f'"decided_at":{T0 + 7}.00012}}')
    engine.feed(shown(10))
    text = (engine.publish((T0 + 20) * SECOND).decisions.value(0) or b"").decode()
    assert f'"from":{T0 + 10},' in text
    assert text.endswith(f'"decided_at":{T0 + 20}}}')


# ---- Out ---------------------------------------------------------------------------------------


def test_the_published_record_is_the_decision_and_its_annotations() -> None:
    engine = Engine([cap(2, HOUR), spacing(MINUTE, "creative"), cap(1, DAY, "user", "once")])
    user = 'p"1\\\x1f\x7f é'
    engine.feed(*(shown(at, user=user, creative_id=f"K{at}") for at in (0, 1)))
    taken = engine.publish((T0 + 5) * SECOND)
    assert [taken.decisions.key(i) for i in range(len(taken.decisions))] == [user.encode()]
    record = json.loads(taken.decisions.value(0) or b"")
    decision = engine.decide(user)
    assert decision is not None
    assert {"id": record.pop("id"), "throttles": record.pop("throttles")} == decision
    assert record == {"policy": "test", "curves": None, "decided_at": T0 + 5}
    assert taken.by_rule.tolist() == [1, 2, 1, 0, 0, 0], "rules, then what people say"


def test_a_decision_that_ends_is_withdrawn_by_a_tombstone() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0))
    engine.publish()
    engine.feed(clicked(3600))
    taken = engine.publish()
    assert [taken.decisions.key(0), taken.decisions.value(0)] == [b"u1", None]
    assert taken.withdrawn == 1
    assert engine.topic == {}


def test_nothing_is_published_for_those_who_were_never_throttled() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), clicked(1))
    assert len(engine.publish().decisions) == 0


def test_an_unchanged_decision_is_not_published_again() -> None:
    engine = Engine([cap(1, HOUR, name="hourly")])
    engine.feed(shown(0))
    assert len(engine.publish().decisions) == 1
    engine.feed(clicked(1))
    taken = engine.publish()
    assert (len(taken.decisions), taken.users) == (0, 1)
    engine.feed(shown(2))
    assert len(engine.publish().decisions) == 1


def test_a_decision_that_only_begins_later_is_published_again() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0, campaign_id="C1"))
    engine.publish()
    engine.feed(shown(1, campaign_id="C1"))
    engine.publish()
    assert throttles(engine.topic["u1"])["campaign:C1"]["from"] == T0 + 1


def test_a_decision_that_only_ends_later_is_published_again() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(shown(0), shown(100))
    engine.publish()
    engine.feed(shown(50))
    engine.publish()
    throttle = throttles(engine.topic["u1"])["campaign:C7"]
    assert (throttle["from"], throttle["until"]) == (T0 + 100, T0 + 50 + 3600)


def test_a_row_that_changed_twice_is_taken_once() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0), shown(1))
    assert engine.ledger.dirty == 1
    taken = engine.publish()
    assert (taken.users, len(taken.decisions)) == (1, 1)


def test_what_was_taken_is_taken_once() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0), shown(0, user="u2"))
    assert engine.ledger.dirty == 2
    assert engine.publish().users == 2
    assert engine.ledger.dirty == 0
    assert (len(engine.publish().decisions), engine.publish().users) == (0, 0)


def test_more_decisions_than_the_first_buffer_holds() -> None:
    engine = Engine([cap(1, HOUR, per, f"per-{per}") for per in ("user", "campaign", "creative")])
    users = ["é" * 120 + str(i) for i in range(12)]
    long = '\\"' * 200
    for user in users:
        engine.feed(*(shown(i, user=user, creative_id=f"{long}{i}") for i in range(12)))
    engine.publish()
    assert engine.topic.keys() == set(users)
    for user in users:
        assert engine.topic[user]["throttles"] == (engine.decide(user) or {})["throttles"]
        assert len(engine.topic[user]["throttles"]) == 14


def test_a_sweep_withdraws_what_ran_out_by_everybodys_clock() -> None:
    engine = Engine([cap(1, HOUR)])
    engine.feed(shown(0))
    engine.publish()
    engine.feed(clicked(3600 + GRACE // SECOND - TICK, user="u2"))
    engine.ledger.sweep(10)
    engine.publish()
    assert list(engine.topic) == ["u1"]
    engine.feed(clicked(3600 + GRACE // SECOND, user="u2"))
    engine.ledger.sweep(10)
    assert engine.publish().withdrawn == 1
    assert engine.topic == {}


def test_a_sweep_forgets_rows_two_horizons_old_and_no_others() -> None:
    engine = Engine([cap(1, HOUR)], horizon=HOUR)
    old = [f"old-{i}" for i in range(300)]
    new = [f"new-{i}" for i in range(300)]
    for i in range(300):
        engine.feed(shown(0, user=old[i]), shown(TICK, user=new[i]))
    engine.publish()
    engine.feed(shown(7200, user="clock"))
    engine.ledger.sweep(10_000)
    engine.publish()
    assert len(engine.ledger) == 301
    assert all(engine.decide(user) is None for user in old)
    assert all(until(engine, user=user) == 3600 + TICK for user in new)
    rows = {key for key, value in engine.rows().items() if value is not None and key[:1] == b"u"}
    assert rows == {b"u" + user.encode() for user in [*new, "clock"]}
    engine.feed(*(shown(7200, user=user) for user in old))
    assert all(until(engine, user=user) == 7200 + 3600 for user in [*old, "clock"])


def test_rows_read_back_from_the_changelog_answer_the_same() -> None:
    engine = Engine([cap(2, HOUR), cap(3, DAY, "user", "daily")])
    engine.feed(shown(0, "a"), shown(1, "b"), shown(2, "a"), clicked(3), shown(9, user="u2"))
    engine.publish()
    engine.feed(shown(4, "c", campaign_id="C8", impression_id="i"), opted_in(5))
    engine.publish()
    restarted = engine.restarted()
    assert restarted.decide() == engine.decide()
    assert until(restarted) == 3600
    assert until(restarted, "user") == 86400
    assert restarted.feed(shown(1, "b"), shown(9, user="u2")) == {"duplicate": 2}
    restarted.feed(shown(6, "d", impression_id="i"), shown(10, user="u2"))
    assert until(restarted, "user") == 86400
    assert until(restarted, user="u2") == 9 + 3600
    assert len(restarted.publish().decisions) == 1


def test_rows_of_hundreds_of_entries_are_read_back() -> None:
    engine = Engine([cap(260, DAY)], row_limit=300)
    engine.feed(*(shown(at) for at in range(260)), shown(0, user="u2"))
    engine.publish()
    restarted = engine.restarted()
    assert restarted.ledger.entries == 261
    assert until(restarted) == 86400


def test_rows_read_back_answer_by_the_policy_of_the_day() -> None:
    engine = Engine([cap(2, HOUR)])
    engine.feed(*(shown(at, creative_id="K", labels={"promo": "p"}) for at in (0, 1)))
    engine.publish()
    engine.rules = [cap(2, HOUR, "creative"), cap(1, DAY, "promo", "promo-daily")]
    restarted = engine.restarted()
    assert set(throttles(restarted.decide())) == {"creative:K", "promo:p"}
    assert until(restarted, "promo:p") == 1 + 86400


def test_a_lower_row_limit_holds_for_rows_read_back() -> None:
    for count in (3, 5):
        engine = Engine([cap(2, HOUR)], row_limit=5)
        engine.feed(*(shown(at) for at in range(count)))
        engine.publish()
        engine.row_limit = 2
        restarted = engine.restarted()
        assert restarted.ledger.entries == 2 + CUT
        assert restarted.ledger.live("u1") == {"impressions": 2, "engagements": 0, "controls": 0}
        restarted.feed(shown(5))
        assert restarted.ledger.entries == 2 + CUT
        assert until(restarted) == count - 1 + 3600


def test_a_shorter_horizon_holds_for_rows_read_back() -> None:
    for newest in (clicked(3600), shown(3600)):
        engine = Engine([cap(1, HOUR)], horizon=2 * HOUR)
        engine.feed(shown(0, "a", campaign_id="C1"), shown(100, "a", campaign_id="C2"), newest)
        engine.publish()
        assert "campaign:C2" not in throttles(engine.decide())
        engine.horizon = HOUR
        restarted = engine.restarted()
        assert restarted.ledger.entries == 2
        assert "campaign:C2" in throttles(restarted.decide())


def test_rows_that_grow_side_by_side_and_are_moved_together_answer_the_same() -> None:
    """Runs that rows outgrow gather until the ledger moves the others together."""
    users = [f"person-{i}" * (1 + i % 3) for i in range(450)]
    engine = Engine([cap(9, HOUR), cap(8, HOUR, "user", "user-hourly")])
    for at in range(9):
        engine.feed(*(shown(at + i, user=user) for i, user in enumerate(users)))
    assert engine.ledger.entries == 9 * 450
    for i, user in enumerate(users):
        ends = {label: t["until"] - T0 - i for label, t in throttles(engine.decide(user)).items()}
        assert ends == {"campaign:C7": 3600, "user": 3601}
