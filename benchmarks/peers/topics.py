"""The harness' side of the broker: topics made, filled, watched, read and cleared."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.peers.load import HotLoad
from governor.records import Records
from streams.producer import PiecewiseClient, PiecewiseProduceRequest
from streams.wire import Frame, build, seal

__all__ = ["Answer", "clear", "create", "pace", "prepare", "read", "size", "watcher"]

TICK = 0.01
IN_FLIGHT = 5
_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True)
class Answer:
    """A record of an output topic; `at` is when the broker appended it, in milliseconds."""

    at: int
    value: dict[str, Any]


async def create(bootstrap: str, topic: str, partitions: int, *, output: bool) -> None:
    """Make a topic; an output's records are stamped by the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        configuration = _APPEND_TIME if output else {}
        made = await admin.create_topics(
            [NewTopic(topic, partitions, 1, topic_configs=configuration)]
        )
        if any(code for _name, code, *_text in made.topic_errors):
            raise RuntimeError(f"cannot create {topic}: {made.topic_errors}")
    finally:
        await admin.close()


async def clear(bootstrap: str, keep: Sequence[str]) -> None:
    """Delete every topic but these and Kafka's own, and wait until they are gone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        deadline = time.monotonic() + 60
        while gone := [
            topic
            for topic in await admin.list_topics()
            if topic not in keep and not topic.startswith("__")
        ]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"cannot delete {', '.join(gone)}")
            await admin.delete_topics(gone)
            await asyncio.sleep(0.2)
    finally:
        await admin.close()


async def watcher(bootstrap: str) -> AIOKafkaConsumer:
    """A consumer to ask for `size` with, again and again."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    return consumer


async def size(consumer: AIOKafkaConsumer, topic: str, partitions: int) -> int:
    """Records in a topic."""
    ends = await consumer.end_offsets([TopicPartition(topic, p) for p in range(partitions)])
    return sum(ends.values())


async def read(bootstrap: str, topic: str, partitions: int) -> list[Answer]:
    """All that is in a topic, by partition and offset; tombstones are left out."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    answers: list[Answer] = []
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(parts := [TopicPartition(topic, p) for p in range(partitions)])
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        open_parts = {part for part, end in ends.items() if end}
        while open_parts:
            fetched: Mapping[TopicPartition, Any] = await consumer.getmany(timeout_ms=500)
            for records in fetched.values():
                answers.extend(
                    Answer(record.timestamp, decoder.decode(record.value))
                    for record in records
                    if record.value is not None
                )
            for part in parts:
                if await consumer.position(part) >= ends[part]:
                    open_parts.discard(part)
    finally:
        await consumer.stop()
    return answers


def prepare(load: HotLoad, first: int, last: int, rate: float) -> list[dict[int, list[Frame]]]:
    """The events from `first` to `last` as what is sent in each tick at `rate` a second: batches
    that want a time only, so that little is left to do beside the broker."""
    cuts = np.arange(first, last, max(1, round(rate * TICK))).tolist()
    return [
        {
            partition: list(build(_untimed(Records.of(records)), max_bytes=900_000))
            for partition, records in load.records(start, min(end, last)).items()
        }
        for start, end in zip(cuts, [*cuts[1:], last], strict=True)
    ]


def _untimed(records: Records) -> Records:
    return replace(records, timestamp=np.zeros(len(records), np.int64))


async def pace(
    bootstrap: str, topic: str, first: int, ticks: Sequence[Mapping[int, list[Frame]]]
) -> tuple[list[tuple[int, float]], float]:
    """Send a tick each `TICK`; for each its first event and when it was sent (milliseconds).

    Also by how many seconds it was late at worst. A tick is one request, so that what is measured
    is not how a broker that shares its core with this program copes with many small ones; so many
    wait for their answers as Kafka's own producers allow.
    """
    client = PiecewiseClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    await client.set_topics([topic])
    (leader,) = {client.cluster.leader_for_partition(tp) for tp in _parts(client, topic)}
    sent: list[tuple[int, float]] = []
    late = 0.0
    pending: list[asyncio.Task[None]] = []
    turn = asyncio.Semaphore(IN_FLIGHT)
    gc.freeze()  # what was prepared is millions of objects, which a collection would go through
    started = time.perf_counter()
    try:
        for number, tick in enumerate(ticks):
            due = started + number * TICK
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            late = max(late, time.perf_counter() - due)
            now = time.time()
            sent.append((first, now * 1000))
            first += sum(frame.count for frames in tick.values() for frame in frames)
            pending.append(asyncio.create_task(_produce(client, leader, topic, tick, now, turn)))
            await asyncio.sleep(0)
        await asyncio.gather(*pending)
    finally:
        gc.unfreeze()
        await client.close()
    return sent, late


def _parts(client: PiecewiseClient, topic: str) -> list[TopicPartition]:
    partitions = client.cluster.partitions_for_topic(topic) or ()
    return [TopicPartition(topic, partition) for partition in partitions]


async def _produce(
    client: PiecewiseClient,
    leader: int,
    topic: str,
    tick: Mapping[int, list[Frame]],
    now: float,
    turn: asyncio.Semaphore,
) -> None:
    """Write a tick's batches, stamped, the first of every partition in one request, and so on."""
    stamp = int(now * 1000)
    async with turn:
        for number in range(max(map(len, tick.values()))):
            some = {p: frames[number] for p, frames in tick.items() if number < len(frames)}
            batches = [
                (p, seal(replace(one, first_timestamp=stamp, max_timestamp=stamp), -1, -1, -1))
                for p, one in some.items()
            ]
            request = PiecewiseProduceRequest(
                transactional_id=None, required_acks=-1, timeout=30_000, topics=[(topic, batches)]
            )
            answer = await client.send(leader, request)
            for _topic, partitions in answer.topics:
                if any(code for _partition, code, *_ in partitions):
                    raise RuntimeError(f"cannot write to {topic}: {partitions}")
