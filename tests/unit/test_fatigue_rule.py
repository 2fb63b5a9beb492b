"""The rule ``fatigue`` and the joining of answers, in cases worked out by hand.

Times are seconds after ``T0``. The curve of campaign C7 halves with each exposure that is not
forgotten (``f = 2 ** -wear``, known for sure), expects half an engagement of a first exposure, and
propensity is Gamma(1, 1), so that after N answers of Lambda expected ones the next exposure is
expected to give ``2 ** -wear (1 + N) / (1 + Lambda)``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import yaml

from governor.fatigue.curves import ALL, KNOTS, STRATA, Curve, CurveSet
from governor.fatigue.histories import History, HistoryError
from governor.fatigue.versions import Version
from governor.oracle import by_scope
from tests.fuzz.running import Pair
from tests.unit.test_rules import DAY, HOUR, MINUTE, SECOND, T0, engaged, passing, shown

Event = tuple[str, dict[str, Any]]

TIRED = "rules: [{name: tired, fatigue: {floor: 0.4, probability: 0.9}, per: campaign}]"
SOFT = "rules: [{name: tired, fatigue: {floor: 0.1, probability: 0.9, full: 0.5}, per: campaign}]"

HALVING = Curve(
    label="campaign:C7",
    base=(0.5,) * STRATA,
    edges=(1e9,) * (STRATA - 2),
    shape=1.0,
    recovery=0,
    level=tuple(-knot * math.log(2) for knot in KNOTS),
    spread=(0.0,) * len(KNOTS),
    exposures=1e6,
    engagements=1e5,
    people=1000,
    coverage=1.0,
    identified=True,
)
FLAT = replace(HALVING, label=ALL, level=(0.0,) * len(KNOTS))


def curves(*given: Curve) -> Version:
    found = {each.label: each for each in given}
    return Version(CurveSet(T0 * SECOND, 60 * DAY * SECOND, {ALL: FLAT, **found}), 0)


def pair(policy: str, version: Version | None, *events: Event) -> Pair:
    """A ledger and an oracle that were told these events and agree."""
    made = Pair(yaml.safe_load(policy), horizon=32 * DAY * SECOND, row_limit=128, version=version)
    made.feed(events)
    made.compare()
    return made


def rest(version: Version, *events: Event, policy: str = TIRED) -> dict[str, Any] | None:
    return by_scope(pair(policy, version, *events).ledger.decide("u1")).get("campaign:C7")


def test_without_curves_nobody_is_tired() -> None:
    made = pair(TIRED, None, *(shown(at * HOUR) for at in range(20)))
    assert made.ledger.decide("u1") is None


def test_a_first_exposure_is_never_held_back() -> None:
    assert rest(curves(HALVING), passing(0)) is None


def test_a_label_at_rest_and_what_the_record_says() -> None:
    version = curves(HALVING)
    # Lambda: 1/2 of the first, long settled, 1/4 of the second, 1/8 of the third and newest.
    found = pair(TIRED, version, shown(0), shown(DAY), shown(2 * DAY)).ledger.decide("u1")
    assert found is not None
    (throttle,) = found["throttles"]
    expected = 2**-3 / (1 + 1 / 2 + 1 / 4 + 1 / 8)
    # The gamma variable has the shape of propensity: it is exponential.
    probability = 1 - math.exp(-0.4 / expected)
    assert throttle == {
        "label": "campaign:C7",
        "state": "throttled",
        "factor": 0,
        "from": T0 + 2 * DAY,
        # Recovery is not known. Below the floor were the second exposure, of 1/3, and the third;
        # each came a whole rest later and was not answered: an hour, doubled twice.
        "until": T0 + 2 * DAY + 4 * HOUR,
        "remaining": 0,
        "reasons": ["tired"],
        "evidence": {
            "tired": {
                "floor": 0.4,
                "expected": round(expected, 4),
                "probability": round(probability, 4),
                "depth": 3,
                "curves": version.name,
            }
        },
    }


def test_a_late_answer_withdraws_the_rest() -> None:
    version = curves(replace(HALVING, level=tuple(level / 3 for level in HALVING.level)))
    events = [shown(at * HOUR) for at in range(4)]
    assert rest(version, *events) is not None
    answers = [engaged(at * HOUR + 60) for at in range(3)]
    assert rest(version, *answers, *events) is None
    assert rest(version, *events, *answers) is None


def test_whoever_never_answers_is_not_thereby_tired() -> None:
    assert (
        rest(curves(replace(FLAT, label="campaign:C7")), *(shown(at * HOUR) for at in range(30)))
        is None
    )


def test_a_curve_that_selection_could_explain_holds_nobody_back() -> None:
    assert (
        rest(curves(replace(HALVING, identified=False)), *(shown(at * 60) for at in range(9)))
        is None
    )


def test_a_curve_that_is_not_sure_holds_nobody_back() -> None:
    unsure = replace(HALVING, spread=(0.0,) + (3.0,) * (len(KNOTS) - 1))
    assert rest(curves(unsure), shown(0), shown(60)) is None


def test_a_campaign_without_a_curve_goes_by_its_category() -> None:
    shoes = replace(HALVING, label="category:shoes")
    events = [shown(at * MINUTE, category="shoes") for at in range(4)]
    assert rest(curves(shoes), *events) is not None
    assert rest(curves(shoes), *(shown(at * MINUTE) for at in range(4))) is None


def test_rest_until_wear_has_faded() -> None:
    version = curves(replace(HALVING, recovery=DAY * SECOND, base=(1e-9,) * STRATA))
    found = rest(version, shown(0), shown(0.000001), shown(0.000002))
    assert found is not None
    # 2 ** -(3 * 2 ** -t) = 1.2 * .4 at t = log2(3 / -log2(.48)) days.
    assert found["until"] == pytest.approx(T0 + math.log2(3 / -math.log2(0.48)) * DAY, abs=2)


def test_where_all_are_worn_nobody_rests_for_being_as_worn() -> None:
    events = [shown(0), shown(DAY), shown(2 * DAY)]
    # About .125 / 1.875 = .067 of a first one is expected; asked for are .4 of it, or .06.
    plain = rest(curves(HALVING), *events)
    assert plain is not None
    assert rest(curves(replace(HALVING, worth=0.15)), *events) is None
    # More than a first one of such a person is asked for of nobody.
    more = rest(curves(replace(HALVING, worth=9.0)), *events)
    assert more is not None
    assert more["until"] == plain["until"]


def test_the_back_off_doubles_with_each_rest_that_nobody_answers() -> None:
    version = curves(HALVING)
    lasting = []
    for rests in range(4):
        events = [shown(0), shown(60), shown(120), *(shown((1 + n) * DAY) for n in range(rests))]
        found = rest(version, *events)
        assert found is not None
        lasting.append(round(found["until"] - found["from"]))
    assert lasting == [HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR]


def test_what_is_shown_during_a_rest_does_not_double_it() -> None:
    found = rest(curves(HALVING), *(shown(at * 60) for at in range(6)))
    assert found is not None
    assert found["until"] - found["from"] == HOUR


def test_dark_exposures_wear_and_prove_nothing() -> None:
    seen = rest(curves(HALVING), *(shown(at * 60) for at in range(3)))
    dark = rest(curves(HALVING), *(shown(at * 60, measurable=False) for at in range(3)))
    assert seen is not None
    assert dark is not None
    assert dark["evidence"]["tired"]["expected"] == 2**-3
    assert seen["evidence"]["tired"]["expected"] < 2**-3


def test_between_floor_and_full_a_share_is_bid_on() -> None:
    version = curves(replace(HALVING, base=(1e-9,) * STRATA, shape=1000.0))
    (throttle,) = by_scope(pair(SOFT, version, shown(0), shown(60)).ledger.decide("u1")).values()
    assert throttle["state"] == "softened"
    assert throttle["factor"] == pytest.approx(round(10 * (0.25 - 0.1) / 0.4) / 10)


def test_soft_and_hard_are_two_throttles_of_one_label() -> None:
    version = curves(replace(HALVING, base=(1e-9,) * STRATA, shape=1000.0))
    capped = SOFT.replace("[{", "[{name: cap, cap: 2, per: campaign, window: 1h}, {")
    found = by_scope(pair(capped, version, shown(0), shown(60)).ledger.decide("u1"))
    assert sorted(found) == ["campaign:C7", "campaign:C7 softened"]
    assert found["campaign:C7"]["factor"] == 0
    assert 0 < found["campaign:C7 softened"]["factor"] < 1


def test_the_holdout_is_not_held_back_and_shadow_only_told() -> None:
    version, events = curves(HALVING), [shown(0), shown(60), shown(120)]
    assert rest(version, *events, policy=TIRED + "\nholdout: {share: 100%}") is None
    shadow = by_scope(pair(TIRED + "\nshadow: true", version, *events).ledger.decide("u1"))
    assert [each["state"] for each in shadow.values()] == ["shadow"]


def test_another_version_has_rows_decided_anew() -> None:
    made = pair(TIRED, curves(HALVING), shown(0), shown(60), shown(120))
    made.publish()
    assert made.topic["u1"]["curves"] == curves(HALVING).name
    made.learn(curves(FLAT))
    made.publish()
    assert "u1" not in made.topic


def test_no_rule_that_asks_and_no_version_is_named() -> None:
    cap = "rules: [{name: cap, cap: 1, per: campaign, window: 1h}]"
    made = pair(cap, curves(HALVING), shown(0))
    made.publish()
    assert made.topic["u1"]["curves"] is None


def test_a_version_survives_its_text() -> None:
    version = curves(HALVING)
    assert Version.from_json(version.to_json()) == version
    with pytest.raises(ValueError, match="not a version"):
        Version.from_json("[]")


# ---- What answers what -------------------------------------------------------------------------

WINDOWS = """\
rules: [{name: cap, cap: 9, per: campaign, window: 1h}]
attribution:
  - {type: conversion, window: 7d}
  - {type: click, match: {channel: ctv}, window: 3d}
  - {type: click, window: 2h}
