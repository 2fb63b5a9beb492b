"""The observer: tells the samples topic what became of observed people's exposures.

Each person's history is one record under their mark, and whoever tells it again overwrites it. A
change is told with the next round, `GOVERNOR_SAMPLE_INTERVAL` later or when the one before it is
done; what a crash kept from being told is told by the next owner of the partition, which goes
through all of its rows once. That somebody is gone is told within the flush, before the row is: it
cannot be lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from mode import Service

from governor.fatigue.samples import clock_record, history_record, mark_key
from governor.fatigue.sampling import Marks, Shares
from governor.ledger import Ledger, Taken
from governor.records import Records
from streams.plain_producer import PlainProducer
from streams.settings import Settings

__all__ = ["TOPIC", "Observer"]

log = logging.getLogger(__name__)

TOPIC = "samples"

SLICE_ROWS = 2_000
"""Rows of a new partition looked at at a time."""

SLICE_HISTORIES = 50
"""Histories made at a time: two milliseconds."""

SHARE = 0.02
"""Of the time, that goes into telling of people: all at once, a round would hold up decisions."""


class Observer(Service):
    """Tells of the people of one worker's partitions.

    Args:
        settings: how often, and by which secret people are marked.
        ledgers: the live partitions'.
        drained: those of them of which all events that there are have been applied.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        ledgers: Callable[[], Mapping[int, Ledger]],
        drained: Callable[[], Awaitable[set[int]]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._ledgers = ledgers
        self._drained = drained
        self._producer = PlainProducer(settings, "observer")
        self._changed: dict[int, dict[bytes, None]] = {}
        self._newest: dict[int, int] = {}
        """Up to when what has changed is known, by partition."""
        self._withdrawn: list[int] = []
        self._through: dict[int, tuple[Ledger, int]] = {}
        """How far all rows of a ledger have been gone through; -1 at the end."""
        self._clocks: dict[int, tuple[int, bool]] = {}
        self.marks = Marks(settings.erasure_key.get_secret_value().encode())
        self.shares = Shares()

    @property
    def on(self) -> bool:
        """Whether anybody is observed at all."""
        return self._settings.sample_people > 0

    async def on_start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def on_stop(self) -> None:
        """Disconnect; what was not told is told by the next owner."""
        await self._producer.stop()

    def observe(self, shares: Shares) -> None:
        """Observe these from now on, and go through all rows for those who were not before."""
        if not shares.within(self.shares):
            self._through.clear()
        self.shares = shares

    def erased(self, keys: Iterable[bytes]) -> None:
        """Tell with the next flush that nothing is known of these ids."""
        if self.on:
            marks = map(self.marks.of, keys)
            self._withdrawn += [mark for mark in marks if mark <= self.shares.widest]

    async def flushing(self, taken: Mapping[int, Taken]) -> None:
        """Tell of those who are gone with a flush, before their rows are written.

        Raises:
            aiokafka.errors.KafkaError: some were not told of.
        """
        for partition, one in taken.items():
            changed = self._changed.setdefault(partition, {})
            changed.update(dict.fromkeys(one.sampled.changed))
            self._newest[partition] = one.newest
        gone = [*self._withdrawn, *(mark for one in taken.values() for mark in one.sampled.gone)]
        self._withdrawn = []
        if gone:
            await self._send([(mark_key(mark), None) for mark in gone])

    @Service.task
    async def _tell_regularly(self) -> None:
        while self.on and not self.should_stop:
            started = time.monotonic()
            drained = await self._drained()
            for partition, ledger in self._ledgers().items():
                await self._tell(partition, ledger, drained=partition in drained)
            pause = self._settings.sample_interval.total_seconds()
            await self.sleep(max(0.05, started + pause - time.monotonic()))

    async def _tell(self, partition: int, ledger: Ledger, *, drained: bool) -> None:
        """Tell what has changed in a partition, then its clock."""
        if self._through.get(partition, (None, 0))[0] is not ledger:
            self._newest[partition] = ledger.newest  # all of its rows are gone through
        newest = self._newest[partition]
        keys = list(self._changed.pop(partition, {}))
        for first in range(0, len(keys), SLICE_HISTORIES):
            if not self._is_live(partition, ledger):  # in a rebalance: it may stay this worker's
                left = dict.fromkeys(keys[first:])
                self._changed[partition] = left | self._changed.get(partition, {})
                return
            await self._tell_of(partition, ledger, keys[first : first + SLICE_HISTORIES])
        await self._go_through(partition, ledger)
        clock = newest, drained
        if newest and self._clocks.get(partition) != clock and self._is_live(partition, ledger):
            await self._send([clock_record(partition, newest, drained=drained)])
            self._clocks[partition] = clock

    async def _go_through(self, partition: int, ledger: Ledger) -> None:
        """Tell of all who are observed in a partition that has come, or under other shares."""
        known, first = self._through.get(partition, (ledger, 0))
        if known is not ledger:
            first = 0
            self._clocks.pop(partition, None)
        while first >= 0 and self._is_live(partition, ledger):
            shares = self.shares
            keys, following = ledger.observed(first, SLICE_ROWS)
            for start in range(0, len(keys), SLICE_HISTORIES):
                await self._tell_of(partition, ledger, keys[start : start + SLICE_HISTORIES])
            await asyncio.sleep(0)
            if shares is not self.shares:
                return  # begun anew with the next round
            first = following or -1
            self._through[partition] = ledger, first

    async def _tell_of(self, partition: int, ledger: Ledger, keys: Sequence[bytes]) -> None:
        """Tell of some people, unless the partition has gone meanwhile."""
        if not self._is_live(partition, ledger):
            return
        started = time.thread_time()
        widest = self.shares.widest
        marked = ((self.marks.of(key), one) for key, one in ledger.histories(keys))
        # Shares may have shrunk since they changed.
        told = [history_record(m, partition, one) for m, one in marked if m <= widest]
        spent = time.thread_time() - started
        await self._send(told)
        await asyncio.sleep(spent * (1 / SHARE - 1))

    def _is_live(self, partition: int, ledger: Ledger) -> bool:
        return self._ledgers().get(partition) is ledger

    async def _send(self, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        if records:
            stamped = Records.of([(key, value, 0) for key, value in records])
            await self._producer.send([(self._settings.topic(TOPIC), 0, stamped)])
