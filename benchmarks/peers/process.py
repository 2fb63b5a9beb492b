"""A peer's process on the measured core, watched from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.throughput import pinned

__all__ = ["Process", "Sample"]

EVERY = 0.1
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Sample:
    """The process and its children at a moment (seconds since the epoch)."""

    at: float
    cpu_seconds: float
    rss: int


class Process:
    """Runs between `start` and `stop` or `kill`; all its children go with it."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environment = {**os.environ, **environment}
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._ended = threading.Event()
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, again after `kill`."""
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                pinned(self._command),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._ended.clear()
        self._watcher = threading.Thread(target=self._watch, args=(self._child.pid,))
        self._watcher.start()

    def failure(self) -> str | None:
        """The end of its log if it ended by itself."""
        if self._child is None or self._child.poll() is None:
            return None
        lines = [
            line
            for line in self._log.read_text(errors="replace").splitlines()
            if line.strip() and not line.startswith("\tat ")
        ]
        return f"it ended with status {self._child.returncode}: " + " / ".join(lines[-4:])[-600:]

    def kill(self) -> None:
        """SIGKILL, as a machine that is lost."""
        self._signal(signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when it does not listen."""
        if self._child is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_SECONDS)
        self.kill()

    def _signal(self, number: int) -> None:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, number)

    def _end(self) -> None:
        assert self._child is not None
        assert self._watcher is not None
        self._child.wait()
        self._ended.set()
        self._watcher.join()
        self._child = None

    def _watch(self, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            while not self._ended.wait(EVERY):
                self.samples.append(_sample(root))


def _sample(root: psutil.Process) -> Sample:
    times = root.cpu_times()
    # Children that ended count with their parent.
    cpu = times.user + times.system + times.children_user + times.children_system
    rss = root.memory_info().rss
    for child in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            cpu += times.user + times.system
            rss += child.memory_info().rss
    return Sample(time.time(), cpu, rss)
