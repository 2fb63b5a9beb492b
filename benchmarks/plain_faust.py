"""The peer: a Faust agent with a table, as Faust's documentation writes one.

Per user and campaign a list of timestamps within the hour; at three, a decision. Prints
``<events> <seconds>`` at the end. Run by `benchmarks.throughput`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import faust

BROKER, TOPIC, EVENTS, PARTITIONS = (
    sys.argv[1],
    sys.argv[2],
    int(sys.argv[3]),
    int(sys.argv[4]),
)

app = faust.App(
    "plain-faust",
    broker=f"kafka://{BROKER}",
    store="memory://",
    topic_partitions=PARTITIONS,
    consumer_auto_offset_reset="earliest",
    topic_disable_leader=True,
    web_enabled=False,
    datadir=os.environ["PLAIN_FAUST_DATADIR"],
)
impressions = app.topic(TOPIC, value_serializer="json")
decisions = app.topic("plain-faust-decisions", value_serializer="json", partitions=PARTITIONS)
exposures: Any = app.Table("exposures", default=list, partitions=PARTITIONS)

progress = {"events": 0, "first": 0.0, "last": 0.0}
done = asyncio.Event()


@app.agent(impressions)
async def cap(stream: Any) -> AsyncIterator[None]:
    """Three an hour."""
    async for event in stream:
        if not progress["events"]:
            progress["first"] = time.perf_counter()
        key = f"{event['user_id']}:{event['campaign_id']}"
        recent = [ts for ts in exposures[key] if ts > event["ts"] - 3600]
        recent.append(event["ts"])
        exposures[key] = recent
        if len(recent) >= 3:
            await decisions.send(key=event["user_id"], value={"until": recent[-3] + 3600})
        progress["events"] += 1
        if progress["events"] == EVENTS:
            progress["last"] = time.perf_counter()
            done.set()
        yield


async def main() -> None:
    """Run until so many events are done."""
    app.finalize()
    await app.start()
    await done.wait()
    sys.stdout.write(f"{EVENTS} {progress['last'] - progress['first']}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
