"""The demo's worker: a process of its own, watched through its log and its metrics."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from streams import broker
from streams.logs import said

__all__ = ["DemoError", "Figures", "Worker", "figures"]

STOP_SECONDS = 20.0


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Worker:
    """``governor worker`` with these settings, in a folder that goes when it ends.

    It runs below a supervisor, as a broker's node does, and so does not outlive this process.

    Args:
        settings: without the ``GOVERNOR_`` before their names; no others reach it.
        policy: the policy file's text.
    """

    def __init__(self, settings: Mapping[str, str], policy: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="governor-demo-"))
        self.log = self._folder / "worker.log"
        file = self._folder / "policy.yaml"
        file.write_text(policy, encoding="utf-8")
        mine = {f"GOVERNOR_{name}": value for name, value in settings.items()}
        others = {name: at for name, at in os.environ.items() if not name.startswith("GOVERNOR_")}
        self.log.touch()
        self._supervisor = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", broker.__file__),
                *(str(self._folder), str(self.log)),
                *(sys.executable, "-m", "streams.cli", "worker"),
            ],
            env={**others, **mine, "GOVERNOR_POLICY": str(file)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Ctrl-C goes to this process only, which stops the worker in order.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, on which the worker flushes and leaves; SIGKILL when it does not."""
        assert self._supervisor.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._supervisor.stdin as pipe:
            pipe.write(b"stop\n")
        try:
            self._supervisor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._supervisor.pid, 9)
            self._supervisor.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def check(self) -> None:
        """Raise DemoError, with the end of its log, when the worker has ended."""
        if (status := self._supervisor.poll()) is not None:
            end = "\n".join(f"  {line}" for line in self.log.read_text().splitlines()[-20:])
            raise DemoError(f"the worker ended by itself with status {status}:\n{end}")

    @property
    def address(self) -> str | None:
        """Where its metrics are, once it has its topics and is compiled."""
        log = self.log.read_text()
        return said(log, "serving")[-1]["metrics"] if said(log, "compiled") else None


@dataclass(frozen=True)
class Figures:
    """What /metrics says, as far as the demo shows it."""

    events: int = 0
    """Read and dealt with, whatever became of them."""
    applied: int = 0
    pending: int = 0
    """Events and rows not acknowledged yet."""
    published: int = 0
    withdrawn: int = 0
    overflow: int = 0
    half: float | None = None
    """Seconds from event to decision that half of the events are within."""
    most: float | None = None
    """The same for 99 of 100."""


def figures(text: str) -> Figures:
    """Read the Prometheus text of a worker."""
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def total(name: str, **labels: str) -> int:
        return int(
            sum(
                one.value
                for one in samples
                if one.name == f"governor_{name}" and labels.items() <= one.labels.items()
            )
        )

    buckets = [
        (float(one.labels["le"]), one.value)
        for one in samples
        if one.name == "governor_event_to_decision_seconds_bucket"
    ]
    return Figures(
        events=total("events_total"),
        applied=total("events_total", outcome="applied"),
        pending=total("pending_events") + total("changelog_lag_rows"),
        published=total("decision_records_total", kind="published"),
        withdrawn=total("decision_records_total", kind="withdrawn"),
        overflow=total("overflow_total"),
        half=_within(buckets, 0.5),
        most=_within(buckets, 0.99),
    )


def _within(buckets: list[tuple[float, float]], share: float) -> float | None:
    """The edge of the first bucket that holds such a share of all."""
    count = max((count for _, count in buckets), default=0)
    return next((edge for edge, below in buckets if count and below >= share * count), None)
