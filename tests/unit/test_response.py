"""What one person's next exposure gives, and how long they are to be left alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.fatigue.curves import KNOTS, STRATA, Tables
from governor.fatigue.response import (
    LONGEST_REST,
    SHORTEST_REST,
    gamma_below,
    respond,
    seen_share,
    stratum_of,
    threshold,
    wear_of,
)

DAY = 86_400_000_000


def tables(
    recovery: int = DAY, slope: float = -0.3, spread: float = 0.05, usable: bool = True
) -> Tables:
    """One curve that loses the same share at each wear."""
    return Tables(
        np.full((1, STRATA), 0.05), np.full((1, STRATA - 2), 1e9), np.array([1.0]),
        np.array([recovery]), np.array([[slope * min(knot, 8.0) for knot in KNOTS]]),
        np.array([[spread if knot else 0.0 for knot in KNOTS]]),
        np.array([usable], np.uint8), np.array([1.0]), np.array([0]), np.array([1.0]),
    )  # fmt: skip


def test_the_gamma_distribution_is_that_of_the_books() -> None:
    for x in (0.01, 0.3, 1.0, 2.5, 9.0, 40.0):
        assert gamma_below(x, 1.0) == pytest.approx(1.0 - math.exp(-x), abs=1e-10)
        assert gamma_below(x, 0.5) == pytest.approx(math.erf(math.sqrt(x)), abs=1e-10)
        by_parts = 1.0 - math.exp(-x) * (1.0 + x + x * x / 2)
        assert gamma_below(x, 3.0) == pytest.approx(by_parts, abs=1e-10)
    assert gamma_below(0.0, 2.0) == 0.0


def test_a_floor_is_a_share_of_what_exposures_give_these_days() -> None:
    plain = tables()
    assert threshold(0.4, 0, 0, plain) == pytest.approx(0.4)
    base = np.full((1, STRATA), 0.05)
    base[0, 1], base[0, STRATA - 1] = 0.02, 0.2
    worn = plain._replace(base=base, worth=np.array([0.5]))
    assert threshold(0.4, 0, 0, worn) == pytest.approx(0.2)
    assert threshold(0.4, STRATA - 1, 0, worn) == pytest.approx(0.05)
    assert threshold(0.4, 1, 0, worn) == pytest.approx(0.4)  # of a first exposure at most


def test_somebody_who_never_answers_is_not_thereby_tired() -> None:
    flat = tables(slope=0.0)
    assert respond(30.0, 0.0, 3.0, 0, 0.4, 0.9, 0, flat).tired == 0


def test_who_is_tired_rests_until_recency_lifts_them_above_the_floor() -> None:
    known = tables()
    told = respond(6.0, 1.0, 0.4, 0, 0.4, 0.6, 0, known)
    assert told.tired == 1
    assert told.factor == pytest.approx(told.expected / 0.4)
    later = 6.0 * 2.0 ** (-told.rest / DAY)
    assert respond(later, 1.0, 0.4, 0, 0.4, 0.6, 0, known).expected == pytest.approx(0.48, abs=0.01)


def test_without_recovery_rests_double() -> None:
    known = tables(recovery=0)
    rests = [respond(8.0, 0.0, 0.6, streak, 0.4, 0.8, 0, known).rest for streak in range(12)]
    assert rests[:3] == [SHORTEST_REST, 2 * SHORTEST_REST, 4 * SHORTEST_REST]
    assert rests[-1] == LONGEST_REST


def test_a_curve_that_is_not_identified_or_not_sure_holds_nobody_back() -> None:
    assert respond(8.0, 0.0, 0.6, 0, 0.4, 0.6, 0, tables(usable=False)).tired == 0
    assert respond(8.0, 0.0, 0.6, 0, 0.4, 0.6, 0, tables(spread=1.5)).tired == 0


@given(
    st.floats(0, 60), st.integers(0, 20), st.floats(0, 50), st.integers(0, 40),
    st.floats(0.01, 0.99), st.floats(0.5, 0.99), st.sampled_from([0, DAY // 4, DAY, 16 * DAY]),
)  # fmt: skip
def test_whatever_is_asked_the_answer_is_a_number_in_its_range(
    wear: float,
    engaged: int,
    expected: float,
    streak: int,
    floor: float,
    probability: float,
    recovery: int,
) -> None:
    told = respond(wear, float(engaged), expected, streak, floor, probability, 0, tables(recovery))
    assert math.isfinite(told.expected)
    assert 0.0 <= told.below <= 1.0
    assert 0.0 <= told.factor <= 1.0
    assert 0 <= told.rest <= LONGEST_REST
    assert bool(told.tired) == (told.rest > 0)


@given(st.floats(1, 30), st.integers(0, 5), st.floats(0, 5))
def test_more_answers_never_make_somebody_more_tired(
    wear: float, engaged: int, expected: float
) -> None:
    known = tables()
    fewer = respond(wear, float(engaged), expected, 0, 0.4, 0.8, 0, known)
    more = respond(wear, float(engaged + 1), expected, 0, 0.4, 0.8, 0, known)
    assert more.below <= fewer.below + 1e-9
    assert more.expected >= fewer.expected


def test_wear_is_what_is_not_forgotten() -> None:
    times = np.array([0, DAY, 2 * DAY])
    assert wear_of(times, 3, 2 * DAY, DAY) == pytest.approx(0.25 + 0.5)
    assert wear_of(times, 3, 3 * DAY, 0) == 3.0
    assert wear_of(times, 0, 3 * DAY, DAY) == 0.0


def test_strata_and_arrival_are_steps_and_lines() -> None:
    edges = np.array([1.0, 2.0])
    assert [stratum_of(each, edges) for each in (math.nan, 0.5, 1.0, 5.0)] == [0, 1, 2, 3]
    ages, seen = np.array([0, 100, 200]), np.array([0.2, 0.6, 1.0])
    assert [seen_share(age, ages, seen) for age in (-5, 50, 150, 900)] == pytest.approx(
        [0.2, 0.4, 0.8, 1.0]
    )
