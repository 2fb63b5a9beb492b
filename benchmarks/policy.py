"""`make bench-policy`: what rules, users and campaigns cost.

Applying and deciding alone, in a fresh process each, measured in turns so that a slow minute of
the machine hits all of them: twenty rules against four, 10,000 users against a million, ten
campaigns against two thousand, everything else equal (four exposures a row, 4,000 dirty rows a
flush). Then the worker itself, through a broker, under four rules and under twenty. Medians.

The sixteen rules more are seldom in force, as most are in a policy of twenty: what is measured is
asking them, not writing longer decisions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.impressions import Traffic
from benchmarks.population import POLICY, Population
from benchmarks.running import fresh
from benchmarks.throughput import measure_worker
from streams.broker import Cluster

__all__ = ["FOUR", "TWENTY", "main"]

FOUR = POLICY
TWENTY = (
    POLICY
    + """
  - {name: user-hourly, cap: 6, per: user, window: 1h}
  - {name: user-half-day, cap: 14, per: user, window: 12h}
  - {name: creative-daily, cap: 4, per: creative, window: 20h}
  - {name: creative-hourly, cap: 3, per: creative, window: 1h}
  - {name: advertiser-hourly, cap: 5, per: advertiser, window: 2h}
  - {name: category-hourly, cap: 6, per: category, window: 3h}
  - {name: channel-daily, cap: 18, per: channel, window: 23h}
  - {name: channel-hourly, cap: 7, per: channel, window: 4h}
  - {name: surface-daily, cap: 17, per: surface, window: 22h}
  - {name: surface-hourly, cap: 8, per: surface, window: 5h}
  - {name: campaign-on-channel, cap: 5, per: campaign x channel, window: 21h}
  - {name: creative-on-channel, cap: 5, per: creative x channel, window: 18h}
  - {name: category-on-surface, cap: 9, per: category x surface, window: 19h}
  - {name: advertiser-on-surface, cap: 8, per: advertiser x surface, window: 17h}
  - {name: display, cap: 16, per: user, window: 16h, match: {channel: [display]}}
  - {name: campaign-on-web, cap: 6, per: campaign, window: 15h, match: {surface: [web]}}
"""
)
POLICIES = {"four": FOUR, "twenty": TWENTY}

USERS = (10_000, 1_000_000)
CAMPAIGNS = (10, 2_000)
SEGMENTS = 7
SEGMENT = 100_000


def _segments(policy: str, users: int, campaigns: int, segment: int) -> list[float]:
    """Microseconds of CPU an event for applying and deciding, of each segment."""
    population = Population(users, campaigns, policy=POLICIES[policy])
    for _changelog in population.fill():
        pass
    population.run(segment)
    found = []
    for _ in range(SEGMENTS):
        spent = population.run(segment).per_event()
        found.append(spent["apply"] + spent["take"])
    return found


def _cost(policy: str, users: int, campaigns: int) -> Callable[[], float]:
    def measure() -> float:
        return float(
            statistics.median(fresh("benchmarks.policy", policy, users, campaigns, SEGMENT))
        )

    return measure


def _in_turns(measures: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """The median of each over rounds in which all have their turn."""
    found: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for measure, results in zip(measures, found, strict=True):
            results.append(measure())
    return [statistics.median(results) for results in found]


def _end_to_end(events: int, rounds: int) -> float:
    """How many times the CPU a worker takes an event under twenty rules."""
    rates: dict[str, list[float]] = {name: [] for name in POLICIES}
    with Cluster(heap_mb=1024) as cluster:
        for number in range(rounds):
            for place, (name, policy) in enumerate(POLICIES.items()):
                load = Traffic(events, 200_000, 200, 8, int(time.time()), payload=300)
                run = 2 * number + place
                rates[name].append(measure_worker(cluster.bootstrap, load, policy, run))
    return statistics.median(rates["four"]) / statistics.median(rates["twenty"])


def main() -> None:
    """Measure, and say so in one line of JSON."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.policy", description=__doc__)
    asked.add_argument("--rounds", type=int, default=3, help="of each measurement (3)")
    asked.add_argument("--events", type=int, default=600_000, help="through the broker (600000)")
    options = asked.parse_args()
    four, twenty, few, many, narrow, wide = _in_turns(
        [
            _cost("four", 100_000, 200),
            _cost("twenty", 100_000, 200),
            *(_cost("four", users, 200) for users in USERS),
            *(_cost("four", 100_000, campaigns) for campaigns in CAMPAIGNS),
        ],
        options.rounds,
    )
    for what, cost in (
        ("four rules", four),
        ("twenty rules", twenty),
        *((f"{users:,} users", cost) for users, cost in zip(USERS, (few, many), strict=True)),
        *((f"{n:,} campaigns", cost) for n, cost in zip(CAMPAIGNS, (narrow, wide), strict=True)),
    ):
        print(f"{what:>18}  {cost:6.2f} us/event", flush=True)
    figures = {
        "ratio_20_to_4": round(twenty / four, 2),
        "end_to_end_ratio": round(_end_to_end(options.events, options.rounds), 2),
        "spread_users": round(max(few, many) / min(few, many) - 1, 3),
        "spread_campaigns": round(max(narrow, wide) / min(narrow, wide) - 1, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] in POLICIES:
        policy, *numbers = sys.argv[1:]
        json.dump(_segments(policy, *map(int, numbers)), sys.stdout)
    else:
        main()
