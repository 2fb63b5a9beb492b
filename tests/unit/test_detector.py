"""Alarms of decline: raised, dated, taken back, and not raised without cause."""

from __future__ import annotations

import json

import numpy as np

from governor.fatigue.detector import Alarm, Detector, Observed, Settings, detect


def buckets(
    rates: list[tuple[int, float]], expected: float = 0.05, seed: int = 1
) -> list[Observed]:
    """Buckets of 100 exposures; so many at each rate, the curve expecting ``expected``."""
    rng = np.random.default_rng(seed)
    rate = np.concatenate([np.full(count, each) for count, each in rates])
    return [
        Observed(b, b + 1, 100, int(rng.binomial(100, each)), 100 * expected)
        for b, each in enumerate(rate)
    ]


def test_a_halved_rate_is_noticed_and_dated() -> None:
    found = detect(buckets([(3_000, 0.05), (400, 0.025)]))
    assert len(found) == 1
    assert 3_000 < found[0].ts < 3_060
    assert abs(found[0].since - 3_000) < 30
    assert found[0].low < 0.5 < found[0].high
    assert found[0].evidence >= 1.0


def test_a_curve_that_expects_too_much_throughout_raises_nothing() -> None:
    assert detect(buckets([(6_000, 0.05)], expected=0.08)) == []


def test_the_end_of_a_decline_is_told() -> None:
    found = detect(buckets([(3_000, 0.05), (300, 0.02), (1_000, 0.05)]))
    assert [each.recovered for each in found[:2]] == [False, True]
    assert found[1].ts > 3_300
    assert found[1].since == found[0].since


def test_a_detector_goes_on_where_its_written_state_left_off() -> None:
    rows = buckets([(2_000, 0.05), (300, 0.02), (600, 0.05)])
    whole, parts = Detector(), Detector()
    for each in rows:
        told = whole.update(each)
        parts = Detector.from_fields(json.loads(json.dumps(parts.to_fields())))
        assert parts.update(each) == told
    assert parts == whole


def test_nothing_is_judged_before_the_past_is_long_enough() -> None:
    assert detect(buckets([(30, 0.05), (200, 0.0)])) == []
    assert Detector().usual() is None


def test_empty_buckets_change_nothing() -> None:
    detector = Detector()
    assert detector.update(Observed(0, 1, 0, 0, 0.0)) is None
    assert detector == Detector()


def test_false_alarms_are_rarer_than_promised() -> None:
    settings = Settings(threshold=20_000)
    alarms = [
        each
        for seed in range(20)
        for each in detect(buckets([(2_000, 0.05)], seed=seed), settings)
        if isinstance(each, Alarm) and not each.recovered
    ]
    # Twenty streams of 200,000 exposures; at most one alarm in 20,000 is promised.
    assert len(alarms) <= 200
