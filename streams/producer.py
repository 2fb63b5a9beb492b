"""The producer of decisions, rows and dead letters: fenced, and one request for all partitions.

Whole rows overwrite. A worker that was held still past its session and wakes in the middle of a
flush must therefore not get a single batch into a partition that another one owns by now. Who
takes a partition over gets an `Identity` with a higher epoch, and writes a *fence* under it into
the partition's logs before it reads them. From then on their leaders refuse every batch of
the former owner, so nothing can be appended behind what the new one has read.

Batches carry sequence numbers, so that sending one again, for as long as it takes, neither
repeats nor reorders records.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.produce import ProduceRequest, ProduceRequestStruct
from aiokafka.structs import TopicPartition

from governor.records import Records
from governor.rowcodec import FENCE_KEY
from streams.identities import NEARLY_LAST_EPOCH, FencedError, Identities, Identity, Patience
from streams.settings import Settings
from streams.topics import connection
from streams.wire import Frame, build, seal

__all__ = ["PiecewiseClient", "PiecewiseProduceRequest", "Producer", "Written"]

log = logging.getLogger(__name__)

MAX_BATCH_BYTES = 900_000
"""Under the megabyte that a topic allows in one batch unless it was told otherwise."""

MAX_REQUEST_BYTES = 32 * 1024 * 1024
"""Brokers take 100 MB."""

TIMEOUT_MS = 10_000
"""After which a request is sent again, which repeats nothing."""

RENEWAL_SECONDS = 6 * 3600.0
"""Leaders forget an epoch after a day without a batch, coordinators after a week."""

_ONE_LAYOUT_FROM = 3
"""From this version on a produce request is laid out alike, up to the newest of aiokafka."""
_REQUEST = struct.Struct(">hhii")  # length of no transactional id, acks, timeout, topics
_PARTITION = struct.Struct(">ii")  # partition, length of its batch
_LEAST_PIECE = 32 * 1024
"""Bytes of a batch that is not copied: each piece is a call of the system."""
_SHORT, _INT = struct.Struct(">h"), struct.Struct(">i")

_OK, _DUPLICATE = 0, 46
_FENCED = (47, 90)  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
_FORGOTTEN = (45, 59)  # OUT_OF_ORDER_SEQUENCE_NUMBER, UNKNOWN_PRODUCER_ID
_TOO_LARGE = (10, 18)
_NOT_ALLOWED = 29
_CORRUPT_ON_ITS_WAY = 2


class Written(NamedTuple):
    """The last record of a partition that was sent."""

    offset: int
    appended: float
    """When Kafka took it, by the broker's clock, in epoch seconds; by ours where it does not say,
    because the topic's message.timestamp.type is not LogAppendTime."""


