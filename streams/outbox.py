"""The outbox: what a batch leads to, on its way to Kafka, in the order that loses nothing.

A flush takes what changed and sends, each step acknowledged before the next:

1. what belongs to other partitions, dead letters and decisions,
2. changelog rows,
3. then the messages are acked and their offsets may be committed.

A crash between 1 and 2 repeats decisions, which are the same; rows before decisions would let it
lose them, as the replay would find nothing changed. While a flush is under way the agents go on;
what they change goes with the next. An error of Kafka's stops the worker, and nothing of that flush
is acked.

No decision waits for rows: the next flush begins when the decisions of the one before are
acknowledged. Rows follow, one partition after the other, each once a second or sooner where much
waits for them: those of all flushes since, and of each person only the newest, as whole rows
overwrite. Only acks wait for them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiokafka.structs import TopicPartition
from faust.types import TP, EventT
from mode import Service
from numpy.typing import NDArray

from governor.changes import as_one
from governor.ledger import Taken
from governor.records import Records
from governor.rowcodec import rows_in
from governor.ticks import from_seconds
from streams.deadletters import Letter
from streams.doubt import Doubt
from streams.failpoints import failpoint
from streams.lease import Lease
from streams.metrics import Metrics
from streams.observer import Observer
from streams.producer import Producer, Written
from streams.repartition import Forwarder
from streams.settings import Settings
from streams.snapshots import Copy, Snapshots
from streams.store import Store

__all__ = ["Outbox"]

SWEEP_ROWS = 500
"""Rows of each partition that one flush looks at for what has run out."""

ROWS_SECONDS = 1.0
"""How often the rows of a partition are written. A person who comes again meanwhile has one row for
it, which Kafka has to take in, replicate and compact."""

HASTE, PANIC = 0.5, 0.75
"""How full of events that wait for rows it may be until partitions are written without a pause
between two, and until all are written in one go."""

LONG_FLUSH = 0.05
"""Seconds that a flush takes, or its interval if that is longer, from which on rows are not moved
together behind it: decisions that have come meanwhile are first."""

TIDY_SHARE = 0.05
"""Of the time, that goes into moving rows together: those of all partitions grow alike, and moved
one partition right after the other they would hold up decisions."""

_RENEWAL_CHECK_SECONDS = 600.0


@dataclass
class _Progress:
    """How far the rows of one flush are."""

    rows: int = 0
    """How many it took."""
    unwritten: int = 0
    """Partitions whose rows are not acknowledged."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when all are."""


@dataclass
class _Pending:
    """What one flush has to account for."""

    events: dict[int, list[EventT]] = field(default_factory=dict)
    """By partition."""
    records: Counter[int] = field(default_factory=Counter)
    """In these events, by partition."""
    timestamps: list[NDArray[np.int64]] = field(default_factory=list)
    touched: set[int] = field(default_factory=set)
    """Partitions that changed without an event, and may have gone elsewhere since."""
    dead: dict[int, list[Letter]] = field(default_factory=dict)
    forwards: list[Mapping[int, list[Records]]] = field(default_factory=list)
    progress: _Progress = field(default_factory=_Progress)
    copy: Copy | None = None
    """Of the rows of one partition, as they are in the changelog when this flush is done."""


@dataclass(frozen=True, slots=True)
class _Unwritten:
    """Of one partition, what waits for rows of a flush whose decisions are acknowledged."""

    changelog: Records
    rows: int
    events: Sequence[EventT]
    records: int
    flush: _Progress
    copy: Copy | None


