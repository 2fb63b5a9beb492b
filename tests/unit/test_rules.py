"""Every rule, modifier and control in cases worked out by hand.

Times are seconds after ``T0``, a Monday at midnight in UTC. Each answer is the ledger's, and has
been compared with the oracle's.
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from governor.oracle import by_scope
from governor.records import Records
from tests.fuzz.running import Pair, names_last

SECOND = 1_000_000
TICK = 1 / SECOND
MINUTE, HOUR, DAY = 60, 3600, 86400
T0 = 1_749_427_200
Event = tuple[str, dict[str, Any]]

CAP = "{name: cap, cap: 2, per: campaign, window: 1h}"
BOUGHT = "{name: bought, reaction: conversion, per: campaign, rest: 10d}"
UNANSWERED = (
    "{name: unanswered, reaction: {ignored: 2, within: 1h, levels: 3}, per: campaign, rest: 1d}"
)


def shown(at: float, event_id: str = "", **fields: Any) -> Event:
    """An impression of campaign C7, unless the fields say otherwise."""
    event = {"event_id": event_id or f"shown-{at}", "user_id": "u1", "ts": T0 + at}
    return "impression", event | {"campaign_id": "C7"} | fields


def engaged(at: float, kind: str = "click", **fields: Any) -> Event:
    event = {"event_id": f"{kind}-{at}", "user_id": "u1", "ts": T0 + at, "type": kind}
    return "engagement", event | (fields or {"campaign_id": "C7"})


def said(at: float, kind: str, label: str | None = "campaign:C7", **fields: Any) -> Event:
    event = {"event_id": f"{kind}-{at}-{label}", "user_id": "u1", "ts": T0 + at, "type": kind}
    return "control", event | ({"label": label} if label else {}) | fields


def passing(at: float) -> Event:
    """Something that moves the row's clock and concerns no rule here."""
    return "impression", {
        "event_id": f"passing-{at}", "user_id": "u1", "ts": T0 + at, "campaign_id": "other"
    }  # fmt: skip


def decided(
    policy: str, *events: Event, key: str = "u1", row_limit: int = 128
) -> dict[str, dict[str, Any]]:
    """By label what rests after these events, the same by the ledger and by the oracle."""
    pair = governed(policy, *events, row_limit=row_limit)
    return by_scope(pair.ledger.decide(key))


def governed(policy: str, *events: Event, row_limit: int = 128) -> Pair:
    text = policy if policy.startswith("rules:") else f"rules:\n  - {policy}\n"
    pair = Pair(yaml.safe_load(text), horizon=400 * DAY * SECOND, row_limit=row_limit)
    pair.feed(events)
    pair.compare()
    return pair


def until(throttle: dict[str, Any] | None) -> float | None:
    """When a rest ends, in seconds after ``T0``; None where nothing rests."""
    return None if throttle is None else round(throttle["until"] - T0, 6)


# ---- Until -------------------------------------------------------------------------------------

UNTILS = {
    "a cap": (CAP, (shown(0), shown(60)), "campaign:C7", HOUR),
    "a calendar cap": (
        "{name: day, cap: 2, per: campaign, calendar: day}",
        (shown(0), shown(60)),
        "campaign:C7",
        DAY,
    ),
    "a spacing": (
        "{name: pause, spacing: 5m, per: campaign}",
        (shown(0),),
        "campaign:C7",
        5 * MINUTE,
    ),
    "a reaction": (BOUGHT, (shown(0), engaged(60, "conversion")), "campaign:C7", 60 + 10 * DAY),
    "ignored": (UNANSWERED, (shown(0), shown(60)), "campaign:C7", 60 + HOUR + DAY),
    "hide": (CAP + "\ncontrols: {hide: 2h}", (said(0, "hide"),), "campaign:C7", 2 * HOUR),
    "two rules of one label": (
        "{name: pause, spacing: 5m, per: campaign}\n  - " + CAP,
        (shown(0), shown(3590)),
        "campaign:C7",
        3590 + 5 * MINUTE,
    ),
}


@pytest.mark.parametrize("case", UNTILS)
def test_one_tick_before_until_it_rests_and_at_until_it_is_free(case: str) -> None:
    policy, events, label, ends = UNTILS[case]
    before = decided(policy, *events, passing(ends - TICK))
    assert until(before.get(label)) == ends
    assert label not in decided(policy, *events, passing(ends))


