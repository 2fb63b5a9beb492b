"""A topic full of impressions, made quickly and the same every time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

from governor.records import Records
from streams.wire import PreparedBatch, build

__all__ = ["Load", "preload"]

CHUNK = 50_000


@dataclass(frozen=True)
class Load:
    """Impressions of users and campaigns drawn evenly, a thousand a second of event time.

    ``until`` is the time of the last, in epoch seconds.
    """

    events: int
    users: int
    campaigns: int
    partitions: int
    until: int
    seed: int = 1

    def chunks(self) -> Iterator[dict[int, list[tuple[bytes, bytes, int]]]]:
        """Records by partition, `CHUNK` events at a time."""
        rng = np.random.default_rng(self.seed)
        partition_of = self._partitions()
        start = self.until - self.events / 1000
        for first in range(0, self.events, CHUNK):
            count = min(CHUNK, self.events - first)
            users = rng.integers(0, self.users, count).tolist()
            campaigns = rng.integers(0, self.campaigns, count).tolist()
            chunk: dict[int, list[tuple[bytes, bytes, int]]] = {}
            for i, (user, campaign) in enumerate(zip(users, campaigns, strict=True), first):
                event = (
                    b'{"event_id":"evt-%010d","user_id":"user-%08d","ts":%.3f,'
                    b'"campaign_id":"campaign-%d","impression_id":"imp-%010d",'
                    b'"creative_id":"creative-%d","advertiser_id":"advertiser-%d",'
                    b'"category":"IAB%d","channel":"display","surface":"web"}'
                ) % (
                    i, user, start + i / 1000, campaign, i, campaign, campaign % 50, campaign % 26,
                )  # fmt: skip
                key = b"user-%08d" % user
                chunk.setdefault(int(partition_of[user]), []).append(
                    (key, event, self.until * 1000)
                )
            yield chunk

    def _partitions(self) -> NDArray[np.int64]:
        return np.array(
            [
                (murmur2(b"user-%08d" % user) & 0x7FFFFFFF) % self.partitions
                for user in range(self.users)
            ],
            np.int64,
        )


async def preload(bootstrap: str, topic: str, load: Load) -> None:
    """Write the load to a topic; it must have the load's partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=0)
    await producer.start()
    try:
        for chunk in load.chunks():
            await asyncio.gather(
                *(
                    _send(producer, topic, partition, Records.of(records))
                    for partition, records in chunk.items()
                )
            )
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, records: Records) -> None:
    for frame in build(records, max_bytes=900_000):
        await (await producer.send_batch(PreparedBatch(frame), topic, partition=partition))
