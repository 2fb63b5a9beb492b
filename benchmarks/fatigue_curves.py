"""How near estimated curves come to the truth of simulated worlds."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.fatigue.exposures import past
from governor.fatigue.frailty import estimate
from governor.simulation.worlds import SCENARIOS, World, generate

__all__ = ["Scenario", "run"]

DEPTHS: Final = range(2, 10)
_LEAST: Final = 100
"""Exposures that a depth must have in a seed for its truth to be compared."""


class Scenario(NamedTuple):
    """What came out over all seeds.

    Attributes:
        error, error_naive: the estimate over the truth, less 1, averaged over seeds; at the worst
            of the depths 2 to 9 (`bias` and `naive` have all of them).
        noise: standard error of `error`, from what seeds differ.
        coverage: share of depths and seeds at which the band holds the truth.
        identified: share of seeds.
        behind: seeds and depths at which the estimate was further from the truth than the naive
            curve by more than its own standard error, as a share.
        further: the same of averages over seeds, in standard errors of one estimate, at the worst
            depth; negative where the estimate is nearer everywhere.
    """

    name: str
    error_naive: float
    error: float
    noise: float
    coverage: float
    identified: float
    behind: float
    further: float
    bias: NDArray[np.float64]
    naive: NDArray[np.float64]


def _one(task: tuple[World, int]) -> tuple[NDArray[np.float64], bool]:
    """(depths, 4): estimate over truth, naive over truth, held, standard error of the estimate."""
    world, seed = task
    simulated = generate(world, seed)
    exposures = simulated.exposures
    before = past(exposures, "creative")
    now = round((world.before + world.days) * 86_400_000_000)
    out = np.full((len(DEPTHS), 4), np.nan)
    fitted = estimate(exposures, "creative", 0, now=now, before=before)
    human = ~np.isin(exposures.person, simulated.bots)
    own = (exposures.creative == 0) & exposures.measurable & human
    for line in fitted.curve.depths:
        here = own & (before.depth == line.depth)
        if line.depth in DEPTHS and here.sum() >= _LEAST:
            truth = float(simulated.left[here].mean())
            error = math.log(line.high / line.low) / 2 / 1.96
            held = line.low <= truth <= line.high
            out[line.depth - 2] = line.estimate / truth, line.naive / truth, held, error
    return out, fitted.curve.identified


def run(seeds: int, workers: int, names: Collection[str] = ()) -> list[Scenario]:
    """Scenarios by name or all, seeds 1 to ``seeds``; says on standard error how far it is."""
    found = []
    worlds = [world for world in SCENARIOS if not names or world.name in names]
    with ProcessPoolExecutor(workers) as pool:
        for number, world in enumerate(worlds, 1):
            began = time.perf_counter()
            lines, identified = zip(
                *pool.map(_one, [(world, seed) for seed in range(1, seeds + 1)]), strict=True
            )
            found.append(_summary(world.name, np.array(lines), list(identified)))
            took = time.perf_counter() - began
            print(f"curves {number}/{len(worlds)}: {took:.0f} s", file=sys.stderr, flush=True)
            print(_line(found[-1]), flush=True)
    return found


def _summary(name: str, lines: NDArray[np.float64], identified: list[bool]) -> Scenario:
    there = np.isfinite(lines[:, :, 0]).sum(axis=0) >= max(2, len(lines) // 2)
    ours, naive = lines[:, there, 0] - 1.0, lines[:, there, 1] - 1.0
    bias = np.nanmean(ours, axis=0)
    noise = np.nanstd(ours, axis=0) / math.sqrt(len(lines))
    worst = int(np.abs(bias).argmax())
    further = np.abs(ours) - np.abs(naive) > lines[:, there, 3]
    bias_naive = np.nanmean(naive, axis=0)
    apart = (np.abs(bias) - np.abs(bias_naive)) / np.nanmean(lines[:, there, 3], axis=0)
    return Scenario(
        name,
        float(np.abs(bias_naive).max()),
        float(np.abs(bias).max()),
        float(noise[worst]),
        float(np.nanmean(lines[:, there, 2])),
        float(np.mean(identified)),
        float(further[np.isfinite(ours)].mean()),
        float(apart.max()),
        bias,
        bias_naive,
    )


def _line(scenario: Scenario) -> str:
    depths = " ".join(f"{each:+.3f}" for each in scenario.bias)
    return (
        f"{scenario.name:30s} naive {scenario.error_naive:.3f}  ours {scenario.error:.3f} "
        f"(+-{scenario.noise:.3f})  band {scenario.coverage:.3f}  "
        f"identified {scenario.identified:.2f}  behind {scenario.behind:.2f}, on average by "
        f"{scenario.further:+.2f}  [{depths}]"
    )