def test_of_two_rules_the_one_that_lasts_stays_and_is_named_alone() -> None:
    policy = "{name: pause, spacing: 2h, per: campaign}\n  - " + CAP
    both = decided(policy, shown(0), shown(60))["campaign:C7"]
    assert (both["reasons"], until(both)) == (["pause", "cap"], 60 + 2 * HOUR)
    after = decided(policy, shown(0), shown(60), passing(HOUR))["campaign:C7"]
    assert (after["reasons"], until(after)) == (["pause"], 60 + 2 * HOUR)


def test_a_late_arrival_counts_at_its_own_time() -> None:
    late = decided(CAP, shown(600), passing(900), shown(60))["campaign:C7"]
    assert until(late) == 60 + HOUR
    assert late["from"] == T0 + 600
    assert late == decided(CAP, shown(60), shown(600), passing(900))["campaign:C7"]
    assert decided(CAP, shown(4000), passing(4001), shown(60)) == {}


# ---- Calendars ---------------------------------------------------------------------------------


def calendar(period: str, zone: str = "UTC", limit: int = 2) -> str:
    rule = f"{{name: c, cap: {limit}, per: campaign, calendar: {period}}}"
    return f"rules:\n  - {rule}\ntimezone: {zone}\n"


@pytest.mark.parametrize(
    ("period", "zone", "ends"),
    [
        ("day", "UTC", DAY),
        ("day", "Europe/Berlin", DAY - 2 * HOUR),
        ("day", "America/New_York", 4 * HOUR),
        ("week", "UTC", 7 * DAY),
        ("week", "America/New_York", 4 * HOUR),
        ("month", "UTC", 22 * DAY),
    ],
)
def test_a_calendar_cap_rests_until_the_next_period(period: str, zone: str, ends: int) -> None:
    """T0 is Monday 9 June 2025, 00:00 UTC: in New York still Sunday evening."""
    found = decided(calendar(period, zone), shown(0), shown(60))["campaign:C7"]
    assert until(found) == ends
    assert found["evidence"]["c"] == {
        "limit": 2,
        "calendar": period,
        "exposures": 2,
        "until": T0 + ends,
    }


def test_a_calendar_cap_forgets_what_was_before_the_period() -> None:
    assert decided(calendar("day"), shown(-1), shown(0)) == {}
    assert decided(calendar("day"), shown(-1), shown(0), shown(1)).keys() == {"campaign:C7"}


def test_the_zone_is_that_of_the_newest_event_that_names_one() -> None:
    two = shown(0, tz="Asia/Tokyo"), shown(60, tz="America/New_York")
    assert until(decided(calendar("day"), *two)["campaign:C7"]) == 4 * HOUR
    assert until(decided(calendar("day"), *two, passing(90))["campaign:C7"]) == 4 * HOUR
    unknown = shown(0, tz="Europe/Berlin"), shown(60, tz="Middle/Earth")
    assert until(decided(calendar("day"), *unknown)["campaign:C7"]) == DAY - 2 * HOUR


def test_a_day_on_which_clocks_are_set_back_has_an_hour_more() -> None:
    """Sunday 26 October 2025 in Berlin, from 22:00 UTC the day before to 23:00 UTC."""
    midnight = 1_761_429_600 - T0
    policy = calendar("day", "Europe/Berlin")
    found = decided(policy, shown(midnight), shown(midnight + 24 * HOUR))["campaign:C7"]
    assert until(found) == midnight + 25 * HOUR


def test_a_day_without_a_midnight_begins_at_its_first_instant() -> None:
    """Sunday 4 November 2018 in Sao Paulo began at 01:00, 03:00 UTC."""
    first = 1_541_300_400 - T0
    policy = calendar("day", "America/Sao_Paulo")
    assert decided(policy, shown(first - 1), shown(first)) == {}
    found = decided(policy, shown(first), shown(first + 1))["campaign:C7"]
    assert until(found) == first + 23 * HOUR


# ---- What counts -------------------------------------------------------------------------------

VIEWABLE = CAP.replace("}", ", count: viewable}")


