"""Where the time of an event goes: CPU of each stage of a worker under full load.

The worker of `benchmarks.profiled_worker` reads the load of `benchmarks.throughput`. The stages
are what its clocks saw; "rest" is what the whole process used beyond them, so that they add up to
all of it.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.history import Record
from benchmarks.impressions import Traffic
from benchmarks.load import preload
from benchmarks.running import Worker
from benchmarks.throughput import CAPS, SPACING
from streams.broker import Cluster

__all__ = ["POLICIES", "STAGES", "measure"]

STAGES = {
    "fetch": "the consumer's thread: sockets, Kafka's protocol, handing over",
    "decode": "record batches and JSON into columns",
    "apply": "finding the user's row (index) and entering the event",
    "decide": "rules over changed rows, decisions as JSON",
    "changelog": "changed rows as bytes, and framed",
    "produce": "framing decisions; aiokafka's producer, for both topics",
    "rest": "Faust, the event loop, the outbox, metrics, garbage collection",
}
POLICIES = {"four caps": CAPS, "four caps and spacing": SPACING}
PARTITIONS = 8


def measure(record: Record, *, quick: bool) -> None:
    """Microseconds an event by stage."""
    events = 150_000 if quick else 800_000
    with Cluster(heap_mb=1024) as cluster:
        for number, (name, policy) in enumerate(POLICIES.items()):
            load = Traffic(events, 200_000, 200, PARTITIONS, int(time.time()))
            first, last = _profile(cluster.bootstrap, f"stages{number}", policy, load)
            count = last["events"] - first["events"]
            whole = (last["cpu"] - first["cpu"]) / count
            parts = {
                stage: (last["stages"].get(stage, 0) - first["stages"].get(stage, 0)) / count
                for stage in STAGES
                if stage != "rest"
            }
            parts["rest"] = whole - sum(parts.values())
            for stage in STAGES:
                record.add(f"stages/{name}/{stage}", "us/event", 1e6 * parts[stage])
            record.add(f"stages/{name}/all", "us/event", 1e6 * whole)
            busy = (last["cpu"] - first["cpu"]) / (last["at"] - first["at"])
            record.facts.setdefault("stages", {})[name] = {"core_used": round(busy, 2)}


def _profile(
    bootstrap: str, name: str, policy: str, load: Traffic
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the clocks said after a tenth of the events, and after three quarters."""
    with Worker(bootstrap, name, policy, PARTITIONS, module="benchmarks.profiled_worker") as worker:
        clocks = worker.folder / "stages"
        worker.environment["BENCH_STAGES"] = str(clocks)
        asyncio.run(preload(bootstrap, f"{name}.impressions", load))
        worker.start(wait=False)
        worker.until_acknowledged(load.events)
        lines = _read(clocks)
    first = next(line for line in lines if line["events"] >= load.events // 10)
    # The end of a load waits for the clock: see `throughput.rate_of`.
    last = next(line for line in lines if line["events"] >= load.events * 3 // 4)
    return first, last


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if "\n" in line]
