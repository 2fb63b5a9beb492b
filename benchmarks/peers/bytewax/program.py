"""Both jobs in Bytewax: a dataflow with its Kafka connector, stateful operators and recovery.

One worker. Offsets and state are in the recovery partition, a SQLite file, at every epoch's end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import bytewax.operators.windowing as win  # type: ignore[import-not-found]
import orjson  # type: ignore[import-not-found,unused-ignore]
from bytewax.connectors.kafka import (  # type: ignore[import-not-found]
    KafkaSink,
    KafkaSinkMessage,
    KafkaSource,
)
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.recovery import RecoveryConfig, init_db_dir  # type: ignore[import-not-found]
from bytewax.run import cli_main  # type: ignore[import-not-found]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def by_pair(messages: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """A batch of records, decoded, under user and campaign."""
    events = [orjson.loads(message.value) for message in messages]
    return [(f"{event['user_id']}:{event['campaign_id']}", event) for event in events]


def by_user(messages: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """A batch of records, decoded, under their user."""
    events = [orjson.loads(message.value) for message in messages]
    return [(event["user_id"], event) for event in events]


def cap(
    recent: tuple[float, ...] | None, event: dict[str, Any]
) -> tuple[tuple[float, ...], list[dict[str, Any]]]:
    """Three an hour."""
    ts = event["ts"]
    recent = (*(earlier for earlier in recent or () if earlier > ts - 3600), ts)
    if len(recent) < 3:
        return recent, []
    until = recent[-3] + 3600
    return recent, [{"id": event["user_id"], "event_id": event["event_id"], "until": until}]


class CountUpdates(win.WindowLogic):
    """A window that tells its count at every event: those that Bytewax has tell it at close."""

    def __init__(self, count: int | None) -> None:
        self.count = count or 0

    def on_value(self, value: dict[str, Any]) -> list[tuple[str, int]]:
        """One more."""
        self.count += 1
        return [(value["event_id"], self.count)]

    def on_merge(self, original: CountUpdates) -> list[tuple[str, int]]:
        """Tumbling windows do not merge."""
        self.count += original.count
        return []

    def on_close(self) -> Iterable[tuple[str, int]]:
        """All is told."""
        return ()

    def snapshot(self) -> int:
        """What `__init__` gets on resuming."""
        return self.count


def counted(update: tuple[str, tuple[int, tuple[str, int]]]) -> dict[str, Any]:
    """A window's update as the record that is produced; window 0 starts at the epoch."""
    user, (window, (event, count)) = update
    return {"id": user, "event_id": event, "window": window * 60, "count": count}


def record(decision: dict[str, Any]) -> KafkaSinkMessage:
    """As it goes to Kafka."""
    return KafkaSinkMessage(key=decision["id"].encode(), value=orjson.dumps(decision))


def dataflow() -> Dataflow:
    """The job that the environment names."""
    brokers = [os.environ["PEER_BOOTSTRAP"]]
    flow = Dataflow("peer")
    source = KafkaSource(brokers, [os.environ["PEER_INPUT"]], batch_size=1000)
    messages = op.input("impressions", flow, source)
    if os.environ["PEER_JOB"] == "rolling":
        keyed = op.flat_map_batch("decode", messages, by_pair)
        decisions = op.key_rm("decisions", op.stateful_flat_map("cap", keyed, cap))
    else:
        keyed = op.flat_map_batch("decode", messages, by_user)
        clock = win.EventClock(
            ts_getter=lambda event: datetime.fromtimestamp(event["ts"], UTC),
            wait_for_system_duration=timedelta(seconds=10),
            # Past events: a window closes at the user's next one, not by the system's clock,
            # which would have it woken at once and again.
            to_system_utc=lambda _: None,
        )
        windower = win.TumblingWindower(length=MINUTE, align_to=EPOCH)
        windows = win.window("count", keyed, clock, windower, CountUpdates, ordered=False)
        decisions = op.map("counted", windows.down, counted)
    records = op.map("encode", decisions, record)
    settings = {"acks": "all", "linger.ms": "1"}
    op.output("output", records, KafkaSink(brokers, os.environ["PEER_OUTPUT"], settings))
    return flow


def main() -> None:
    """Run until SIGTERM."""
    folder = Path(os.environ["PEER_FOLDER"]) / "recovery"
    if not folder.exists():
        folder.mkdir()
        init_db_dir(folder, 1)
    cli_main(
        dataflow(),
        epoch_interval=timedelta(seconds=1),
        recovery_config=RecoveryConfig(folder, backup_interval=timedelta(0)),
    )


if __name__ == "__main__":
    main()
