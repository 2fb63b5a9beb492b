"""The watch: every few seconds it looks at Kafka from outside and at the worker from inside.

It asks over its own connection where the topics' ends are, so a consumer that has fallen silent
cannot hide its lag from it; and it holds what it finds against what was so before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from mode import Service

from streams.guards import GuardError, changed
from streams.health import Health, Reading, StallDetector
from streams.metrics import Metrics
from streams.settings import Settings
from streams.topology import Topic, Topology

__all__ = ["Progress", "Watch"]

log = logging.getLogger(__name__)

LONGEST_PERIOD = 5.0
ANSWER_SECONDS = 10.0
"""How long Kafka may take to answer before it counts as away."""
CLOCK_SECONDS = 2.0
"""By how much the wall clock may drift from the steady one between two looks."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the worker is."""

    read: Mapping[TopicPartition, int]
    """The first offset that is not acked, of each partition of topics of events."""
    recovered: int
    """Changelog records read of those that recovery needs."""
    due: int
    """Changelog records still to be read, and events to be flushed."""


class Watch(Service):
    """Keeps `Health`, counts guards, and stops the worker where it must not go on.

    Args:
        settings: those of the worker.
        topics: by name, as they were when the worker began; asked for once a look.
        progress: asks the worker how far it is.
        health: what it keeps.
        metrics: what it counts in.
        crash: stops the worker with an error.
        steady: seconds of a clock that never jumps.
        wall: seconds of the clock that people set.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        topics: Callable[[], Mapping[str, Topic]],
        progress: Callable[[], Progress],
        health: Health,
        metrics: Metrics,
        crash: Callable[[BaseException], Any],
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._topics = topics
        self._progress = progress
        self._health = health
        self._metrics = metrics
        self._crash = crash
        self._steady, self._wall = steady, wall
        self._stall = StallDetector()
        self._ends: Mapping[TopicPartition, int] = {}
        self._leaders: Mapping[str, Mapping[int, int]] = {}
        self._coordinator = -1
        self._away_since = 0.0
        self._clock = wall() - steady()
        self._connections = AsyncExitStack()
        self._topology: Topology | None = None

    async def on_stop(self) -> None:
        """Close the connection."""
        await self._connections.aclose()

    @Service.task
    async def _look_regularly(self) -> None:
        period = min(LONGEST_PERIOD, self._health.patience / 4)
        while not self.should_stop:
            await self.sleep(period)
            try:
                await self.look()
            except GuardError as error:
                await self._crash(error)

    async def look(self) -> None:
        """Look once.

        Raises:
            GuardError: the worker must not go on.
        """
        self._look_at_clock()
        before = self._topics()
        if before:
            await self._look_at_kafka(before)
        self._look_at_worker()

    async def _look_at_kafka(self, before: Mapping[str, Topic]) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                now = await self._ask(before)
        except (KafkaError, OSError, TimeoutError) as error:
            await self._connections.aclose()
            self._topology = None
            self._away(str(error) or type(error).__name__)
            return
        if self._health.unreachable:
            log.info("Kafka answers again after %.0f s", self._steady() - self._away_since)
            self._health.away("")
        changed(self._settings, before, now)

    async def _ask(self, before: Mapping[str, Topic]) -> Mapping[str, Topic]:
        if self._topology is None:
            self._connections = AsyncExitStack()
            self._topology = await self._connections.enter_async_context(Topology(self._settings))
        now = await self._topology.topics(before)
        self._look_at_leaders(now)
        ledger = self._settings.topic("ledger")
        self._ends = await self._topology.ends(name for name in now if name != ledger)
        coordinator = await self._topology.coordinator(self._settings.group)
        if coordinator != self._coordinator and self._coordinator >= 0:
            self._metrics.guard("coordinator_moved")
            log.warning(
                "the group %s is now coordinated by node %d, before by %d: going on",
                self._settings.group,
                coordinator,
                self._coordinator,
            )
        self._coordinator = coordinator
        return now

    def _away(self, reason: str) -> None:
        if not self._health.unreachable:
            self._away_since = self._steady()
            self._metrics.guard("broker_away")
            log.warning(
                "Kafka does not answer at %s (GOVERNOR_BROKER): %s: trying on; nothing is lost, "
                "decisions wait. Is the cluster up, and every partition led?",
                self._settings.broker,
                reason,
            )
        self._health.away(reason)

    def _look_at_leaders(self, now: Mapping[str, Topic]) -> None:
        leaders = {name: topic.leaders for name, topic in now.items()}
        moved = [
            f"{name}[{partition}] from node {led} to {leaders[name][partition]}"
            for name, known in self._leaders.items()
            if name in leaders
            for partition, led in known.items()
            if leaders[name].get(partition, led) not in (led, -1)
        ]
        if moved:
            self._metrics.guard("leader_moved")
            more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
            log.warning("leaders moved: %s%s: going on", moved[0], more)
        if all(leader >= 0 for known in leaders.values() for leader in known.values()):
            self._leaders = leaders

    def _look_at_clock(self) -> None:
        clock = self._wall() - self._steady()
        jump, self._clock = clock - self._clock, clock
        if abs(jump) > CLOCK_SECONDS:
            self._metrics.guard("clock_jumped")
            log.warning(
                "this machine's clock jumped by %+.0f s: decisions do not depend on it, only "
                "decided_at and the latency metrics do. Check its time service (NTP)",
                jump,
            )

    def _look_at_worker(self) -> None:
        health, progress = self._health, self._progress()
        lag = sum(max(0, self._ends.get(tp, 0) - done) for tp, done in progress.read.items())
        before = health.alive
        health.stalled = self._stall.see(
            Reading(
                at=self._steady(),
                due=lag + progress.due,
                done=(tuple(sorted(progress.read.items())), progress.recovered),
                excused=bool(health.unreachable or health.paused),
            )
        )
        if before and not health.alive:
            self._metrics.guard("stalled")
            log.critical(
                "nothing was done for %.0f s (GOVERNOR_STALL_TIMEOUT) although %d records are due: "
                "/healthz fails from now on. Restart this worker; nothing that was not acked is "
                "lost. If another one stalls at the same place, report its log",
                health.stalled,
                lag + progress.due,
            )
        elif health.alive and not before:
            log.info("going on again after a stall")