def test_a_viewable_cap_counts_what_was_viewed_at_the_time_it_was_first_there() -> None:
    events = (
        shown(0, "a", impression_id="i", kind="loaded"),
        shown(5, "b", impression_id="i", kind="viewable"),
        shown(10, "c", kind="viewable"),
        shown(20, "d"),
    )
    assert until(decided(VIEWABLE, *events)["campaign:C7"]) == HOUR
    assert decided(VIEWABLE, *events[:2], events[3]) == {}


def test_a_viewable_event_that_is_a_second_content_of_another_does_not_view() -> None:
    events = (
        shown(0, "a", impression_id="i"),
        shown(1, "b", campaign_id="other"),
        shown(2, "b", impression_id="i", kind="viewable"),
        shown(10, "c", kind="viewable"),
    )
    assert decided(VIEWABLE, *events) == {}


@pytest.mark.parametrize(
    ("weight", "count", "rests"),
    [(2, 1, True), (1, 1, False), (0.5, 3, False), (0.5, 4, True), (0.33, 6, False), (3, 1, True)],
)
def test_weights_add_up_to_the_cap(weight: float, count: int, rests: bool) -> None:
    policy = f"rules:\n  - {CAP}\nads: [{{match: {{channel: ctv}}, weight: {weight}}}]\n"
    found = decided(policy, *(shown(at, channel="ctv") for at in range(count)))
    assert bool(found) is rests


def test_weights_of_all_items_that_match_multiply() -> None:
    ads = "ads: [{match: {channel: ctv}, weight: 4}, {match: {campaign: C7}, weight: 0.5}]"
    policy = f"rules:\n  - {CAP}\n{ads}\n"
    assert decided(policy, shown(0, channel="ctv")).keys() == {"campaign:C7"}
    assert decided(policy, shown(0)) == {}


SENSITIVE = "sensitive: {categories: [Alcoholic Beverages], multiplier: 2}\n"


@pytest.mark.parametrize("category", ["211", "Alcoholic Beverages", "alcoholic beverages"])
def test_of_a_sensitive_category_half_as_much_is_enough(category: str) -> None:
    policy = f"rules:\n  - {CAP}\n{SENSITIVE}"
    assert decided(policy, shown(0, category=category)).keys() == {"campaign:C7"}
    assert decided(policy, shown(0, category="shoes")) == {}


def test_rests_of_a_sensitive_category_are_longer() -> None:
    pause = f"rules:\n  - {{name: pause, spacing: 5m, per: campaign}}\n{SENSITIVE}"
    found = decided(pause, shown(0, category="211"))["campaign:C7"]
    assert until(found) == 600
    assert found["evidence"]["pause"]["window"] == 600
    bought = f"rules:\n  - {BOUGHT}\n{SENSITIVE}"
    answered = shown(0, category="211", impression_id="i")
    found = decided(bought, answered, engaged(60, "conversion", impression_id="i"))["campaign:C7"]
    assert until(found) == 60 + 20 * DAY
    assert found["evidence"]["bought"] == {"type": "conversion", "rest": 20 * DAY, "at": T0 + 60}


def test_a_match_counts_only_such_ads_and_is_told() -> None:
    policy = CAP.replace("}", ", match: {channel: [ctv, web], promo: spring}}")
    fits: dict[str, Any] = {"channel": "ctv", "labels": {"promo": "spring"}}
    assert decided(policy, shown(0, **fits), shown(1, channel="ctv"), shown(2)) == {}
    found = list(decided(policy, shown(0, **fits), shown(1, **fits | {"channel": "web"})).values())
    assert found[0]["match"] == {"channel": ["ctv", "web"], "promo": ["spring"]}


def test_a_combination_is_a_label_of_its_own_in_the_order_written() -> None:
    policy = CAP.replace("campaign", "channel x campaign")
    events = shown(0, channel="ctv"), shown(1, channel="web"), shown(2)
    assert decided(policy, *events) == {}
    found = decided(policy, *events, shown(3, channel="web"))
    assert found.keys() == {"channel:web x campaign:C7"}


