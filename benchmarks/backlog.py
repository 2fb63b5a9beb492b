"""A backlog drains at full speed and in flat memory.

    python -m benchmarks.backlog [--minutes 10] [--rate 2000]

While workers were away, so many minutes of traffic at so many events a second have piled up. A
worker pinned to one core drains them. Reported are events per second in the last quarter against
those in the second, when the end is far, and the growth over the second half of its memory without
rows and the stops that readers were told of. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import psutil

from benchmarks.load import Load, preload
from benchmarks.running import Worker
from benchmarks.throughput import CAPS
from streams.broker import Cluster

__all__ = ["main"]

PARTITIONS = 8
USERS = 100_000
"""Few enough that all have a row by the middle: what grows then is not rows."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=int, default=2_000, help="events a second")
    chosen = parser.parse_args()
    events = int(chosen.minutes * 60 * chosen.rate)
    load = Load(events, USERS, 200, PARTITIONS, int(time.time()))
    with (
        Cluster(heap_mb=1024) as cluster,
        Worker(cluster.bootstrap, "backlog", CAPS, PARTITIONS) as worker,
    ):
        asyncio.run(preload(cluster.bootstrap, "backlog.impressions", load))
        worker.start(wait=False)
        samples = _drain(worker, events)
    capacity, drained = _rate(samples, 0.25, 0.5, events), _rate(samples, 0.75, 1.0, events)
    middle = next(one for one in samples if one[1] >= events / 2)
    growth = (samples[-1][2] - samples[-1][3]) / (middle[2] - middle[3])
    result = {
        "events": events,
        "capacity_per_s": round(capacity),
        "drained_per_s": round(drained),
        "ratio": round(drained / capacity, 3),
        "memory_ratio": round(growth, 3),
        "rss_mb": round(samples[-1][2] / 1e6),
    }
    json.dump(result, sys.stdout)
    print()


def _drain(worker: Worker, events: int) -> list[tuple[float, int, int, int]]:
    """Time, events acknowledged, resident bytes, bytes of rows and stops, until all is done."""
    process = psutil.Process(worker.pid)
    samples: list[tuple[float, int, int, int]] = []

    def drained() -> bool:
        done = worker.acknowledged()
        kept = worker.metric("governor_ledger_bytes") + worker.metric("governor_told_bytes")
        samples.append((time.perf_counter(), done, process.memory_info().rss, int(kept)))
        return done >= events

    # Each sample costs the worker four scrapes.
    worker.until(drained, f"{events} events are not done", 0.25)
    return samples


def _rate(samples: list[tuple[float, int, int, int]], first: float, last: float, n: int) -> float:
    """Events per second between two shares of the whole."""
    begin = next(one for one in samples if one[1] >= first * n)
    end = next(one for one in samples if one[1] >= last * n)
    return (end[1] - begin[1]) / (end[0] - begin[0])


if __name__ == "__main__":
    main()