"""


def answers(*events: Event, policy: str = WINDOWS) -> list[float | None]:
    """When each exposure was answered, in seconds after ``T0``."""
    history = pair(policy, None, *events).ledger.history("u1")
    assert history is not None
    return [None if at < 0 else at / SECOND - T0 for at in history.answer.tolist()]


ANSWERED: dict[str, tuple[list[Event], list[float | None]]] = {
    "the exposure that it names": (
        [shown(0, impression_id="i"), shown(60), engaged(90, impression_id="i")],
        [90, None],
    ),
    "the one it names, whichever came first": (
        [engaged(90, impression_id="i"), shown(60), shown(0, impression_id="i")],
        [90, None],
    ),
    "the last with its labels": ([shown(0), shown(60), engaged(90)], [None, 90]),
    "not one that was shown later": ([shown(0), shown(60), engaged(30)], [30, None]),
    "the last that it can mean, if the one named is not held": (
        [shown(0), engaged(90, impression_id="gone", campaign_id="C7")],
        [90],
    ),
    "one that it names and that its clock says came later": (
        [shown(100, impression_id="i"), engaged(90, impression_id="i")],
        [90],
    ),
    "within its type's window": ([shown(0), engaged(2 * HOUR - 1)], [2 * HOUR - 1]),
    "not behind it": ([shown(0), engaged(2 * HOUR)], [None]),
    "within its channel's": ([shown(0, channel="ctv"), engaged(DAY)], [DAY]),
    "an older one whose window is longer": (
        [shown(0, channel="ctv"), shown(60), engaged(DAY)],
        [DAY, None],
    ),
    "a type without a window of its own, for a day": (
        [shown(0), engaged(DAY - 1, "dwell"), shown(2 * DAY), engaged(3 * DAY, "dwell")],
        [DAY - 1, None],
    ),
    "the earliest counts": ([shown(0), engaged(90), engaged(60)], [60]),
    "a complaint is no answer": ([shown(0), engaged(60, "complaint")], [None]),
    "nor is hiding": ([shown(0), engaged(60, "hide")], [None]),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_an_engagement_answers(case: str) -> None:
    events, expected = ANSWERED[case]
    assert answers(*events) == expected
    assert answers(*events[::-1]) == expected


def test_it_settles_when_the_longest_window_is_over() -> None:
    history = pair(WINDOWS, None, shown(0)).ledger.history("u1")
    assert history is not None
    assert history.settles.tolist() == [(T0 + 7 * DAY) * SECOND]


def test_a_history_survives_its_record() -> None:
    events = [shown(0, creative_id="A"), shown(60, measurable=False), engaged(90)]
    history = pair(WINDOWS, None, *events).ledger.history("u1")
    assert history is not None
    again = History.unpack(history.pack())
    assert again.pack() == history.pack()
    assert len(again) == 2
    with pytest.raises(HistoryError):
        History.unpack(b"\x90")
