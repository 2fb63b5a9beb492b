"""Topics are read to their end, and a broker that does not answer is not waited for for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.broker import Cluster
from streams.patience import ReaderError, connected, read_all, read_to
from tests.integration.conftest import Deploy
from tests.integration.deployment import run

RECORDS = 300


def test_everything_is_read_once_up_to_the_end(deploy: Deploy) -> None:
    deployment = deploy(partitions=3)
    deployment.create_topics({"some": 3})
    parts = [TopicPartition(deployment.topic("some"), n) for n in range(3)]
    deployment.send_raw([("some", b"%d" % n, b"value") for n in range(RECORDS)])

    async def read() -> tuple[Counter[bytes], Counter[bytes], int]:
        consumer = AIOKafkaConsumer(**deployment.kafka, enable_auto_commit=False)
        async with consumer:
            every: Counter[bytes] = Counter()
            async for _, records in read_all(consumer, parts, most=50):
                assert len(records) <= 50
                every.update(one.key for one in records)
            ends = {part: await consumer.position(part) for part in parts}
            for part in parts:
                consumer.seek(part, ends[part] // 2)
            later: Counter[bytes] = Counter()
            async for _, records in read_to(consumer, ends):
                later.update(one.key for one in records)
            half = sum(end - end // 2 for end in ends.values())
            return every, later, half

    every, later, half = run(read())
    assert every == Counter(b"%d" % n for n in range(RECORDS))
    assert later.total() == half
    assert later <= every


def test_a_broker_that_is_gone_is_told_instead_of_waited_for() -> None:
    part = TopicPartition("some", 0)

    async def read() -> None:
        with Cluster() as cluster:
            admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
            await admin.start()
            await admin.create_topics([NewTopic("some", 1, 1)])
            await admin.close()
            async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap) as producer:
                await producer.send_and_wait("some", b"value", partition=0)
            consumer = AIOKafkaConsumer(
                bootstrap_servers=cluster.bootstrap, enable_auto_commit=False
            )
            async with connected(consumer):
                async for _, records in read_all(consumer, [part]):
                    assert [one.value for one in records] == [b"value"]
                cluster.kill()
                with pytest.raises(ReaderError, match=r"nothing came of some\[0\]"):
                    await anext(read_all(consumer, [part], patience=2.0))
                consumer.seek(part, 1)
                with pytest.raises(ReaderError, match=r"some\[0\] from offset 1 on"):
                    await anext(read_to(consumer, {part: 2}, patience=2.0))

    run(read())