class Outbox(Service):
    """Flushes the ledgers of one worker."""

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        store: Callable[[], Store],
        forwarder: Forwarder,
        metrics: Metrics,
        snapshots: Snapshots,
        doubt: Doubt,
        observer: Observer,
        now: Callable[[], float] = time.time,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._doubt = doubt
        self._observer = observer
        self._settings = settings
        self._store = store
        self._forwarder = forwarder
        self._metrics = metrics
        self._snapshots = snapshots
        self._now = now
        self._interval = settings.flush_interval.total_seconds()
        self._pending = _Pending()
        self._in_flight = 0
        self._in_flight_rows = 0
        self._tidy_from = 0.0
        self._unwritten: dict[int, list[_Unwritten]] = {}
        """By partition; the one that has waited longest comes first."""
        self._newest: dict[tuple[str, int], float] = {}
        self._owner_since = now()
        self._work = asyncio.Event()
        self._whole = asyncio.Event()
        """Unset while more of a fetch is to come: a flush of its first part would only hold up the
        rest."""
        self._room = asyncio.Event()
        self._room.set()
        self._lease = Lease(settings.session_timeout.total_seconds())
        self._hurried = asyncio.Event()
        self._decided = asyncio.Event()
        """Set while rows are unwritten."""
        self._pressed = asyncio.Event()
        """Set to end the pause before rows are written."""
        self._awaited = False
        """Whether somebody waits for all rows to be written."""
        self._flushing = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._producer = Producer(settings, self._lease.check, metrics.retries.inc, now)

    @property
    def events(self) -> int:
        """Events handed in and not acked yet."""
        return self._pending.records.total() + self._in_flight

    @property
    def rows_in_flight(self) -> int:
        """Rows taken and not acknowledged yet."""
        return self._in_flight_rows

    def newest(self, tp: TP) -> float:
        """When the newest record was written of those acked of a partition of events, in epoch
        seconds; without one, since when it is this worker's."""
        return self._newest.get((tp.topic, tp.partition), self._owner_since)

    async def on_start(self) -> None:
        """Connect the producer."""
        await self._producer.start()
        self._lease.start()

    async def on_stop(self) -> None:
        """Disconnect; what is pending stays unacked."""
        self._lease.stop()
        await self._producer.stop()

    async def take_over(self, partitions: Iterable[int]) -> None:
        """Be the only one who can write these partitions, and write no others.

        Raises:
            FencedError: another worker was given one of them meanwhile.
        """
        async with self._alone():
            partitions = set(partitions)
            self._newest.clear()
            self._owner_since = self._now()
            await self._producer.take_over(partitions)
            self._doubt.begin(partitions)

    async def write(self, outgoing: Mapping[TopicPartition, Records]) -> None:
        """Write what is no event's doing, as the owner of the partitions, acknowledged.

        Raises:
            FencedError: a partition is another worker's.
            aiokafka.errors.KafkaError: some may not have been written.
        """
        await self._producer.send({tp: [records] for tp, records in outgoing.items()})

    async def add(
        self,
        event: EventT,
        timestamps: NDArray[np.int64],
        dead: list[Letter],
        forwards: Mapping[int, list[Records]],
        *,
        whole: bool,
    ) -> None:
        """Hand in a message whose records have been applied; wait while too much is pending.

        Args:
            event: the message, to be acked when all it led to is acknowledged.
            timestamps: of its records, in milliseconds.
            dead: dead letters among them.
            forwards: what goes to the repartition topic, by partition.
            whole: nothing that came with it is still to be handed in.
        """
        pending, partition = self._pending, event.message.partition
        pending.events.setdefault(partition, []).append(event)
        pending.records[partition] += len(timestamps)
        pending.timestamps.append(timestamps)
        self._doubt.applied(event.message.topic, partition, event.message.offset + 1)
        if dead:
            pending.dead.setdefault(partition, []).extend(dead)
        if forwards:
            pending.forwards.append(forwards)
        self._work.set()
        most = self._settings.max_pending_events
        full = self.events >= most
        if whole or full:
            self._whole.set()
        if self._fullness() >= HASTE:
            self._pressed.set()
        if full:
            self._room.clear()
            await self._room.wait()

    async def flushed(self, partitions: Iterable[int]) -> int:
        """Wait until what changed in partitions without an event is published, which it is with
        the next flush; how many rows that flush took, of all partitions."""
        progress = self._pending.progress
        self._pending.touched.update(partitions)
        self._work.set()
        self._whole.set()
        await progress.done.wait()
        return progress.rows

    @asynccontextmanager
    async def between_flushes(self) -> AsyncIterator[None]:
        """No flush is under way inside."""
        async with self._flushing:
            yield

    @Service.task
    async def _flush_regularly(self) -> None:
        while not self.should_stop:
            await self.wait_first(self._work.wait())
            if not self._hurried.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._whole.wait(), self._interval)
            self._whole.clear()
            started = time.monotonic()
            await self._decide()
            pause = started + self._interval - time.monotonic()
            if pause > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurried.wait(), pause)

    @Service.task
    async def _write_regularly(self) -> None:
        while not self.should_stop:
            await self.wait_first(self._decided.wait())
            started, partitions = time.monotonic(), list(self._unwritten)
            turn = ROWS_SECONDS / max(1, len(partitions))
            if not (self._awaited or self._hurried.is_set() or self._fullness() >= PANIC):
                del partitions[1:]
            self._awaited = False
            self._pressed.clear()
            await self._write(partitions)
            pause = started + turn - time.monotonic()
            if pause > 0 and self._fullness() < HASTE and not self._hurried.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._pressed.wait(), pause)

    @Service.task
    async def _keep_lease(self) -> None:
        while not self.should_stop:
            self._lease.check()
            await self.sleep(self._settings.session_timeout.total_seconds() / 4)

    @Service.task
    async def _keep_identities(self) -> None:
        while not self.should_stop:
            await self.sleep(_RENEWAL_CHECK_SECONDS)
            if self._producer.must_renew():
                async with self._alone():
                    await self._producer.renew()

    @contextmanager
    def hurrying(self) -> Iterator[None]:
        """Flush without pauses: somebody waits for acks."""
        self._hurried.set()
        self._whole.set()
        self._pressed.set()
        try:
            yield
        finally:
            self._hurried.clear()

    async def flush(self) -> None:
        """Send all that is pending and ack it.

        Raises:
            aiokafka.errors.KafkaError: nothing of this flush was acked.
            FencedError, LeaseLostError: likewise; partitions are, or may be, another worker's.
        """
        await self._decide()
        await self._write_all()

    async def _decide(self) -> None:
        """Publish what all that is pending leads to, but for its rows."""
        async with self._flushing:
            self._work.clear()
            if not (self._pending.events or self._pending.touched):
                return
            started = time.perf_counter()
            await failpoint("flush.begin")
            await self._doubt.measure(self._pending.events.keys() | self._pending.touched)
            # Nothing may come between this and `_take`: a row that a link sends elsewhere would
            # be logged as gone with a flush before the one that sends it.
            pending, self._pending = self._pending, _Pending()
            self._in_flight += pending.records.total()
            taken = self._take(pending)
            pending.progress.rows = sum(one.users for one in taken.values())
            self._in_flight_rows += pending.progress.rows
            await self._publish_decisions(pending, taken)
            spent = time.perf_counter() - started
            self._account(pending, taken, spent)
            self._wait_for_rows(pending, taken)
            if pending.touched:
                self._awaited = True
                self._pressed.set()
            if spent < max(LONG_FLUSH, self._interval):
                self._tidy()

    def _fullness(self) -> float:
        return self.events / self._settings.max_pending_events

    def _wait_for_rows(self, pending: _Pending, taken: Mapping[int, Taken]) -> None:
        """Have the rows of a flush written."""
        pending.progress.unwritten = len(taken)
        for partition, one in taken.items():
            copied = pending.copy is not None and pending.copy.partition == partition
            waiting = _Unwritten(
                one.changelog,
                one.users,
                pending.events.get(partition, ()),
                pending.records[partition],
                pending.progress,
                pending.copy if copied else None,
            )
            self._unwritten.setdefault(partition, []).append(waiting)
            self._decided.set()
        if not taken:
            pending.progress.done.set()

    async def _write_all(self) -> None:
        while self._unwritten:
            await self._write(list(self._unwritten))

    async def _write(self, partitions: Iterable[int]) -> None:
        """Write the rows that wait in these partitions, and ack what led to them."""
        async with self._writing:
            written = {p: self._next_written(p) for p in partitions if p in self._unwritten}
            await self._publish_rows(
                {p: [one.changelog for one in ones] for p, ones in written.items()}
            )
            for partition, ones in written.items():
                copy = ones[-1].copy
                if copy is not None:
                    self._snapshots.keep(copy, self._written(partition))
                if left := self._unwritten.pop(partition)[len(ones) :]:
                    self._unwritten[partition] = left  # behind those that have waited longer
                for one in ones:
                    await self._ack(one.events)
                    self._in_flight -= one.records
                    self._in_flight_rows -= one.rows
                    one.flush.unwritten -= 1
                    if not one.flush.unwritten:
                        one.flush.done.set()
            if not self._unwritten:
                self._decided.clear()
            if self.events < self._settings.max_pending_events:
                self._room.set()

    def _next_written(self, partition: int) -> list[_Unwritten]:
        """What waits, up to the first with a copy: what is written with it must not go beyond what
        the copy holds."""
        waiting = self._unwritten[partition]
        copies = (i for i, one in enumerate(waiting) if one.copy is not None)
        return waiting[: next(copies, len(waiting)) + 1]

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nothing is being sent inside, and nothing waits to be written."""
        await self._write(list(self._unwritten))  # most of it, while decisions go on
        async with self._flushing:
            await self._write_all()
            async with self._writing:
                yield

    def _tidy(self) -> None:
        """Move the rows of one partition together, if any wants it and it is time."""
        started = time.monotonic()
        if started >= self._tidy_from and any(
            ledger.tidy() for ledger in self._store().live().values()
        ):
            now = time.monotonic()
            self._tidy_from = now + (now - started) / TIDY_SHARE

    def _take(self, pending: _Pending) -> dict[int, Taken]:
        decided_at = from_seconds(self._now())
        store = self._store()
        copied = any(one.copy for waiting in self._unwritten.values() for one in waiting)
        taken = {}
        for partition in pending.events.keys() | (pending.touched & store.live().keys()):
            ledger = store.ledger(partition)
            ledger.sweep(SWEEP_ROWS)
            again = self._doubt.holds(partition)
            taken[partition] = store.take(partition, decided_at, again=again)
            self._doubt.taken(partition)
            if pending.copy is None and not copied:
                pending.copy = self._snapshots.take(partition, ledger, store.gate(partition))
        return taken

    async def _publish_decisions(self, pending: _Pending, taken: Mapping[int, Taken]) -> None:
        """What goes to other partitions, dead letters and decisions, acknowledged."""
        await failpoint("flush.before_decisions")
        dead = {
            self._tp("deadletters", partition): [Records.of(letters)]
            for partition, letters in pending.dead.items()
        }
        decisions = {self._tp("decisions", p): one.decisions for p, one in taken.items()}
        written, _, _ = await asyncio.gather(
            self._send(dead | {tp: [records] for tp, records in decisions.items()}),
            self._forwarder.send(pending.forwards),
            self._observer.flushing(taken),
        )
        for tp, records in decisions.items():
            if tp in written:
                appended = from_seconds(written[tp].appended)
                self._store().tell(tp.partition, records, appended)
        await failpoint("flush.after_decisions")

    async def _publish_rows(self, changed: Mapping[int, Sequence[Records]]) -> None:
        """Changelog rows by partition, acknowledged. Its failpoints are reached only where there
        are any: a test that is to fail in between must not meet a flush of something else."""
        rows: dict[TopicPartition, Sequence[Records]] = {}
        for partition, parts in changed.items():
            # Rows that no event has touched may have gone elsewhere while they waited.
            if partition in self._store().ledgers and any(map(len, parts)):
                rows[self._tp("ledger", partition)] = as_one(parts)
                await asyncio.sleep(0)  # decisions wait for one partition at most
        if not rows:
            return
        await failpoint("flush.before_rows")
        ends = await self._send(rows, aside=True)
        for tp, end in ends.items():
            self._store().written(tp.partition, end.offset)
            self._metrics.rows.inc(sum(map(rows_in, rows[tp])))
        await failpoint("flush.after_rows")

    async def _ack(self, events: Iterable[EventT]) -> None:
        """The messages are done; their offsets may be committed."""
        await failpoint("flush.before_ack")
        for event in events:
            event.ack()
            message = event.message
            if message.timestamp:
                self._newest[message.topic, message.partition] = message.timestamp
        await failpoint("flush.after_ack")

    async def _send(
        self, outgoing: Mapping[TopicPartition, Sequence[Records]], *, aside: bool = False
    ) -> dict[TopicPartition, Written]:
        """One step of a flush; where the last records are."""
        return await self._producer.send(outgoing, aside=aside)

    def _written(self, partition: int) -> int | None:
        return self._store().persisted_offset(TP(self._settings.topic("ledger"), partition))

    def _tp(self, name: str, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.topic(name), partition)

    def _account(self, pending: _Pending, taken: Mapping[int, Taken], seconds: float) -> None:
        metrics = self._metrics
        metrics.flush_seconds.observe(seconds)
        if pending.timestamps:
            metrics.decided(np.concatenate(pending.timestamps), self._now())
        for one in taken.values():
            metrics.published(one.by_rule)
            metrics.records.labels("withdrawn").inc(one.withdrawn)
            metrics.records.labels("published").inc(len(one.decisions) - one.withdrawn)
