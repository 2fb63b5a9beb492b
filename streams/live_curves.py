"""The worker's side of the curves topic: it follows which version governs, and who is observed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from mode import Service

from governor.fatigue.sampling import Shares
from governor.fatigue.versions import Version
from streams import curves_topic
from streams.curves_topic import Held
from streams.patience import connected
from streams.settings import Settings

__all__ = ["LiveCurves"]

log = logging.getLogger(__name__)

PAUSE = 1.0


class LiveCurves(Service):
    """Follows the topic.

    Args:
        settings: where the topic is.
        learn: lets a version of curves govern this worker from now on.
        observe: says who is observed from now on.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        learn: Callable[[Version], Awaitable[None]],
        observe: Callable[[Shares], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._learn = learn
        self._observe = observe
        self._held = Held()
        self._next = 0
        self._governs: str | None = None

    async def begin(self) -> None:
        """Read the topic before anything is governed."""
        self._held, self._next = await curves_topic.fetch(self._settings)
        self._observe(self._held.shares)
        await self._follow_to_current()

    @Service.task
    async def _follow(self) -> None:
        part = TopicPartition(self._settings.topic(curves_topic.TOPIC), 0)
        while not self.should_stop:
            try:
                async with connected(curves_topic.consumer(self._settings)) as reading:
                    reading.assign([part])
                    reading.seek(part, self._next)
                    while not self.should_stop:
                        fetched = await reading.getmany(part, timeout_ms=500)
                        for record in fetched.get(part, ()):
                            self._next = record.offset + 1
                            await self._heard(record.key, record.value)
            except KafkaError as error:
                log.warning("the curves topic cannot be read: %s: trying again", error)
                await self.sleep(PAUSE)

    async def _heard(self, key: bytes | None, value: bytes | None) -> None:
        try:
            about = self._held.take(key, value)
        except ValueError as error:
            log.critical("the curves topic has a record that is none of ours: %s", error)
            return
        if about == curves_topic.CURRENT:
            await self._follow_to_current()
        elif about == curves_topic.SHARES:
            self._observe(self._held.shares)

    async def _follow_to_current(self) -> None:
        if self._held.current is None or self._held.current == self._governs:
            return
        try:
            version = self._held.version()
        except ValueError as error:
            log.critical("curves %s cannot be used: %s", self._held.current, error)
            return
        if version is not None:
            self._governs = self._held.current
            log.info("curves", extra={"version": version.name})
            await self._learn(version)
