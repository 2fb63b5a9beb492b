"""What governing could be worth to somebody who knew the truth: which bars can be reached at all.

    python -m benchmarks.fatigue_frontier [--campaigns 50]

The campaigns of the value study (`benchmarks.fatigue_value`), whose truth is known, under

- ``reads minds``: who knows the true curve and every person's true propensity, and for each person
  lets the ad be shown up to the wear that is best in hindsight, at one price of an exposure for
  all (a limit for whoever does not change a person's limit in time);
- ``knows the curve``: who knows the true curve and base and what activity does, but learns each
  person's propensity from their answers, as anybody must; shows what is worth more than a floor;
- ``best cap``: the best of the value study's caps, in hindsight;
- ``thinning``: who leaves exposures out at random.

Printed are exposures saved against no policy at so many engagements lost, expected ones, so that
luck does not enter; the last line is JSON, medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.fatigue_value import CAPS, WINDOWS, Outcome, fewest
from governor.compiled import compiled
from governor.fatigue.exposures import DAY
from governor.simulation.loop import Drawn, occasions
from governor.simulation.people import Tiring, faded, fatigue
from governor.simulation.worlds import drawn

__all__ = ["main"]

LOST: Final = (0.0, 0.05, 0.1, 0.2)
FLOORS: Final = np.arange(0.02, 1.0, 0.04)
WEARS: Final = (-1.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0, 1e9)
PRICES: Final = np.concatenate([[0.0], np.geomspace(1e-4, 0.1, 60)])
NAMES: Final = ("reads minds", "knows the curve", "best cap", "thinning")


@compiled
def _live(
    person: NDArray[np.int32],
    ts: NDArray[np.int64],
    offered: NDArray[np.bool_],
    luck: NDArray[np.float32],
    usual: NDArray[np.float64],
    propensity: NDArray[np.float64],
    world: Tiring,
    shape: float,
    wear_limit: float,
    floor: float,
    cap: int,
    window: int,
    recent: NDArray[np.int64],
    state: NDArray[np.float64],
    last: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    """By person into ``out``: exposures, and expected engagements; ``usual`` is what a first
    exposure gives at a propensity of 1, ``state`` wear, N, Lambda and turn, zero at first."""
    for i in range(len(ts)):
        p = person[i]
        if not offered[i] or (cap > 0 and recent[p, int(state[p, 3]) % cap] > ts[i] - window):
            continue
        wear = faded(state[p, 0], ts[i] - last[p], world)
        left = fatigue(wear, ts[i] - last[p], world)
        known = (shape + state[p, 1]) / (shape + state[p, 2])
        if wear > wear_limit or usual[p] * left * known < floor:
            continue
        chance = min(1.0, usual[p] * propensity[p]) * left
        out[p, 0] += 1.0
        out[p, 1] += chance
        state[p, 0], last[p] = wear + 1.0, ts[i]
        state[p, 1] += luck[i] < chance
        state[p, 2] += usual[p] * left
        if cap > 0:
            recent[p, int(state[p, 3]) % cap] = ts[i]
            state[p, 3] += 1.0


def _run(
    people: Drawn, wear: float = np.inf, floor: float = 0.0, cap: int = 0, window: int = 0
) -> NDArray[np.float64]:
    world, where = people.world, people.occasions
    usual = world.base * np.where(people.relative > 0, people.relative**world.heavy, 0.0)
    out = np.zeros((world.people, 2))
    _live(
        where.person, where.ts, where.offered, where.answer, usual, people.propensity,
        world.tiring, world.habits.shape, wear, floor * world.base, cap, window,
        np.full((world.people, max(1, cap)), -(1 << 60), np.int64), np.zeros((world.people, 4)),
        np.zeros(world.people, np.int64), out,
    )  # fmt: skip
    return out


def _whole(out: NDArray[np.float64]) -> Outcome:
    shown, answers = out.sum(axis=0)
    return Outcome(float(shown), float(answers))


def _saved(points: list[Outcome], none: Outcome, lost: float) -> float:
    """The most that policies, two of them mixed, save with so many engagements lost at most."""
    wanted = (1.0 - lost) * none.engagements
    return 1.0 - fewest([*points, none, Outcome(0.0, 0.0)], wanted) / none.exposures


def _campaign(seed: int) -> list[list[float]]:
    """(policies, LOST): shares saved."""
    people = occasions(drawn(seed), seed)
    none = _whole(_run(people))
    limits = np.array([_run(people, wear=each) for each in WEARS])
    best = [(limits[:, :, 1] - price * limits[:, :, 0]).argmax(axis=0) for price in PRICES]
    whom = np.arange(people.world.people)
    sets = [
        [_whole(limits[each, whom]) for each in best],
        [_whole(_run(people, floor=float(each))) for each in FLOORS],
        [_whole(_run(people, cap=cap, window=days * DAY)) for days in WINDOWS for cap in CAPS],
        [],
    ]
    return [[_saved(points, none, lost) for lost in LOST] for points in sets]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--campaigns", type=int, default=50, help="campaigns of the prior (50)")
    campaigns = parser.parse_args().campaigns
    found = []
    for seed in range(1, campaigns + 1):
        found.append(_campaign(seed))
        print(f"\rcampaign {seed}/{campaigns}", end="", file=sys.stderr)
    print(file=sys.stderr)
    saved = np.array(found)
    for p, name in enumerate(NAMES):
        for k, lost in enumerate(LOST):
            marks = " ".join(f"{m:.3f}" for m in np.quantile(saved[:, p, k], [0.1, 0.5, 0.9]))
            print(f"{name}, {lost:.0%} of engagements lost: saved 10%, median, 90%: {marks}")
    medians = np.median(saved, axis=0)
    print(
        json.dumps(
            {
                name: {f"{lost:.0%}": round(float(m), 3) for lost, m in zip(LOST, row, strict=True)}
                for name, row in zip(NAMES, medians, strict=True)
            }
        )
    )


if __name__ == "__main__":
    main()
