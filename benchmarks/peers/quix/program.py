"""Both jobs in Quix Streams: a StreamingDataFrame with State, as its documentation writes one.

State is in RocksDB and in changelog topics. It is keyed by the message's key, the user, so the
campaign is the key within it, as for any state of several values per message key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.dataframe.windows import Count, Last  # type: ignore[import-not-found]


def cap(event: dict[str, Any], state: Any) -> dict[str, Any] | None:
    """Three an hour."""
    ts, campaign = event["ts"], event["campaign_id"]
    recent = [earlier for earlier in state.get(campaign, []) if earlier > ts - 3600]
    recent.append(ts)
    state.set(campaign, recent)
    if len(recent) < 3:
        return None
    return {"id": event["user_id"], "event_id": event["event_id"], "until": recent[-3] + 3600}


def counted(window: dict[str, Any], key: bytes, _timestamp: int, _headers: Any) -> dict[str, Any]:
    """A window's update as the record that is produced."""
    return {
        "id": key.decode(),
        "event_id": window["event_id"],
        "window": window["start"] // 1000,
        "count": window["count"],
    }


def event_time(event: dict[str, Any], _headers: Any, _timestamp: float, _kind: Any) -> int:
    """Milliseconds, as Quix Streams has its times."""
    ts: float = event["ts"]
    return round(ts * 1000)


def main() -> None:
    """Run until SIGTERM."""
    app = Application(
        broker_address=os.environ["PEER_BOOTSTRAP"],
        consumer_group=os.environ["PEER_GROUP"],
        auto_offset_reset="earliest",
        commit_interval=1.0,
        state_dir=Path(os.environ["PEER_FOLDER"]) / "state",
        loglevel="WARNING",
        # A static member takes its partitions over at once after a kill.
        consumer_extra_config={"group.instance.id": "peer"},
        producer_extra_config={"acks": "all", "linger.ms": 20},
    )
    impressions = app.topic(os.environ["PEER_INPUT"], timestamp_extractor=event_time)
    output = app.topic(os.environ["PEER_OUTPUT"])
    frame = app.dataframe(impressions)
    if os.environ["PEER_JOB"] == "rolling":
        frame = frame.apply(cap, stateful=True).filter(lambda decision: decision is not None)
    else:
        windows = frame.tumbling_window(duration_ms=60_000)
        frame = windows.agg(count=Count(), event_id=Last("event_id")).current()
        frame = frame.apply(counted, metadata=True)
    frame.to_topic(output)
    app.run()


if __name__ == "__main__":
    main()
