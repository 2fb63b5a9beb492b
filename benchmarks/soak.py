"""Does a worker grow that has the same to do all the time?

    make soak                                  # half an hour
    python -m benchmarks.soak --seconds 120    # the short form

A constant load of people who come and go: a person is about for some minutes of event time, and
rows are forgotten soon after. Event time runs twenty times as fast as the clock, so that rows
expire from the first minute on. Memory, asyncio tasks, threads and descriptors are sampled; the
growth is from the first quarter after the warm-up to the last one.

The last line is one JSON object; exit status 1 if anything grew beyond what is said there.
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
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crowd import Crowd
from benchmarks.fleet import Fleet, Worker
from benchmarks.producers import Producers
from streams.broker import Cluster
from streams.settings import load_settings
from streams.topics import ensure

__all__ = ["main"]

POLICY = """
rules:
  - {name: user-often, cap: 12, per: user, window: 10m}
  - {name: campaign-burst, cap: 2, per: campaign, window: 3m}
  - {name: campaign-often, cap: 3, per: campaign, window: 10m}
  - {name: creative-spacing, spacing: 2m, per: creative}
controls: {less_often: 10m}
"""
PARTITIONS = 8
SPEED = 20.0
"""Seconds of event time in one of the clock's."""
ABOUT = 5_000
SAMPLE_SECONDS = 1.0
WARM_UP = 0.5
"""Of the whole time."""

MOST_RSS_GROWTH = 1.05
MOST_GROWTH = 2
"""Tasks, threads, descriptors."""


@dataclass(frozen=True)
class Sample:
    """What a worker has at one moment."""

    rss: float
    tasks: float
    threads: float
    fds: float
    users: float

    @classmethod
    def of(cls, worker: Worker) -> Sample:
        """Ask it, and the system."""
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        threads = next(line for line in status.splitlines() if line.startswith("Threads:"))
        return cls(
            worker.metric("process_resident_memory_bytes"),
            worker.metric("governor_asyncio_tasks"),
            float(threads.split()[1]),
            worker.metric("process_open_fds"),
            worker.metric("governor_users"),
        )


async def soak(cluster: Cluster, folder: Path, seconds: float, rate: float) -> list[Sample]:
    """Load one worker for so long; a sample a second."""
    policy = folder / "policy.yaml"
    policy.write_text(POLICY)
    environment = {
        "GOVERNOR_BROKER": cluster.bootstrap,
        "GOVERNOR_GROUP": "soak",
        "GOVERNOR_TOPIC_PREFIX": "soak.",
        "GOVERNOR_PARTITIONS": str(PARTITIONS),
        "GOVERNOR_POLICY": str(policy),
        "GOVERNOR_HISTORY": "10m",
        "GOVERNOR_METRICS_HOST": "127.0.0.1",
        "GOVERNOR_METRICS_PORT": "0",
    }
    await ensure(load_settings(environment))
    fleet = Fleet(folder, environment)
    start = int(time.time() - seconds * SPEED - 60)  # a broker refuses what lies in the future
    # Nobody opts out: that keeps a row for good.
    crowd = Crowd(1, about=ABOUT, start=start, step=SPEED / rate, words=("less_often",))
    samples = []
    ending = asyncio.Event()
    try:
        worker = fleet.start()
        await worker.until("ready")
        async with Producers(cluster.bootstrap, "soak.", PARTITIONS, crowd, rate) as producers:
            producing = asyncio.create_task(producers.run(ending))
            began = told = time.monotonic()
            while time.monotonic() < began + seconds:
                await asyncio.sleep(SAMPLE_SECONDS)
                if worker.ended:
                    raise SystemExit(f"the worker ended:\n{worker.log[-5000:]}")
                samples.append(await asyncio.to_thread(Sample.of, worker))
                if time.monotonic() > told + 10:
                    told = time.monotonic()
                    print(f"{told - began:6.0f} s  {producers.sent:,} events  {samples[-1]}")
                    sys.stdout.flush()
            ending.set()
            await producing
        await worker.end()
    finally:
        fleet.end()
    return samples


def growth(samples: list[Sample]) -> dict[str, float]:
    """From the first quarter after the warm-up to the last."""
    steady = samples[int(len(samples) * WARM_UP) :]
    quarter = max(1, len(steady) // 4)
    first, last = steady[:quarter], steady[-quarter:]

    def median(some: list[Sample], name: str) -> float:
        values: list[float] = [getattr(one, name) for one in some]
        return statistics.median(values)

    grown = {
        f"{name}_growth": median(last, name) - median(first, name)
        for name in ("tasks", "threads", "fds")
    }
    return {
        "rss_growth_ratio": round(median(last, "rss") / median(first, "rss"), 3),
        **grown,
    }


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        samples = asyncio.run(soak(cluster, Path(folder), options.seconds, options.rate))
    figures = growth(samples)
    print(json.dumps(figures))
    grew = figures["rss_growth_ratio"] > MOST_RSS_GROWTH or any(
        value > MOST_GROWTH for name, value in figures.items() if name != "rss_growth_ratio"
    )
    sys.exit(1 if grew else 0)


if __name__ == "__main__":
    main()