class Producer:
    """Writes for the partitions that this worker owns.

    Args:
        settings: brokers, group and topics.
        check: raises when this worker must not write any more.
        retried: called with the number of batches that must be sent again.
        now: the time that records are stamped with, in epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        check: Callable[[], None],
        retried: Callable[[int], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._check = check
        self._retried = retried
        self._now = now
        self._owned: dict[int, _Owned] = {}
        self._connected: AIOKafkaClient | None = None

    async def start(self) -> None:
        """Connect."""
        self._connected = PiecewiseClient(
            **connection(self._settings),
            client_id=f"{self._settings.group}-outbox",
            request_timeout_ms=TIMEOUT_MS,
        )
        await self._client.bootstrap()
        owned = ("decisions", "ledger", "deadletters", "samples", "curves", "fatigue")
        names = [self._settings.topic(name) for name in owned]
        await self._client.set_topics(names)
        self._identities = Identities(self._client, self._settings.group, self._check)

    async def stop(self) -> None:
        """Disconnect, if it was connected."""
        if self._connected is not None:
            await self._connected.close()

    @property
    def _client(self) -> AIOKafkaClient:
        assert self._connected is not None, "not started"
        return self._connected

    async def take_over(self, partitions: Iterable[int]) -> None:
        """Own these partitions and no others; on return nobody else can write them.

        Raises:
            FencedError: another worker was given one of them meanwhile.
        """
        self._owned.clear()
        await self._fence(dict.fromkeys(partitions))

    async def renew(self) -> None:
        """Fence anew what was fenced long ago, before Kafka forgets it.

        Raises:
            FencedError: a partition is another worker's.
        """
        await self._fence({p: self._owned[p].identity for p in self._old()})

    def must_renew(self) -> bool:
        """Whether `renew` would do anything."""
        return bool(self._old())

    def _old(self) -> list[int]:
        due = time.monotonic() - RENEWAL_SECONDS
        return [p for p, owned in self._owned.items() if owned.since < due]

    async def send(
        self, outgoing: Mapping[TopicPartition, Sequence[Records]], *, aside: bool = False
    ) -> dict[TopicPartition, Written]:
        """Send records and wait until all are acknowledged by all replicas in sync.

        What Kafka cannot take at the moment is sent again without end. Nothing else may be sent to
        the same partition of a topic meanwhile.

        Args:
            outgoing: what goes to the partitions of topics, in order.
            aside: over a connection of its own. Kafka answers one request of a connection after
                the other; what is sent aside holds nothing up.

        Returns:
            Where the last record of each partition is; left out where Kafka cannot tell.

        Raises:
            FencedError: a partition is another worker's, or was never taken over.
            KafkaError: Kafka refuses a batch for good. Others may have been written.
        """
        stamp = int(self._now() * 1000)
        waiting = []
        for tp, parts in outgoing.items():
            stamped = [
                replace(part, timestamp=np.full(len(part), stamp, np.int64))
                for part in parts
                if len(part)
            ]
            if stamped:
                frames = build(*stamped, max_bytes=MAX_BATCH_BYTES)
                waiting.append(_Outgoing(tp, frames, next(frames)))
        sent = waiting
        group = ConnectionGroup.COORDINATION if aside else ConnectionGroup.DEFAULT
        patience = Patience("writing to Kafka", self._check)
        while waiting:
            reason = await self._round(waiting, group)
            waiting = [one for one in waiting if one.frame]
            for one in waiting:
                if one.forgotten:
                    await self._begin_again(one)
            if reason:
                await patience.pause(reason)
        return {one.tp: Written(one.end, one.appended) for one in sent if one.end >= 0}

    async def _fence(self, partitions: Mapping[int, Identity | None]) -> None:
        """Get new identities and write with them where the old ones could."""
        while partitions:
            new = await asyncio.gather(
                *(self._identities.next(p, current) for p, current in partitions.items())
            )
            fences = {}
            for partition, identity in zip(partitions, new, strict=True):
                self._owned[partition] = _Owned(identity, time.monotonic())
                text = b"%d %d" % (identity.producer, identity.epoch)
                fences[self._tp("ledger", partition)] = [Records.of([(FENCE_KEY, text, 0)])]
                # Readers hold it for the withdrawal of a decision that nobody has.
                fences[self._tp("decisions", partition)] = [Records.of([(b"", None, 0)])]
                if partition == 0:  # whose owner makes the curves
                    fences[self._tp("curves", 0)] = [Records.of([(FENCE_KEY, text, 0)])]
            await self.send(fences)
            # On to the next producer id, now that this one's earlier epochs are fenced.
            partitions = {
                partition: identity
                for partition, identity in zip(partitions, new, strict=True)
                if identity.epoch >= NEARLY_LAST_EPOCH
            }

    def _tp(self, name: str, partition: int) -> TopicPartition:
        return TopicPartition(self._settings.topic(name), partition)

    async def _round(self, waiting: Iterable[_Outgoing], group: ConnectionGroup) -> str:
        """Send a frame of each, a request to each leader; why some were not taken."""
        leaders: dict[int, list[_Outgoing]] = defaultdict(list)
        reason = ""
        for one in waiting:
            leader = self._client.cluster.leader_for_partition(one.tp)
            if leader is None or leader < 0:
                reason = f"{one} has no leader"
                self._client.force_metadata_update()
            else:
                leaders[leader].append(one)
        self._check()
        reasons = await asyncio.gather(
            *(self._produce(leader, mine, group) for leader, mine in leaders.items())
        )
        return next(filter(None, reasons), reason)

    async def _produce(
        self, leader: int, waiting: Iterable[_Outgoing], group: ConnectionGroup
    ) -> str:
        """One request; why some of it was not taken, empty when all was."""
        asked: dict[TopicPartition, _Outgoing] = {}
        topics: dict[str, list[tuple[int, memoryview]]] = defaultdict(list)
        size = 0
        for one in waiting:
            assert one.frame is not None
            size += len(one.frame.buffer)
            if asked and size > MAX_REQUEST_BYTES:
                break
            asked[one.tp] = one
            topics[one.tp.topic].append((one.tp.partition, self._sealed(one, one.frame)))
        request = PiecewiseProduceRequest(
            transactional_id=None,
            required_acks=-1,
            timeout=TIMEOUT_MS * 4 // 5,
            topics=list(topics.items()),
        )
        try:
            answer = await self._client.send(leader, request, group=group)
        except IncompatibleBrokerVersion:
            raise
        except KafkaError as error:
            self._client.force_metadata_update()
            self._retried(len(asked))
            return repr(error)
        reason = ""
        for topic, partitions in answer.topics:
            for partition, code, offset, appended, *_ in partitions:
                one = asked[TopicPartition(topic, partition)]
                reason = self._settle(one, code, offset, appended) or reason
        return reason

    def _sealed(self, one: _Outgoing, frame: Frame) -> memoryview:
        """One's frame, under the partition's identity and with its place in the sequence."""
        owned = self._owned.get(one.tp.partition)
        if owned is None:
            raise FencedError(f"{one} is not owned")
        one.under, one.forgotten = owned, False
        identity, sequence = owned.identity, owned.sequence[one.tp.topic]
        return seal(frame, identity.producer, identity.epoch, sequence)

    def _settle(self, one: _Outgoing, code: int, offset: int, appended: int) -> str:
        """What the leader said about one's frame; why it must be sent again, or nothing."""
        frame = one.frame
        assert frame is not None
        if code in (_OK, _DUPLICATE):
            assert one.under is not None
            one.under.advance(one.tp.topic, frame.count)
            one.frame = next(one.frames, None)
            # A duplicate so old that the leader does not know where it is.
            one.end = offset + frame.count - 1 if offset >= 0 else -1
            # Only where the topic has LogAppendTime does Kafka say when.
            one.appended = appended / 1000 if appended >= 0 else self._now()
            return ""
        if code in _FENCED:
            if self._owned.get(one.tp.partition, one.under) is one.under:
                raise FencedError(str(one))
            return f"{one}: this worker began it again meanwhile"
        if code in _TOO_LARGE:
            raise MessageSizeTooLargeError(
                f"{one} refuses a batch of {len(frame.buffer)} bytes: raise its "
                "max.message.bytes (the governor creates topics with 4 MiB), or lower "
                "GOVERNOR_ROW_LIMIT"
            )
        if code == _NOT_ALLOWED:
            raise TopicAuthorizationFailedError(f"{one}: grant Write on the topic")
        error = for_code(code)
        if code in _FORGOTTEN:
            one.forgotten = True
        elif not (error.retriable or code == _CORRUPT_ON_ITS_WAY):
            raise error(str(one))
        if error.invalid_metadata:
            self._client.force_metadata_update()
        self._retried(1)
        return f"{one}: {error.__name__}"

    async def _begin_again(self, one: _Outgoing) -> None:
        """A new epoch, and with it a sequence from 0, where the leader does not know the old one.

        Rows and decisions are whole, so it does no harm if one is written twice.
        """
        one.forgotten = False
        partition = one.tp.partition
        if self._owned[partition] is not one.under:
            return  # begun again already, for another topic
        log.error(
            "%s has lost the end of what this worker wrote: was a replica out of sync made its "
            "leader (unclean.leader.election.enable)? Going on",
            one,
        )
        identity = await self._identities.next(partition, self._owned[partition].identity)
        if self._owned[partition] is one.under:  # decisions and rows may have lost it together
            self._owned[partition] = _Owned(identity, time.monotonic())


