"""What an ad server keeps of the governor: may this ad be shown to this person now?

A `Client` follows the decisions topic, all of it or some partitions, and the policy topic's records
for readers, and keeps both in memory. `Client.allowed` is a look-up: it waits for nobody. Where
the governor has stopped, throttles run out by themselves, as each names its end.

    async with Client(bootstrap_servers="kafka-1:9092") as client:
        answer = client.allowed({"user": "u7", "household": "h1"}, {"campaign": "C7"}, time.time())
        bid = answer.allowed and random.random() < answer.factor
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.structs import TopicPartition

from governor.events import row_key
from streams.patience import read_all, stop
from streams.quiet import Quiet, quiet_until

__all__ = ["Answer", "Client", "Reader"]

log = logging.getLogger(__name__)

MAX_REDIRECTS = 16
"""How many links in a row are followed; there are never as many, as cycles are refused."""

CONTROLS = frozenset({"opt_out", "hide", "consent"})
"""Reasons that are people's own words; the kill switch leaves them in force."""

Labels = Mapping[str, str | bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether an ad may be shown, and why not."""

    allowed: bool
    factor: float
    """Bid at this share of the occasions; 0 when not allowed, 1 when nothing holds."""
    reasons: tuple[str, ...]
    """Names of rules, controls and quiet hours that hold, the strictest throttle's first."""
    until: float | None
    """When the strictest of them ends, in epoch seconds; infinite when it does not by itself;
    None when nothing holds."""


_FREE = Answer(True, 1.0, (), None)


class _Throttle(msgspec.Struct, gc=False):
    label: str
    state: str
    factor: float
    since: float = msgspec.field(name="from")
    until: float | None
    reasons: tuple[str, ...]
    match: dict[str, list[str]] = {}
    evidence: msgspec.Raw = msgspec.Raw(b"{}")


class _Word(msgspec.Struct):
    """Of a reason's evidence, when what a person said ends; None if it does not by itself."""

    until: float | None = None


class _Record(msgspec.Struct, gc=False):
    throttles: tuple[_Throttle, ...] = ()
    redirect: str | None = None


class _Readers(msgspec.Struct):
    timezone: str = "UTC"
    quiet_hours: tuple[Quiet, ...] = ()
    always: tuple[dict[str, list[str]], ...] = ()


class _Switch(msgspec.Struct):
    released: bool = False
    everything: bool = False


_decision = msgspec.json.Decoder(_Record).decode
_readers = msgspec.json.Decoder(_Readers).decode
_switch = msgspec.json.Decoder(_Switch).decode
_words = msgspec.json.Decoder(dict[str, _Word]).decode


class Reader:
    """Decisions and what readers must know of the policy, fed with the topics' records."""

    def __init__(self) -> None:
        self._decisions: dict[bytes, bytes] = {}
        self._readers = _Readers()
        self._switch = _Switch()

    def __len__(self) -> int:
        """Ids with a decision."""
        return len(self._decisions)

    def decision(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the decisions topic."""
        if not key:
            return
        if value is None:
            self._decisions.pop(key, None)
        else:
            self._decisions[key] = value

    def policy(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record of the policy topic; what the governor did not write changes nothing."""
        try:
            if key == b"readers":
                self._readers = _readers(value) if value else _Readers()
            elif key == b"switch":
                self._switch = _switch(value) if value else _Switch()
        except msgspec.DecodeError as error:
            log.error(
                "the record %s of the policy topic is none of ours (%s) and is not heeded: push a "
                "policy, or pull or release the kill switch, to write it anew",
                key,
                error,
            )

    @property
    def released(self) -> bool:
        """Whether the kill switch is pulled."""
        return self._switch.released

    def record(self, id_type: str, value: str) -> dict[str, Any] | None:
        """The decision record of an id, redirects followed."""
        text = self._of(row_key(id_type, value))
        return None if text is None else msgspec.json.decode(text)

    def allowed(
        self, ids: Mapping[str, str], labels: Labels, at: float, zone: str | None = None
    ) -> Answer:
        """Whether an ad may be shown to somebody.

        Args:
            ids: all ids that the ad server has of the person, by type, ``user`` among them.
            labels: the ad's, by dimension, such as ``{"campaign": "C7", "channel": "ctv"}``;
                ``"retargeting": True`` for an ad that needs consent for retargeting.
            at: the time, in epoch seconds.
            zone: the person's IANA time zone, for quiet hours; the policy's without one.
        """
        if any(_matches(match, labels) for match in self._readers.always):
            return _FREE
        texts = _texts(labels)
        holding = [
            throttle
            for id_type, value in ids.items()
            for throttle in self._in_force(row_key(id_type, value))
            if throttle.state != "shadow"
            and throttle.since <= at < _end(throttle)
            and _speaks_of(throttle.label, texts)
            and _matches(throttle.match, labels)
        ]
        held = [(one.factor, -_end(one), one.reasons) for one in holding]
        if not self._switch.released:
            held += self._quiet(labels, at, zone)
        if not held:
            return _FREE
        held.sort()
        factor, end, _ = held[0]
        reasons = tuple(dict.fromkeys(name for _, _, names in held for name in names))
        return Answer(factor > 0, factor, reasons, -end)

    def _in_force(self, key: str) -> Iterable[_Throttle]:
        """Throttles of an id, less what the kill switch releases."""
        throttles = self._throttles(key)
        if not self._switch.released:
            return throttles
        if self._switch.everything:
            return ()
        return [_said(one) for one in throttles if not CONTROLS.isdisjoint(one.reasons)]

    def _quiet(
        self, labels: Labels, at: float, zone: str | None
    ) -> Iterator[tuple[float, float, tuple[str, ...]]]:
        for hours in self._readers.quiet_hours:
            if _matches(hours.match, labels):
                until = quiet_until(hours, at, zone or "", self._readers.timezone)
                if until is not None:
                    yield 0.0, -until, (hours.name,)

    def _throttles(self, key: str) -> tuple[_Throttle, ...]:
        text = self._of(key)
        return () if text is None else _decision(text).throttles

    def _of(self, key: str) -> bytes | None:
        for _ in range(MAX_REDIRECTS):
            text = self._decisions.get(key.encode())
            if text is None or b'"redirect"' not in text:
                return text
            to = _decision(text).redirect
            if to is None:
                return text
            key = to
        return None


def _end(throttle: _Throttle | _Word) -> float:
    return math.inf if throttle.until is None else throttle.until


def _said(throttle: _Throttle) -> _Throttle:
    """Of a throttle, what the person said: it may end before the rules do that hold with it."""
    reasons = tuple(one for one in throttle.reasons if one in CONTROLS)
    words = _words(throttle.evidence)
    # Earlier versions did not write when a hide ends: with the throttle, at the latest.
    last = min(_end(throttle), max(_end(words.get(one, _Word())) for one in reasons))
    until = None if math.isinf(last) else last
    return msgspec.structs.replace(throttle, reasons=reasons, until=until)


def _texts(labels: Labels) -> list[str]:
    """The labels that an ad has, as text."""
    texts = ["user"]
    if labels.get("retargeting") is True:
        texts.append("retargeting")
    return texts + [f"{name}:{value}" for name, value in labels.items() if isinstance(value, str)]


def _speaks_of(label: str, texts: Iterable[str]) -> bool:
    """Whether a throttle's label, perhaps a combination, is of an ad with these labels.

    Compared from the front, as a label's value may itself contain the sign of a combination.
    """
    return any(
        label == text
        or (label.startswith(f"{text} x ") and _speaks_of(label[len(text) + 3 :], texts))
        for text in texts
    )


def _matches(match: Mapping[str, list[str]], labels: Labels) -> bool:
    return all(labels.get(dimension) in values for dimension, values in match.items())


class Client(Reader):
    """A `Reader` that follows Kafka; use it with ``async with``.

    Entering waits until it has read all that the topics held.

    Args:
        topic_prefix: the deployment's GOVERNOR_TOPIC_PREFIX.
        partitions: of the decisions topic; all without them. An id's partition is
            `governor.partitioning.partition_of` its key.
        kafka: how to connect, as `aiokafka.AIOKafkaConsumer` takes it.
    """

    def __init__(
        self,
        *,
        topic_prefix: str = "governor.",
        partitions: Iterable[int] | None = None,
        **kafka: Any,
    ) -> None:
        super().__init__()
        self._prefix = topic_prefix
        self._wanted = None if partitions is None else set(partitions)
        self._kafka = kafka
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._consumer = AIOKafkaConsumer(
            **self._kafka,
            enable_auto_commit=False,
            isolation_level="read_committed",
            # A change of the policy or the kill switch waits behind an idle fetch.
            fetch_max_wait_ms=100,
        )
        await self._consumer.start()
        try:
            parts = [
                TopicPartition(self._prefix + name, partition)
                for name, wanted in (("decisions", self._wanted), ("policy", None))
                for partition in await self._partitions(self._prefix + name)
                if wanted is None or partition in wanted
            ]
            async for part, records in read_all(self._consumer, parts):
                self._take(part, records)
        except BaseException:
            await stop(self._consumer)
            raise
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            with suppress(asyncio.CancelledError):
                await self._following
        await stop(self._consumer)

    def allowed(
        self, ids: Mapping[str, str], labels: Labels, at: float, zone: str | None = None
    ) -> Answer:
        """As `Reader.allowed`; raises what ended the following of Kafka, if anything did."""
        if self._following is not None and self._following.done():
            self._following.result()
        return super().allowed(ids, labels, at, zone)

    async def _partitions(self, topic: str) -> list[int]:
        found = await self._consumer._client.fetch_all_metadata()  # noqa: SLF001
        partitions = found.partitions_for_topic(topic)
        if not partitions:
            raise LookupError(
                f"there is no topic {topic}: start a worker, or say the topic_prefix that it has"
            )
        return sorted(partitions)

    async def _follow(self) -> None:
        while True:
            for part, records in (await self._consumer.getmany(timeout_ms=1000)).items():
                self._take(part, records)

    def _take(self, part: TopicPartition, records: Iterable[ConsumerRecord]) -> None:
        take = self.policy if part.topic == f"{self._prefix}policy" else self.decision
        for record in records:
            take(record.key, record.value)