def test_a_shadow_rule_is_reported_beside_and_holds_nothing_back() -> None:
    shadow = "{name: new, cap: 1, per: campaign, window: 1h, shadow: true}"
    found = decided(f"rules:\n  - {CAP}\n  - {shadow}\n", shown(0), shown(1))
    assert found["campaign:C7"]["reasons"] == ["cap"]
    beside = found["campaign:C7 in shadow"]
    assert (beside["state"], beside["factor"], beside["reasons"]) == ("shadow", 1, ["new"])
    everything = decided(f"rules:\n  - {CAP}\nshadow: true\n", shown(0), shown(1))
    assert everything.keys() == {"campaign:C7 in shadow"}


def test_what_always_goes_out_counts_for_nothing() -> None:
    policy = f"rules:\n  - {CAP}\nads: [{{match: {{segment: service}}, priority: always}}]\n"
    events = shown(0, segment="service"), shown(1, segment="service"), shown(2)
    assert decided(policy, *events) == {}


def test_a_rule_of_another_id_is_asked_of_its_rows() -> None:
    policy = f"rules:\n  - {CAP}\n  - {CAP.replace('cap,', 'home,').replace('}', ', id: home}')}\n"
    events = shown(0, ids={"home": "h"}), shown(1, ids={"home": "h"}, user_id="u2")
    assert decided(policy, *events) == {}
    pair = governed(policy, *events)
    record = pair.ledger.decide("home\0h")
    assert record is not None
    assert (record["id"], record["id_type"]) == ("h", "home")
    assert record["throttles"][0]["reasons"] == ["home"]


def test_excluded_ids_and_invalid_traffic_leave_no_trace() -> None:
    policy = f"rules:\n  - {CAP}\nexclude: {{ids: [bot], prefixes: [test-]}}\n"
    for fields in ({"user_id": "bot"}, {"user_id": "test-7"}, {"invalid": True}):
        events = shown(0, **fields), shown(1, **fields)
        pair = governed(policy, *events)
        assert len(pair.ledger) == 0
        assert pair.met["outcome excluded"] == 2


def test_who_is_excluded_by_now_can_still_be_erased() -> None:
    pair = governed(CAP, shown(0), shown(1))
    pair.govern(yaml.safe_load(f"rules:\n  - {CAP}\nexclude: {{ids: [u1]}}\n"))
    assert pair.ledger.decide("u1") is not None
    pair.feed([said(2, "erase", None), shown(3), shown(4)])
    pair.compare()
    assert pair.ledger.decide("u1") is None
    pair.ledger.take(0)
    assert len(pair.ledger) == 0


# ---- Reactions ---------------------------------------------------------------------------------


def test_a_reaction_concerns_the_label_of_the_exposure_that_it_answers() -> None:
    events = (
        shown(0, impression_id="i", creative_id="B"),
        engaged(5, "hide", impression_id="i"),
    )
    policy = "{name: hidden, reaction: hide, per: creative, rest: 30d}"
    assert until(decided(policy, *events)["creative:B"]) == 5 + 30 * DAY


def test_labels_of_the_engagement_stand_before_those_of_its_exposure() -> None:
    events = (
        shown(0, impression_id="i", channel="web"),
        engaged(5, "conversion", impression_id="i", campaign_id="C8"),
    )
    assert decided(BOUGHT, *events).keys() == {"campaign:C8"}
    matched = BOUGHT.replace("}", ", match: {channel: web}}")
    assert len(decided(matched, *events)) == 1


def test_types_of_ones_own_are_compared_as_text() -> None:
    policy = BOUGHT.replace("conversion", "newsletter")
    assert decided(policy, engaged(0, "newsletter")).keys() == {"campaign:C7"}
    assert decided(policy, engaged(0, "wave"), engaged(1, "conversion")) == {}


def test_the_newest_reaction_counts_also_when_it_comes_late() -> None:
    events = engaged(0, "conversion"), engaged(50, "conversion"), engaged(20, "conversion")
    assert until(decided(BOUGHT, *events)["campaign:C7"]) == 50 + 10 * DAY


# ---- Ignored -----------------------------------------------------------------------------------


def test_the_rest_begins_when_the_last_chance_to_answer_is_over() -> None:
    found = decided(UNANSWERED, shown(0), shown(60))["campaign:C7"]
    assert found["from"] == T0 + 60 + HOUR
    assert until(found) == 60 + HOUR + DAY
    assert found["evidence"]["unanswered"] == {
        "streak": 2,
        "level": 1,
        "ignored": 2,
        "rest": DAY,
    }


