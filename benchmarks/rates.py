"""Events per second through the broker: 1, 4 and 20 rules, users drawn evenly and by Zipf.

As `benchmarks.throughput` measures: one worker on one core, everything else on the other. Runs are
interleaved, so that what slows the machine for a while slows all of them.
"""

from __future__ import annotations

import time

from benchmarks.history import Record
from benchmarks.impressions import Traffic
from benchmarks.throughput import CAPS, measure_ceiling, measure_worker
from streams.broker import Cluster

__all__ = ["POLICIES", "USERS", "measure"]

USERS = {"uniform": 0.0, "zipf": 1.0}

_ONE = "rules:\n  - {name: campaign-hourly, cap: 3, per: campaign, window: 1h}\n"
_LIMITS = {
    "user": (20, 60, 100, 120),
    "campaign": (3, 5, 10, 20),
    "creative": (3, 5, 10, 20),
    "advertiser": (6, 10, 20, 40),
    "category": (6, 10, 20, 40),
}
_TWENTY = "rules:\n" + "".join(
    f"  - {{name: {per}-{window}, cap: {cap}, per: {per}, window: {window}}}\n"
    for per, caps in _LIMITS.items()
    for cap, window in zip(caps, ("1h", "1d", "7d", "30d"), strict=True)
)
POLICIES = {"1 rule": _ONE, "4 rules": CAPS, "20 rules": _TWENTY}


def measure(record: Record, *, quick: bool) -> None:
    """Events per second, and the bare consumer's records per second on the same topic."""
    events = 600_000 if quick else 1_200_000
    for _run in record.times(3):
        with Cluster(heap_mb=1024) as cluster:
            number = 0
            for rules, policy in POLICIES.items():
                for users, skew in USERS.items():
                    load = Traffic(events, 200_000, 200, 8, int(time.time()), skew=skew)
                    rate = measure_worker(cluster.bootstrap, load, policy, number)
                    record.add(f"throughput/{rules}/{users}", "events/s", rate)
                    number += 1
            ceiling = measure_ceiling(cluster.bootstrap, "bench0.impressions", events)
            record.add("throughput/bare consumer", "records/s", ceiling)
