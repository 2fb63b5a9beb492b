"""What recovery would read of a changelog, kept as workers create it and as Kafka would by itself.

    python -m benchmarks.compaction [--users 50000] [--writes 20]

Every user's row is written so many times over, in the order of chance, as fast as the broker takes
it. Then the broker has a minute to clean, from when it may clean what was written last. Reported
are records a reader gets for each live row. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from governor.records import Records
from streams.broker import Cluster
from streams.topics import CONFIGURATION
from streams.wire import PreparedBatch, build

__all__ = ["main"]

ROW = bytes(range(256)) + bytes(88)
"""As long as the row of ten exposures."""
CHUNK = 20_000
CLEANING_SECONDS = 60 + int(CONFIGURATION["ledger"]["min.compaction.lag.ms"]) // 1000
KEPT = {"as_created": dict(CONFIGURATION["ledger"]), "by_default": {"cleanup.policy": "compact"}}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--writes", type=int, default=20, help="of each user's row")
    chosen = parser.parse_args()
    with Cluster(heap_mb=1024) as cluster:
        read = asyncio.run(_measure(cluster.bootstrap, chosen.users, chosen.writes))
    result = {
        "live_rows": chosen.users,
        "written": chosen.users * chosen.writes,
        **{f"read_{name}": count for name, count in read.items()},
        **{f"ratio_{name}": round(n / chosen.users, 2) for name, n in read.items()},
    }
    json.dump(result, sys.stdout)
    print()


async def _measure(bootstrap: str, users: int, writes: int) -> dict[str, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics(
        [NewTopic(name, 1, 1, topic_configs=kept) for name, kept in KEPT.items()]
    )
    await admin.close()
    await _write(bootstrap, users, writes)
    await asyncio.sleep(CLEANING_SECONDS)
    return {name: await _count(bootstrap, name) for name in KEPT}


async def _write(bootstrap: str, users: int, writes: int) -> None:
    rng = np.random.default_rng(1)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=0)
    async with producer:
        for _ in range(users * writes // CHUNK):
            chosen = rng.integers(0, users, CHUNK).tolist()
            records = Records.of([(b"uuser-%08d" % user, ROW, 0) for user in chosen])
            for frame in build(records, max_bytes=900_000):
                for name in KEPT:
                    await (await producer.send_batch(PreparedBatch(frame), name, partition=0))


async def _count(bootstrap: str, name: str) -> int:
    tp = TopicPartition(name, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=16 << 20)
    async with consumer:
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        end = (await consumer.end_offsets([tp]))[tp]
        count = 0
        while await consumer.position(tp) < end:
            fetched = await consumer.getmany(timeout_ms=500, max_records=50_000)
            count += sum(len(records) for records in fetched.values())
    return count


if __name__ == "__main__":
    main()
