"""The fenced producer against a real broker: what is refused, and what is sent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError
from aiokafka.protocol.produce import ProduceRequest

from governor.records import Records
from streams import producer as module
from streams.broker import Cluster
from streams.identities import FencedError
from streams.producer import Producer
from streams.settings import Settings, load_settings
from streams.topics import ensure
from streams.wire import seal
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, run

Begin = Callable[[], AbstractAsyncContextManager[Producer]]


def settings(deployment: Deployment) -> Settings:
    """What the workers of the deployment are set to."""
    return load_settings(
        {f"GOVERNOR_{name.upper()}": text for name, text in deployment.settings.items()}
    )


@asynccontextmanager
async def connected(deployment: Deployment) -> AsyncIterator[Producer]:
    """A producer as a worker of the deployment has it."""
    producer = Producer(settings(deployment), lambda: None, lambda _count: None)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    made = deploy(partitions=2)
    asyncio.run(ensure(settings(made)))
    return made


@pytest.fixture
def begin(deployment: Deployment) -> Begin:
    """Makes producers of one deployment."""
    return partial(connected, deployment)


def outgoing(deployment: Deployment, *keys: str, topics: tuple[str, ...] = ("ledger",)) -> Any:
    records = Records.of([(key.encode(), b"v", 0) for key in keys])
    return {TopicPartition(deployment.topic(topic), 0): [records] for topic in topics}


def keys(deployment: Deployment, topic: str = "ledger") -> list[str]:
    """Keys in partition 0, without fences."""
    found = [one.key.decode() for one in deployment.read(topic) if one.partition == 0 and one.key]
    return [key for key in found if key != "f"]


def test_the_former_owner_is_refused_in_both_logs(deployment: Deployment, begin: Begin) -> None:
    async def exchange() -> None:
        async with begin() as former, begin() as owner:
            await former.take_over([0, 1])
            await former.send(outgoing(deployment, "a", topics=("ledger", "decisions")))
            await owner.take_over([0])
            for topic in ("ledger", "decisions"):
                with pytest.raises(FencedError, match=r"\[0\].*GOVERNOR_SESSION_TIMEOUT"):
                    await former.send(outgoing(deployment, "late", topics=(topic,)))
            await owner.send(outgoing(deployment, "b", topics=("ledger", "decisions")))

    run(exchange())
    assert keys(deployment) == keys(deployment, "decisions") == ["a", "b"]


def test_the_former_owner_cannot_renew_itself(
    deployment: Deployment, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWAL_SECONDS", -1.0)

    async def exchange() -> None:
        async with begin() as former, begin() as owner:
            await former.take_over([0])
            await former.renew()
            await former.send(outgoing(deployment, "a"))
            await owner.take_over([0])
            with pytest.raises(FencedError, match="another worker has taken the partition over"):
                await former.renew()
            await owner.send(outgoing(deployment, "b"))

    run(exchange())
    assert keys(deployment) == ["a", "b"]


def test_what_was_never_taken_over_is_not_written(deployment: Deployment, begin: Begin) -> None:
    async def exchange() -> None:
        async with begin() as producer:
            await producer.take_over([1])
            with pytest.raises(FencedError, match="not owned"):
                await producer.send(outgoing(deployment, "a"))

    run(exchange())
    assert keys(deployment) == []


def test_a_lost_answer_neither_repeats_nor_loses_records(
    deployment: Deployment, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 200)
    names = [f"key {n}" for n in range(100)]

    async def exchange() -> None:
        async with begin() as producer:
            await producer.take_over([0])
            send, requests = producer._client.send, 0

            async def losing(node: int, request: Any, **options: Any) -> Any:
                nonlocal requests
                answer = await send(node, request, **options)
                if isinstance(request, ProduceRequest):
                    requests += 1
                    if requests % 2:
                        raise KafkaConnectionError("the answer is lost")
                return answer

            monkeypatch.setattr(producer._client, "send", losing)
            ends = await producer.send(outgoing(deployment, *names))
            assert requests > 10
            # Behind the fence.
            (end,) = ends.items()
            assert (end[0], end[1].offset) == (
                TopicPartition(deployment.topic("ledger"), 0),
                len(names),
            )

    run(exchange())
    assert keys(deployment) == names


def test_a_sequence_that_the_leader_does_not_know_is_begun_again(
    deployment: Deployment, begin: Begin
) -> None:
    async def exchange() -> None:
        async with begin() as producer:
            await producer.take_over([0])
            producer._owned[0].advance(deployment.topic("ledger"), 5)
            await producer.send(outgoing(deployment, "a", topics=("ledger", "decisions")))
            await producer.send(outgoing(deployment, "b", topics=("ledger", "decisions")))

    run(exchange())
    assert keys(deployment) == keys(deployment, "decisions") == ["a", "b"]


def test_large_requests_arrive_whole(deployment: Deployment, begin: Begin) -> None:
    names = [f"key {n}" for n in range(3_000)]
    parts = [
        Records.of([(name.encode(), name.encode() * 300, 0) for name in names[first::3]])
        for first in range(3)
    ]

    async def exchange() -> None:
        async with begin() as producer:
            await producer.take_over([0, 1])
            topic = deployment.topic("ledger")
            await producer.send({TopicPartition(topic, p): parts for p in (0, 1)})

    run(exchange())
    written = [one for one in deployment.read("ledger") if one.key and one.key != b"f"]
    for partition in (0, 1):
        found = [(one.key, one.value) for one in written if one.partition == partition]
        wanted = [name.encode() for first in range(3) for name in names[first::3]]
        assert found == [(name, name * 300) for name in wanted]


def test_a_record_too_large_names_the_topics_setting(deployment: Deployment, begin: Begin) -> None:
    async def exchange() -> None:
        async with begin() as producer:
            await producer.take_over([0])
            large = Records.of([(b"a", bytes(5 * 1024 * 1024), 0)])
            tp = TopicPartition(deployment.topic("decisions"), 0)
            with pytest.raises(MessageSizeTooLargeError, match=r"max\.message\.bytes"):
                await producer.send({tp: [large]})

    run(exchange())


def test_a_refusal_for_good_is_raised(
    deployment: Deployment, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that claims to be of a transaction that there is not."""

    async def exchange() -> None:
        async with begin() as producer:
            await producer.take_over([0])
            monkeypatch.setattr(module, "seal", partial(seal, attributes=0x10))
            with pytest.raises(KafkaError, match="ledger"):
                await producer.send(outgoing(deployment, "a"))

    run(exchange())
    assert keys(deployment) == []


@pytest.mark.slow
def test_a_leader_that_is_killed_neither_repeats_nor_loses_records(deploy: Deploy) -> None:
    names = [f"key {n}" for n in range(1000)]
    with Cluster(nodes=3) as cluster:
        deployment = deploy(bootstrap=cluster.bootstrap, partitions=1, replication="3")
        tp = TopicPartition(deployment.topic("ledger"), 0)

        async def exchange() -> None:
            await ensure(settings(deployment))
            async with connected(deployment) as producer:
                await producer.take_over([0])
                leader = producer._client.cluster.leader_for_partition(tp)
                for first in range(0, len(names), 10):
                    if first == 300:
                        cluster.kill(leader)
                    await producer.send(outgoing(deployment, *names[first : first + 10]))
                assert producer._client.cluster.leader_for_partition(tp) != leader

        run(exchange())
        assert keys(deployment) == names
