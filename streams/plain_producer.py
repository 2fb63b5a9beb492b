"""A producer of whole `Records`, for what may be written twice: not fenced, unlike
`streams.producer`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

from aiokafka import AIOKafkaProducer

from governor.records import Records
from streams.settings import Settings
from streams.topics import connection
from streams.wire import PreparedBatch, build

__all__ = ["PlainProducer"]

MAX_BATCH_BYTES = 900_000
"""Under the megabyte that a topic allows in one batch unless it was told otherwise."""


class PlainProducer:
    """Connected between `start` and `stop`, or with ``async with``."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            **connection(self._settings),
            client_id=f"{self._settings.group}-{self._name}",
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect, if it was connected."""
        if self._producer is not None:
            await self._producer.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def send(self, outgoing: Iterable[tuple[str, int, Records]]) -> None:
        """Send records to topics and partitions, and wait until all are acknowledged.

        Those of one partition in the order given, with the timestamps that they have.

        Raises:
            aiokafka.errors.KafkaError: some may not have been written.
        """
        frames = [
            (topic, partition, frame)
            for topic, partition, records in outgoing
            for frame in build(records, max_bytes=MAX_BATCH_BYTES)
        ]
        assert self._producer is not None, "not started"
        acknowledged = [
            await self._producer.send_batch(PreparedBatch(frame), topic, partition=partition)
            for topic, partition, frame in frames
        ]
        await asyncio.gather(*acknowledged)