def test_one_is_not_enough_and_an_answer_begins_anew() -> None:
    assert decided(UNANSWERED, shown(0)) == {}
    assert decided(UNANSWERED, shown(0), engaged(30), shown(60)) == {}
    assert decided(UNANSWERED, shown(0), shown(60), engaged(90)) == {}


def test_an_answer_that_comes_late_withdraws_the_rest() -> None:
    events = shown(0, impression_id="a"), shown(60, impression_id="b"), passing(9 * HOUR)
    assert decided(UNANSWERED, *events).keys() == {"campaign:C7"}
    assert decided(UNANSWERED, *events, engaged(90, impression_id="b")) == {}


def test_an_answer_to_what_came_after_those_ignored_withdraws_the_rest() -> None:
    ignored = shown(0), shown(10), shown(20)
    assert decided(UNANSWERED, *ignored).keys() == {"campaign:C7"}
    assert decided(UNANSWERED, *ignored, engaged(30)) == {}


def test_an_answer_by_label_is_to_the_newest_that_it_can_mean() -> None:
    """Within an hour, the newest before it: the second; what is shown after is a first again."""
    assert decided(UNANSWERED, shown(0), shown(60), engaged(60 + HOUR - TICK), shown(4000)) == {}
    too_late = decided(UNANSWERED, shown(0), shown(60), engaged(60 + HOUR))
    assert too_late.keys() == {"campaign:C7"}


def test_each_level_doubles_the_rest_up_to_the_highest() -> None:
    events = [shown(0), shown(1)]
    for level, rest in ((1, DAY), (2, 2 * DAY), (3, 4 * DAY), (3, 4 * DAY)):
        found = decided(UNANSWERED, *events)["campaign:C7"]
        evidence = found["evidence"]["unanswered"]
        assert (evidence["level"], evidence["rest"]) == (level, rest)
        ends = until(found)
        assert ends is not None
        events += [shown(ends), shown(ends + 1)]


def test_what_is_shown_during_a_rest_is_disobedience_and_not_ignored() -> None:
    events = [shown(0), shown(1)]
    during = [shown(HOUR + 1 + at) for at in (0, 1, 2, 3)]
    found = decided(UNANSWERED, *events, *during)["campaign:C7"]
    assert found["evidence"]["unanswered"]["streak"] == 2
    before = decided(UNANSWERED, *events, shown(HOUR))["campaign:C7"]
    assert before["evidence"]["unanswered"]["streak"] == 3


@pytest.mark.parametrize(
    ("ads", "fields"),
    [
        ("[]", {"measurable": False}),
        ("[{match: {surface: radio}, measurable: false}]", {"surface": "radio"}),
    ],
)
def test_what_cannot_be_answered_is_not_ignored(ads: str, fields: dict[str, Any]) -> None:
    policy = f"rules:\n  - {UNANSWERED}\n" + ("" if ads == "[]" else f"ads: {ads}\n")
    assert decided(policy, shown(0), shown(1, **fields)) == {}
    assert decided(policy, shown(0), shown(1, **fields), shown(2)).keys() == {"campaign:C7"}


# ---- Lifecycle ---------------------------------------------------------------------------------


def for_states(*states: str, times: str = "{engaged: 1d, customer: 2d}") -> str:
    rule = CAP.replace("2, per", "1, per").replace("1h", "30d")
    rule = rule.replace("}", f", match: {{lifecycle: [{', '.join(states)}]}}}}")
    return f"rules:\n  - {rule}\nlifecycle: {times}\n"


@pytest.mark.parametrize(
    ("state", "events"),
    [
        ("prospect", ()),
        ("prospect", (engaged(1, "hide"),)),
        ("engaged", (engaged(1),)),
        ("prospect", (engaged(1), passing(1 + DAY))),
        ("customer", (engaged(1, "conversion"), engaged(2))),
        ("lapsed", (engaged(1, "conversion"), passing(1 + 2 * DAY))),
        ("lapsed", (engaged(1, "conversion"), engaged(2 * DAY + 1))),
    ],
)
def test_a_rule_for_a_state_holds_in_it_only(state: str, events: tuple[Event, ...]) -> None:
    for each in ("prospect", "engaged", "customer", "lapsed"):
        assert bool(decided(for_states(each), shown(0), *events)) is (each == state), each


