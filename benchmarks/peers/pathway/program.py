"""Both jobs in Pathway: its Kafka connector, a group with a stateful reducer, persistence.

A stateful reducer sees the events of a group that came in one batch together, so its state
holds, beside the timestamps, the decisions of the last batch; they are what is put out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pathway as pw  # type: ignore[import-not-found]


class Impression(pw.Schema):
    """What is read of one."""

    event_id: str
    user_id: str
    ts: float
    campaign_id: str


@pw.reducers.stateful_many
def cap(
    state: tuple[list[float], list[tuple[str, float]]] | None, rows: list[tuple[list[Any], int]]
) -> tuple[list[float], list[tuple[str, float]]]:
    """Three an hour: the timestamps, and the decisions of this batch."""
    recent = list(state[0]) if state is not None else []
    decisions: list[tuple[str, float]] = []
    for ts, event in sorted(row for row, _ in rows):
        recent = [*(earlier for earlier in recent if earlier > ts - 3600), ts]
        if len(recent) >= 3:
            decisions.append((event, recent[-3] + 3600))
    return recent, decisions


def rolling(impressions: Any) -> Any:
    """The decisions, one a row."""
    pairs = impressions.groupby(impressions.user_id, impressions.campaign_id).reduce(
        user=impressions.user_id, state=cap(impressions.ts, impressions.event_id)
    )
    # A group's old row is retracted when a new one takes its place: only the new is wanted.
    changes = pairs.to_stream().filter(pw.this.is_upsert)
    decisions = pw.declare_type(tuple[tuple[str, float], ...], pw.this.state.get(1))
    each = changes.select(pw.this.user, decision=decisions).flatten(pw.this.decision)
    return each.select(
        key=pw.this.user,
        value='{"id":"'
        + pw.this.user
        + '","event_id":"'
        + pw.declare_type(str, pw.this.decision.get(0))
        + '","until":'
        + pw.declare_type(float, pw.this.decision.get(1)).to_string()
        + "}",
    )


def tumbling(impressions: Any) -> Any:
    """The counts, as they change."""
    windows = impressions.windowby(
        impressions.ts, window=pw.temporal.tumbling(60.0), instance=impressions.user_id
    )
    counts = windows.reduce(
        user=pw.this["_pw_instance"],
        event=pw.reducers.max(pw.this.event_id),
        start=pw.this["_pw_window_start"],
        count=pw.reducers.count(),
    )
    return (
        counts.to_stream()
        .filter(pw.this.is_upsert)
        .select(
            key=pw.this.user,
            value='{"id":"'
            + pw.this.user
            + '","event_id":"'
            + pw.this.event
            + '","window":'
            + pw.this.start.to_string()
            + ',"count":'
            + pw.this.count.to_string()
            + "}",
        )
    )


def main() -> None:
    """Run until SIGTERM."""
    broker = {"bootstrap.servers": os.environ["PEER_BOOTSTRAP"]}
    impressions = pw.io.kafka.read(
        {
            **broker,
            "group.id": os.environ["PEER_GROUP"],
            "auto.offset.reset": "earliest",
            # A static member takes its partitions over at once after a kill.
            "group.instance.id": "peer",
            # Offsets are in the persisted snapshot; from those of the group, which run ahead of
            # it, a restart would go on with what comes next, not with what is left.
            "enable.auto.commit": "false",
        },
        topic=os.environ["PEER_INPUT"],
        schema=Impression,
        format="json",
        autocommit_duration_ms=25,
        max_backlog_size=50000,
        name="impressions",
    )
    job = rolling if os.environ["PEER_JOB"] == "rolling" else tumbling
    pw.io.kafka.write(
        result := job(impressions),
        {**broker, "acks": "all", "linger.ms": "5"},
        os.environ["PEER_OUTPUT"],
        format="plaintext",
        key=result.key,
        value=result.value,
    )
    backend = pw.persistence.Backend.filesystem(Path(os.environ["PEER_FOLDER"]) / "persistence")
    pw.run(
        monitoring_level=pw.MonitoringLevel.NONE,
        persistence_config=pw.persistence.Config(backend, snapshot_interval_ms=1000),
    )


if __name__ == "__main__":
    main()
