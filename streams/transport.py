"""Faust's Kafka transport with one message a fetch instead of one a record.

A message's value is the `Records` of one partition in one fetch response, so that a stream, an
agent and a table's recovery handle thousands of records for the price of one event. Registered
under the entry point group `faust.transports`: the broker's URL is `governor://host:port`.
"""

# It extends Faust and aiokafka where they have no public place for it.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import LeaveGroupRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage, Message
from faust.types.tuples import ack_lock
from mode.threads import MethodQueue
from mode.utils.futures import maybe_set_exception

from governor.records import Records
from streams.answers import AnswersClient
from streams.wire import CorruptBatch, parse

__all__ = [
    "Batch",
    "BatchFetcher",
    "Consumer",
    "Deliveries",
    "Fetch",
    "Fetched",
    "RecordsSchema",
    "Transport",
]

# Kafka answers one request of a connection after the other: an idle fetch holds back a seek, and
# what is wanted next, until it ends.
FETCH_MAX_WAIT_MS = 500
# For a fetch that leaves out partitions whose last fetch has not been taken yet. The next fetch
# of these has to wait until it ends.
BUSY_FETCH_MAX_WAIT_MS = 10


_SOUGHT = -1

MISSING_TOPICS_SECONDS = 1.0

LEAVE_SECONDS = 3.0
"""How long Kafka may take to let a worker leave the group. Without it the session has to end."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch brought of one partition: the offsets from `first_offset` on."""

    records: Records
    first_offset: int
    next_offset: int
    seeks: int


class _Partition:
    """One partition's part of a fetch response, in the place of aiokafka's PartitionRecords.

    It iterates over a single item. `next_fetch_offset` follows, and with it the position, also
    where all records were aborted, control records or compacted away.
    """

    def __init__(
        self,
        fetcher: BatchFetcher,
        node: int,
        tp: TopicPartition,
        offset: int,
        part_data: list[Any],
    ) -> None:
        self._fetcher = fetcher
        self._node = node
        self._tp = tp
        self._part_data: list[Any] | None = part_data
        self.next_fetch_offset = offset

    def __iter__(self) -> Iterator[Fetched]:
        return self

    def __next__(self) -> Fetched:
        if self._part_data is None:
            raise StopIteration
        fetcher, first_offset = self._fetcher, self.next_fetch_offset
        # Stable offset, [log start offset,] aborted, [preferred replica,] message set
        stable = self._part_data[0]
        aborted = self._part_data[2 if len(self._part_data) == 5 else -2]
        try:
            records, self.next_fetch_offset = parse(
                self._part_data[-1],
                first_offset,
                aborted,
                check_crcs=fetcher._check_crcs,
                committed_only=fetcher._isolation_level == READ_COMMITTED,
            )
        except CorruptBatch as error:
            raise CorruptBatch(f"{self._tp.topic}[{self._tp.partition}]: {error}") from error
        self._part_data = None
        if self.next_fetch_offset < stable:
            fetcher.behind.add(self._node)
        return Fetched(records, first_offset, self.next_fetch_offset, fetcher.seeks[self._tp])


