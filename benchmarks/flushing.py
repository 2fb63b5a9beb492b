"""What the flush interval costs and what it spares: delay, changelog, and a restart after a kill.

    make bench-flush

For each interval a worker on the measured core gets 10,000 impressions a second of users drawn by
Zipf, under four caps and a spacing, so that nearly every event changes a decision. Then: the time
from event to decision, by the broker's clock; rows and bytes of changelog an event, as they lie on
the broker's disk, which is what they take of its network; then the worker is killed with SIGKILL
under the same load, and started again: how many events it is given once more, and how long after
its start it has dealt with all that came.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from benchmarks.impressions import Template, partition_of
from benchmarks.running import Worker
from benchmarks.throughput import SPACING
from streams.broker import Cluster
from streams.wire import Frame, PreparedBatch, build

__all__ = ["main"]

INTERVALS = ("5ms", "25ms", "100ms", "500ms", "2s")
RATE = 10_000
USERS, CAMPAIGNS, PARTITIONS = 50_000, 200, 8
SKEW = 0.8
PERIOD = 0.02


@dataclass(frozen=True)
class Cost:
    """What was measured under one interval."""

    interval: str
    p50_ms: float
    """From event to the acknowledgement of its decision; upper edges of the worker's buckets."""
    p99_ms: float
    rows_per_event: float
    changelog_bytes_per_event: float
    again: int
    """Events delivered twice because of the kill."""
    caught_up_s: float
    """From the start of the next worker until nothing waits."""


class Crowd:
    """Users by Zipf, at an even pace, each event with an id of its own."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self._template = Template()
        share = np.cumsum(np.arange(1, USERS + 1) ** -SKEW)
        self._share = share / share[-1]
        self._where = partition_of(USERS, PARTITIONS)
        self.sent = 0

    async def send(self, bootstrap: str, topic: str, seconds: float) -> None:
        """Send for so long; return when all is acknowledged."""
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0)
        await producer.start()
        acknowledged = []
        began = time.time()
        try:
            await producer.partitions_for(topic)
            for number in range(round(seconds / PERIOD)):
                due = began + number * PERIOD
                await asyncio.sleep(max(0.0, due - time.time()))
                for partition, frame in self._batch(round(RATE * PERIOD), due):
                    acknowledged.append(
                        await producer.send_batch(PreparedBatch(frame), topic, partition=partition)
                    )
            await asyncio.gather(*acknowledged)
        finally:
            await producer.stop()

    def _batch(self, count: int, due: float) -> list[tuple[int, Frame]]:
        number = np.arange(self.sent, self.sent + count, dtype=np.int64)
        self.sent += count
        user = np.searchsorted(self._share, self._rng.random(count), side="right").astype(np.int64)
        campaign = self._rng.integers(0, CAMPAIGNS, count)
        ticks = np.full(count, int(due * 1e6), np.int64)
        rows = self._template.fill(number, user, campaign, ticks)
        frames: list[tuple[int, Frame]] = []
        for partition in range(PARTITIONS):
            mine = rows[self._where[user] == partition]
            if len(mine):
                stamps = np.full(len(mine), int(due * 1e3), np.int64)
                made = build(self._template.records(mine, stamps), max_bytes=900_000)
                frames += [(partition, frame) for frame in made]
        return frames


def measure(cluster: Cluster, interval: str, seconds: float) -> Cost:
    """One interval's costs."""
    name = f"flush-{interval}"
    with Worker(cluster.bootstrap, name, SPACING, PARTITIONS) as worker:
        worker.environment["GOVERNOR_FLUSH_INTERVAL"] = interval
        worker.start()
        crowd, topic = Crowd(), f"{name}.impressions"
        asyncio.run(crowd.send(cluster.bootstrap, topic, seconds))
        worker.until_acknowledged(crowd.sent)
        events = crowd.sent
        rows = worker.metric("governor_changelog_rows_total")
        size = on_disk(cluster.folder, f"{name}.ledger")
        delays = [worker.quantile("governor_event_to_decision_seconds", at) for at in (0.5, 0.99)]

        async def under_load() -> None:
            sending = asyncio.create_task(crowd.send(cluster.bootstrap, topic, 3.0))
            await asyncio.sleep(2.0)
            worker.kill(signal.SIGKILL)
            await sending

        asyncio.run(under_load())
        began = time.perf_counter()
        worker.start()
        worker.until(lambda: _waiting(worker) == 0, "events are not done")
        caught_up = time.perf_counter() - began
        again = worker.metric('governor_events_total{outcome="duplicate",topic="impressions"}')
    return Cost(
        interval,
        round(1e3 * delays[0], 1),
        round(1e3 * delays[1], 1),
        round(rows / events, 3),
        round(size / events, 1),
        int(again),
        round(caught_up, 2),
    )


def _waiting(worker: Worker) -> float:
    lag = worker.metric('governor_consumer_lag_records{topic="impressions"}')
    return lag + worker.metric("governor_pending_events") + (worker.metric("governor_ready") != 1)


def on_disk(folder: Path, topic: str) -> int:
    """Bytes of a topic's segments, all brokers' together."""
    return sum(file.stat().st_size for file in folder.rglob(f"{topic}-*/*.log"))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of load for each interval")
    parser.add_argument("--intervals", default=",".join(INTERVALS))
    chosen = parser.parse_args(arguments)
    costs = []
    with Cluster(heap_mb=1024, progress=lambda text: print(text, file=sys.stderr)) as cluster:
        for interval in chosen.intervals.split(","):
            print(f"flush interval {interval}", file=sys.stderr, flush=True)
            costs.append(measure(cluster, interval, chosen.seconds))
    table = Table()
    for column in asdict(costs[0]):
        table.add_column(column.replace("_", " "), justify="right")
    for cost in costs:
        table.add_row(*map(str, asdict(cost).values()))
    Console(width=120).print(table)
    print(json.dumps({cost.interval: asdict(cost) for cost in costs}))


if __name__ == "__main__":
    main()
