"""How soon a worker with a million users is ready.

    make bench-recovery

A changelog of a million users with ten exposures each lies in eight partitions. A worker pinned to
one core starts, reads it and is ready when its last row is in memory; the time is from the start of
the process, imports and all, and the rows per second leave out what a worker without rows takes.
Then the same after an hour's worth of load: every user's row written again and again until several
segments of each partition have been closed, and the broker left alone to compact them as the
topic's own settings say. Where workers keep snapshots, a third start reads those. Beside them, on
the same core, a bare aiokafka consumer that drops what it reads.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
from aiokafka import AIOKafkaProducer

from benchmarks.population import POLICY, Population
from benchmarks.recovery import PARTITIONS
from benchmarks.running import Worker
from benchmarks.throughput import cores, measure_ceiling
from governor.records import Records
from streams.broker import Cluster
from streams.reader import Reader
from streams.settings import Settings, load_settings
from streams.topics import CONFIGURATION
from streams.wire import PreparedBatch, build

__all__ = ["main"]

EXPOSURES = 10
SEGMENTS = 3.5
"""Of each partition that an hour's load is stood for by: enough for the broker to compact."""
RUNS = 3
QUIET_SECONDS = 40.0 + int(CONFIGURATION["ledger"]["min.compaction.lag.ms"]) / 1000
"""After so long without a change the broker has compacted what it will."""
SETTLE_SECONDS = 1800.0
"""By then it has, or something is wrong with it."""


def changelog(users: int) -> list[Records]:
    """The changelog of one partition: every ad and every row once."""
    return list(Population(users, 200, EXPOSURES).fill())


def rows_again(base: list[Records], size: int) -> Iterator[Records]:
    """Rows of random users, ``size`` bytes of them."""
    rng = np.random.default_rng(1)
    while size > 0:
        some = base[int(rng.integers(len(base)))]
        rows = rng.integers(len(some) // 2, len(some), len(some) // 2)
        chosen = some.select(rows)
        size -= int(chosen.key_size.sum() + chosen.value_size.sum())
        yield chosen


async def write(bootstrap: str, topic: str, changes: Iterator[Records] | list[Records]) -> None:
    """Write the same changes to every partition."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=0)
    await producer.start()
    try:
        for records in changes:
            stamped = np.full(len(records), int(time.time() * 1000), np.int64)
            records = Records(
                records.buffer, records.offset, stamped, records.key_start, records.key_size,
                records.value_start, records.value_size,
            )  # fmt: skip
            for frame in build(records, max_bytes=900_000):
                sent = [
                    await producer.send_batch(PreparedBatch(frame), topic, partition=partition)
                    for partition in range(PARTITIONS)
                ]
                await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def count(settings: Settings) -> int:
    """Records that the changelog holds."""
    total, topic = 0, settings.topic("ledger")
    async with Reader(settings, PARTITIONS) as reader:
        for partition in range(PARTITIONS):
            begin = await reader.begin(topic, partition)
            end = await reader.end(topic, partition)
            async for records in reader.read(topic, partition, begin, end):
                total += len(records)
    return total


def settled(settings: Settings) -> int:
    """Wait until the broker has compacted what it will; the records left."""
    began = since = time.monotonic()
    last = -1
    while time.monotonic() - since < QUIET_SECONDS:
        if time.monotonic() - began > SETTLE_SECONDS:
            raise SystemExit(
                f"the broker still compacts after {SETTLE_SECONDS:.0f} s: {last} records"
            )
        if (records := asyncio.run(count(settings))) != last:
            last, since = records, time.monotonic()
        time.sleep(5)
    return last


def starts(worker: Worker, runs: int) -> float:
    """Seconds to ready, the median of some starts."""
    seconds = []
    for _ in range(runs):
        seconds.append(worker.start())
        worker.stop()
    return statistics.median(seconds)


def snapshot_setting() -> str | None:
    """The setting that names the folder of snapshots, where there is one."""
    for name in Settings.model_fields:
        if name.startswith("snapshot") and name.endswith(("folder", "dir", "path", "snapshots")):
            return f"GOVERNOR_{name.upper()}"
    return None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.readiness", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    os.sched_setaffinity(0, {cores()[1]})
    base = changelog(options.users // PARTITIONS)
    figures: dict[str, float | None] = {}
    with Cluster(heap_mb=1024) as cluster:
        bootstrap = cluster.bootstrap
        with Worker(bootstrap, "empty", POLICY, PARTITIONS) as worker:
            empty = starts(worker, options.runs)
        print(f"start without rows           {empty:6.1f} s", flush=True)
        with Worker(bootstrap, "compact", POLICY, PARTITIONS) as worker:
            asyncio.run(write(bootstrap, "compact.ledger", base))
            settings = load_settings(worker.environment)
            records = asyncio.run(count(settings))
            ready = starts(worker, options.runs)
            ceiling = measure_ceiling(bootstrap, "compact.ledger", records)
            rate = records / (ready - empty)
            print(f"compacted, {records:,} records   {ready:6.1f} s", flush=True)
            print(f"rows a second                {rate:,.0f}, a bare consumer {ceiling:,.0f}")
            figures |= {"rows_per_s": round(rate), "ready_s_1m": round(ready, 1)}
            snapshot = _from_snapshot(worker, options.runs)
        with Worker(bootstrap, "hour", POLICY, PARTITIONS) as worker:
            settings = load_settings(worker.environment)
            segment = int(CONFIGURATION["ledger"]["segment.bytes"])
            asyncio.run(write(bootstrap, "hour.ledger", base))
            asyncio.run(write(bootstrap, "hour.ledger", rows_again(base, int(SEGMENTS * segment))))
            written = asyncio.run(count(settings))
            left = settled(settings)
            later = starts(worker, options.runs)
            print(
                f"after an hour's load, {left:,} records left of {written:,}  {later:6.1f} s",
                flush=True,
            )
    figures |= {
        "ready_s_1m_uncompacted": round(later, 1),
        "snapshot_s_1m": snapshot,
        "ratio_to_consumer": round(rate / ceiling, 2),
    }
    print(json.dumps(figures))


def _from_snapshot(worker: Worker, runs: int) -> float | None:
    """Seconds to ready from snapshots that the worker left when it was stopped."""
    setting = snapshot_setting()
    if setting is None:
        print("no snapshots in this version")
        return None
    worker.environment[setting] = str(worker.folder / "snapshots")
    worker.start()
    worker.stop()
    seconds = starts(worker, runs)
    print(f"from snapshots               {seconds:6.1f} s", flush=True)
    return round(seconds, 1)


if __name__ == "__main__":
    main()