def test_a_rule_ends_with_the_state_it_is_for() -> None:
    customer = decided(for_states("customer"), shown(0), engaged(9, "conversion"))["campaign:C7"]
    assert until(customer) == 9 + 2 * DAY
    both = decided(for_states("customer", "lapsed"), shown(0), engaged(9, "conversion"))
    assert until(both["campaign:C7"]) == 30 * DAY
    assert until(decided(for_states("engaged"), shown(0), engaged(9))["campaign:C7"]) == 9 + DAY


# ---- Controls ----------------------------------------------------------------------------------


def test_an_opt_out_has_no_end_and_stands_first() -> None:
    found = decided(CAP, shown(0), shown(1), said(2, "opt_out"))["campaign:C7"]
    assert found["until"] is None
    assert found["reasons"] == ["opt_out", "cap"]
    assert found["evidence"]["opt_out"] == {"at": T0 + 2}
    assert found["from"] == T0 + 1


def test_the_last_word_on_a_label_counts_and_on_that_label_only() -> None:
    assert decided(CAP, said(0, "opt_out"), said(1, "opt_in")) == {}
    assert decided(CAP, said(1, "opt_in"), said(0, "opt_out")) == {}
    everything = decided(CAP, said(0, "opt_out", None), said(1, "opt_in"))
    assert everything.keys() == {"user"}
    assert decided(CAP, said(0, "opt_out"), said(1, "opt_in", None)).keys() == {"campaign:C7"}


def test_an_opt_out_outlasts_the_history() -> None:
    assert decided(CAP, said(0, "opt_out"), passing(900 * DAY)).keys() == {"campaign:C7"}


def test_what_is_hidden_comes_back() -> None:
    policy = f"rules:\n  - {CAP}\ncontrols: {{hide: 2h}}\n"
    found = decided(policy, said(5, "hide", "creative:B"))["creative:B"]
    assert (found["reasons"], until(found)) == (["hide"], 5 + 2 * HOUR)
    assert found["evidence"]["hide"] == {"at": T0 + 5, "until": T0 + 5 + 2 * HOUR}


LESS = "rules:\n  - {name: cap, cap: 4, per: campaign, window: 1h}\ncontrols: {less_often: 30d}\n"


@pytest.mark.parametrize(
    ("requests", "limit", "window"),
    [(0, 4, HOUR), (1, 2, HOUR), (2, 1, HOUR), (3, 1, 2 * HOUR), (4, 1, 4 * HOUR)],
)
def test_each_request_halves_the_cap_and_then_doubles_its_window(
    requests: int, limit: int, window: int
) -> None:
    events = [said(-at - 1, "less_often") for at in range(requests)]
    found = decided(LESS, *events, *(shown(at) for at in range(4)))["campaign:C7"]
    evidence = found["evidence"]["cap"]
    assert (evidence["limit"], evidence["window"]) == (limit, window)
    assert until(found) == 4 - limit + window


def test_the_same_request_again_is_no_other_request() -> None:
    events = [said(0, "less_often")] * 3
    assert decided(LESS, *events, shown(1)) == {}


def test_when_a_request_expires_the_cap_is_what_it_was() -> None:
    """Two of a cap of four: at once free when the request ends, before they leave the hour."""
    events = said(0, "less_often"), shown(30 * DAY - 60), shown(30 * DAY - 30)
    assert until(decided(LESS, *events)["campaign:C7"]) == 30 * DAY


def test_less_often_concerns_the_rules_of_that_very_label() -> None:
    assert decided(LESS, said(0, "less_often", "campaign:C8"), shown(1), shown(2)) == {}
    assert decided(LESS, said(0, "less_often", None), shown(1), shown(2)) == {}


def test_refused_consent_stops_retargeting_and_names_its_campaigns() -> None:
    events = (
        shown(0, campaign_id="R", retargeting=True),
        shown(1, campaign_id="plain"),
        said(2, "consent", None, consent={"retargeting": False}),
    )
    found = decided(CAP, *events)
    assert found.keys() == {"retargeting", "campaign:R"}
    assert found["campaign:R"]["until"] is None
    assert found["campaign:R"]["from"] == T0 + 2
    assert found["campaign:R"]["reasons"] == ["consent"]
    assert decided(CAP, *events, said(3, "consent", None, consent={"retargeting": True})) == {}


