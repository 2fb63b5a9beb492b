"""A reader of the changelog: whole fetches, from wherever each partition is to be read."""

# It lets aiokafka's consumer fetch as the transport's does.
# ruff: noqa: SLF001

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from streams.settings import Settings
from streams.topics import connection
from streams.transport import BatchFetcher, Fetched

__all__ = ["ChangelogReader"]


class ChangelogReader:
    """Reads partitions of the changelog beside the consumer group.

    Faust has the group's consumer read changelogs too, and drops what it has fetched when it
    clears its queues, or when partitions pause, resume or change hands while a fetch is on its
    way. Events are read again then; of rows nobody would notice.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic("ledger")
        self._settings = settings

    async def start(self) -> None:
        """Connect."""
        self._consumer = AIOKafkaConsumer(
            **connection(self._settings),
            client_id=f"{self._settings.group}-changelog",
            isolation_level="read_committed",
            # Positions are always given; one that is not there is a fault.
            auto_offset_reset="none",
        )
        await self._consumer.start()
        BatchFetcher.adopt(self._consumer._fetcher, Counter())

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def extent(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """The first offset of each partition, and the one behind its last.

        Raises:
            KafkaError: no broker can say.
        """
        tps = [self._tp(partition) for partition in partitions]
        if not tps:
            return {}
        begins = await self._consumer.beginning_offsets(tps)
        ends = await self._consumer.end_offsets(tps)
        return {tp.partition: (begins[tp], ends[tp]) for tp in tps}

    def read_from(self, positions: Mapping[int, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        if positions:
            self._consumer.assign([self._tp(partition) for partition in positions])
        else:
            self._consumer._subscription.unsubscribe()
        for partition, offset in positions.items():
            self._consumer.seek(self._tp(partition), offset)

    async def fetch(self) -> Iterator[tuple[int, Fetched]]:
        """What has come of the partitions that are read; nothing after a second without any."""
        found = await self._consumer.getmany(timeout_ms=1000)
        return ((tp.partition, each) for tp, fetched in found.items() for each in fetched)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)
