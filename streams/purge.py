"""What was forwarded and applied is deleted from the repartition topic.

The topic has no retention by age, as its records keep the times of the events that they forward;
and what it holds of a person should not outlive its use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition
from mode import Service

from streams.settings import Settings
from streams.topics import connection

__all__ = ["Purge"]

log = logging.getLogger(__name__)


class Purge(Service):
    """Deletes what is committed, every GOVERNOR_PURGE_INTERVAL.

    Args:
        settings: how to connect, and how often.
        committed: offsets that this worker has committed in its partitions of the topic.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        committed: Callable[[], Mapping[TopicPartition, int]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._committed = committed
        self._done: dict[TopicPartition, int] = {}

    @Service.task
    async def _purge(self) -> None:
        while not self.should_stop:
            await self.sleep(self._settings.purge_interval.total_seconds())
            due = {
                tp: offset
                for tp, offset in self._committed().items()
                if offset > self._done.get(tp, 0)
            }
            if due and not self.should_stop:
                await self._delete(due)

    async def _delete(self, due: Mapping[TopicPartition, int]) -> None:
        admin = AIOKafkaAdminClient(**connection(self._settings))
        try:
            await admin.start()
            await admin.delete_records(
                {tp: RecordsToDelete(before_offset=offset) for tp, offset in due.items()}
            )
            self._done.update(due)
        except TopicAuthorizationFailedError:
            log.error(
                "the repartition topic grows: grant Delete on it, so that what was applied can go"
            )
        except KafkaError as error:
            log.warning("the repartition topic cannot be purged now: %s", error)
        finally:
            await admin.close()
