"""From an event to its decision, at a tenth, half and nine tenths of what the worker can do.

Under four caps and a spacing each event moves a decision's ``until``, so each leads to a record.
First a backlog, whose rate is the capacity; then, on the same worker, events at an even pace:
every 20 ms one batch to each partition, each user at most once a flush.

Nothing is timed inside the worker. An event's ``ts`` is when it was due to be produced, whether
the producer kept up or not; a decision's ``from`` is the ``ts`` of the event that it answers; and
its record carries the time at which the broker appended it (LogAppendTime, whole milliseconds).
Decisions are read when all is over.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.history import Record
from benchmarks.impressions import Template, Traffic, partition_of
from benchmarks.load import preload
from benchmarks.running import Worker
from benchmarks.scratch import COMPACTION, WrittenMemory, in_memory
from benchmarks.throughput import SPACING, rate_of
from streams.broker import Cluster
from streams.wire import PreparedBatch, build

__all__ = ["measure"]

USERS, CAMPAIGNS, PARTITIONS = 200_000, 200, 8
PERIOD = 0.02
LOADS = (10, 50, 90)
NAME = "latency"


@dataclass(frozen=True)
class Paced:
    """What the producer did."""

    events: int
    seconds: float
    late: float
    """By how much it fell behind, in 99 of 100 batches at most."""


def measure(record: Record, *, quick: bool) -> None:
    """Median and 99th percentile in milliseconds."""
    seconds = 4.0 if quick else 15.0
    backlog = 600_000 if quick else 1_200_000
    print(f"  {in_memory()}; all that is free is written to first: up to a minute", flush=True)
    with WrittenMemory() as memory, Cluster(heap_mb=2048, overrides=COMPACTION) as cluster:
        print(f"  {memory.take()}", flush=True)
        bootstrap = cluster.bootstrap
        asyncio.run(_stamped_topic(bootstrap))
        load = Traffic(backlog, USERS, CAMPAIGNS, PARTITIONS, int(time.time()))
        with Worker(bootstrap, NAME, SPACING, PARTITIONS) as worker:
            asyncio.run(preload(bootstrap, f"{NAME}.impressions", load))
            worker.start(wait=False)
            capacity = rate_of(worker.acknowledged, backlog)
            record.add("latency/capacity", "events/s", capacity)
            done = backlog
            facts = {}
            for percent in LOADS:
                begins = asyncio.run(_ends(bootstrap))
                paced = asyncio.run(_produce(bootstrap, capacity * percent / 100, seconds))
                done += paced.events
                worker.until_acknowledged(done)
                delays = asyncio.run(_delays(bootstrap, begins))
                p50, p99 = np.percentile(delays, (50, 99))
                record.add(f"latency/{percent}%/p50", "ms", p50)
                record.add(f"latency/{percent}%/p99", "ms", p99)
                facts[str(percent)] = {
                    "events_per_s": round(paced.events / paced.seconds),
                    "decisions": len(delays),
                    "events": paced.events,
                    "producer_late_p99_ms": round(1e3 * paced.late, 1),
                }
                print(f"  {'':<48} {facts[str(percent)]}", flush=True)
    record.facts["latency"] = facts


async def _stamped_topic(bootstrap: str) -> None:
    """The decisions' topic, stamped by the broker and never compacted under our eyes."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    configuration = {
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(4 * 1024 * 1024),
    }
    await admin.create_topics(
        [NewTopic(f"{NAME}.decisions", PARTITIONS, 1, topic_configs=configuration)]
    )
    await admin.close()


async def _produce(bootstrap: str, rate: float, seconds: float) -> Paced:
    """Events at this rate, of users taken in turn."""
    template = Template()
    where = partition_of(USERS, PARTITIONS)
    turns = [np.flatnonzero(where == partition) for partition in range(PARTITIONS)]
    rows = [template.fill(user, user, user % CAMPAIGNS, 0 * user) for user in turns]
    at = [0] * PARTITIONS
    slot = PERIOD / PARTITIONS
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0)
    await producer.start()
    sent, late, acknowledged = 0, [], []
    try:
        await producer.partitions_for(f"{NAME}.impressions")
        began = time.time() + 0.1
        for number in range(round(seconds / slot)):
            due = began + number * slot
            if (early := due - time.time()) > 0:
                await asyncio.sleep(early)
            partition = number % PARTITIONS
            count = round(rate * slot * (number + 1)) - sent
            first = at[partition] if at[partition] + count <= len(rows[partition]) else 0
            at[partition] = first + count
            events = rows[partition][first : first + count]
            ticks = int(due * 1e6)
            stamp = b"%010d.%06d" % divmod(ticks, 1_000_000)
            events[:, template.ts_at : template.ts_at + len(stamp)] = np.frombuffer(stamp, np.uint8)
            template.number(events, ticks // 1000 % 10**10)  # or a user's events were one
            made = template.records(events, np.full(count, ticks // 1000, np.int64))
            for frame in build(made, max_bytes=900_000):
                late.append(max(0.0, time.time() - due))
                acknowledged.append(
                    await producer.send_batch(
                        PreparedBatch(frame), f"{NAME}.impressions", partition=partition
                    )
                )
            sent += count
        await asyncio.gather(*acknowledged)
        return Paced(sent, time.time() - began, float(np.percentile(late, 99)))
    finally:
        await producer.stop()


def _partitions() -> list[TopicPartition]:
    return [TopicPartition(f"{NAME}.decisions", number) for number in range(PARTITIONS)]


async def _ends(bootstrap: str) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        ends: dict[TopicPartition, int] = await consumer.end_offsets(_partitions())
        return ends
    finally:
        await consumer.stop()


async def _delays(bootstrap: str, begins: dict[TopicPartition, int]) -> Sequence[float]:
    """Milliseconds from event to decision of all decisions behind these offsets."""
    ends = await _ends(bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    delays: list[float] = []
    try:
        consumer.assign(_partitions())
        for tp, offset in begins.items():
            consumer.seek(tp, offset)
        left = sum(ends.values()) - sum(begins.values())
        while left > 0:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                left -= len(records)
                for one in records:
                    if one.value is not None:
                        newest = max(map(float, _FROM.findall(one.value)))
                        delays.append(one.timestamp - 1e3 * newest)
        return delays
    finally:
        await consumer.stop()


_FROM = re.compile(rb'"from":([0-9.]+)')