def test_without_consent_engagements_are_not_kept() -> None:
    refusal = said(10, "consent", None, consent={"retargeting": False})
    grant = said(20, "consent", None, consent={"retargeting": True})
    for events in (
        (engaged(5, "conversion"), refusal, grant),
        (refusal, engaged(5, "conversion"), grant),
        (refusal, engaged(15, "conversion"), grant),
    ):
        assert decided(BOUGHT, *events) == {}
    assert decided(BOUGHT, refusal, grant, engaged(15, "conversion")).keys() == {"campaign:C7"}


def test_of_an_engagement_that_had_to_go_it_is_still_known_where_and_when_somebody_was() -> None:
    events = shown(0), shown(1), engaged(2 * HOUR, campaign_id="C7", tz="Asia/Tokyo")
    refusal = said(5, "consent", None, consent={"retargeting": False})
    assert decided(CAP, *events, refusal).keys() == {"retargeting"}
    assert decided(CAP, events[0], events[1], refusal, events[2]).keys() == {
        "retargeting",
        "campaign:C7",
    }


def test_where_consent_is_required_nobody_has_given_it_yet() -> None:
    policy = f"rules:\n  - {CAP}\nconsent: {{required: true}}\n"
    found = decided(policy, shown(7, retargeting=True), shown(9))
    assert found["retargeting"]["from"] == T0 + 7
    assert found["retargeting"]["evidence"] == {"consent": {"at": None}}
    assert decided(policy, shown(7, consent={"retargeting": True})) == {}


def test_erased_events_are_gone_and_do_not_come_back() -> None:
    events = shown(0), shown(1), said(2, "erase", None), shown(0), shown(1)
    pair = governed(CAP, *events)
    assert pair.ledger.decide("u1") is None
    pair.ledger.take(0)
    assert len(pair.ledger) == 0
    assert decided(CAP, *events, shown(3), shown(4)).keys() == {"campaign:C7"}


def test_a_link_joins_what_two_ids_have_seen() -> None:
    pair = governed(CAP, shown(0), shown(1, user_id="anonymous"))
    assert pair.ledger.decide("u1") is None
    pair.link("anonymous", "u1", T0 * SECOND)
    pair.compare()
    assert by_scope(pair.ledger.decide("u1")).keys() == {"campaign:C7"}
    pair.feed([shown(1, user_id="anonymous")])
    pair.compare()
    assert by_scope(pair.ledger.decide("u1"))["campaign:C7"]["evidence"]["cap"]["exposures"] == 2


@pytest.mark.parametrize("refusing", ["u1", "anonymous"])
def test_consent_that_one_of_two_refused_is_refused_as_of_their_link(refusing: str) -> None:
    """Until it is granted after the link; a grant from before it that comes later lifts nothing."""
    granting = "anonymous" if refusing == "u1" else "u1"
    pair = governed(
        BOUGHT,
        said(1, "consent", None, consent={"retargeting": False}, user_id=refusing),
        said(2, "consent", None, consent={"retargeting": True}, user_id=granting),
        engaged(3, "conversion", user_id=granting, campaign_id="C7"),
    )
    pair.link("anonymous", "u1", (T0 + 10) * SECOND)
    for at, rests in ((9, True), (10, True), (11, False)):
        pair.feed([said(at, "consent", None, consent={"retargeting": True})])
        pair.compare()
        found = by_scope(pair.ledger.decide("u1"))
        assert found.keys() == ({"retargeting"} if rests else set())
        assert not rests or found["retargeting"]["from"] == T0 + 10


def test_a_grant_after_the_link_is_heeded_though_it_came_before_the_link_did() -> None:
    pair = governed(
        BOUGHT,
        said(1, "consent", None, consent={"retargeting": False}),
        said(20, "consent", None, consent={"retargeting": True}, user_id="anonymous"),
        engaged(21, "conversion", user_id="anonymous", campaign_id="C7"),
    )
    pair.link("anonymous", "u1", (T0 + 10) * SECOND)
    pair.compare()
    assert by_scope(pair.ledger.decide("u1")).keys() == {"campaign:C7"}


