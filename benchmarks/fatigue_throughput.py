"""What a rule of fatigue costs: CPU an event of applying and deciding, with it and without.

    python -m benchmarks.fatigue_throughput [--rounds 3] [--users 100000]

The same events through the same four caps, and through these and a rule of fatigue per campaign
under curves that decline, in turns, each in a fresh process; eight exposures a row. The last line
is JSON: ``{"throughput_ratio": ...}``, events a second with fatigue over those without, decoding
included.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys

from benchmarks.population import POLICY, START, Population
from benchmarks.running import fresh
from governor.fatigue.curves import ALL, KNOTS, STRATA, Curve, CurveSet
from governor.fatigue.versions import Version

__all__ = ["main", "throughput_ratio"]

TIRING = POLICY + "  - {name: tired, fatigue: {floor: 0.4, probability: 0.9}, per: campaign}\n"
EXPOSURES, CAMPAIGNS, SEGMENT, SEGMENTS = 8, 200, 100_000, 5
DAY = 86_400_000_000


def curves() -> Version:
    """Every campaign's: two thirds are left after each exposure, and wear halves in three days."""
    curve = Curve(
        label=ALL, base=(0.05,) * STRATA, edges=tuple(0.5 * k for k in range(1, STRATA - 1)),
        shape=1.0, recovery=3 * DAY, level=tuple(knot * math.log(2 / 3) for knot in KNOTS),
        spread=tuple(0.05 * min(knot, 1.0) for knot in KNOTS), exposures=1e6, engagements=3e4,
        people=100_000, coverage=1.0, identified=True,
    )  # fmt: skip
    return Version(CurveSet(START, 60 * DAY, {ALL: curve}), START - 30 * DAY)


def _per_event(tiring: bool, users: int) -> float:
    """Microseconds of CPU an event."""
    population = Population(users, CAMPAIGNS, EXPOSURES, TIRING if tiring else POLICY)
    if tiring:
        population.ledger.learn(curves())
    for _changelog in population.fill():
        pass
    population.run(SEGMENT)
    return statistics.median(population.run(SEGMENT).per_event()["all"] for _ in range(SEGMENTS))


def throughput_ratio(rounds: int = 3, users: int = 100_000) -> float:
    """Events a second with fatigue over those without, the median of rounds."""
    ratios = []
    for _ in range(rounds):
        without, tiring = (
            float(fresh("benchmarks.fatigue_throughput", "--alone", kind, "--users", users))
            for kind in ("caps", "fatigue")
        )
        ratios.append(without / tiring)
        print(f"{without:.2f} us an event without, {tiring:.2f} with", file=sys.stderr)
    return statistics.median(ratios)


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--alone", choices=("caps", "fatigue"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(_per_event(options.alone == "fatigue", options.users)))
        return
    print(
        json.dumps({"throughput_ratio": round(throughput_ratio(options.rounds, options.users), 3)})
    )


if __name__ == "__main__":
    main()
