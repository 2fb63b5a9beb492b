"""How soon a killed worker's partitions are served again.

    python -m benchmarks.takeover [--runs 5] [--rate 500]

Two workers with the settings that they have by default share eight partitions under a small steady
load. One is killed; the time runs until the group has committed, in each of its partitions, all
that was sent to it before the kill and something that was sent after it. Then another takes the
dead one's place, and the other one is killed, and so on.

The last line is one JSON object; exit status 1 when one takeover took longer than is promised.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from benchmarks.crowd import POLICY, Crowd
from benchmarks.fleet import Fleet, StuckError, Worker
from benchmarks.producers import Producers
from streams.broker import Cluster
from streams.logs import said
from streams.reader import Reader, committed
from streams.settings import Settings, load_settings
from streams.topics import ensure

__all__ = ["main"]

PARTITIONS = 8
PROMISED_SECONDS = 15.0
PATIENCE = 120.0


async def takeovers(cluster: Cluster, folder: Path, runs: int, rate: float) -> list[float]:
    """Seconds from each kill until all partitions are served."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    environment = {
        "GOVERNOR_BROKER": cluster.bootstrap,
        "GOVERNOR_GROUP": "takeover",
        "GOVERNOR_TOPIC_PREFIX": "takeover.",
        "GOVERNOR_PARTITIONS": str(PARTITIONS),
        "GOVERNOR_POLICY": str(policy),
        "GOVERNOR_METRICS_HOST": "127.0.0.1",
        "GOVERNOR_METRICS_PORT": "0",
    }
    settings = load_settings(environment)
    await ensure(settings)
    fleet = Fleet(folder, environment)
    crowd = Crowd(1, about=2_000, start=time.time() - 3600, step=1 / rate)
    ending = asyncio.Event()
    seconds = []
    try:
        async with Producers(cluster.bootstrap, "takeover.", PARTITIONS, crowd, rate) as producers:
            producing = asyncio.create_task(producers.run(ending))
            old = fleet.start()
            for run in range(runs):
                heir = fleet.start()
                await _until(partial(_halves, old, heir), "two halves")
                await _until(partial(_served, settings, {}), "work of both")
                old.send(signal.SIGKILL)
                killed = time.monotonic()
                due = {part: end + 1 for part, end in (await _ends(settings)).items()}
                await _until(partial(_served, settings, due), "takeover")
                seconds.append(time.monotonic() - killed)
                print(f"takeover {run + 1:2d}  {seconds[-1]:6.1f} s", flush=True)
                old = heir
            ending.set()
            await producing
        await old.end()
    finally:
        fleet.end()
    return seconds


async def _halves(one: Worker, other: Worker) -> bool:
    if one.ended or other.ended:
        raise SystemExit(f"a worker ended by itself:\n{one.log[-5000:]}\n{other.log[-5000:]}")
    half = PARTITIONS // 2
    return all(worker.ready and _last_ready(worker) == half for worker in (one, other))


def _last_ready(worker: Worker) -> int:
    return len(said(worker.log, "ready")[-1]["partitions"])


async def _served(settings: Settings, due: dict[int, int]) -> bool:
    """Whether the group has committed so much of the impressions of each partition."""
    topic = settings.topic("impressions")
    done = await committed(settings, [topic])
    wanted = due or dict.fromkeys(range(PARTITIONS), 1)
    return all(done.get((topic, part), 0) >= offset for part, offset in wanted.items())


async def _ends(settings: Settings) -> dict[int, int]:
    topic = settings.topic("impressions")
    async with Reader(settings, PARTITIONS) as reader:
        return {part: await reader.end(topic, part) for part in range(PARTITIONS)}


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > deadline:
            raise StuckError(f"no {what} after {PATIENCE:.0f} s")
        await asyncio.sleep(0.1)


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.takeover", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        seconds = asyncio.run(takeovers(cluster, Path(folder), options.runs, options.rate))
    figures = {
        "runs": len(seconds),
        "served_again_s": round(statistics.median(seconds), 1),
        "served_again_worst_s": round(max(seconds), 1),
    }
    print(json.dumps(figures))
    sys.exit(1 if max(seconds) > PROMISED_SECONDS else 0)


if __name__ == "__main__":
    main()
