"""Access and erasure: all that is held of a person, and making it go.

What the governor holds of an id: its row in the changelog, its decision, the ids that became it
or that it became, dead letters that mention it, and for a moment records on the repartition topic.
The input topics are the pipeline's: their events go with their retention, and until then the mark
that an erasure leaves keeps them from coming back.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from governor.events import row_key
from governor.fatigue.samples import history_of, mark_key
from governor.fatigue.sampling import Marks
from governor.gate import Gate
from governor.ledger import Ledger
from governor.partitioning import partition_of
from governor.policy import Policy
from governor.records import Records
from governor.ticks import to_seconds
from streams.backfill import until_applied
from streams.observer import TOPIC as SAMPLES
from streams.patience import read_all, stop
from streams.plain_producer import PlainProducer
from streams.repartition import MERGE, TOPIC
from streams.settings import Settings, ticks
from streams.topics import connection

__all__ = ["PATIENCE_SECONDS", "Person", "access", "erase", "until_erased"]

BATCH = 5_000

PATIENCE_SECONDS = 60.0
"""How long workers may take to erase somebody."""


@dataclass(frozen=True, slots=True)
class Person:
    """The ids by which somebody asks."""

    user: str
    ids: Mapping[str, str]
    """Others, by type."""

    def keys(self) -> list[str]:
        """Row keys, the user's first."""
        return [self.user, *(row_key(kind, value) for kind, value in self.ids.items())]

    def values(self) -> set[str]:
        """The ids without their types."""
        return {self.user, *self.ids.values()}


async def access(settings: Settings, policy: Policy, person: Person) -> dict[str, Any]:
    """All that is held of a person and of the ids linked to theirs, as JSON takes it."""
    async with _Reading(settings) as reading:
        held: dict[str, Any] = {}
        waiting = person.keys()
        while waiting:
            key = waiting.pop(0)
            if key in held:
                continue
            held[key], linked = await _held(settings, policy, reading, key)
            waiting += linked
        values = person.values() | {key.rpartition("\0")[2] for key in held}
        letters = [
            msgspec.json.decode(value) for _, _, value in await _letters(settings, reading, values)
        ]
        moving = [
            _readable(value)
            async for _, _, value in reading.all(settings.topic(TOPIC))
            if value and _mentions(value[1:], values)
        ]
    return {
        "asked_at": round(time.time(), 3),
        "ids": [_named(key) | one for key, one in held.items()],
        "dead_letters": letters,
        "repartition": moving,
    }


async def erase(settings: Settings, person: Person, ts: float) -> dict[str, int]:
    """Erase a person as of ``ts``: an erase control for the workers, and the dead letters.

    Returns:
        How many dead letters were withdrawn; compaction removes what they held.
    """
    control: dict[str, Any] = {
        "event_id": f"erase-{uuid4()}",
        "user_id": person.user,
        "ts": ts,
        "type": "erase",
    }
    if person.ids:
        control["ids"] = dict(person.ids)
    user = person.user.encode()
    async with _Reading(settings) as reading, PlainProducer(settings, "erase") as producer:
        values = person.values() | await _linked_values(settings, reading, person.keys())
        count = await reading.count(settings.topic("controls"))
        now = int(time.time() * 1000)
        records = Records.of([(user, json.dumps(control).encode(), now)])
        where = partition_of(user, count)
        await producer.send([(settings.topic("controls"), where, records)])
        letters = await _letters(settings, reading, values)
        await producer.send(
            (settings.topic("deadletters"), partition, Records.of([(key, None, now)]))
            for partition, key, _ in letters
        )
    return {"dead_letters": len(letters)}


async def until_erased(settings: Settings) -> bool:
    """Whether the workers have applied all that was sent before, within `PATIENCE_SECONDS`.

    What an erasure sends on to linked ids may be sent on again, as long as their chain is.
    """
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(3):
                await until_applied(settings, lambda _: None)
    except TimeoutError:
        return False
    return True


async def _changelog(
    settings: Settings, reading: _Reading, key: str, prefixes: bytes
) -> tuple[int, Records]:
    """An id's partition, and of its changelog the newest records of these kinds, and the row."""
    name, topic = key.encode(), settings.topic("ledger")
    partition = partition_of(name, await reading.count(topic))
    newest = {
        each: value
        async for _, each, value in reading.all(topic, partition)
        if each and (each[:1] in prefixes or each == b"u" + name)
    }
    held = [(each, value, 0) for each, value in newest.items() if value is not None]
    return partition, Records.of(held)


def _linked(gate: Gate, key: str) -> tuple[list[str], list[str]]:
    """The keys that an id's is linked with: what it became, one at most, and what became it."""
    link = gate.redirects.get(key.encode())
    origins = sorted(each.decode() for each in gate.origins(key.encode()))
    return ([link.to.decode()] if link else []), origins


