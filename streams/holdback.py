"""Holding a topic back: not reading it while too many of its messages are no events.

What was fetched of it is dropped unacked, and fetching pauses, while the other topics go on. Every
few seconds a probe reads the topic's newest messages, those that came since; when they are events
again, reading goes on from the first message that was not acked, and the bad stretch up to the
probe goes to the dead letters, where `governor deadletters` lists it. A restart begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from mode import Service

from governor.events import Limits
from governor.labels import Labels
from governor.records import Records
from streams.patience import connected, read_to
from streams.pipeline import DECODERS, Ingested
from streams.settings import Settings
from streams.tolerance import Tolerance
from streams.topics import EVENT_TOPICS, connection

__all__ = ["Holdback"]

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
PROBED = 100
"""Newest messages of each partition that a probe looks at."""
BEARABLE_PERCENT = 50
"""Dead letters among those that a probe bears where no share is set."""


class Holdback(Service):
    """Holds topics of events back, and lets them go again.

    Args:
        settings: the limits, and how to reach Kafka.
        limits: what is an event.
        consumer: asks for the worker's consumer.
        paused: where topics that are held, and why, are noted.
        tripped: is told the guard and the text of what is wrong.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        consumer: Callable[[], Any],
        paused: MutableMapping[str, str],
        tripped: Callable[[str, str], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._limits = limits
        self._consumer = consumer
        self._paused = paused
        self._tripped = tripped
        self._tolerances = {
            kind: Tolerance(settings.deadletter_streak, settings.deadletter_percent)
            for kind in EVENT_TOPICS
        }
        self._pardoned: dict[TopicPartition, int] = {}
        self._since: dict[str, Mapping[TopicPartition, int]] = {}

    def holds(self, kind: str, message: Any) -> bool:
        """Whether a message is dropped, unacked, as its topic is held."""
        if kind not in self._paused:
            return False
        self._drop(message)
        return True

    def refuses(self, kind: str, message: Any, ingested: Ingested) -> bool:
        """Whether a message brings too many dead letters, so that its topic is held from it on."""
        if kind not in self._tolerances or message.first_offset < self._pardoned.get(message.tp, 0):
            return False
        dead = sorted(one.index for one in ingested.rejected)
        why = self._tolerances[kind].bears(len(message.value), dead)
        if not why:
            return False
        one = ingested.rejected[0]
        self._paused[kind] = why
        self._since[kind] = self._consumer().known_ends(message.topic)
        self._tripped(
            "dead_letters",
            f"{message.topic}: {why}, such as offset {message.value.offset[one.index]} of "
            f"partition {message.partition}: {one.reason}: {one.detail}. The topic is not read "
            "until newer messages are events again: mend what produces them. To let the bad ones "
            "go to the dead letters now, restart with GOVERNOR_DEADLETTER_STREAK=0 and "
            "GOVERNOR_DEADLETTER_PERCENT=0",
        )
        self._drop(message)
        return True

    def _drop(self, message: Any) -> None:
        consumer = self._consumer()
        consumer.forget(message)
        consumer.pause_partitions({message.tp})

    @Service.task
    async def _probe_regularly(self) -> None:
        while not self.should_stop:
            await self.sleep(PROBE_SECONDS)
            for kind in list(self._paused):
                try:
                    await self._probe(kind)
                except (KafkaError, TimeoutError) as error:
                    log.warning("cannot look at the newest %s: %r: trying again", kind, error)

    async def _probe(self, kind: str) -> None:
        """Let a topic go when what came since it is held are events."""
        async with (
            asyncio.timeout(60),
            connected(AIOKafkaConsumer(**connection(self._settings))) as consumer,
        ):
            since = self._since[kind]
            ends = await consumer.end_offsets(list(since))
            starts = {tp: max(since[tp], end - PROBED) for tp, end in ends.items()}
            records = await _read(consumer, starts, ends)
        if not len(records):
            return
        _, rejected = DECODERS[kind](records, Labels(), self._limits)
        percent = self._settings.deadletter_percent or BEARABLE_PERCENT
        if 100 * len(rejected) > percent * len(records):
            return
        log.warning(
            "%s: %d of the newest %d messages are events: reading it again; those before that are "
            "none go to the dead letters",
            self._settings.topic(kind),
            len(records) - len(rejected),
            len(records),
        )
        self._pardoned |= ends
        await self._resume(kind)

    async def _resume(self, kind: str) -> None:
        self._tolerances[kind].forget()
        del self._since[kind]
        del self._paused[kind]
        consumer, topic = self._consumer(), self._settings.topic(kind)
        begins = {tp: offset for tp, offset in consumer.done().items() if tp.topic == topic}
        await consumer.seek_wait(begins)
        consumer.resume_partitions(set(begins))


async def _read(
    consumer: AIOKafkaConsumer,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> Records:
    """The records between offsets, of several partitions."""
    wanted = [tp for tp in starts if starts[tp] < ends[tp]]
    consumer.assign(wanted)
    for tp in wanted:
        consumer.seek(tp, starts[tp])
    found = []
    async for _, records in read_to(consumer, {tp: ends[tp] for tp in wanted}):
        found += [(one.key, one.value, one.timestamp) for one in records]
    return Records.of(found)
