"""Both jobs in plain Faust: an agent with a table, as its documentation writes one.

State is in memory and in the table's changelog topic. Run as ``program.py worker``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import faust

PARTITIONS = int(os.environ["PEER_PARTITIONS"])

app = faust.App(
    os.environ["PEER_GROUP"],
    broker=f"kafka://{os.environ['PEER_BOOTSTRAP']}",
    store="memory://",
    datadir=Path(os.environ["PEER_FOLDER"]) / "faust",
    topic_partitions=PARTITIONS,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    # A static member takes its partitions over at once after a kill.
    consumer_group_instance_id="peer",
    broker_commit_interval=1.0,
    broker_max_poll_records=1000,
    producer_acks=-1,
    producer_linger=0.02,
    producer_max_batch_size=128 * 1024,
    web_enabled=False,
)


class Impression(faust.Record):
    """What a window needs of one: it takes its time from a field of a record."""

    event_id: str
    user_id: str
    ts: float


output = app.topic(os.environ["PEER_OUTPUT"], value_serializer="json", partitions=PARTITIONS)

if os.environ["PEER_JOB"] == "rolling":
    impressions = app.topic(os.environ["PEER_INPUT"], value_serializer="json")
    exposures: Any = app.Table("exposures", default=list, partitions=PARTITIONS)

    @app.agent(impressions)
    async def cap(stream: Any) -> AsyncIterator[None]:
        """Three an hour."""
        async for event in stream:
            user, ts = event["user_id"], event["ts"]
            key = f"{user}:{event['campaign_id']}"
            recent = [earlier for earlier in exposures[key] if earlier > ts - 3600]
            recent.append(ts)
            exposures[key] = recent
            if len(recent) >= 3:
                until = recent[-3] + 3600
                decision = {"id": user, "event_id": event["event_id"], "until": until}
                await output.send(key=user, value=decision)
            yield

else:
    impressions = app.topic(
        os.environ["PEER_INPUT"], value_type=Impression, value_serializer="json"
    )
    counts: Any = (
        app.Table("counts", default=int, partitions=PARTITIONS)
        .tumbling(60.0, expires=3600.0)
        .relative_to_field(Impression.ts)
    )

    @app.agent(impressions)
    async def count(stream: Any) -> AsyncIterator[None]:
        """Per user and minute."""
        async for event in stream:
            counts[event.user_id] += 1
            counted = {
                "id": event.user_id,
                "event_id": event.event_id,
                "window": int(event.ts // 60 * 60),
                "count": counts[event.user_id].value(),
            }
            await output.send(key=event.user_id, value=counted)
            yield


if __name__ == "__main__":
    # Its services have a line at level debug for each record, which is made before it is dropped.
    logging.disable(logging.INFO)
    app.main()
