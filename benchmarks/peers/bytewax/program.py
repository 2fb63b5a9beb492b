"""Both jobs in Bytewax: a dataflow with its Kafka connector, stateful operators and recovery.

One worker. The operator that gets batches is the fastest: Bytewax's others, and its windows, are
made of it. Offsets and state are in the recovery partition, a SQLite file, at every epoch's end.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]
import orjson  # type: ignore[import-not-found,unused-ignore]
from bytewax.connectors.kafka import (  # type: ignore[import-not-found]
    KafkaSink,
    KafkaSinkMessage,
    KafkaSource,
)
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.recovery import RecoveryConfig, init_db_dir  # type: ignore[import-not-found]
from bytewax.run import cli_main  # type: ignore[import-not-found]


def by_pair(messages: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """A batch of records, decoded, under user and campaign."""
    events = [orjson.loads(message.value) for message in messages]
    return [(f"{event['user_id']}:{event['campaign_id']}", event) for event in events]


def by_user(messages: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """A batch of records, decoded, under their user."""
    events = [orjson.loads(message.value) for message in messages]
    return [(event["user_id"], event) for event in events]


class Cap(op.StatefulBatchLogic):
    """Three an hour, of a pair."""

    def __init__(self, recent: tuple[float, ...] | None) -> None:
        self.recent = recent or ()

    def on_batch(self, values: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
        """The decisions of these events; the state is retained."""
        decisions = []
        for event in values:
            ts = event["ts"]
            self.recent = (*(earlier for earlier in self.recent if earlier > ts - 3600), ts)
            if len(self.recent) >= 3:
                until = self.recent[-3] + 3600
                decision = {"id": event["user_id"], "event_id": event["event_id"], "until": until}
                decisions.append(decision)
        return decisions, self.RETAIN

    def snapshot(self) -> tuple[float, ...]:
        """What `__init__` gets on resuming."""
        return self.recent


class Count(op.StatefulBatchLogic):
    """Of a user in the newest minute: their events come in order."""

    def __init__(self, counted: tuple[int, int] | None) -> None:
        self.window, self.count = counted or (0, 0)

    def on_batch(self, values: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
        """The count after each of these events; the state is retained."""
        counts = []
        for event in values:
            window = int(event["ts"]) // 60 * 60
            if window != self.window:
                self.window, self.count = window, 0
            self.count += 1
            count = {"id": event["user_id"], "event_id": event["event_id"]}
            counts.append({**count, "window": window, "count": self.count})
        return counts, self.RETAIN

    def snapshot(self) -> tuple[int, int]:
        """What `__init__` gets on resuming."""
        return self.window, self.count


def record(decision: dict[str, Any]) -> KafkaSinkMessage:
    """As it goes to Kafka."""
    return KafkaSinkMessage(key=decision["id"].encode(), value=orjson.dumps(decision))


def dataflow() -> Dataflow:
    """The job that the environment names."""
    brokers = [os.environ["PEER_BOOTSTRAP"]]
    flow = Dataflow("peer")
    source = KafkaSource(brokers, [os.environ["PEER_INPUT"]], batch_size=2500)
    messages = op.input("impressions", flow, source)
    if os.environ["PEER_JOB"] == "rolling":
        keyed = op.flat_map_batch("decode", messages, by_pair)
        decisions = op.key_rm("decisions", op.stateful_batch("cap", keyed, Cap))
    else:
        keyed = op.flat_map_batch("decode", messages, by_user)
        decisions = op.key_rm("counts", op.stateful_batch("count", keyed, Count))
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
