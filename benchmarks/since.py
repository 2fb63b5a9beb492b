"""What an event costs today against an earlier commit, in the same run.

    python -m benchmarks.since [--commit b1f6012] [--runs 3] [--events 1000000]

The default is the last commit before fencing, recovery, standbys, snapshots and guards: the main
job alone. Its worker runs from an export of that commit, in this environment; then today's does,
with what it does by default. Each run of both reads the same load under four caps, on the same
core, from the same broker, and they take turns in going first.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import os
import re
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.load import Load, preload
from benchmarks.throughput import CAPS, cores, pinned, rate_of
from streams.broker import Cluster
from streams.settings import load_settings
from streams.topics import ensure

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
MAIN_JOB = "b1f6012"
PARTITIONS = 8


def export(commit: str, folder: Path) -> None:
    """The sources of a commit."""
    archive = subprocess.run(
        ["git", "archive", commit, "governor", "streams"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")


def rate(sources: Path, bootstrap: str, name: str, load: Load) -> float:
    """Acknowledged events per second, from a tenth to three quarters of the load, of one worker."""
    with tempfile.TemporaryDirectory() as folder:
        policy, log = Path(folder) / "policy.yaml", Path(folder) / "worker.log"
        policy.write_text(CAPS)
        environment = {
            "GOVERNOR_BROKER": bootstrap,
            "GOVERNOR_GROUP": name,
            "GOVERNOR_TOPIC_PREFIX": f"{name}.",
            "GOVERNOR_PARTITIONS": str(PARTITIONS),
            "GOVERNOR_POLICY": str(policy),
            "GOVERNOR_METRICS_HOST": "127.0.0.1",
            "GOVERNOR_METRICS_PORT": "0",
        }
        asyncio.run(ensure(load_settings(environment)))
        asyncio.run(preload(bootstrap, f"{name}.impressions", load))
        with log.open("wb") as output:
            worker = subprocess.Popen(
                pinned([sys.executable, "-m", "streams.cli", "worker"]),
                cwd=sources,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
            )
        try:
            return rate_of(lambda: _acknowledged(worker, log), load.events)
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()


def _acknowledged(worker: subprocess.Popen[bytes], log: Path) -> int:
    """Events of which all that they led to is acknowledged; 0 before there are metrics."""
    if worker.poll() is not None:
        raise SystemExit(f"the worker ended by itself:\n{log.read_text()[-5000:]}")
    address = re.search(r'http://[^\s"]+/metrics', log.read_text())
    if address is None:
        return 0
    text = urllib.request.urlopen(address[0]).read().decode()
    pattern = r'^governor_events_total\{outcome="applied",topic="impressions"\} (\S+)'
    applied = re.search(pattern, text, re.MULTILINE)
    pending = re.search(r"^governor_pending_events (\S+)", text, re.MULTILINE)
    return int(float(applied[1])) - int(float(pending[1])) if applied and pending else 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.since", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--commit", default=MAIN_JOB)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    os.sched_setaffinity(0, {cores()[1]})
    rates: dict[str, list[float]] = {"then": [], "now": []}
    with Cluster(heap_mb=1024) as cluster, tempfile.TemporaryDirectory() as folder:
        export(options.commit, Path(folder))
        sources = {"then": Path(folder), "now": ROOT}
        load = Load(options.events, options.users, 200, PARTITIONS, int(time.time()))
        for run in range(options.runs):
            order = ("then", "now") if run % 2 == 0 else ("now", "then")
            for which in order:
                found = rate(sources[which], cluster.bootstrap, f"{which}{run}", load)
                rates[which].append(found)
                print(f"run {run + 1}: {which:<5}{found:>10,.0f} events/s", flush=True)
    now, then = (statistics.median(rates[which]) for which in ("now", "then"))
    pairs = zip(rates["now"], rates["then"], strict=True)
    figures = {
        "events_per_s": round(now),
        "main_job_events_per_s": round(then),
        "ratio": round(statistics.median(one / other for one, other in pairs), 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