# ---- Holdout -----------------------------------------------------------------------------------


def test_on_the_holdout_soft_rules_do_not_act_and_caps_do() -> None:
    policy = f"rules:\n  - {CAP}\n  - {UNANSWERED}\nholdout: {{share: 1, salt: a}}\n"
    pair = governed(policy, shown(0), shown(1))
    record = pair.ledger.decide("u1")
    assert record is not None
    assert record["arm"] == "holdout"
    assert [each["reasons"] for each in record["throttles"]] == [["cap"]]


def test_on_the_ungoverned_no_rule_acts_and_controls_do() -> None:
    policy = f"rules:\n  - {CAP}\nholdout: {{ungoverned: 1, salt: a}}\n"
    assert decided(policy, shown(0), shown(1)) == {}
    found = decided(policy, shown(0), shown(1), said(2, "opt_out"))
    assert found["campaign:C7"]["reasons"] == ["opt_out"]


def test_an_arm_is_a_share_of_people_and_stays() -> None:
    def held_out(share: float) -> set[str]:
        policy = f"rules:\n  - {CAP}\nholdout: {{share: {share}, salt: a}}\n"
        events = [shown(at, f"{at}-{n}", user_id=f"p{n}") for n in range(300) for at in (0, 1)]
        pair = governed(policy, *events)
        found = {key: pair.ledger.decide(key) for key in pair.oracle.rows}
        return {key for key, record in found.items() if record and "arm" in record}

    small, large = held_out(0.1), held_out(0.3)
    assert 10 < len(small) < 60 < len(large) < 130
    assert small < large


# ---- What is kept ------------------------------------------------------------------------------


def test_a_crowded_row_keeps_what_a_rule_may_ask_about() -> None:
    yearly = "{name: yearly, cap: 1, per: campaign, window: 365d}"
    crowd = [shown(at, campaign_id=f"X{at}") for at in range(1, 400)]
    assert "campaign:C7" in decided(yearly, shown(0), *crowd, row_limit=4)


def test_a_crowded_row_keeps_the_conversion() -> None:
    clicks = [engaged(at) for at in range(1, 50)]
    found = decided(BOUGHT, engaged(0, "conversion", campaign_id="C1"), *clicks, row_limit=4)
    assert found.keys() == {"campaign:C1"}


# ---- Rows read back before the names of their ads ----------------------------------------------

SAYINGS = {
    "an opt-out": (CAP, (shown(0), said(60, "opt_out"))),
    "a request for less": (CAP, (shown(0), said(60, "less_often"), shown(61))),
    "a conversion": (BOUGHT, (shown(0), engaged(60, "conversion"))),
    "exposures alone": (CAP, (shown(0), shown(60))),
}


@pytest.mark.parametrize("named_first", [True, False])
@pytest.mark.parametrize("case", SAYINGS)
def test_a_row_read_before_the_names_of_its_ads_answers_at_once(
    case: str, named_first: bool
) -> None:
    """Compaction leaves the names behind it when another owner has written them again."""
    policy, events = SAYINGS[case]
    pair = governed(policy, *events)
    pair.publish()
    read = Pair(
        yaml.safe_load(f"rules:\n  - {policy}\n"), horizon=pair.horizon, row_limit=pair.row_limit
    )
    records = pair.changelog if named_first else names_last(pair.changelog)
    for record in records:  # as they come in fetches of their own
        read.ledger.load(Records.of([record]))
    assert read.ledger.decide("u1") == pair.ledger.decide("u1") is not None
    read.ledger.reevaluate(1)
    taken = read.ledger.take(0)
    assert (len(taken.decisions), len(taken.changelog)) == (0, 0)


def test_a_row_read_before_the_names_of_its_ads_keeps_what_a_row_keeps() -> None:
    """A lower row limit holds once they have come, not only from the next event on."""
    pair = governed(CAP, *(shown(at) for at in range(5)))
    pair.publish()
    read = Pair(yaml.safe_load(f"rules:\n  - {CAP}\n"), horizon=pair.horizon, row_limit=2)
    for record in names_last(pair.changelog):
        read.ledger.load(Records.of([record]))
    assert read.ledger.entries == 2 + 1  # the two, and that others were pushed out
