"""Partitions read as columns, outside any consumer group: for commands that look, not for workers.

Only what is committed is read, as the workers do.
"""

# It takes the transport's fetcher, for which aiokafka has no public place.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.fetcher import Fetcher

from governor.records import Records
from streams.patience import PATIENCE_SECONDS, ReaderError, stop
from streams.settings import Settings
from streams.topics import CONFIGURATION, connection
from streams.transport import BatchFetcher

__all__ = ["Reader", "committed"]

FETCH_BYTES = 8 * 1024 * 1024
FETCH_MAX_WAIT_MS = 20
"""An idle fetch holds up every other question to the same broker."""


class _EagerFetcher(BatchFetcher):
    """Does not wait for records that are still to come."""

    def _get_actions_per_node(self, assignment: Any) -> Any:
        self._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return Fetcher._get_actions_per_node(self, assignment)


class Reader:
    """Reads one partition after the other; an asynchronous context manager.

    Args:
        settings: where Kafka is, and the topics' prefix.
        partitions: how many the governor's topics have.
    """

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._parts = [
            TopicPartition(settings.topic(name), partition)
            for name in CONFIGURATION
            for partition in range(partitions)
        ]

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            **connection(self._settings),
            enable_auto_commit=False,
            isolation_level="read_committed",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        await self._consumer.start()
        _EagerFetcher.adopt(self._consumer._fetcher, Counter())
        # Once for all: aiokafka's fetcher, stopped while it changes its assignment, never stops.
        self._consumer.assign(self._parts)
        self._consumer.pause(*self._parts)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await stop(self._reading())

    async def begin(self, topic: str, partition: int) -> int:
        """The oldest offset that the log still has."""
        part = TopicPartition(topic, partition)
        return int((await self._reading().beginning_offsets([part]))[part])

    async def end(self, topic: str, partition: int) -> int:
        """The offset behind all that is committed."""
        part = TopicPartition(topic, partition)
        return int((await self._reading().end_offsets([part]))[part])

    async def since(self, topic: str, partition: int, seconds: float) -> int:
        """The offset of the first record whose timestamp is not before this epoch time."""
        part = TopicPartition(topic, partition)
        found = await self._reading().offsets_for_times({part: int(seconds * 1000)})
        return int(found[part].offset) if found[part] else await self.end(topic, partition)

    async def read(
        self, topic: str, partition: int, begin: int, end: int
    ) -> AsyncIterator[Records]:
        """The records from offset ``begin`` to before ``end``, a fetch at a time.

        Raises:
            ReaderError: nothing came for a minute.
        """
        consumer, part = self._reading(), TopicPartition(topic, partition)
        if begin >= end:
            return
        consumer.seek(part, begin)
        consumer.resume(part)
        loop = asyncio.get_running_loop()
        moved = loop.time()
        while (position := await consumer.position(part)) < end:
            for fetched in (await consumer.getmany(part, timeout_ms=1000)).get(part, ()):
                moved = loop.time()
                records = fetched.records
                yield records.select(slice(None, int(np.searchsorted(records.offset, end))))
            if loop.time() - moved > PATIENCE_SECONDS:
                where = f"{topic}[{partition}] from offset {position} on, though it ends at {end},"
                raise ReaderError(where, PATIENCE_SECONDS)
        consumer.pause(part)

    def _reading(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "use it as a context manager"
        return self._consumer


async def committed(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """What the group has committed of these topics: the next offset, by topic and partition."""
    admin = AIOKafkaAdminClient(**connection(settings))
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.group)
    finally:
        await admin.close()
    wanted = set(topics)
    return {
        (part.topic, part.partition): int(one.offset)
        for part, one in offsets.items()
        if part.topic in wanted and one.offset >= 0
    }
