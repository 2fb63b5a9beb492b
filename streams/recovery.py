"""Recovery: rows read up to the end where this worker goes live, and on and on where it stands by.

In the place of Faust's, which loses rows (see `streams.changelog`), and events: it clears the
streams' queues again after it has let events in. Faust still says who owns which partition and
who stands by for it.

After a rebalance, in this order:

1. the partitions are fenced (`Store.on_rebalance`): nobody else can write them any more;
2. their changelog is read up to its end, from where this worker's copy of the rows stands;
3. the events are sought to the committed offsets, and the streams run;
4. the changelogs of others are followed, so that this worker can take them over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka.errors import IllegalStateError, KafkaError
from faust.tables.manager import TableManager
from faust.types import TP
from mode import Service

from streams.changelog import ChangelogReader
from streams.store import Store

__all__ = ["ChangelogError", "Recovery", "Tables"]

log = logging.getLogger(__name__)

STALL_SECONDS = 60.0
"""Without a row for so long, while Kafka answers, recovery has failed."""


class ChangelogError(Exception):
    """The changelog cannot be read as it should be."""


class Recovery(Service):
    """Reads the changelogs of one worker's partitions."""

    mundane_level = "debug"

    def __init__(self, app: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.completed = asyncio.Event()
        self._reader = ChangelogReader(app.settings)
        self._connected = asyncio.Event()
        self._following: asyncio.Future[None] | None = None
        self._ends: dict[int, int] = {}
        self.total = 0
        """`remaining` as it was when the present recovery began, or the last one."""

    @property
    def remaining(self) -> int:
        """Changelog offsets still to be read before going live."""
        return sum(max(0, end - self._position(p)) for p, end in self._ends.items())

    async def on_start(self) -> None:
        """Connect the reader."""
        await self._reader.start()
        self._connected.set()

    async def on_stop(self) -> None:
        """Disconnect the reader."""
        self._halt()
        if self._connected.is_set():
            await self._reader.stop()

    def on_partitions_revoked(self, revoked: set[TP]) -> None:  # noqa: ARG002 - Faust's signature
        """Stop where it is; positions are kept."""
        self._halt()

    async def on_rebalance(
        self,
        assigned: set[TP],  # noqa: ARG002
        revoked: set[TP],  # noqa: ARG002
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,
    ) -> None:
        """Begin with the partitions that this worker was given."""
        self._halt()
        if generation_id != self.app.consumer_generation_id:
            return  # the next assignment is on its way
        topic, assignor = self._topic(), self.app.assignor
        actives = {tp.partition for tp in assignor.assigned_actives() if tp.topic == topic}
        standbys = {tp.partition for tp in assignor.assigned_standbys() if tp.topic == topic}
        self._following = asyncio.ensure_future(
            self._follow(actives, standbys - actives, generation_id)
        )

    def _halt(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None
        self._ends = {}

    async def _follow(self, actives: set[int], standbys: set[int], generation: int) -> None:
        try:
            await self._connected.wait()
            await self._recover(actives)
            await self._go_live(actives, standbys, generation)
            await self._stand_by(standbys)
        except IllegalStateError:
            log.info("partitions have gone meanwhile: waiting for the next assignment")
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing must go live
            await self.app.crash(error)

    async def _recover(self, actives: Collection[int]) -> None:
        """Read the rows of these partitions up to the end."""
        positions = await self._positions(actives)
        wanted = {p for p, (position, end) in positions.items() if position < end}
        self._ends = {p: positions[p][1] for p in wanted}
        self.total = self.remaining
        self._reader.read_from({p: positions[p][0] for p in wanted})
        progress = time.monotonic()
        while wanted:
            if await self._load():
                progress = time.monotonic()
                wanted = {p for p in wanted if self._position(p) < self._ends[p]}
            elif time.monotonic() - progress > STALL_SECONDS:
                await self._explain_stall(wanted)
        self._ends = {}
        for partition in actives:
            # Names stand before the rows that speak of them.
            if unnamed := self._store().ledger(partition).labels.unnamed:
                raise ChangelogError(
                    f"{self._topic()}[{partition}]: the names of {unnamed} ads are not there, so "
                    "what is decided about them would be lost. Were records deleted from it?"
                )

    async def _stand_by(self, standbys: Collection[int]) -> None:
        """Read the rows of these partitions for ever."""
        positions = await self._positions(standbys)
        self._reader.read_from({p: position for p, (position, _) in positions.items()})
        while standbys:
            await self._load()

    async def _load(self) -> bool:
        """Load what has come; whether there was any."""
        found = False
        for partition, fetched in await self._reader.fetch():
            found = True
            if fetched.first_offset != self._position(partition):
                raise ChangelogError(
                    f"{self._topic()}[{partition}]: rows from offset {fetched.first_offset} on "
                    f"came where those from {self._position(partition)} on were due: report this; "
                    "a restart reads them anew"
                )
            self._store().load(partition, fetched.records, fetched.next_offset)
            self.app.metrics.changelog_read.inc(len(fetched.records))
            await asyncio.sleep(0)
        return found

    async def _positions(self, partitions: Collection[int]) -> dict[int, tuple[int, int]]:
        """Where to read each partition from, and its end."""
        extents = await self._extent(partitions)
        positions = {}
        for partition, (begin, end) in extents.items():
            position = self._store().position(partition)
            if position is None:
                self._store().begin(partition, begin)
                position = begin
            if not begin <= position <= end:
                raise ChangelogError(
                    f"{self._topic()}[{partition}] holds offsets {begin} to {end}, but this worker "
                    f"has read it up to {position}: it was cut off or made anew. A restart begins "
                    "with the rows that it still holds; the others are lost"
                )
            positions[partition] = position, end
        return positions

    async def _extent(self, partitions: Collection[int]) -> Mapping[int, tuple[int, int]]:
        while True:
            try:
                return await self._reader.extent(partitions)
            except KafkaError as error:
                log.warning("cannot ask for the ends of %s: %r: trying again", self._topic(), error)
                await asyncio.sleep(1)

    async def _explain_stall(self, wanted: Collection[int]) -> None:
        """Fail, unless it is Kafka that does not answer."""
        extents = await self._extent(wanted)
        raise ChangelogError(
            f"no row of {self._topic()} came for {STALL_SECONDS:.0f} s, though partitions "
            + ", ".join(f"{p} (at {self._position(p)} of {extents[p][1]})" for p in sorted(wanted))
            + " are not read to the end and Kafka answers. A restart begins anew; if it ends "
            "likewise, look at these partitions' leaders"
        )

    async def _go_live(self, actives: set[int], standbys: set[int], generation: int) -> None:
        """Let events in."""
        app, tables = self.app, self.app.tables
        consumer = app.consumer
        await app.on_rebalance_complete.send()
        if app.consumer_generation_id != generation:
            return
        await self._store().on_recovery_completed(self._tps(actives), self._tps(standbys))
        # It empties the queues of the streams. So nothing may have come into them yet.
        app.flow_control.resume()
        assignment = consumer.assignment()
        if assignment:
            await self._seek(consumer)
        consumer.resume_partitions({tp for tp in assignment if tp.topic != self._topic()})
        self.completed.set()
        consumer.resume_flow()
        await app._fetcher.maybe_start()  # noqa: SLF001 - as Faust's own recovery does
        tables.on_actives_ready()
        tables.on_standbys_ready()
        app.on_rebalance_end()

    async def _seek(self, consumer: Any) -> None:
        """Go to the committed offsets, as soon as Kafka says which they are."""
        while True:
            try:
                await consumer.perform_seek()
                return
            except IllegalStateError:
                raise
            except KafkaError as error:
                log.warning("cannot ask for the committed offsets: %r: trying again", error)
                await asyncio.sleep(1)

    def _position(self, partition: int) -> int:
        position = self._store().position(partition)
        return 0 if position is None else position

    def _store(self) -> Store:
        store: Store = self.app.store()
        return store

    def _topic(self) -> str:
        topic: str = self.app.settings.topic("ledger")
        return topic

    def _tps(self, partitions: Collection[int]) -> set[TP]:
        return {TP(self._topic(), partition) for partition in partitions}


class Tables(TableManager):
    """Faust's tables, with our recovery."""

    logger = logging.getLogger("faust.tables")  # what Faust logs is Faust's

    _recovery: Recovery | None = None

    async def on_start(self) -> None:
        """Start. Faust waits a second first, for tables that agents make: here there is one."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Recovery:
        """Made when it is first asked for."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, beacon=self.beacon, loop=self.loop)
        return self._recovery