async def _linked_values(settings: Settings, reading: _Reading, waiting: list[str]) -> set[str]:
    """The ids, without their types, of all keys that are linked with these."""
    seen: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        gate = Gate(secret=b"", retention=0)
        _, records = await _changelog(settings, reading, key, b"ro")
        gate.load(records)
        became, was = _linked(gate, key)
        waiting += became + was
    return {key.rpartition("\0")[2] for key in seen}


async def _held(
    settings: Settings, policy: Policy, reading: _Reading, key: str
) -> tuple[dict[str, Any], list[str]]:
    """What is held under one row key, and the keys linked with it."""
    name = key.encode()
    partition, records = await _changelog(settings, reading, key, b"aro")
    gate = Gate(secret=b"", retention=0)
    ledger = Ledger(policy, horizon=ticks(settings.history), row_limit=settings.row_limit)
    ledger.load(gate.load(records))
    decision = None
    async for _, each, value in reading.all(settings.topic("decisions"), partition):
        if each == name:
            decision = None if value is None else msgspec.json.decode(value)
    became, was = _linked(gate, key)
    told = ledger.explain(key)
    return {
        "row": ledger.export(key),
        "decision": decision,
        "rules": told["rules"] if told else [],
        "sample": await _sample(settings, reading, name),
        "became": _named(became[0]) if became else None,
        "was": [_named(each) for each in was],
    }, became + was


async def _sample(settings: Settings, reading: _Reading, key: bytes) -> dict[str, Any] | None:
    """What curves are estimated from of a person who is observed."""
    mark = Marks(settings.erasure_key.get_secret_value().encode()).of(key)
    newest = None
    async for _, each, value in reading.all(settings.topic(SAMPLES)):
        if each == mark_key(mark):
            newest = value
    if newest is None:
        return None
    history = history_of(newest)
    return {
        "mark": f"{mark:016x}",
        "exposures": [
            {
                "ts": to_seconds(ts),
                "labels": dict(history.ads[ad]),
                "answered": None if answer < 0 else to_seconds(answer),
                "measurable": measurable,
            }
            for ts, ad, answer, measurable in zip(
                history.ts.tolist(),
                history.ad.tolist(),
                history.answer.tolist(),
                history.measurable.tolist(),
                strict=True,
            )
        ],
    }


async def _letters(
    settings: Settings, reading: _Reading, values: set[str]
) -> list[tuple[int, bytes, bytes]]:
    """Partition, key and value of the dead letters whose message mentions an id."""
    found: dict[tuple[int, bytes], bytes] = {}
    async for partition, key, value in reading.all(settings.topic("deadletters")):
        if not key:
            continue
        found.pop((partition, key), None)
        if value is not None and _mentions(_message(value), values):
            found[partition, key] = value
    return [(partition, key, value) for (partition, key), value in found.items()]


def _message(letter: bytes) -> bytes:
    """The message that a dead letter is about."""
    content = msgspec.json.decode(letter)
    if "message_base64" in content:
        return b64decode(content["message_base64"])
    return str(content.get("message", "")).encode()


def _mentions(message: bytes, values: set[str]) -> bool:
    """Whether an id stands in a message: as a text of its JSON, or as a word of what is none."""
    try:
        return any(text in values for text in _texts(msgspec.json.decode(message)))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        text = message.decode(errors="replace")
        return any(re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", text) for each in values)


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def _readable(value: bytes) -> Any:
    """A record of the repartition topic."""
    body = value[1:].partition(b"\n")[0] if value[0] == MERGE else value[1:]
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return body.decode(errors="replace")


def _named(key: str) -> dict[str, str]:
    kind, nul, value = key.partition("\0")
    return {"id": value, "id_type": kind} if nul else {"id": key, "id_type": "user"}


Read = tuple[int, bytes | None, bytes | None]
"""Partition, key and value."""


class _Reading:
    """Reads whole topics, as far as they go at the time; used with ``async with``."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = AIOKafkaConsumer(
            **connection(settings), enable_auto_commit=False, isolation_level="read_committed"
        )

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop(self._consumer)

    async def count(self, topic: str) -> int:
        """Partitions of a topic."""
        metadata = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001
        partitions: Iterable[int] = metadata.partitions_for_topic(topic) or ()
        count = len(list(partitions))
        if not count:
            raise LookupError(f"there is no topic {topic}: is GOVERNOR_TOPIC_PREFIX right?")
        return count

    async def all(self, topic: str, partition: int | None = None) -> AsyncIterator[Read]:
        """Every record of a topic, or of one partition."""
        wanted = range(await self.count(topic)) if partition is None else [partition]
        parts = [TopicPartition(topic, n) for n in wanted]
        async for part, records in read_all(self._consumer, parts, most=BATCH):
            for one in records:
                yield part.partition, one.key, one.value
