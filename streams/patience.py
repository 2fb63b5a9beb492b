"""Topics read up to where they end, and not waited for for ever.

A partition without a leader, or records that a broker says it has and never gives, would otherwise
hold a command up without a word. Everything that reads a topic to its end reads it through here,
or, in whole fetches, through `streams.reader`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

__all__ = ["PATIENCE_SECONDS", "ReaderError", "connected", "read_all", "read_to", "stop"]

PATIENCE_SECONDS = 60.0
"""Without a record for so long, a partition is not read to its end any more."""
_POLL_MS = 500

Read = tuple[TopicPartition, Sequence[ConsumerRecord]]
T = TypeVar("T")


class ReaderError(KafkaError):
    """Kafka does not give what it says it has; says what to do."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what, seconds)
        self.what, self.seconds = what, seconds

    def __str__(self) -> str:
        return (
            f"nothing came of {self.what} for {self.seconds:.0f} s: is every broker up, and has "
            "every partition a leader (kafka-topics.sh --describe --unavailable-partitions)?"
        )


async def read_all(
    consumer: AIOKafkaConsumer,
    parts: Collection[TopicPartition],
    *,
    most: int | None = None,
    patience: float = PATIENCE_SECONDS,
) -> AsyncIterator[Read]:
    """All that partitions hold when this is called, and perhaps some of what comes meanwhile.

    The consumer is assigned these partitions and no others; it stands behind what was read
    afterwards.

    Args:
        consumer: in no group.
        parts: of topics that are there.
        most: records at a time; as the consumer is set where it is None.
        patience: seconds.

    Raises:
        ReaderError: nothing came for so long.
    """
    if not parts:
        return
    consumer.assign(list(parts))
    named = _named(parts)
    await _soon(consumer.seek_to_beginning(*parts), named, patience)
    ends = await _soon(consumer.end_offsets(list(parts)), named, patience)
    async for read in read_to(consumer, ends, most=most, patience=patience):
        yield read


async def read_to(
    consumer: AIOKafkaConsumer,
    ends: Mapping[TopicPartition, int],
    *,
    most: int | None = None,
    patience: float = PATIENCE_SECONDS,
) -> AsyncIterator[Read]:
    """What lies between a consumer's place in partitions and these offsets, or a little more.

    The arguments and errors are those of `read_all`; the partitions are assigned.
    """
    loop = asyncio.get_running_loop()
    moved = loop.time()
    left = set(ends)
    while True:
        named = _named(left)
        places = {part: await _soon(consumer.position(part), named, patience) for part in left}
        left = {part for part, place in places.items() if place < ends[part]}
        if not left:
            return
        fetched = await consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=most)
        if fetched:
            moved = loop.time()
        elif loop.time() - moved > patience:
            where = (f"{p.topic}[{p.partition}] from offset {places[p]} on" for p in sorted(left))
            raise ReaderError(", ".join(where), patience)
        for part, records in fetched.items():
            yield part, records


@asynccontextmanager
async def connected(consumer: AIOKafkaConsumer) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that is started, and stopped in the end.

    aiokafka's own ``async with`` cancels requests that still wait for a broker and raises their
    cancellation, which would hide why it ends.
    """
    await consumer.start()
    try:
        yield consumer
    finally:
        await stop(consumer)


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer, whatever its requests wait for."""
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        await consumer._client.close()  # noqa: SLF001 - what its stop had still to do


async def _soon(work: Coroutine[Any, Any, T], what: str, patience: float) -> T:
    try:
        async with asyncio.timeout(patience):
            return await work
    except TimeoutError:
        raise ReaderError(what, patience) from None


def _named(parts: Collection[TopicPartition]) -> str:
    return ", ".join(f"{part.topic}[{part.partition}]" for part in sorted(parts))