class PiecewiseProduceRequest(ProduceRequest):
    """aiokafka's request, whose batches are not copied: its encoder copies them once for each level
    that they are nested in, and its connection twice more."""

    def build(self, request_struct_class: type[ProduceRequestStruct]) -> ProduceRequestStruct:
        made = super().build(request_struct_class)
        if request_struct_class.API_VERSION >= _ONE_LAYOUT_FROM:
            vars(made)["encode"] = self._encoded
        return made

    def _encoded(self) -> bytes | _Pieces:
        head = bytearray(_REQUEST.pack(-1, self._required_acks, self._timeout, len(self._topics)))
        pieces: list[bytearray | memoryview] = []
        for topic, partitions in self._topics:
            name = topic.encode()
            head += _SHORT.pack(len(name)) + name + _INT.pack(len(partitions))
            for partition, batch in partitions:
                head += _PARTITION.pack(partition, len(batch))
                if len(batch) < _LEAST_PIECE:
                    head += batch
                else:
                    pieces += (head, batch)
                    head = bytearray()
        return _Pieces([*pieces, head]) if pieces else bytes(head)


class _Pieces:
    """What aiokafka puts its header in front of, and hands to the connection."""

    def __init__(self, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __radd__(self, before: bytes) -> _Pieces:
        return _Pieces([before + self.pieces[0], *self.pieces[1:]])


class _PiecewiseWriter:
    """A connection's writer that takes `_Pieces` as well."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, data: bytes | _Pieces) -> None:
        for piece in data.pieces if isinstance(data, _Pieces) else (data,):
            self._writer.write(memoryview(piece))  # of bytes asyncio would copy what is left


class PiecewiseClient(AIOKafkaClient):
    """aiokafka's client, for `PiecewiseProduceRequest`."""

    async def _get_conn(self, *arguments: Any, **options: Any) -> Any:
        made = await super()._get_conn(*arguments, **options)
        # A closed connection has none.
        if made is not None and not isinstance(made._writer, (_PiecewiseWriter, type(None))):  # noqa: SLF001
            made._writer = _PiecewiseWriter(made._writer)  # noqa: SLF001
        return made


class _Owned:
    """An identity, and how far it has come in each topic."""

    def __init__(self, identity: Identity, since: float) -> None:
        self.identity = identity
        self.since = since
        self.sequence: dict[str, int] = defaultdict(int)

    def advance(self, topic: str, count: int) -> None:
        """The sequence behind so many records; it begins again at 0 behind 2^31 - 1."""
        self.sequence[topic] = (self.sequence[topic] + count) & 0x7FFFFFFF


@dataclass(eq=False)
class _Outgoing:
    """What one partition of a topic has still to take, in order."""

    tp: TopicPartition
    frames: Iterator[Frame]
    """Behind the one that is on its way, made as they are asked for."""
    frame: Frame | None
    end: int = -1
    appended: float = 0.0
    under: _Owned | None = None
    """What the frame was last sealed with."""
    forgotten: bool = False
    """The leader does not know that any more."""

    def __str__(self) -> str:
        return f"{self.tp.topic}[{self.tp.partition}]"
