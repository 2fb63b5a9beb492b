"""The transport between real producers, a real broker and Faust streams."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Self
from uuid import uuid4

import faust
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from faust.types import TP
from kafka import KafkaConsumer, TopicPartition

from governor.records import Records
from streams import answers
from streams.transport import Batch, RecordsSchema
from streams.wire import PreparedBatch, build

DEADLINE = 60.0

Triple = tuple[bytes | None, bytes | None, int]
Scenario = Callable[[str], Coroutine[Any, Any, None]]


def scenario(test: Scenario) -> Callable[[str], None]:
    """Run `test` in an event loop of its own, with the broker's address."""

    def in_loop(broker: str) -> None:
        asyncio.run(asyncio.wait_for(test(broker), 2 * DEADLINE))

    in_loop.__name__ = test.__name__
    return in_loop


async def until(condition: Callable[[], bool | Coroutine[Any, Any, bool]]) -> None:
    """Return as soon as `condition` holds; fail when it does not before the deadline."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        held = condition()
        if await held if isinstance(held, Coroutine) else held:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the condition did not hold before the deadline")


def fresh(name: str) -> str:
    return f"{name}-{uuid4().hex[:8]}"


@contextlib.asynccontextmanager
async def admin(broker: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=broker)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def new_topic(broker: str, partitions: int = 1, **config: str) -> str:
    topic = fresh("events")
    await create(broker, topic, partitions, **config)
    return topic


async def create(broker: str, topic: str, partitions: int, **config: str) -> None:
    configs = {name.replace("_", "."): value for name, value in config.items()}
    async with admin(broker) as client:
        await client.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])


@contextlib.asynccontextmanager
async def new_producer(broker: str, **settings: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=broker, max_request_size=8 << 20, **settings)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send(
    producer: AIOKafkaProducer,
    topic: str,
    triples: Iterable[Triple],
    *,
    partition: int = 0,
    max_bytes: int = 500_000,
    transactional: bool = False,
) -> None:
    for frame in build(Records.of(triples), max_bytes=max_bytes):
        batch = PreparedBatch(frame, transactional=transactional)
        await (await producer.send_batch(batch, topic, partition=partition))


def numbered(count: int, start: int = 0) -> list[Triple]:
    now = int(time.time() * 1000)
    return [(b"user", b"%d" % i, now) for i in range(start, start + count)]


class Reader:
    """An app with one agent that keeps what it gets, and acks what `ack` allows."""

    def __init__(self, broker: str, topic: str, group: str = "", **settings: Any) -> None:
        self.ack: Callable[[Batch], bool] = lambda message: True
        self.messages: list[Batch] = []
        self.group = group or fresh("group")
        self.broker = broker
        self.topic = topic
        self.app = new_app(self.group, broker, **settings)

        @self.app.agent(self.app.topic(topic, schema=RecordsSchema()))
        async def read(stream: faust.Stream) -> AsyncIterator[None]:
            async for event in stream.noack().events():
                self.messages.append(event.message)
                if self.ack(event.message):
                    event.ack()
                yield

    async def __aenter__(self) -> Self:
        await self.app.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    def rows(self, partition: int = 0) -> list[tuple[int, bytes | None]]:
        return [
            (int(message.value.offset[i]), message.value.value(i))
            for message in self.messages
            if message.partition == partition
            for i in range(len(message.value))
        ]

    def values(self, partition: int = 0) -> list[bytes | None]:
        return [value for _, value in self.rows(partition)]

    async def committed(self) -> dict[int, int]:
        async with admin(self.broker) as client:
            offsets = await client.list_consumer_group_offsets(self.group)
        return {tp.partition: at.offset for tp, at in offsets.items() if tp.topic == self.topic}

    async def has_committed(self, **wanted: int) -> None:
        async def so() -> bool:
            return await self.committed() == {int(p[1:]): at for p, at in wanted.items()}

        await until(so)


def new_app(group: str, broker: str, **settings: Any) -> faust.App:
    return faust.App(
        group,
        broker=f"governor://{broker}",
        web_enabled=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=4,
        broker_commit_interval=0.1,
        **settings,
    )


@scenario
async def test_every_record_comes_once_in_order_and_is_committed_by_ranges(broker: str) -> None:
    topic = await new_topic(broker, 4)
    async with new_producer(broker) as producer:
        for partition in range(4):
            await send(producer, topic, numbered(50_000), partition=partition)
    async with Reader(broker, topic) as reader:
        await until(lambda: sum(len(message.value) for message in reader.messages) >= 200_000)
        for partition in range(4):
            assert reader.rows(partition) == [(i, b"%d" % i) for i in range(50_000)]
        await reader.has_committed(p0=50_000, p1=50_000, p2=50_000, p3=50_000)
    assert len(reader.messages) < 200


@scenario
async def test_what_was_not_acked_is_delivered_again(broker: str) -> None:
    topic = await new_topic(broker)
    async with new_producer(broker) as producer:
        await send(producer, topic, numbered(5_000), max_bytes=5_000)
    small: dict[str, Any] = {"consumer_max_fetch_size": 5_000}
    async with Reader(broker, topic, **small) as first:
        first.ack = lambda message: len(first.messages) != 3
        await until(lambda: len(first.rows()) == 5_000)
        unacked = first.messages[2].first_offset
        assert 0 < unacked < 5_000
        await first.has_committed(p0=unacked)
    await first.has_committed(p0=unacked)
    async with Reader(broker, topic, first.group, **small) as second:
        await until(lambda: len(second.rows()) == 5_000 - unacked)
        assert second.rows()[0][0] == unacked
        await second.has_committed(p0=5_000)


@scenario
async def test_records_of_aborted_transactions_are_not_seen(broker: str) -> None:
    topic = await new_topic(broker)
    async with new_producer(broker, transactional_id=fresh("tx")) as producer:
        for value, commit in ((b"a", True), (b"b", False), (b"c", True), (b"d", False)):
            await producer.begin_transaction()
            await send(producer, topic, [(b"user", value, 0)], transactional=True)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    async with Reader(broker, topic) as reader:
        # Four records, four markers: the commit goes behind the last marker.
        await reader.has_committed(p0=8)
        assert reader.values() == [b"a", b"c"]


@scenario
async def test_records_of_an_open_transaction_wait_for_its_end(broker: str) -> None:
    topic = await new_topic(broker)
    async with (
        new_producer(broker) as plain,
        new_producer(broker, transactional_id=fresh("tx")) as producer,
        Reader(broker, topic) as reader,
    ):
        await send(plain, topic, [(None, b"before", 0)])
        await producer.begin_transaction()
        await send(producer, topic, [(None, b"within", 0)], transactional=True)
        await send(plain, topic, [(None, b"after", 0)])
        await reader.has_committed(p0=1)
        await producer.commit_transaction()
        await until(lambda: reader.values() == [b"before", b"within", b"after"])


@scenario
async def test_a_message_larger_than_the_fetch_comes_through(broker: str) -> None:
    topic = await new_topic(broker, max_message_bytes=str(8 << 20))
    large = b"x" * (3 << 20)
    async with new_producer(broker) as producer:
        await send(producer, topic, [(None, b"a", 0), (None, large, 0), (None, b"b", 0)])
    async with Reader(broker, topic, consumer_max_fetch_size=100_000) as reader:
        await until(lambda: len(reader.rows()) == 3)
        assert reader.values() == [b"a", large, b"b"]
        client = reader.app.consumer._thread._consumer._client
        assert answers.Reader in {type(one._reader) for one in client._conns.values()}


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records_come_through(broker: str, codec: str) -> None:
    @scenario
    async def run(broker: str) -> None:
        topic = await new_topic(broker)
        async with new_producer(broker, compression_type=codec, linger_ms=50) as producer:
            sent = [await producer.send(topic, b"value %d" % i) for i in range(1_000)]
            await asyncio.gather(*sent)
        async with Reader(broker, topic) as reader:
            await until(lambda: len(reader.rows()) == 1_000)
            assert reader.values() == [b"value %d" % i for i in range(1_000)]

    run(broker)


@scenario
async def test_no_record_is_lost_when_a_second_worker_joins(broker: str) -> None:
    topic = await new_topic(broker, 4)
    small: dict[str, Any] = {"consumer_max_fetch_size": 20_000}
    sent = 0

    async def produce(producer: AIOKafkaProducer) -> None:
        nonlocal sent
        for partition in range(4):
            await send(producer, topic, numbered(500, sent), partition=partition, max_bytes=5_000)
        sent += 500

    async with new_producer(broker) as producer, Reader(broker, topic, **small) as first:
        # Every third message stays without an ack, as work that the revocation interrupts.
        first.ack = lambda message: message.generation_id > 1 or len(first.messages) % 3 != 0
        await produce(producer)
        await until(lambda: len(first.messages) > 3)
        async with Reader(broker, topic, first.group, **small) as second:
            while not second.messages:
                await produce(producer)
            await produce(producer)
            end = {f"p{partition}": sent for partition in range(4)}
            await first.has_committed(**end)
        for partition in range(4):
            seen = {*first.values(partition), *second.values(partition)}
            assert seen == {b"%d" % i for i in range(sent)}


@pytest.mark.parametrize("kind", ["plain", "idempotent", "transactional"])
def test_prepared_batches_are_read_back_as_they_were(broker: str, kind: str) -> None:
    triples: list[Triple] = [
        (b"key", b"value", 1_763_000_000_000),
        (None, b"no key", 1_763_000_000_500),
        (b"tombstone", None, 1_762_999_999_000),
        (b"", b"", 1_763_000_000_001),
        *[(b"k%d" % i, b"v" * i, 1_763_000_000_000 + i) for i in range(500)],
    ]
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "idempotent": {"enable_idempotence": True},
        "transactional": {"transactional_id": fresh("tx")},
    }

    async def produce(topic: str) -> None:
        transactional = kind == "transactional"
        await create(broker, topic, 1, retention_ms="-1")
        async with new_producer(broker, **settings[kind]) as producer:
            for _ in range(2):  # so that sequence numbers must go on
                context = producer.transaction() if transactional else contextlib.nullcontext()
                async with context:
                    await send(
                        producer, topic, triples, max_bytes=10_000, transactional=transactional
                    )

    topic = fresh("batches")
    asyncio.run(produce(topic))
    consumer = KafkaConsumer(
        bootstrap_servers=broker,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        consumer_timeout_ms=int(DEADLINE * 1000),
    )
    with contextlib.closing(consumer):
        consumer.assign([TopicPartition(topic, 0)])
        found = [next(consumer) for _ in range(2 * len(triples))]
    assert [(record.key, record.value, record.timestamp) for record in found] == 2 * triples


@scenario
async def test_after_a_seek_only_what_is_delivered_again_counts(broker: str) -> None:
    topic = await new_topic(broker)
    async with new_producer(broker) as producer, Reader(broker, topic) as reader:
        reader.ack = lambda message: False
        await send(producer, topic, numbered(100))
        await until(lambda: len(reader.rows()) == 100)
        reader.messages.clear()
        reader.ack = lambda message: True
        await reader.app.consumer.seek(TP(topic, 0), 0)
        await until(lambda: len(reader.rows()) == 100)
        assert [offset for offset, _ in reader.rows()] == list(range(100))
        await reader.has_committed(p0=100)
