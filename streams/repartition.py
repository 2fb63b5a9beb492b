"""The internal topic for what belongs to a row that lives on another partition.

Events that a producer put elsewhere than Kafka's default partitioner does, events of an id besides
the user's, events of an id that has become another, and the rows of linked ids. A record's key is
the key of the row that it is for; its value one byte of kind and then the event's JSON as it came
(`KINDS`), or a `governor.links.Merge`. Its timestamp is the original record's, by which "too far
in the future" is judged, so that it is judged alike on both sides.

Records are written before what led to them is acked, and applying one again changes nothing, so
whoever writes them needs no fencing. What is applied is deleted from the topic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from mode import Service
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.records import Records
from streams.plain_producer import PlainProducer
from streams.settings import Settings

__all__ = ["KINDS", "MERGE", "TOPIC", "Forwarder", "Forwards", "by_kind"]

TOPIC = "repartition"

KINDS: Mapping[str, int] = {"impressions": ord("i"), "engagements": ord("e"), "controls": ord("c")}
"""The first byte of a forwarded event's value, by the topic that it came on."""
MERGE = ord("m")


class Forwards:
    """Records on their way to other partitions, or, for a linked id, perhaps to this one."""

    def __init__(self) -> None:
        self._records: defaultdict[int, list[Records]] = defaultdict(list)
        self.count = 0

    def add_events(
        self,
        kind: str,
        records: Records,
        source: NDArray[np.int64],
        where: NDArray[np.int64],
        keys: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        """Send the events that came in ``records[source]`` on.

        Args:
            kind: the topic that they came on.
            records: as they came.
            source: which of them.
            where: the partition that each is for.
            keys: the row that each is for: text, starts and sizes.
        """
        text, start, size = keys
        for partition in np.unique(where).tolist():
            rows = np.flatnonzero(where == partition)
            packed = _packed(
                KINDS[kind], records.select(source[rows]), text, start[rows], size[rows]
            )
            self._records[partition].append(packed)
            self.count += len(rows)

    def add(self, partition: int, key: bytes, value: bytes, timestamp: int) -> None:
        """Send one record on."""
        self._records[partition].append(Records.of([(key, value, timestamp)]))
        self.count += 1

    def take(self) -> dict[int, list[Records]]:
        """All that is to be sent, by partition; it is counted as handed on."""
        records, self._records = self._records, defaultdict(list)
        self.count = 0
        return records


def by_kind(records: Records) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The kinds of forwarded records and which of them are of it; -1 for those without a value."""
    first = records.value_start.clip(max=max(0, len(records.buffer) - 1))
    kinds = np.where(records.value_size > 0, records.buffer[first].astype(np.int64), -1)
    for kind in np.unique(kinds).tolist():
        yield kind, np.flatnonzero(kinds == kind)


class Forwarder(Service):
    """Writes to the topic."""

    mundane_level = "debug"

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._topic = settings.topic(TOPIC)
        self._producer = PlainProducer(settings, TOPIC)

    async def on_start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def on_stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def send(self, forwards: Iterable[Mapping[int, list[Records]]]) -> None:
        """Send records, in this order, and wait until all are acknowledged.

        Raises:
            aiokafka.errors.KafkaError: some may not have been written.
        """
        await self._producer.send(
            (self._topic, partition, records)
            for one in forwards
            for partition, parts in one.items()
            for records in parts
        )


def _packed(
    kind: int,
    records: Records,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
) -> Records:
    """Records with these keys, each value behind a byte of kind; the timestamps stay."""
    value_size = records.value_size + 1
    total = size + value_size
    key_start = np.cumsum(total) - total
    buffer = np.empty(int(total.sum()), np.uint8)
    _pack(kind, records.buffer, records.value_start, records.value_size, text, start, size, buffer)
    buffer.flags.writeable = False  # as those that were read: one kind to compile for
    return Records(
        buffer,
        np.zeros(len(records), np.int64),
        records.timestamp,
        key_start,
        size,
        key_start + size,
        value_size,
    )


@compiled
def _pack(
    kind: int,
    buffer: NDArray[np.uint8],
    value_start: NDArray[np.int64],
    value_size: NDArray[np.int64],
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    at = 0
    for row in range(len(start)):
        for i in range(size[row]):
            out[at + i] = text[start[row] + i]
        at += size[row]
        out[at] = kind
        at += 1
        for i in range(value_size[row]):
            out[at + i] = buffer[value_start[row] + i]
        at += value_size[row]
