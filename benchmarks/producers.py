"""Sends a crowd's events at a pace, and again, and in disorder."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from benchmarks.crowd import Crowd, Event, home
from governor.records import Records
from streams.wire import PreparedBatch, build

__all__ = ["Producers"]

CHUNK = 500
AGAIN = 2_000
HELD_BACK = 4_000


class Producers:
    """Keeps sending until told to end; survives a broker that is away.

    What a failed request held is sent again, so the topics may hold it twice.

    Args:
        bootstrap: the broker.
        prefix: of the topics.
        partitions: of the topics.
        crowd: who the events are of.
        rate: events a second.
    """

    def __init__(
        self, bootstrap: str, prefix: str, partitions: int, crowd: Crowd, rate: float
    ) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._partitions = partitions
        self._crowd = crowd
        self.rate = rate
        self.sent = 0
        self._producer: AIOKafkaProducer | None = None
        self._sending = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            linger_ms=0,
            request_timeout_ms=10_000,
            metadata_max_age_ms=2_000,  # a broker that comes back may know no topics yet
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._producer is not None
        await self._producer.stop()

    async def run(self, ending: asyncio.Event) -> None:
        """Send at the pace until ``ending`` is set."""
        due = time.monotonic()
        while not ending.is_set():
            await self.send(self._crowd.draw(CHUNK))
            due = max(due + CHUNK / self.rate, time.monotonic() - 5.0)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def fill(self, count: int) -> None:
        """Send without pauses until so many have been sent."""
        while self.sent < count:
            await self.send(self._crowd.draw(min(CHUNK, count - self.sent)))

    async def duplicate(self) -> None:
        """Send again what was sent before."""
        await self.send(self._crowd.again(AGAIN))

    async def reorder(self) -> None:
        """Send what comes next in disorder."""
        await self.send(self._crowd.shuffled(self._crowd.draw(HELD_BACK)))

    async def forget_nobody(self, topic: str) -> None:
        """One record in each partition of a changelog, which changes nothing."""
        nobody = Records.of([(b"u\x00nobody", None, int(time.time() * 1000))])
        for partition in range(self._partitions):
            await self._deliver(topic, partition, nobody)

    async def send(self, events: list[Event]) -> None:
        """Send, and return when all is acknowledged."""
        parts: dict[tuple[str, int], list[tuple[bytes, bytes, int]]] = defaultdict(list)
        for topic, key, value, timestamp in events:
            parts[topic, home(key, self._partitions)].append((key, value, timestamp))
        async with self._sending:
            await asyncio.gather(
                *(
                    self._deliver(self._prefix + topic, partition, Records.of(records))
                    for (topic, partition), records in parts.items()
                )
            )
            self.sent += len(events)

    async def _deliver(self, topic: str, partition: int, records: Records) -> None:
        assert self._producer is not None
        for frame in build(records, max_bytes=900_000):
            while True:
                try:
                    batch = PreparedBatch(frame)
                    await (await self._producer.send_batch(batch, topic, partition=partition))
                except KafkaError:
                    await asyncio.sleep(0.5)
                else:
                    break