class _Client:
    """aiokafka's client, which lets the fetcher see the last fetch response as it came."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.response: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any) -> Any:
        response = await self._client.send(node_id, request)
        if isinstance(request, FetchRequest):
            self.response = response
        return response


class BatchFetcher(Fetcher):
    """aiokafka's fetcher with a `_Partition` in each result; the rest is as it was.

    `seeks` counts the seeks of each partition. What was fetched before a partition's last seek
    will be fetched again, or is not wanted.

    A consumer that keeps up would fetch as often as it can, each time a little more than nothing
    of every partition, and spend most of its time on that. So it fetches once an `interval`
    (seconds) unless it is behind: unless the last fetch from some broker left something there.
    """

    seeks: Counter[TP]
    interval: float
    behind: set[int]
    """Brokers; `_SOUGHT` from a seek to the next fetch."""
    due: float
    """When the next fetch may begin, by the monotonic clock."""

    @classmethod
    def adopt(cls, fetcher: Fetcher, seeks: Counter[TP], interval: float = 0.0) -> None:
        """Turn a fetcher that has not fetched yet into one of this class.

        AIOKafkaConsumer.start makes its fetcher itself.
        """
        fetcher.__class__ = cls
        fetcher._client = _Client(fetcher._client)
        fetcher.seeks = seeks
        fetcher.interval = min(interval, FETCH_MAX_WAIT_MS / 1000)
        fetcher.behind, fetcher.due = {_SOUGHT}, 0.0

    def _get_actions_per_node(self, assignment: Any) -> Any:
        early = 0.0 if self.behind else self.due - time.monotonic()
        if early > 0:
            return [], {}, early, False, []
        self._fetch_max_wait_ms = BUSY_FETCH_MAX_WAIT_MS if self._records else FETCH_MAX_WAIT_MS
        return super()._get_actions_per_node(assignment)

    async def _proc_fetch_request(
        self, assignment: Any, node_id: int, request: FetchRequest
    ) -> bool:
        self.due = time.monotonic() + self.interval
        woken = await super()._proc_fetch_request(assignment, node_id, request)
        # Nothing was awaited since the response came, so it is the one of this request.
        response, self._client.response = self._client.response, None
        if response is None or not woken:
            return bool(woken)
        offsets = {
            TopicPartition(topic, partition): offset
            for topic, partitions in request.topics
            for partition, offset, _ in partitions
        }
        self.behind -= {node_id, _SOUGHT}
        for topic, partitions in response.topics:
            for partition, _error, _highwater, *part_data in partitions:
                tp = TopicPartition(topic, partition)
                result = self._records.get(tp)
                if (
                    type(result) is FetchResult
                    and part_data[-1]
                    and not isinstance(result._partition_records, _Partition)
                ):
                    result._partition_records = _Partition(
                        self, node_id, tp, offsets[tp], part_data
                    )
        return True

    def seek_to(self, tp: TopicPartition, offset: int) -> None:
        super().seek_to(tp, offset)
        self.seeks[tp] += 1
        self.behind.add(_SOUGHT)


@dataclass(slots=True)
class Fetch:
    """Messages that came together."""

    left: int

    def took(self) -> bool:
        """Count one as taken in; whether it was the last."""
        self.left -= 1
        return self.left == 0


class Batch(ConsumerMessage):
    """A message for the offsets from `first_offset` to `offset`; its value is a `Records`.

    The records may be fewer than the offsets, or none at all: offsets are also taken by control
    records, aborted records, and those compacted away.
    """

    first_offset: int
    seeks: int
    fetch: Fetch
    """That it came with. Some of it may never be handed out."""


class Deliveries:
    """What was handed out of one partition since its last seek, and has not been acked.

    Knows messages by identity. An ack that comes after a seek, for a message handed out before,
    therefore cannot be taken for one of the same offset handed out again.
    """

    def __init__(self, seeks: int) -> None:
        self.seeks = seeks
        self._pending: deque[Batch] = deque()
        self._end: int | None = None

    def add(self, batch: Batch) -> None:
        self._pending.append(batch)

    def begin(self) -> int | None:
        """The first offset handed out that has not been acked, or None when all are."""
        self.end()
        return self._pending[0].first_offset if self._pending else self._end

    def handed(self) -> int | None:
        """The offset behind the last message handed out."""
        return self._pending[-1].offset + 1 if self._pending else self._end

    def end(self) -> int | None:
        """The offset behind the leading run of acked messages: what may be committed."""
        # Faust "acks" what it skips while partitions are revoked, before a stream tracked it.
        while self._pending and self._pending[0].acked and self._pending[0].tracked:
            self._end = self._pending.popleft().offset + 1
        return self._end


class Keeper(Protocol):
    """Says what to commit beside offsets, and where to go on; `streams.bookmarks.Bookkeeper`."""

    def metadata(self, tp: TopicPartition) -> str: ...

    def start(
        self, tp: TopicPartition, committed: int, metadata: str, begin: int, end: int
    ) -> tuple[int, str]: ...

    def reached(self, tp: TopicPartition) -> None: ...

    def unharmed(self) -> dict[TopicPartition, tuple[int, str]]: ...


class _MarkingConsumer(AIOKafkaConsumer):
    """aiokafka's consumer, whose commits carry the keeper's metadata."""

    keeper: Keeper | None

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        keeper = self.keeper
        if keeper is None:
            await super().commit(offsets)
            return
        marked = {
            tp: one if one.metadata else OffsetAndMetadata(one.offset, keeper.metadata(tp))
            for tp, one in offsets.items()
        }
        await super().commit(marked)
        for tp, one in offsets.items():
            if not one.metadata:
                keeper.reached(tp)


class StoppedError(IllegalStateError):
    """The consumer has stopped and does nothing any more."""


class _Calls(MethodQueue):
    """Calls into the consumer's thread. Faust's are never answered once it has stopped."""

    def _queue_put(self, method: Any) -> None:
        if self.should_stop:
            promise = method.promise
            stopped = StoppedError("the consumer has stopped")
            promise.get_loop().call_soon_threadsafe(maybe_set_exception, promise, stopped)
        else:
            super()._queue_put(method)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's thread around the aiokafka consumer, which reads committed batches."""

    logger = logging.getLogger("faust.transport.batched")  # what Faust logs is Faust's
    _asking: asyncio.Future[None] | None = None
    _method_queue: MethodQueue | None = None

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        # Faust ties both to its own settings, of which the one that reads what is committed
        # brings its transactions as well. The ends of partitions are then the stable offsets.
        consumer._isolation_level = "read_committed"
        consumer._client.__class__ = AnswersClient
        consumer.__class__ = _MarkingConsumer
        consumer.keeper = cast("Consumer", self.consumer).keeper
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        consumer = cast("Consumer", self.consumer)
        fetcher = self._ensure_consumer()._fetcher
        BatchFetcher.adopt(fetcher, consumer.seeks, consumer.interval)
        self._asking = asyncio.ensure_future(self._ask_for_missing_topics())

    @property
    def method_queue(self) -> MethodQueue:
        if self._method_queue is None:
            self._method_queue = _Calls(loop=self.thread_loop, beacon=self.beacon)
        return self._method_queue

    async def on_thread_stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        if self._consumer is not None:
            await self._leave(self._consumer)
        await super().on_thread_stop()

    async def _leave(self, consumer: AIOKafkaConsumer) -> None:
        """Leave the group at once.

        aiokafka first waits until a rebalance that is under way is over: for the slowest of the
        others, or for the session of a dead one to end, while the partitions that this worker has
        given up lie idle.
        """
        coordinator = consumer._coordinator
        coordinator._coordination_task.cancel()
        await asyncio.wait((coordinator._coordination_task,))
        await coordinator._stop_heartbeat_task()
        member, node = coordinator.member_id, coordinator.coordinator_id
        if not member or node is None:
            return
        # Not over the coordinator's own connection: Kafka answers one request of a connection
        # after the other, and the answer to a JoinGroup may be due there.
        request = LeaveGroupRequest(coordinator.group_id, member)
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await consumer._client.send(node, request)
        except (KafkaError, TimeoutError) as error:
            log.warning("cannot leave the group %s: %r", coordinator.group_id, error)
        coordinator.reset_generation()

    async def _ask_for_missing_topics(self) -> None:
        """Know the partitions of every topic subscribed to.

        aiokafka asks when it subscribes. If the broker is away then, or has just come back and
        knows no topics yet, it asks again after five minutes; until then a worker that leads the
        group gives nobody anything. Once they are known it has the group assigned anew.
        """
        while True:
            await asyncio.sleep(MISSING_TOPICS_SECONDS)
            consumer = self._ensure_consumer()
            topics = consumer.subscription()
            known = consumer._client.cluster.partitions_for_topic
            if any(not known(topic) for topic in topics):
                await consumer._client.force_metadata_update()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        try:
            # They are read beside the group (see `streams.changelog`). Fetched here as well, they
            # would lie in aiokafka's buffer for ever.
            consumer, changelogs = self._ensure_consumer(), self.app.tables.changelog_topics
            consumer.pause(*(tp for tp in consumer.assignment() if tp.topic in changelogs))
            await super().on_partitions_assigned(assigned, generation_id)
        except Exception as error:
            # aiokafka would log it only, and the worker would own partitions that it never reads.
            await self.crash(error)
            raise

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Go to where the group stands, in the topics whose offsets it commits.

        aiokafka's own leaves a partition without a commit where it is, and what was fetched and
        dropped before would not be read again. One whose messages are all handed out goes on.
        """
        found: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return found

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer, ours = self._ensure_consumer(), cast("Consumer", self.consumer)
        tps = [tp for tp in consumer.assignment() if ours.is_of_events(tp)]
        if not tps:
            return {}
        committed = await consumer._coordinator.fetch_committed_offsets(tps)
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        starts, marks = {}, {}
        for tp in tps:
            known = committed.get(tp)
            starts[tp] = known.offset if known is not None and known.offset >= 0 else begins[tp]
            if ours.keeper is not None:
                metadata = "" if known is None else known.metadata
                starts[tp], mark = ours.keeper.start(tp, starts[tp], metadata, begins[tp], ends[tp])
                marks[tp] = OffsetAndMetadata(starts[tp], mark)
        # Before anything is handed out: what ends this process must not end it unmarked.
        await self._commit_marks(marks)
        for tp, start in starts.items():
            if tp in consumer.assignment():
                consumer.seek(tp, ours.next_offset(tp, start))
        ours.placed = True
        return starts

    async def commit_marks(self, marks: Mapping[TP, tuple[int, str]]) -> None:
        """Commit offsets with the metadata that is given."""
        offsets = {tp: OffsetAndMetadata(*mark) for tp, mark in marks.items()}
        await self.call_thread(self._commit_marks, offsets)

    async def _commit_marks(self, marks: Mapping[TP, OffsetAndMetadata]) -> None:
        consumer = self._ensure_consumer()
        here = {tp: mark for tp, mark in marks.items() if tp in consumer.assignment()}
        # The group may have moved on meanwhile; then these are another worker's to mark.
        with suppress(CommitFailedError, IllegalStateError):
            if here:
                await consumer.commit(here)

    def positions(self) -> dict[TP, tuple[int | None, int | None]]:
        """Position and highwater of every assigned partition, None where not known yet."""
        if self._consumer is None:
            return {}
        subscription = self._consumer._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return {}
        states = {tp: subscription.assignment.state_value(tp) for tp in self._consumer.assignment()}
        return {
            tp: (state._position, state.highwater)
            for tp, state in states.items()
            if state is not None
        }


class Consumer(driver.Consumer):
    """Faust's consumer, with acks and commits by ranges of offsets."""

    logger = logging.getLogger("faust.transport.batched")  # what Faust logs is Faust's
    _thread: ConsumerThread
    keeper: Keeper | None = None
    """To be set before it starts. With one, nothing is handed out before it said where to begin."""
    interval = 0.0
    """To be set before it starts: seconds between two fetches of what has just been produced."""
    placed = False
    """Whether the partitions are where they should begin."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.seeks: Counter[TP] = Counter()
        self._deliveries: dict[TP, Deliveries] = {}
        self._fetch = Fetch(0)
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Fetched) -> Batch:
        records = record.records
        message = Batch(
            tp.topic,
            tp.partition,
            record.next_offset - 1,
            int(records.timestamp[-1]) / 1000 if len(records) else 0.0,
            0,
            None,
            None,
            cast("bytes", records),
            None,
            0,
            records.buffer.nbytes,
            tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.first_offset = record.first_offset
        message.seeks = record.seeks
        message.fetch = self._fetch
        return message

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        fetched = await super()._getmany(active_partitions, timeout)
        self._fetch = Fetch(sum(map(len, fetched.values())))
        return fetched

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109
        """The next fetches, each as one message, recorded for commits as they go out."""
        fetches = super().getmany(timeout)
        async for tp, message in fetches:
            batch = cast("Batch", message)
            if batch.seeks != self.seeks[tp]:
                continue  # overtaken by a seek on its way here
            if not self.placed and self.keeper is not None and self.is_of_events(tp):
                continue  # on from where aiokafka took it to be; a seek is to come
            # Faust drops offsets that it takes for seen. A stale notion of what was seen would
            # then drop what nobody got; the line above and aiokafka's position suffice.
            self._read_offset[tp] = None
            if self.app.topics.acks_enabled_for(tp.topic):
                deliveries = self._deliveries.get(tp)
                if deliveries is None or deliveries.seeks != batch.seeks:
                    deliveries = self._deliveries[tp] = Deliveries(batch.seeks)
                deliveries.add(batch)
            yield tp, batch

    def verify_event_path(self, now: float, tp: TP) -> None:
        # Changelogs are not read here, which Faust would take for a fault.
        if not self._is_changelog_tp(tp):
            super().verify_event_path(now, tp)

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: the fetcher waits for room in the stream's queue.

        Faust would pause the partition. With queues of a few fetches all are soon paused, and
        then Faust sleeps for a second.
        """

    def known_ends(self, topic: str) -> dict[TP, int]:
        """Where the topic's assigned partitions ended when they were last fetched."""
        positions = self._thread.positions()
        return {tp: end or 0 for tp, (_, end) in positions.items() if tp.topic == topic}

    def is_of_events(self, tp: TP) -> bool:
        """Whether the group commits offsets of the partition, which it does not of changelogs."""
        return tp.topic not in self.app.tables.changelog_topics

    def next_offset(self, tp: TP, start: int) -> int:
        """The first offset that was not handed out since the last seek; ``start`` if none was."""
        deliveries = self._deliveries.get(tp)
        if deliveries is None or deliveries.seeks != self.seeks[tp]:
            return start
        handed = deliveries.handed()
        return start if handed is None else max(start, handed)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        # Inside, Faust waits for the streams to finish and commits what they acked.
        await super().on_partitions_revoked(revoked)
        self.placed = False
        for tp in revoked:
            self.seeks[tp] += 1
            self._deliveries.pop(tp, None)

    async def wait_empty(self) -> None:
        """Wait until what the streams began is acked, unless the app has crashed.

        Faust waits then too, for acks that cannot come.
        """
        with suppress(StoppedError):
            while self._unacked_messages and not (self.should_stop or self.app.crashed):
                await self.commit()
                if self._unacked_messages:
                    await self._wait_for_ack(timeout=1)
                    self._clean_unacked_messages()
            await self.commit_and_end_transactions()
            # Between two assignments Kafka would not answer before the others have joined, and
            # refuse; what is marked was marked when the partitions went.
            if (
                self.keeper is not None
                and self.placed
                and not self.app.crashed
                and (marks := self.keeper.unharmed())
            ):
                await self._thread.commit_marks(marks)

    def forget(self, message: Message) -> None:
        """Wait no longer for the ack of a message, which is not acked either: it is read again
        after a seek, a rebalance or a restart."""
        self._unacked_messages.discard(message)

    def ack(self, message: Message) -> bool:
        """Mark a message as done; what it held is freed with the leading run it completes."""
        with ack_lock:
            acked: bool = super().ack(message)
            if (deliveries := self._deliveries.get(message.tp)) is not None:
                deliveries.end()
            return acked

    def _new_offset(self, tp: TP) -> int | None:
        with ack_lock:
            # Faust's own record of acks, one offset a message, would only grow.
            self._acked.pop(tp, None)
            self._acked_index.pop(tp, None)
            deliveries = self._deliveries.get(tp)
            if deliveries is None or deliveries.seeks != self.seeks[tp]:
                return None
            return deliveries.end()

    def _filter_tps_with_pending_acks(
        self, topics: Iterable[TP | str] | None = None
    ) -> Iterator[TP]:
        return (
            tp
            for tp in list(self._deliveries)
            if topics is None or tp in topics or tp.topic in topics
        )

    def lag(self, topic: str) -> int:
        """Records of a topic's assigned partitions that may not be committed yet."""
        assignment = self._thread.positions()
        done = self.done()
        return sum(
            max(0, highwater - done[tp])
            for tp, (_position, highwater) in assignment.items()
            if tp.topic == topic and highwater is not None
        )

    def behind(self, topic: str) -> list[TP]:
        """Assigned partitions of a topic that hold records which may not be committed yet."""
        done = self.done()
        return [
            TP(*tp)
            for tp, (_position, highwater) in self._thread.positions().items()
            if tp.topic == topic and highwater is not None and highwater > done[tp]
        ]

    def done(self) -> dict[TP, int]:
        """The first offset of each assigned partition that may not be committed yet."""
        found = {}
        for tp, (position, _highwater) in self._thread.positions().items():
            deliveries = self._deliveries.get(tp)
            current = deliveries is not None and deliveries.seeks == self.seeks[tp]
            begin = deliveries.begin() if deliveries is not None and current else None
            found[TP(*tp)] = position or 0 if begin is None else begin
        return found

    def committed(self, topic: str) -> dict[TopicPartition, int]:
        """Offsets committed since the start in a topic's assigned partitions."""
        return {
            TopicPartition(*tp): offset
            for tp, offset in self._committed_offset.items()
            if tp.topic == topic and offset is not None and tp in self.assignment()
        }

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Do nothing: a message says itself where it begins."""


class Transport(driver.Transport):
    """The transport of `governor://` URLs; topics are declared with a `RecordsSchema`."""

    Consumer: ClassVar[Any] = Consumer


class RecordsSchema(faust.Schema):
    """For topics and tables: an event's value is the `Records` as fetched, its key None."""

    def loads_key(self, _app: AppT, _message: Message, **_: Any) -> Any:
        return None

    def loads_value(self, _app: AppT, message: Message, **_: Any) -> Any:
        return message.value
