"""The worker's side of the policy topic: it follows what governs, without standing still.

A new version is applied between two flushes. Decisions of rows that events touch are by it from
then on; all other rows are evaluated again in the background, a slice at a time, so that the
stream goes on. A version that cannot be used here is refused with all its mistakes in the log, and
the one before it goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from mode import Service

from governor.ledger import Ledger
from governor.policy import Policy, PolicyError
from streams import policy_topic
from streams.patience import connected
from streams.policy_topic import Held, Pushed
from streams.settings import Settings

__all__ = ["LivePolicy"]

log = logging.getLogger(__name__)

SHARE = 0.25
"""Of the work, and of the time, that goes into evaluating rows again."""

LEAST_ROWS, MOST_ROWS = 1_000, 10_000
"""Evaluated again with one flush: a busy worker's flushes take more rows, and more of these."""

PAUSE = 1.0


class LivePolicy(Service):
    """Follows the topic.

    Args:
        settings: where the topic is, and what a policy may ask of this worker.
        policy: the file's, which seeds the topic.
        apply: lets a policy govern this worker from now on.
        ledgers: the live partitions'.
        flushed: waits until what changed in partitions is published, and says how many rows
            went with that flush.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        apply: Callable[[Policy], Awaitable[None]],
        ledgers: Callable[[], dict[int, Ledger]],
        flushed: Callable[[Iterable[int]], Awaitable[int]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self.policy = policy
        self._apply = apply
        self._ledgers = ledgers
        self._flushed = flushed
        self._held = Held()
        self._next = 0
        self._left: dict[int, int] = {}
        self._done: dict[int, Ledger] = {}
        self._asked = 0
        self.refused = 0
        """Versions that could not be used."""

    @property
    def rows_left(self) -> int:
        """Rows still to be evaluated under the newest policy."""
        return sum(self._left.values())

    @property
    def released(self) -> bool:
        """Whether the kill switch is pulled."""
        return self._held.released

    def again(self) -> None:
        """Evaluate all rows once more: something else that they are evaluated by has changed."""
        self._done.clear()
        self._asked += 1

    async def begin(self) -> None:
        """Read the topic before anything is governed; seed it when it is empty.

        Where what governs cannot be used here, what governed before it does, as before a restart.
        """
        self._held, self._next = await policy_topic.fetch(self._settings)
        self._refuse_unread()
        newest_first = self._held.newest_first()
        if not newest_first:
            log.info("policy", extra={"version": self.policy.version, "seeds": True})
            await policy_topic.write(self._settings, policy_topic.written(self.policy, self._held))
            return
        if not newest_first[0].says(self.policy):
            log.warning(
                "version %s of the policy topic governs, not version %s of the file: to let the "
                "file's govern, `governor policy push` it%s",
                newest_first[0].version,
                self.policy.version,
                ", with a version of its own"
                if newest_first[0].version == self.policy.version
                else "",
            )
        for pushed in newest_first:
            if await self._govern(pushed, "what governed before it"):
                return

    @Service.task
    async def _follow(self) -> None:
        part = TopicPartition(self._settings.topic(policy_topic.TOPIC), 0)
        while not self.should_stop:
            try:
                async with connected(policy_topic.consumer(self._settings)) as reading:
                    reading.assign([part])
                    reading.seek(part, self._next)
                    while not self.should_stop:
                        fetched = await reading.getmany(part, timeout_ms=500)
                        for record in fetched.get(part, ()):
                            self._next = record.offset + 1
                            await self._heard(record.key, record.value)
            except KafkaError as error:
                log.warning("the policy topic cannot be read: %s: trying again", error)
                await self.sleep(PAUSE)

    async def _heard(self, key: bytes | None, value: bytes | None) -> None:
        about = self._held.take(key, value)
        self._refuse_unread()
        if about == policy_topic.CURRENT and self._held.current is not None:
            await self._govern(self._held.current, f"version {self.policy.version}")
        elif about == policy_topic.SWITCH:
            said = "pulled: readers release all throttles" if self.released else "taken back"
            log.warning("the kill switch is %s", said)

    def _refuse_unread(self) -> None:
        for text in self._held.unread:
            self.refused += 1
            log.critical("%s", text)
        self._held.unread.clear()

    async def _govern(self, pushed: Pushed, otherwise: str) -> bool:
        """Let a policy govern, and not what does; False where it cannot be used."""
        if pushed.says(self.policy):
            return True
        try:
            policy = policy_topic.policy_of(pushed, self._settings)
        except PolicyError as error:
            self.refused += 1
            log.critical(
                "policy version %s is refused, %s goes on: %s",
                pushed.version,
                otherwise,
                "; ".join(map(str, error.mistakes)),
            )
            return False
        log.info("policy", extra={"version": policy.version, "instead_of": self.policy.version})
        self.policy = policy
        await self._apply(policy)
        self._done.clear()
        return True

    @Service.task
    async def _evaluate_again(self) -> None:
        """Evaluate the rows of each ledger that has come, or whose policy has changed."""
        rows = LEAST_ROWS
        while not self.should_stop:
            ledgers = self._ledgers()
            # Of a ledger that was done, rows that came later were evaluated under this policy.
            self._done = {n: one for n, one in self._done.items() if ledgers.get(n) is one}
            due = {n: one for n, one in ledgers.items() if n not in self._done}
            if not due:
                self._left = {}
                await self.sleep(PAUSE / 4)
                continue
            started = time.monotonic()
            asked = self.policy, self._asked
            left = {n: ledger.reevaluate(-(-rows // len(due))) for n, ledger in due.items()}
            flushed = await self._flushed(due)
            self._left = left
            if asked == (self.policy, self._asked):
                self._done |= {n: one for n, one in due.items() if left[n] == 0}
            spent = time.monotonic() - started
            others = max(0, flushed - rows)
            await asyncio.sleep(spent * (rows / (rows + others) / SHARE - 1))
            rows = min(max(LEAST_ROWS, int(others * SHARE / (1 - SHARE))), MOST_ROWS)
