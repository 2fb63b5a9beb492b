"""Worker processes that are killed, stopped, woken and started again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from streams.logs import said

__all__ = ["Fleet", "StuckError", "Worker"]

PATIENCE = 150.0
"""Seconds within which a worker must do what is waited for."""


class StuckError(Exception):
    """A worker did not get on; its log is kept."""


class Worker:
    """One process, from start to end."""

    def __init__(self, number: int, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.number = number
        self.log_file = log
        self.process = process

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    @property
    def stopped(self) -> bool:
        """Whether it is held still by SIGSTOP."""
        try:
            text = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] == "T"

    @property
    def ready(self) -> bool:
        """Whether it has had its rows once."""
        return bool(said(self.log, "ready"))

    def metric(self, name: str) -> float:
        """The value of one series without labels, or with them as Prometheus writes it."""
        serving = said(self.log, "serving")
        assert serving, self.log
        text = urllib.request.urlopen(serving[-1]["metrics"], timeout=10).read().decode()
        value = re.search(rf"^{re.escape(name)} (\S+)", text, re.MULTILINE)
        assert value is not None, name
        return float(value[1])

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if not self.ended:
            self.process.send_signal(number)

    async def until(self, condition: str, seconds: float = PATIENCE) -> None:
        """Wait until ``ended``, ``stopped`` or ``ready`` holds, or it has ended.

        Raises:
            StuckError: not in time.
        """
        deadline = time.monotonic() + seconds
        while not (getattr(self, condition) or self.ended):
            if time.monotonic() > deadline:
                raise StuckError(f"worker {self.number} is not {condition} after {seconds:.0f} s")
            await asyncio.sleep(0.1)

    async def end(self, number: int = signal.SIGTERM, seconds: float = 40.0) -> int:
        """Have it end; the exit status."""
        self.send(number)
        await self.until("ended", seconds)
        return self.process.wait()


class Fleet:
    """The workers of one deployment.

    Args:
        folder: for their logs.
        environment: GOVERNOR_* settings of all.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self.workers: list[Worker] = []

    def start(self, **settings: str) -> Worker:
        """A worker with these settings besides."""
        number = len(self.workers) + 1
        log = self._folder / f"worker-{number}.log"
        more = {f"GOVERNOR_{name.upper()}": value for name, value in settings.items()}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "worker"],
                env={**os.environ, **self._environment, **more},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.workers.append(Worker(number, log, process))
        return self.workers[-1]

    def end(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            if not worker.ended:
                worker.send(signal.SIGKILL)
                worker.process.wait()
