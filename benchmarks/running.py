"""A worker process on the measured core, read through its log and its /metrics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.throughput import pinned
from streams.logs import said
from streams.settings import load_settings
from streams.topics import ensure

__all__ = ["WAIT_SECONDS", "Worker", "fresh"]

WAIT_SECONDS = 300.0


class Worker:
    """A deployment of one worker: its topics, and the worker between `start` and `stop`.

    Args:
        bootstrap: the broker.
        name: prefix of the topics and group, for this deployment only.
        policy: YAML.
        partitions: of the topics, which are created here.
        module: what runs; `streams.cli` or something that ends up there.
    """

    def __init__(
        self,
        bootstrap: str,
        name: str,
        policy: str,
        partitions: int,
        module: str = "streams.cli",
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "policy.yaml"
        file.write_text(policy)
        self._log = Path(self._folder.name) / "worker.log"
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._metrics_url = ""
        self.environment = {
            "GOVERNOR_BROKER": bootstrap,
            "GOVERNOR_GROUP": name,
            "GOVERNOR_TOPIC_PREFIX": f"{name}.",
            "GOVERNOR_PARTITIONS": str(partitions),
            "GOVERNOR_POLICY": str(file),
            "GOVERNOR_METRICS_HOST": "127.0.0.1",
            "GOVERNOR_METRICS_PORT": "0",
            "GOVERNOR_LOG_LEVEL": "info",
        }
        asyncio.run(ensure(load_settings(self.environment)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Goes when the deployment does."""
        return Path(self._folder.name)

    def start(self, *, wait: bool = True) -> float:
        """Start the worker; return how many seconds it took until its rows were there.

        Without ``wait`` it returns before the worker has joined the group.
        """
        began = time.perf_counter()
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                pinned([sys.executable, "-m", self._module, "worker"]),
                env={**os.environ, **self.environment},
                stderr=output,
            )
        awaited = "ready" if wait else "compiled"
        self.until(lambda: bool(said(self._log.read_text(), awaited)), "the worker is not there")
        seconds = time.perf_counter() - began
        self._metrics_url = said(self._log.read_text(), "serving")[-1]["metrics"]
        return seconds

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
            self._process = None

    def kill(self, number: int) -> None:
        """A signal that ends it, and wait until it has."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()
        self._process = None

    @property
    def pid(self) -> int:
        """Of the running worker."""
        assert self._process is not None
        return self._process.pid

    def metric(self, name: str) -> float:
        """The value of one series of /metrics."""
        text = urllib.request.urlopen(self._metrics_url).read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def quantile(self, histogram: str, share: float) -> float:
        """The edge of the first bucket below which such a share of all is."""
        text = urllib.request.urlopen(self._metrics_url).read().decode()
        found = re.findall(rf'^{histogram}_bucket{{le="([^"]+)"}} (\S+)', text, re.MULTILINE)
        buckets = [(float(edge), float(below)) for edge, below in found]
        return next(edge for edge, below in buckets if below >= share * buckets[-1][1])

    def acknowledged(self) -> int:
        """Impressions of which all that they led to is acknowledged."""
        self._must_run()
        pending = self.metric("governor_pending_events")
        applied = self.metric('governor_events_total{outcome="applied",topic="impressions"}')
        return int(applied - pending)

    def until_acknowledged(self, count: int) -> None:
        """Wait until so many are."""
        # Each look costs the worker a scrape.
        self.until(lambda: self.acknowledged() >= count, f"{count} events are not done", 0.25)

    def _must_run(self) -> None:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise SystemExit(f"the worker ended with status {status}:\n{self._log.read_text()}")

    def until(self, condition: Callable[[], bool], otherwise: str, pause: float = 0.05) -> None:
        """Wait until something holds; end the program when the worker has ended, or in vain."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            self._must_run()
            if condition():
                return
            time.sleep(pause)
        raise SystemExit(f"{otherwise} after {WAIT_SECONDS:.0f} s:\n{self._log.read_text()}")


def fresh(module: str, *arguments: object) -> Any:
    """Run a module in a process of its own on the measured core; the JSON that it prints."""
    command = pinned([sys.executable, "-m", module, *map(str, arguments)])
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if finished.returncode != 0:
        raise SystemExit(f"{module} ended with status {finished.returncode}")
    return json.loads(finished.stdout)
