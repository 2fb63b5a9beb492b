"""Curves from exposures: near the truth where it can be known, and finite whatever comes in."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.fatigue import frailty, likelihood
from governor.fatigue.curves import ALL, KNOTS, Curve, CurveSet, unknown
from governor.fatigue.exposures import DAY, NEVER, Exposures, concatenate, from_columns, past
from governor.simulation.people import Habits, Tiring
from governor.simulation.worlds import SCENARIOS, Simulated, World, generate


def world(name: str, **changes: object) -> Simulated:
    """A scenario, smaller than the benchmark's."""
    found = next(each for each in SCENARIOS if each.name == name)
    return generate(replace(found, **{"people": 4_000, **changes}), 1)  # type: ignore[arg-type]


def curve_of(simulated: Simulated) -> Curve:
    log = simulated.exposures
    return frailty.estimate(log, "campaign", 0, now=int(log.ts.max())).curve


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 30 * 86_400), st.integers(-1, 2)),
        min_size=1,
        max_size=40,
    )
)
def test_past_is_what_a_plain_look_back_says(rows: list[tuple[int, int, int]]) -> None:
    log = from_columns(
        [row[0] for row in rows],
        [row[1] * 1_000_000 for row in rows],
        campaign=[row[2] for row in rows],
        campaigns=("a", "b", "c"),
        engaged=[False] * len(rows),
    )
    found = past(log)
    for i in range(len(log)):
        same = log.person == log.person[i]
        before = [j for j in range(i) if same[j] and log.campaign[j] == log.campaign[i] != NEVER]
        assert found.depth[i] == (0 if log.campaign[i] == NEVER else len(before) + 1)
        assert found.gap[i] == (log.ts[i] - log.ts[before[-1]] if before else NEVER)


def test_throttling_after_ignored_exposures_does_not_bend_the_curve() -> None:
    simulated = world("throttled after five ignored", people=12_000)
    line = {each.depth: each for each in curve_of(simulated).depths}[7]
    assert line.naive > 1.8
    assert abs(line.estimate - 1.0) < 0.3
    assert line.identified


def test_fatigue_is_seen_behind_heavy_clickers_and_throttling() -> None:
    simulated = world("tired, heavy and throttled", people=12_000)
    log = simulated.exposures
    depth = past(log).depth
    for line in curve_of(simulated).depths[1:5]:
        truth = float(simulated.left[depth == line.depth].mean())
        assert abs(line.estimate / truth - 1.0) < 0.3


def test_an_ad_server_that_stops_after_answers_does_not_bend_the_curve() -> None:
    found = curve_of(world("half stop after a click", people=12_000))
    assert 0.6 < found.shape < 1.7  # 1 in truth
    for line in found.depths[1:6]:
        assert abs(line.estimate - 1.0) < 0.25


def test_a_log_that_begins_with_its_campaign_tells_who_is_active() -> None:
    found = curve_of(world("log begins with the campaign", people=8_000))
    line = {each.depth: each for each in found.depths}[9]
    assert line.naive > 1.4
    assert line.low < 1.0 < line.high
    assert line.high / line.low < 2.0


def test_an_exposure_is_answered_or_not_and_nothing_is_likelier_than_one() -> None:
    for z in (1e-6, 0.01, 0.1, 0.5, 1.0, 3.0, 30.0):
        none = math.exp(-sum(z**p / p for p in range(1, 5)))
        value, slope, bend = likelihood._bounded(z)
        assert z * math.exp(value) + none == pytest.approx(1.0)
        near = [likelihood._bounded(z * math.exp(step)) for step in (-1e-5, 1e-5)]
        assert slope == pytest.approx((near[1][0] - near[0][0]) / 2e-5, abs=1e-5)
        assert bend == pytest.approx((near[1][1] - near[0][1]) / 2e-5, abs=1e-5)


def test_what_exposures_are_worth_these_days_falls_where_all_are_worn() -> None:
    fresh = curve_of(world("no fatigue"))
    worn = curve_of(world("season", heavy=0.0))
    assert fresh.worth == pytest.approx(1.0, abs=0.25)
    assert worn.worth < 0.8 * fresh.worth


def test_where_all_stop_at_the_first_answer_nothing_is_claimed() -> None:
    found = curve_of(world("all stop at the first click"))
    assert not found.identified
    assert "after an answer" in found.reason


def test_where_nothing_else_was_shown_nothing_is_claimed() -> None:
    simulated = world("heavy users click more")
    own = simulated.exposures.take(simulated.exposures.campaign >= 0)
    found = frailty.estimate(own, "campaign", 0, now=int(own.ts.max())).curve
    assert not found.identified
    assert "active" in found.reason


