"""Whether a worker is alive and whether it is ready, and why not.

Alive: its loop turns, and where there is something to do, something is done. A consumer can fall
silent without an error, and recovery can wait for ever for a record that does not come; a process
that only answers would look well all the while. Ready: Kafka answers, the group has given out its
partitions, and the rows of this worker's are there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

__all__ = ["Health", "Phase", "Reading", "StallDetector"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker looks like at one moment."""

    at: float
    """Seconds of a clock that never jumps."""
    due: int
    """Records to be read, rows to be recovered, events to be flushed; 0 for nothing to do."""
    done: Hashable
    """Differs from the last reading's when anything was done in between."""
    excused: bool = False
    """Whether it is right to stand still: Kafka is away, or an operator's limit holds it."""


class StallDetector:
    """Measures for how long nothing has been done although something was due."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._done: Hashable = None

    def see(self, reading: Reading) -> float:
        """For how many seconds the worker has stood still."""
        idle = reading.due == 0 or reading.excused or reading.done != self._done
        self._done = reading.done
        if idle or self._since is None:
            self._since = reading.at
        return reading.at - self._since


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a worker is on its way to its partitions."""

    name: str
    """starting, joining, recovering or running."""
    partitions: int = 0
    remaining: int = 0
    """Changelog records still to be read."""

    @property
    def why(self) -> str:
        """Why it is not ready; empty when it is."""
        if self.name == "recovering":
            return f"{self.remaining} changelog records to read"
        return {
            "starting": "starting: it looks at its topics and compiles",
            "joining": "the group gives out partitions",
        }.get(self.name, "")


@dataclass
class Health:
    """What `/healthz` and `/readyz` say.

    Args:
        phase: asks where the worker is.
        patience: seconds without progress after which it is not alive any more.
    """

    phase: Callable[[], Phase]
    patience: float
    stalled: float = 0.0
    """Seconds for which it has stood still; the watch keeps it."""
    unreachable: str = ""
    """Why Kafka does not answer; empty when it does."""
    paused: dict[str, str] = field(default_factory=dict)
    """Topics that are not read for the time being, and why."""
    stopped: str = ""
    """Why it has stopped by itself; empty while it has not."""

    def away(self, reason: str) -> None:
        """Kafka does not answer, for this reason; with an empty one it does."""
        self.unreachable = reason

    @property
    def alive(self) -> bool:
        """Whether it makes progress, or has nothing to make progress with."""
        return not self.stopped and self.stalled <= self.patience

    @property
    def ready(self) -> bool:
        """Whether it has its partitions and their rows."""
        return not self._why_not()

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Whether it is alive, and the answer's body."""
        if self.alive:
            return True, {"status": "ok", **self._detail()}
        if self.stopped:
            return False, {"status": "stopped", "why": self.stopped}
        why = f"nothing done for {self.stalled:.0f} s with work at hand: restart this worker"
        return False, {"status": "stalled", "why": why, **self._detail()}

    def readiness(self) -> tuple[bool, Mapping[str, object]]:
        """Whether it is ready, and the answer's body."""
        why = self._why_not()
        body: dict[str, object] = {"status": "not ready", "why": why} if why else {}
        partitions = self.phase().partitions
        return not why, {"status": "ready", "partitions": partitions, **body, **self._detail()}

    def _why_not(self) -> str:
        if self.stopped:
            return f"stopped: {self.stopped}"
        return (
            f"Kafka does not answer: {self.unreachable}" if self.unreachable else self.phase().why
        )

    def _detail(self) -> Mapping[str, object]:
        return {"paused": dict(self.paused)} if self.paused else {}
