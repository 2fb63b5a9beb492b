"""Detectors of decline: false alarms, and delay beside a CUSUM that is told all, and river's."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river import drift

from governor.compiled import compiled
from governor.fatigue.detector import Detector, Observed, Settings
from governor.fatigue.expectations import expected, observed
from governor.fatigue.exposures import DAY, past
from governor.fatigue.frailty import fit
from governor.simulation.people import Habits, Tiring
from governor.simulation.worlds import World, generate

__all__ = ["Delay", "FalseAlarms", "delays", "false_alarms"]

THRESHOLD: Final = 1e6
_FRESH: Final = Tiring(0.0, 1.0)
_QUIET: Final = (
    World("thinning", tiring=_FRESH, heavy=1.0, stop="ignored", base=0.03, entry=0.9),
    World("heavy clickers", Habits(shape=0.3), tiring=_FRESH, heavy=1.0, base=0.02, entry=0.2),
    World("falling traffic", tiring=_FRESH, entry=0.05, base=0.03),
    World("drifting base", tiring=_FRESH, trend=0.75, swing=0.03, base=0.04, entry=0.9),
    World("usual wear", tiring=Tiring(0.5, 4.0), base=0.05, entry=0.9),
)
"""Worlds in which no alarm is due: what falls is selection, traffic, season or usual wear."""

_LEARN: Final = 14.0
_BUCKET: Final = 100
"""Exposures in a bucket, on average."""

_BEFORE: Final = 300_000
"""Exposures before a change; the first part is what a detector learns from."""


class FalseAlarms(NamedTuple):
    """Exposures without a decline, alarms, and how many were promised at most."""

    exposures: int
    alarms: int
    promised: float


class Delay(NamedTuple):
    """Mean exposures from a change to the alarm; nan where fewer than half are noticed."""

    before: float
    after: float
    ours: float
    cusum: float
    adwin: float
    page_hinkley: float


def false_alarms(least: int) -> FalseAlarms:
    """Worlds of `_QUIET`, one seed after the other, until there are so many exposures."""
    exposures, alarms, seed = 0, 0, 0
    while exposures < least:
        seed += 1
        for world in _QUIET:
            size, found = _quiet(world, seed)
            exposures += size
            alarms += found
            print(f"false alarms: {alarms} in {exposures:,}: {world.name}", file=sys.stderr)
    return FalseAlarms(exposures, alarms, exposures / THRESHOLD)


def _quiet(world: World, seed: int) -> tuple[int, int]:
    long = replace(world, days=60.0, people=40_000)
    log = generate(long, seed).exposures
    cut = round((long.before + _LEARN) * DAY)
    curves = fit(log.take(log.ts <= cut), now=cut)
    which, each = expected(log, curves, "creative", 0, past(log, "creative"))
    late = log.ts[which] > cut
    span = int(log.ts.max()) - cut
    width = max(1, span * _BUCKET // max(1, int(late.sum())))
    detector = Detector(Settings(threshold=THRESHOLD))
    told = (detector.update(bucket) for bucket in observed(log, which, each, width))
    alarms = sum(1 for alarm in told if alarm is not None and not alarm.recovered)
    return len(which), alarms


def delays(declines: tuple[tuple[float, float], ...], runs: int) -> Iterator[Delay]:
    """Streams of independent exposures; the change comes after `_BEFORE` of them."""
    for before, after in declines:
        limit = _cusum_limit(before, after)
        makers = _matched(before)
        found: dict[str, list[float]] = {name: [] for name in ("ours", "cusum", *makers)}
        for run in range(runs):
            rng = np.random.default_rng([run, round(before * 1e4), round(after * 1e4)])
            tail = round(60.0 * math.log(THRESHOLD) / _divergence(before, after) / 10)
            answers = rng.random(_BEFORE + tail) < np.where(
                np.arange(_BEFORE + tail) < _BEFORE, before, after
            )
            found["ours"].append(_ours(answers, before))
            found["cusum"].append(_cusum(answers[_BEFORE:], before, after, limit))
            for name, make in makers.items():
                found[name].append(_river(answers, make()))
        mean = {name: _mean(each) for name, each in found.items()}
        delay = Delay(before, after, *(mean[n] for n in ("ours", "cusum", "adwin", "page_hinkley")))
        print(f"delay {before} to {after}: {delay}", file=sys.stderr, flush=True)
        yield delay


def _mean(each: list[float]) -> float:
    noticed = [one for one in each if math.isfinite(one) and one >= 0]
    return float(np.mean(noticed)) if len(noticed) * 2 > len(each) else math.nan


def _divergence(p0: float, p1: float) -> float:
    return p1 * math.log(p1 / p0) + (1 - p1) * math.log((1 - p1) / (1 - p0))


def _ours(answers: NDArray[np.bool_], before: float) -> float:
    """The curve is 10% off, as far as the detector knows; buckets of `_BUCKET` exposures."""
    detector = Detector(Settings(threshold=THRESHOLD))
    count = len(answers) // _BUCKET
    sums = answers[: count * _BUCKET].reshape(count, _BUCKET).sum(axis=1)
    for b, engaged in enumerate(sums):
        bucket = Observed(b, b + 1, _BUCKET, int(engaged), 1.1 * before * _BUCKET)
        alarm = detector.update(bucket)
        if alarm is not None and (b + 1) * _BUCKET > _BEFORE and not alarm.recovered:
            return float((b + 1) * _BUCKET - _BEFORE)
    return math.inf


@compiled
def _cusum(answers: NDArray[np.bool_], p0: float, p1: float, limit: float) -> float:
    hit, miss = math.log(p1 / p0), math.log((1 - p1) / (1 - p0))
    total = 0.0
    for i in range(len(answers)):
        total = max(0.0, total + (hit if answers[i] else miss))
        if total >= limit:
            return i + 1.0
    return math.inf


def _cusum_limit(p0: float, p1: float) -> float:
    """The limit with a mean of `THRESHOLD` exposures until a false alarm, by simulation."""
    highest = np.linspace(4.0, 14.0, 201)
    rng = np.random.default_rng(5)
    counts = np.zeros(len(highest))
    steps = 0
    for _ in range(12):
        answers = rng.random(5_000_000) < p0
        _excursions(answers, p0, p1, highest, counts)
        steps += len(answers)
    length = steps / np.maximum(counts, 0.5)
    return float(np.interp(math.log(THRESHOLD), np.log(length), highest))


@compiled
def _excursions(
    answers: NDArray[np.bool_],
    p0: float,
    p1: float,
    limits: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> None:
    """How many excursions of the CUSUM from zero reach each limit."""
    hit, miss = math.log(p1 / p0), math.log((1 - p1) / (1 - p0))
    total, peak = 0.0, 0.0
    for i in range(len(answers)):
        total += hit if answers[i] else miss
        if total <= 0.0:
            for k in range(len(limits)):
                if limits[k] > peak:
                    break
                counts[k] += 1.0
            total, peak = 0.0, 0.0
        elif total > peak:
            peak = total


_STEADY: Final = 2_000_000


def _matched(p0: float) -> dict[str, Callable[[], Any]]:
    """river's detectors, each the most sensitive of its grid with no more alarms than promised."""
    rng = np.random.default_rng(11)
    answers = (rng.random(_STEADY) < p0).astype(float)

    def adwin(delta: float) -> Callable[[], Any]:
        return lambda: drift.ADWIN(delta=delta)

    def page_hinkley(limit: float) -> Callable[[], Any]:
        return lambda: drift.PageHinkley(
            min_instances=1000, delta=0.1 * p0, threshold=limit, alpha=1.0, mode="down"
        )

    out: dict[str, Callable[[], Any]] = {}
    grids = {
        "adwin": [adwin(delta) for delta in (1e-3, 1e-5, 1e-7, 1e-9)],
        "page_hinkley": [
            page_hinkley(limit) for limit in (8.0, 12.0, 18.0, 27.0, 40.0, 60.0, 90.0)
        ],
    }
    for name, grid in grids.items():
        for make in grid:
            out[name] = make
            if _alarms(answers, make()) <= _STEADY / THRESHOLD:
                break
    return out


def _alarms(answers: NDArray[np.float64], detector: Any) -> int:
    count = 0
    for each in answers.tolist():
        detector.update(each)
        count += detector.drift_detected
    return count


def _river(answers: NDArray[np.bool_], detector: Any) -> float:
    for i, each in enumerate(answers.tolist()):
        detector.update(each)
        if detector.drift_detected and i >= _BEFORE:
            return float(i + 1 - _BEFORE)
    return math.inf