def test_where_half_answer_nothing_is_claimed_and_the_rate_is_what_was_seen() -> None:
    people, depth = np.repeat(np.arange(2000), 6), np.tile(np.arange(6), 2000)
    answered = np.random.default_rng(1).random(12_000) < 0.5 * 0.7**depth
    log = from_columns(
        people, depth * DAY, campaign=np.zeros(12_000), engaged=answered, campaigns=("C1",)
    )
    curve = frailty.estimate(log, "campaign", 0, now=10 * DAY).curve
    assert not curve.identified
    assert "so often" in curve.reason
    assert curve.base[0] == pytest.approx(answered[depth == 0].mean())
    assert all(line.low <= 1 <= line.high for line in curve.depths)


def test_programs_are_left_out_and_named() -> None:
    simulated = world("bots")
    found = set(curve_of(simulated).outliers)
    programs = set(simulated.bots.tolist()) & set(simulated.exposures.person.tolist())
    assert len(found & programs) >= 0.8 * len(programs)
    assert len(found - programs) <= 0.002 * 4_000


def test_one_persons_clicks_move_the_curve_by_nothing_that_matters() -> None:
    simulated = world("no fatigue")
    log = simulated.exposures
    flood = from_columns(
        np.full(5_000, 999_999),
        np.linspace(8 * DAY, 20 * DAY, 5_000).astype(np.int64),
        campaign=np.zeros(5_000, np.int32),
        campaigns=("C",),
        engaged=np.ones(5_000, bool),
    )
    plain = curve_of(simulated)
    found = frailty.estimate(concatenate([log, flood]), "campaign", 0, now=int(log.ts.max())).curve
    assert 999_999 in found.outliers
    assert np.allclose(found.level, plain.level, atol=0.1)


def test_recovery_is_found_and_depth_alone_has_none() -> None:
    recovering = curve_of(world("recency recovery", people=12_000))
    assert 0.5 * DAY <= recovering.recovery <= 8 * DAY
    assert curve_of(world("no fatigue")).recovery == 0


def test_lines_are_by_the_law_that_people_recover_by() -> None:
    for name, another in (("recency recovery", False), ("recovery by another law", True)):
        log = world(name, people=12_000).exposures
        label = frailty._gather(
            log, past(log), "campaign", 0, int(log.ts.max()), DAY * 60, frailty._arrival(log)
        )
        found = frailty._search(label, frailty._prior(label))
        assert (found.lines is not None) == another
        assert sum(each.weight for each in found.others[-3:]) <= 1.0


def test_wear_that_fades_as_a_whole_is_depth_by_the_time_since_the_last_exposure() -> None:
    log = world("recency recovery", people=50).exposures
    before = past(log)
    label = frailty._gather(
        log, before, "campaign", 0, int(log.ts.max()), DAY * 60, frailty._arrival(log)
    )
    courses = frailty._worn(label, 0, 3 * DAY).courses
    upper = np.minimum(courses.knot + 1, len(KNOTS) - 1)
    wear = (1 - courses.part) * np.array(KNOTS)[courses.knot]
    wear += courses.part * np.array(KNOTS)[upper]
    for i, found in zip(label.exposures, wear, strict=True):
        earlier = int(before.depth[i]) - 1
        truth = earlier * 0.5 ** (before.gap[i] / (3 * DAY)) if earlier else 0.0
        assert found == pytest.approx(min(truth, KNOTS[-1]))


@pytest.mark.parametrize(
    ("engaged", "people"), [("none", 50), ("all", 50), ("none", 1), ("all", 1), ("some", 2)]
)
def test_curves_are_finite_whatever_people_answer(engaged: str, people: int) -> None:
    rng = np.random.default_rng(3)
    n = 20 * people
    found = frailty.fit(
        from_columns(
            rng.integers(0, people, n),
            rng.integers(0, 20 * DAY, n),
            campaign=np.zeros(n, np.int32),
            campaigns=("C",),
            engaged={"none": np.zeros(n), "all": np.ones(n), "some": rng.random(n) < 0.2}[engaged],
        ),
        now=20 * DAY,
    )
    assert_finite(found)
    assert not found.curve("campaign:C").identified


def test_nothing_observed_and_nothing_measurable_are_curves_too() -> None:
    nothing = from_columns([], [], campaign=[], campaigns=(), engaged=[])
    assert_finite(frailty.fit(nothing, now=0))
    n = 200
    dark = from_columns(
        np.arange(n) % 20, np.arange(n) * 1_000_000, campaign=np.zeros(n, np.int32),
        campaigns=("C",), engaged=np.zeros(n, bool), measurable=np.zeros(n, bool),
    )  # fmt: skip
    found = frailty.fit(dark, now=n * 1_000_000)
    assert_finite(found)
    assert found.curve("campaign:C").coverage == 0.0
    assert not found.curve("campaign:C").identified


def test_an_answer_before_its_exposure_counts_as_simultaneous() -> None:
    log = from_columns(
        [1], [5_000_000], campaign=[0], campaigns=("C",), engaged=[True], engaged_at=[1_000_000]
    )
    assert log.engaged_at[0] == 5_000_000


