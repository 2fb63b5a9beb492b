"""How the cost of an event grows: with users and campaigns, with partitions and payload.

Users and campaigns in the domain alone, a fresh process each: decode, apply and take of an event
while everything else stays equal (four exposures a row, 4,000 dirty rows a flush). Partitions and
payload through the broker, as `benchmarks.throughput` measures.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import psutil

from benchmarks.history import Record
from benchmarks.impressions import Traffic
from benchmarks.population import Population
from benchmarks.running import fresh
from benchmarks.throughput import CAPS, measure_worker
from streams.broker import Cluster

__all__ = ["broker", "domain"]

USERS = (10_000, 100_000, 1_000_000, 5_000_000)
CAMPAIGNS = (10, 100, 1_000, 10_000)
PARTITIONS = (1, 8, 64)
PAYLOADS = (150, 300, 2_000)

BYTES_PER_USER = 400
"""More than a user of four exposures takes, growing included."""

SEGMENTS = 5


def domain(record: Record, *, quick: bool) -> None:
    """Microseconds of CPU an event."""
    segment = 40_000 if quick else 100_000
    free = psutil.virtual_memory().available
    for users in USERS[:-1] if quick else USERS:
        if users * BYTES_PER_USER > free:
            print(f"  {users:,} users do not fit into the memory that is free: left out")
            continue
        _domain(record, f"users/{users}", users, 200, segment)
    for campaigns in CAMPAIGNS:
        _domain(record, f"campaigns/{campaigns}", 100_000, campaigns, segment)


def _domain(record: Record, name: str, users: int, campaigns: int, segment: int) -> None:
    segments = fresh("benchmarks.growth", users, campaigns, segment)
    for part in ("decode", "apply", "take", "all"):
        record.add(
            f"growth/{name}" if part == "all" else f"growth/{name}/{part}",
            "us/event",
            [one[part] for one in segments],
            tell=part == "all",
        )


def broker(record: Record, *, quick: bool) -> None:
    """Events per second with more partitions and larger events."""
    events = 600_000 if quick else 1_200_000
    for _run in record.times(2):
        with Cluster(heap_mb=1024) as cluster:
            for number, partitions in enumerate(PARTITIONS):
                load = Traffic(events, 200_000, 200, partitions, int(time.time()), payload=300)
                rate = measure_worker(cluster.bootstrap, load, CAPS, number)
                record.add(f"growth-broker/partitions/{partitions}", "events/s", rate)
                if partitions == 8:
                    record.add("growth-broker/payload/300", "events/s", rate, tell=False)
            for number, payload in enumerate(PAYLOADS, len(PARTITIONS)):
                if payload == 300:
                    continue
                count = events if payload < 1_000 else events // 2
                load = Traffic(count, 200_000, 200, 8, int(time.time()), payload=payload)
                rate = measure_worker(cluster.bootstrap, load, CAPS, number)
                record.add(f"growth-broker/payload/{payload}", "events/s", rate)


def _segments(users: int, campaigns: int, segment: int) -> Sequence[dict[str, float]]:
    population = Population(users, campaigns)
    for _changelog in population.fill():
        pass
    population.run(segment // 2)
    return [population.run(segment).per_event() for _ in range(SEGMENTS)]


if __name__ == "__main__":
    json.dump(_segments(*map(int, sys.argv[1:])), sys.stdout)
