"""Impressions per second through a real broker, one worker process on one core.

    make bench-throughput

Two million impressions of 500,000 users and 200 campaigns lie in a topic of eight partitions. A
worker pinned to one core (all its threads) reads them under four caps, with changelog and
decisions on and acknowledged; then again with a one-minute spacing besides, so that nearly every
event decides something. The broker and this program have the other core. In the same run, pinned
likewise: a plain Faust agent with a table, and as the ceiling an aiokafka consumer that does
nothing with what it reads.

The rate is that of acknowledged events between a tenth and three quarters of the load; each figure
is the median of the runs. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from aiokafka import AIOKafkaConsumer

from benchmarks.load import Load, preload
from streams.broker import Cluster
from streams.logs import said
from streams.settings import load_settings
from streams.topics import ensure

__all__ = ["main"]

CAPS = """
rules:
  - {name: user-daily, cap: 20, per: user, window: 1d}
  - {name: campaign-hourly, cap: 3, per: campaign, window: 1h}
  - {name: campaign-daily, cap: 5, per: campaign, window: 1d}
  - {name: campaign-weekly, cap: 10, per: campaign, window: 7d}
"""
SPACING = CAPS + "  - {name: breathing-space, spacing: 1m, per: campaign}\n"
PLAIN_FAUST_EVENTS = 30_000


@functools.cache
def cores() -> tuple[int, int]:
    """The core of what is measured, and that of everything else, where this process may keep to
    the latter from its first call on."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


def pinned(command: list[str]) -> list[str]:
    """The command on the measured core."""
    pin = (
        "import os, sys; "
        f"os.sched_setaffinity(0, {{{cores()[0]}}}); os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", pin, *command]


def measure_worker(bootstrap: str, load: Load, policy: str, number: int) -> float:
    """Acknowledged events per second of one worker that starts from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.yaml"
        file.write_text(policy)
        environment = {
            "GOVERNOR_BROKER": bootstrap,
            "GOVERNOR_GROUP": f"bench-{number}",
            "GOVERNOR_TOPIC_PREFIX": f"bench{number}.",
            "GOVERNOR_PARTITIONS": str(load.partitions),
            "GOVERNOR_POLICY": str(file),
            "GOVERNOR_METRICS_HOST": "127.0.0.1",
            "GOVERNOR_METRICS_PORT": "0",
            "GOVERNOR_LOG_LEVEL": "info",
        }
        asyncio.run(ensure(load_settings(environment)))
        asyncio.run(preload(bootstrap, f"bench{number}.impressions", load))
        log = Path(folder) / "worker.log"
        with log.open("wb") as output:
            worker = subprocess.Popen(
                pinned([sys.executable, "-m", "streams.cli", "worker"]),
                env={**os.environ, **environment},
                stderr=output,
            )
        try:
            return rate_of(lambda: _acknowledged(worker, log), load.events)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()


def _acknowledged(worker: subprocess.Popen[bytes], log: Path) -> int:
    if worker.poll() is not None:
        raise SystemExit(f"the worker ended with status {worker.returncode}:\n{log.read_text()}")
    if not (serving := said(log.read_text(), "serving")):
        return 0
    text = urllib.request.urlopen(serving[-1]["metrics"]).read().decode()
    pattern = r'^governor_events_total\{outcome="applied",topic="impressions"\} (\S+)'
    applied = re.search(pattern, text, re.MULTILINE)
    pending = re.search(r"^governor_pending_events (\S+)", text, re.MULTILINE)
    assert applied is not None
    assert pending is not None
    return int(float(applied[1])) - int(float(pending[1]))


def rate_of(done: Callable[[], int], events: int) -> float:
    """Events per second from a tenth of them to three quarters, when all are done; ``done`` says
    how many are.

    Rows follow once a second when nothing more comes: the end of a load waits for the clock.
    """
    deadline = time.monotonic() + 600
    began: tuple[float, int] | None = None
    ended: tuple[float, int] | None = None
    while time.monotonic() < deadline:
        count, now = done(), time.perf_counter()
        if began is None and count >= events // 10:
            began = now, count
        elif began and ended is None and count >= events * 3 // 4 and count > began[1]:
            ended = now, count
        if count >= events:
            if began is None or ended is None:
                raise SystemExit(f"{events} events are too few: done between two looks")
            return (ended[1] - began[1]) / (ended[0] - began[0])
        time.sleep(0.25)  # each look costs the worker a scrape
    raise SystemExit(f"{done()} of {events} events after ten minutes")


def measure_plain_faust(bootstrap: str, topic: str, partitions: int) -> float:
    """Events per second of a plain Faust agent with a table."""
    with tempfile.TemporaryDirectory() as folder:
        finished = subprocess.run(
            pinned(
                [sys.executable, "-m", "benchmarks.plain_faust", bootstrap, topic]
                + [str(PLAIN_FAUST_EVENTS), str(partitions)]
            ),
            env={**os.environ, "PLAIN_FAUST_DATADIR": folder},
            capture_output=True,
            check=False,
        )
    if finished.returncode != 0:
        raise SystemExit(finished.stderr.decode())
    events, seconds = finished.stdout.split()
    return int(events) / float(seconds)


def measure_ceiling(bootstrap: str, topic: str, events: int) -> float:
    """Records per second of an aiokafka consumer that drops what it reads."""
    program = (
        "import asyncio; from benchmarks.throughput import ceiling; "
        f"asyncio.run(ceiling({bootstrap!r}, {topic!r}, {events}))"
    )
    finished = subprocess.run(
        pinned([sys.executable, "-c", program]), stdout=subprocess.PIPE, check=True
    )
    return float(finished.stdout)


async def ceiling(bootstrap: str, topic: str, events: int) -> None:
    """Read that many records and print the rate."""
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    count, started = 0, 0.0
    while count < events:
        fetched = await consumer.getmany(timeout_ms=1000)
        if not started:
            started = time.perf_counter()
            count -= sum(map(len, fetched.values()))
            events -= sum(map(len, fetched.values()))
        count += sum(map(len, fetched.values()))
    sys.stdout.write(f"{count / (time.perf_counter() - started)}\n")
    await consumer.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {cores()[1]})
    caps, spacing, plain, top = [], [], [], []
    with Cluster(heap_mb=1024, progress=print) as cluster:
        bootstrap = cluster.bootstrap
        for run in range(options.runs):
            load = Load(
                options.events,
                options.users,
                options.campaigns,
                options.partitions,
                int(time.time()),
            )
            caps.append(measure_worker(bootstrap, load, CAPS, 2 * run))
            topic = f"bench{2 * run}.impressions"
            print(f"run {run + 1}: four caps          {caps[-1]:>10,.0f} events/s", flush=True)
            spacing.append(measure_worker(bootstrap, load, SPACING, 2 * run + 1))
            print(f"run {run + 1}: and spacing        {spacing[-1]:>10,.0f} events/s", flush=True)
            top.append(measure_ceiling(bootstrap, topic, options.events))
            print(f"run {run + 1}: consumer ceiling   {top[-1]:>10,.0f} events/s", flush=True)
            if run == 0:
                plain.append(measure_plain_faust(bootstrap, topic, options.partitions))
                print(f"run {run + 1}: plain Faust agent  {plain[-1]:>10,.0f} events/s", flush=True)
    figures = {
        "events_per_s": round(statistics.median(caps)),
        "with_spacing_events_per_s": round(statistics.median(spacing)),
        "plain_faust_events_per_s": round(statistics.median(plain)),
        "ratio": round(statistics.median(caps) / statistics.median(plain), 1),
        "consumer_ceiling_events_per_s": round(statistics.median(top)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
