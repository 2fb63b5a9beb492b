"""``governor backfill``: history into the ledger before going live.

Events of the past are written to the input topics, where the workers take them as any others:
whatever the ledger can do holds of them too, a second run changes nothing, and live events may
come at the same time. The alternative, writing changelog rows while no worker runs, would be
quicker by what Kafka costs, and would need all of that again.

Records get the time at which they are written, not that of their events: Kafka deletes records by
their age, and would delete the past before it is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from governor.partitioning import partitions_of
from governor.policy import Policy, looks_back
from governor.records import Records
from governor.ticks import SECOND, from_seconds
from streams import topics
from streams.history import Batch, batches, filed
from streams.mapping import Mapped
from streams.patience import connected, read_to
from streams.plain_producer import PlainProducer
from streams.settings import Settings
from streams.topics import connection

__all__ = ["Filled", "Span", "fill", "from_files", "from_topic", "unknown", "until_applied"]

SAID_EVERY = 5.0
"""Seconds."""


@dataclass
class Filled:
    """What a backfill has written so far."""

    events: int = 0
    oldest: float = float("inf")
    """Epoch seconds of the oldest event, and of the newest."""
    newest: float = float("-inf")

    def count(self, records: Records) -> None:
        """Count these."""
        self.events += len(records)
        for i in range(len(records)):
            try:
                ts = _time(records.value(i) or b"").ts
            except msgspec.MsgspecError:
                continue  # a dead letter: the worker says why
            if 0 <= ts < 1e11:
                self.oldest, self.newest = min(self.oldest, ts), max(self.newest, ts)


class _Time(msgspec.Struct):
    ts: float = -1


_time = msgspec.json.Decoder(_Time).decode


@dataclass(frozen=True, slots=True)
class Span:
    """What of a topic to read: records whose timestamps, in epoch seconds, are in between."""

    topic: str
    """Its full name."""
    since: float | None
    until: float | None
    kind: str | None = None
    """Which of the governor's topics it is; of another each event says what it is of."""


async def from_files(paths: Iterable[Path], mapping: Mapped) -> AsyncIterator[Batch]:
    """The events of files, one after the other."""
    for path in paths:
        for batch in batches(path, mapping):
            yield batch


async def from_topic(settings: Settings, span: Span) -> AsyncIterator[Batch]:
    """The events of a topic, on the same brokers, as far as they are there when it begins."""
    consumer = AIOKafkaConsumer(
        **connection(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    async with connected(consumer):
        metadata = await consumer._client.fetch_all_metadata()  # noqa: SLF001
        parts = [
            TopicPartition(span.topic, n)
            for n in sorted(metadata.partitions_for_topic(span.topic) or ())
        ]
        if not parts:
            raise LookupError(f"there is no topic {span.topic}")
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        ends = await consumer.end_offsets(parts)
        for which, where in ((span.since, "begin"), (span.until, "end")):
            if which is None:
                continue
            found = await consumer.offsets_for_times(dict.fromkeys(parts, int(which * 1000)))
            for part, at in found.items():
                if where == "end":
                    ends[part] = at.offset if at else ends[part]
                else:
                    consumer.seek(part, at.offset if at else ends[part])
        async for part, records in read_to(consumer, ends, most=5_000):
            sorted_out: dict[str, list[tuple[bytes, bytes, int]]] = {}
            for one in records:
                if one.offset < ends[part] and one.value is not None:
                    told, key = filed(one.value)
                    some = sorted_out.setdefault(span.kind or told, [])
                    some.append((key, one.value, one.timestamp))
            for kind, each in sorted_out.items():
                yield kind, Records.of(each)


async def fill(
    settings: Settings, history: AsyncIterator[Batch], say: Callable[[str], None]
) -> Filled:
    """Write events to the input topics, each where its row lives."""
    await topics.until_reachable(settings)
    partitions = await topics.ensure(settings)
    filled = Filled()
    began = said = time.monotonic()
    async with PlainProducer(settings, "backfill") as producer:
        async for kind, records in history:
            now = np.full(len(records), int(time.time() * 1000), np.int64)
            stamped = replace(records, timestamp=now)
            where = partitions_of(records.buffer, records.key_start, records.key_size, partitions)
            await producer.send(
                (settings.topic(kind), n, stamped.select(np.flatnonzero(where == n)))
                for n in np.unique(where).tolist()
            )
            filled.count(records)
            if time.monotonic() - said > SAID_EVERY:
                said = time.monotonic()
                rate = filled.events / (said - began)
                say(f"{filled.events:,} events ({rate:,.0f}/s), as new as {_day(filled.newest)}")
    return filled


async def until_applied(settings: Settings, say: Callable[[str], None]) -> None:
    """Return when the workers have committed all that the topics they read held when asked."""
    consumer = AIOKafkaConsumer(
        **connection(settings), group_id=settings.group, enable_auto_commit=False
    )
    async with consumer:
        metadata = await consumer._client.fetch_all_metadata()  # noqa: SLF001
        said = time.monotonic()
        for name in (topics.EVENT_TOPICS, topics.READ_TOPICS):
            parts = [
                TopicPartition(settings.topic(each), n)
                for each in name
                for n in metadata.partitions_for_topic(settings.topic(each)) or ()
            ]
            ends = await consumer.end_offsets(parts)
            while left := sum(
                [max(0, ends[part] - (await consumer.committed(part) or 0)) for part in parts]
            ):
                if time.monotonic() - said > SAID_EVERY:
                    said = time.monotonic()
                    say(f"{left:,} records to be applied")
                await asyncio.sleep(0.2)


def unknown(policy: Policy, oldest: float, now: float, horizon: int) -> list[str]:
    """What each rule cannot know yet when history begins at ``oldest``.

    Args:
        policy: what governs.
        oldest: the time of the oldest event, in epoch seconds.
        now: the time, likewise.
        horizon: how far back rows remember, in ticks.
    """
    texts = []
    for rule in policy.rules:
        back = looks_back(rule, policy)
        seconds = (horizon if back is None else back) / SECOND
        if oldest + seconds > now:
            texts.append(
                f"{rule.name} looks back to {_day(now - seconds)}, the history begins "
                f"{_day(oldest)}: it may throttle too little until {_day(oldest + seconds)}"
            )
    return texts


def moment(text: str) -> float:
    """Epoch seconds of an ISO time, one without a zone in UTC; raises ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _day(seconds: float) -> str:
    if not 0 <= from_seconds(min(max(seconds, -1), 1e11)) < 1e17:
        return "unknown"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