def test_columns_that_do_not_fit_are_told() -> None:
    with pytest.raises(ValueError, match="not as long as ts"):
        from_columns([1], [1], campaign=[0], campaigns=("C",), engaged=[])
    with pytest.raises(ValueError, match="campaign: an index outside the 1 names"):
        from_columns([1], [1], campaign=[1], campaigns=("C",), engaged=[True])


def test_the_gradient_and_information_are_those_of_the_likelihood() -> None:
    log = world("throttled after five ignored", people=300).exposures
    label = frailty._worn(
        frailty._gather(
            log, past(log), "campaign", 0, int(log.ts.max()), DAY * 60, frailty._arrival(log)
        ),
        4 * DAY,
    )
    size = len(frailty._prior(label).mean)
    at = frailty._prior(label).mean + np.random.default_rng(0).normal(0, 0.1, size)

    def look(where: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        slope, bend, square = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
        value = likelihood._pass(
            label.courses, where, frailty._SEASON, frailty._KNOT, 2, slope, bend, square
        )
        return value, slope, bend

    _, slope, bend = look(at)
    for i in range(size):
        step = np.zeros(size)
        step[i] = 1e-5
        (up, more, _), (down, less, _) = look(at + step), look(at - step)
        assert (up - down) / 2e-5 == pytest.approx(slope[i], rel=1e-4, abs=1e-4)
        assert (less - more) / 2e-5 == pytest.approx(bend[i], rel=1e-3, abs=1e-3)


def test_a_set_of_curves_survives_json_and_keeps_its_version() -> None:
    log = world("no fatigue", people=1_500).exposures
    found = frailty.fit(log, now=int(log.ts.max()))
    again = CurveSet.from_json(found.to_json())
    assert again == found
    assert again.version == found.version
    with pytest.raises(ValueError, match="not a set of curves"):
        CurveSet.from_json("{}")


def test_a_new_campaign_starts_from_its_category() -> None:
    log = world("no fatigue", people=4_000, tiring=Tiring(0.7, 2.0)).exposures
    newest = int(log.ts.max())
    few = from_columns(
        np.arange(30) + 900_000, np.full(30, newest), campaign=np.zeros(30, np.int32),
        campaigns=("new",), category=np.zeros(30, np.int32), categories=("shoes",),
        engaged=np.zeros(30, bool),
    )  # fmt: skip
    found = frailty.fit(concatenate([log, few]), now=newest)
    new, old = found.curve("campaign:new"), found.curve("campaign:C")
    assert new.source == "category:shoes"
    assert new.identified
    assert np.allclose(new.level, old.level, atol=0.35)
    assert found.curve("campaign:never seen").label == ALL
    assert found.resolve("creative:none", "campaign:none", "category:shoes") == "category:shoes"


def test_the_order_of_rows_does_not_matter() -> None:
    log = world("no fatigue", people=800).exposures
    mixed = np.random.default_rng(1).permutation(len(log))
    again = from_columns(
        log.person[mixed], log.ts[mixed], campaign=log.campaign[mixed], campaigns=log.campaigns,
        creative=log.creative[mixed], creatives=log.creatives, category=log.category[mixed],
        categories=log.categories, engaged=log.engaged[mixed], settled=log.settled[mixed],
        measurable=log.measurable[mixed], engaged_at=log.engaged_at[mixed],
    )  # fmt: skip
    now = int(log.ts.max())
    assert frailty.fit(again, now=now).version == frailty.fit(log, now=now).version


def test_worlds_are_the_same_for_the_same_seed() -> None:
    small = World("small", Habits(bots=0.1), people=200, dark=0.3, delay=3600.0)
    first, second, other = generate(small, 1), generate(small, 1), generate(small, 2)
    assert np.array_equal(first.exposures.ts, second.exposures.ts)
    assert np.array_equal(first.left, second.left, equal_nan=True)
    assert not np.array_equal(first.exposures.ts, other.exposures.ts)


def assert_finite(found: CurveSet) -> None:
    """Every number of every curve is one, nan only where a rate over nothing was asked for."""
    for curve in [*found.curves.values(), *unknown(0).curves.values()]:
        numbers = [*curve.base, *curve.edges, *curve.level, *curve.spread, curve.shape]
        assert all(math.isfinite(each) for each in numbers), curve.label
        assert len(curve.level) == len(KNOTS)
        for line in curve.depths:
            assert math.isfinite(line.estimate)
            assert line.low <= line.estimate <= line.high


def test_exposures_are_concatenated_by_name() -> None:
    def log(name: str) -> Exposures:
        return from_columns([1], [1], campaign=[0], campaigns=(name,), engaged=[True])

    both = concatenate([log("a"), log("b")])
    assert [both.campaigns[code] for code in both.campaign] == ["a", "b"]
