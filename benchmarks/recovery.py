"""How fast rows come back.

In the domain: `Ledger.load` on the changelog of users with ten exposures each. End to end: a
worker that has seen a million events of half a million users is stopped and started again, and is
ready when its last row is in memory. The changelog is as that worker wrote it: a record each time
that a row changed in a flush, as the broker compacts only what is older. Beside both, a bare
consumer that drops what it reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.history import Record
from benchmarks.impressions import Traffic
from benchmarks.load import preload
from benchmarks.population import Population, empty_ledger
from benchmarks.running import Worker, fresh
from benchmarks.throughput import CAPS, measure_ceiling
from streams.broker import Cluster

__all__ = ["measure"]

PARTITIONS = 8
ROWS_A_FETCH = 3_000


def measure(record: Record, *, quick: bool) -> None:
    """Rows per second, and seconds to ready."""
    users = 50_000 if quick else 200_000
    record.add("recovery/domain", "rows/s", fresh("benchmarks.recovery", users))
    events = 200_000 if quick else 1_000_000
    load = Traffic(events, 500_000, 200, PARTITIONS, int(time.time()))
    with Cluster(heap_mb=1024) as cluster:
        with Worker(cluster.bootstrap, "recovery", CAPS, PARTITIONS) as worker:
            empty = worker.start()
            asyncio.run(preload(cluster.bootstrap, "recovery.impressions", load))
            worker.until_acknowledged(events)
            seconds = []
            for _run in record.times(3):
                worker.stop()
                seconds.append(worker.start())
            rows = int(worker.metric("governor_users"))
        records = asyncio.run(_count(cluster.bootstrap, "recovery.ledger"))
        ceiling = [
            measure_ceiling(cluster.bootstrap, "recovery.ledger", records)
            for _run in record.times(3)
        ]
    record.add("recovery/start of an empty worker", "s", empty)
    record.add("recovery/start with rows", "s", seconds)
    record.add("recovery/bare consumer", "records/s", ceiling)
    record.facts["recovery"] = {"rows": rows, "records": records, "events": events}


async def _count(bootstrap: str, topic: str) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic, p) for p in range(PARTITIONS)])
        return int(sum(ends.values()))
    finally:
        await consumer.stop()


def _domain(users: int) -> list[float]:
    changelog = list(Population(users, 200, 10).fill())
    rates = []
    for _ in range(4):
        ledger = empty_ledger(10)
        began = time.process_time()
        for records in changelog:
            for first in range(0, len(records), ROWS_A_FETCH):
                rows = np.arange(first, min(first + ROWS_A_FETCH, len(records)))
                ledger.load(records.select(rows))
        rates.append(users / (time.process_time() - began))
        assert len(ledger) == users
    return rates[1:]  # the first one compiles


if __name__ == "__main__":
    json.dump(_domain(int(sys.argv[1])), sys.stdout)
