"""Reading the dead letters, and putting messages back where they came from.

A letter is keyed by where its message lies, and the newest record of a key is the letter. One whose
message was put back is written again with ``requeued``, the time of that. Should the program end
between the two, the message is put back twice, which counts once. A tombstone withdraws a letter.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from streams.patience import connected, read_all
from streams.settings import Settings
from streams.topics import connection

__all__ = ["DeadLetter", "Filter", "read", "requeue"]

MARKED_AT_ONCE = 1_000
PREVIEWED = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, and where it lies."""

    partition: int
    offset: int
    key: bytes | None
    letter: dict[str, Any]

    @property
    def message(self) -> bytes | None:
        """The message that it is about, as far as it was kept; None for a tombstone."""
        if "message_base64" in self.letter:
            return b64decode(self.letter["message_base64"])
        text = self.letter.get("message")
        return None if text is None else str(text).encode()

    @property
    def preview(self) -> str:
        """The beginning of the message, in one line."""
        message = self.message
        if message is None:
            return "(no value)"
        text = message[: 4 * PREVIEWED].decode(errors="replace")
        printable = "".join(each if each.isprintable() else "·" for each in text)
        return printable[:PREVIEWED] + ("…" if len(printable) > PREVIEWED else "")

    @property
    def source(self) -> str:
        """Where the message came from."""
        return f"{self.letter['topic']}[{self.letter['partition']}]@{self.letter['offset']}"

    @property
    def requeued(self) -> float | None:
        """When it was put back, in epoch seconds; None when it was not."""
        return self.letter.get("requeued")

    @property
    def obstacle(self) -> str:
        """Why it cannot be put back; empty when it can."""
        if self.requeued is not None:
            return "was put back already"
        if self.letter.get("truncated"):
            return "was kept only in part: read it from its own topic"
        return ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; None and empty for all."""

    reasons: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    partition: int | None = None
    since: float | None = None
    """Epoch seconds of the message's record, inclusive."""
    until: float | None = None
    """Epoch seconds of the message's record, exclusive."""

    def passes(self, one: DeadLetter) -> bool:
        """Whether a dead letter is meant."""
        letter = one.letter
        return (
            (not self.reasons or letter["reason"] in self.reasons)
            and (not self.topics or letter["topic"] in self.topics)
            and self.partition in (None, letter["partition"])
            and (self.since is None or letter["timestamp"] >= self.since)
            and (self.until is None or letter["timestamp"] < self.until)
        )


async def read(settings: Settings, wanted: Filter) -> list[DeadLetter]:
    """The dead letters that are meant, in the order of each partition."""
    found: dict[tuple[int, bytes | None], DeadLetter] = {}
    async for partition, key, one in _all(settings):
        if one is None:
            found.pop((partition, key), None)
        elif wanted.passes(one):
            found[partition, key] = one
    return list(found.values())


async def _all(settings: Settings) -> AsyncIterator[tuple[int, bytes | None, DeadLetter | None]]:
    topic = settings.topic("deadletters")
    consumer = AIOKafkaConsumer(
        **connection(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    async with connected(consumer):
        await consumer._client.force_metadata_update()  # noqa: SLF001 - it has none of its own
        tps = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
        async for _, records in read_all(consumer, tps):
            for record in records:
                one = None
                if record.value is not None:
                    letter = json.loads(record.value)
                    one = DeadLetter(record.partition, record.offset, record.key, letter)
                yield record.partition, record.key, one


async def requeue(settings: Settings, letters: Iterable[DeadLetter], now: float) -> int:
    """Put messages back into the partitions that they came from, and mark their letters.

    Each keeps its time, by which "too far in the future" is judged; letters keep no keys.
    """
    waiting = iter([one for one in letters if not one.obstacle])
    count = 0
    producer = AIOKafkaProducer(
        **connection(settings), acks="all", enable_idempotence=True, max_request_size=4 << 20
    )
    async with producer:
        while some := list(islice(waiting, MARKED_AT_ONCE)):
            await asyncio.gather(*[await _put_back(producer, one) for one in some])
            marks = [
                await producer.send(
                    settings.topic("deadletters"),
                    json.dumps({**one.letter, "requeued": now}, ensure_ascii=False).encode(),
                    one.key,
                    partition=one.partition,
                )
                for one in some
            ]
            await asyncio.gather(*marks)
            count += len(some)
    return count


async def _put_back(producer: AIOKafkaProducer, one: DeadLetter) -> Any:
    letter = one.letter
    return await producer.send(
        letter["topic"],
        one.message,
        partition=letter["partition"],
        timestamp_ms=round(letter["timestamp"] * 1000),
    )
