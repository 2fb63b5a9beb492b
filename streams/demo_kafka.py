"""The demo's side of Kafka: a producer of events, and a reader of the decisions topic."""

from __future__ import annotations

import asyncio
import json
from asyncio import Future
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from streams.demo_sample import Event, Page, events_of

__all__ = ["Decisions", "Feed", "feeding", "follow", "last_decisions"]

Decisions = dict[str, dict[str, Any]]
"""By user, the last record of the compacted topic; withdrawn ones are not in it."""


class Feed:
    """Sends page views as events, and remembers what it sent.

    Args:
        producer: started.
        prefix: of the topics.
    """

    def __init__(self, producer: AIOKafkaProducer, prefix: str) -> None:
        self.producer = producer
        self.prefix = prefix
        self.events: dict[str, list[Event]] = defaultdict(list)
        """By user, all that was sent."""
        self.partitions: dict[str, int] = {}
        """By user, where it went; complete after `acknowledged`."""
        self._sent: list[tuple[str, Future[Any]]] = []

    @property
    def count(self) -> int:
        """Events sent."""
        return len(self._sent)

    async def send(self, page: Page) -> None:
        """Send what a page view leads to, keyed by user, with no wait for the broker."""
        for topic, event in events_of(page):
            user = event["user_id"]
            value = json.dumps(event).encode()
            sent = await self.producer.send(self.prefix + topic, value, key=user.encode())
            self.events[user].append((topic, event))
            self._sent.append((user, sent))

    async def acknowledged(self) -> None:
        """Wait until the broker has all of it."""
        await self.producer.flush()
        results = await asyncio.gather(*(sent for _, sent in self._sent))
        for (user, _), metadata in zip(self._sent, results, strict=True):
            self.partitions[user] = metadata.partition


@asynccontextmanager
async def feeding(bootstrap: str, prefix: str) -> AsyncIterator[Feed]:
    """A feed with a producer of its own, whose partitioner is that of Kafka's Java client."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        yield Feed(producer, prefix)
    finally:
        await producer.stop()


async def follow(bootstrap: str, topic: str, decisions: Decisions) -> None:
    """Keep ``decisions`` at what the topic says, for ever."""
    async with _reading(bootstrap, topic) as consumer:
        while True:
            await _read(consumer, decisions)


async def last_decisions(bootstrap: str, topic: str) -> Decisions:
    """The whole topic, read from its beginning to its present end."""
    decisions: Decisions = {}
    async with _reading(bootstrap, topic) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                await _read(consumer, decisions)
    return decisions


@asynccontextmanager
async def _reading(bootstrap: str, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    # Without a group it has all partitions, and from the beginning.
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def _read(consumer: AIOKafkaConsumer, decisions: Decisions) -> None:
    for records in (await consumer.getmany(timeout_ms=100)).values():
        for record in records:
            user = record.key.decode()
            if record.value is None:
                decisions.pop(user, None)
            else:
                decisions[user] = json.loads(record.value)
