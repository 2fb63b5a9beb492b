"""What the cluster says of topics and groups: ids, leaders, offsets, settings.

Asked over a connection of its own, so that it answers, or does not, whatever the consumer and the
producer of the worker are doing. A topic's id (Kafka 2.8 and later) tells a topic from another of
the same name that was made after the first was deleted.
"""

# aiokafka's admin client keeps its connections to itself.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

from streams.settings import Settings
from streams.topics import connection

__all__ = ["Committed", "Topic", "Topology"]

_LATEST, _EARLIEST = -1, -2
_READ_COMMITTED = 1
_UNKNOWN_TOPIC = 3


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as it is now."""

    name: str
    id: str
    """32 hexadecimal digits, never those of another topic."""
    leaders: Mapping[int, int]
    """Node that leads each partition, -1 where none does."""

    @property
    def partitions(self) -> int:
        """How many there are."""
        return len(self.leaders)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group has committed of a partition."""

    offset: int
    metadata: str


class Topology:
    """A connection to ask over; use it with ``async with``.

    Raises, from every method, what aiokafka raises where the cluster does not answer. What a moving
    leader delays is waited for, without an end: give it a timeout.
    """

    def __init__(self, settings: Settings) -> None:
        self._admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=10_000)

    async def __aenter__(self) -> Self:
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    async def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """Those of the named topics that exist."""
        response = await self._admin._send_request(_MetadataRequest(list(names)))
        found = {}
        for code, name, topic_id, _internal, partitions, *_ in response.topics:
            if code == _UNKNOWN_TOPIC:
                continue
            if code and not partitions:
                raise for_code(code)(name)
            leaders = {partition: leader for _, partition, leader, *_ in partitions}
            found[name] = Topic(name, topic_id, dict(sorted(leaders.items())))
        return found

    async def begins(self, names: Iterable[str]) -> dict[TopicPartition, int]:
        """The first offset of each partition of topics that is still there, or will be."""
        return await self._offsets(list(names), _EARLIEST)

    async def ends(self, names: Iterable[str]) -> dict[TopicPartition, int]:
        """The offset behind the last record of each partition that a reader may have by now."""
        return await self._offsets(list(names), _LATEST)

    async def committed(self, group: str) -> dict[TopicPartition, Committed]:
        """What a group has committed, of every partition of which it has."""
        offsets = await self._admin.list_consumer_group_offsets(group)
        return {
            tp: Committed(one.offset, one.metadata)
            for tp, one in offsets.items()
            if one.offset >= 0
        }

    async def coordinator(self, group: str) -> int:
        """The node that coordinates a group."""
        return int(await self._admin.find_coordinator(group))

    async def configuration(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of topics, those included that are not set on the topic itself."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        return {
            name: {entry[0]: entry[1] for entry in entries}
            for response in await self._admin.describe_configs(resources)
            for _code, _text, _type, name, entries in response.resources
        }

    async def _offsets(self, names: list[str], which: int) -> dict[TopicPartition, int]:
        """Offsets of topics that exist; waits for partitions that have no leader just now."""
        while True:
            try:
                return await self._offsets_of(await self.topics(names), which)
            except KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(0.1)

    async def _offsets_of(
        self, topics: Mapping[str, Topic], which: int
    ) -> dict[TopicPartition, int]:
        wanted: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(dict)
        for topic in topics.values():
            for partition, leader in topic.leaders.items():
                if leader < 0:
                    raise LeaderNotAvailableError(f"{topic.name}[{partition}]")
                wanted[leader].setdefault(topic.name, []).append((partition, which))
        await self._admin._client.force_metadata_update()
        found = {}
        for leader, asked in wanted.items():
            request = OffsetRequest(-1, _READ_COMMITTED, list(asked.items()))
            response = await self._admin._send_request(request, leader)
            for name, partitions in response.topics:
                for partition, code, _timestamp, offset in partitions:
                    if code:
                        raise for_code(code)(f"{name}[{partition}]")
                    found[TopicPartition(name, partition)] = int(offset)
        return found


class _TopicId:
    """16 bytes, as text."""

    @staticmethod
    def decode(data: BytesIO) -> str:
        return data.read(16).hex()

    @staticmethod
    def encode(value: str) -> bytes:
        return bytes.fromhex(value)

    @staticmethod
    def repr(value: str) -> str:
        return value


_NO_ID = "0" * 32


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _TopicId),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestV10(RequestStruct):
    """The first version whose answer has the ids of topics; aiokafka stops before it."""

    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", _TopicId), ("topic", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestV10]):
    API_KEY = 3

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def build(self, request_struct_class: Any) -> Any:
        topics: list[tuple[str, str, dict[int, bytes]]] = [
            (_NO_ID, name, {}) for name in self._names
        ]
        return request_struct_class(topics, False, False, False, {})
