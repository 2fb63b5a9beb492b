"""The policy topic: what governs, all that ever did, and the kill switch.

One partition, compacted, so its newest record of each key is all there is to know:

    version:<v>   a policy that was pushed: {"version", "policy", "pushed_at"}, the policy in its
                  canonical spelling (JSON, which is YAML)
    current       what governs: the same, with "previous", the version before it
    readers       what readers must know of it: `Policy.for_readers`
    switch        the kill switch: {"released", "everything", "at"}

The file that GOVERNOR_POLICY names seeds it; from then on the topic wins.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from governor.policy import Policy, PolicyError, load
from streams.patience import connected, read_all
from streams.settings import Settings, read_policy, ticks
from streams.topics import connection

__all__ = ["TOPIC", "Held", "Pushed", "fetch", "governing", "policy_of", "write", "written"]

TOPIC = "policy"
CURRENT, READERS, SWITCH, VERSION = "current", "readers", "switch", "version:"


@dataclass(frozen=True, slots=True)
class Pushed:
    """A policy as the topic holds it."""

    version: str
    text: str
    pushed_at: float
    previous: str | None = None
    """The version that governed before; only of what governs."""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Pushed:
        """From a record's value; raises ValueError, KeyError or TypeError if it is none."""
        version, text = value["version"], value["policy"]
        if not isinstance(version, str) or not isinstance(json.loads(text), dict):
            raise TypeError("version is not text, or policy is not the JSON of one")
        return cls(version, text, float(value["pushed_at"]), value.get("previous"))

    def says(self, policy: Policy) -> bool:
        """Whether it is this policy, word for word, under the same version."""
        same = json.loads(self.text) == json.loads(policy.canonical())
        return self.version == policy.version and same


@dataclass(slots=True)
class Held:
    """All that the topic holds."""

    current: Pushed | None = None
    versions: dict[str, Pushed] = field(default_factory=dict)
    """Those that were ever pushed, oldest first."""
    switch: Mapping[str, Any] = field(default_factory=dict)

    unread: list[str] = field(default_factory=list)
    """What is wrong with the records that were not understood, and so not heeded."""

    def take(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take in a record; what it is about, None where it is not understood."""
        name = (key or b"").decode(errors="replace")
        try:
            self._take(name, None if value is None else json.loads(value))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.unread.append(
                f"the record {name!r} of the policy topic is none of ours ({error!r}) and is not "
                "heeded: push a policy, or pull or release the kill switch, to write it anew"
            )
            return None
        return name

    def _take(self, name: str, content: Any) -> None:
        if name == CURRENT:
            self.current = None if content is None else Pushed.read(content)
        elif name == SWITCH:
            self.switch = content or {}
        elif name.startswith(VERSION):
            self.versions.pop(name.removeprefix(VERSION), None)
            if content is not None:
                self.versions[content["version"]] = Pushed.read(content)

    @property
    def released(self) -> bool:
        """Whether the kill switch is pulled."""
        return bool(self.switch.get("released"))

    def newest_first(self) -> list[Pushed]:
        """What governs, then what governed before it; nothing where nothing was ever pushed."""
        current = [] if self.current is None else [self.current]
        versions = {one.version for one in current}
        return [*current, *(one for v, one in reversed(self.versions.items()) if v not in versions)]


Record = tuple[str, Mapping[str, Any] | None]


def written(policy: Policy, held: Held, now: float | None = None) -> list[Record]:
    """The records that let a policy govern, the one that workers wait for last."""
    content = {
        "version": policy.version,
        "policy": policy.canonical(),
        "pushed_at": round(time.time() if now is None else now, 3),
    }
    current = held.current
    previous = current.version if current else None
    if current is not None and current.version == policy.version:
        previous = current.previous
    return [
        (VERSION + policy.version, content),
        (READERS, policy.for_readers()),
        (CURRENT, content | {"previous": previous}),
    ]


def policy_of(pushed: Pushed, settings: Settings) -> Policy:
    """The policy, held against what these settings can answer; raises PolicyError."""
    document = json.loads(pushed.text) | {"version": pushed.version}
    return load(json.dumps(document), horizon=ticks(settings.history), row_limit=settings.row_limit)


def governing(held: Held, settings: Settings) -> Policy:
    """The policy of workers with these settings: of the topic's the newest that they can use, or
    else the file's. What cannot be used is told in ``held.unread``."""
    for pushed in held.newest_first():
        try:
            return policy_of(pushed, settings)
        except PolicyError as error:
            held.unread.append(
                f"version {pushed.version} cannot be used with these settings, what governed "
                f"before it goes on: are they those of the workers? {error}"
            )
    return read_policy(settings)


async def fetch(settings: Settings) -> tuple[Held, int]:
    """All that the topic holds by now, nothing where there is none, and the offset behind it."""
    held = Held()
    part = TopicPartition(settings.topic(TOPIC), 0)
    async with connected(consumer(settings)) as reading:
        known = await reading._client.fetch_all_metadata()  # noqa: SLF001
        if not known.partitions_for_topic(part.topic):
            return held, 0
        async for _, records in read_all(reading, [part]):
            for record in records:
                held.take(record.key, record.value)
        return held, await reading.position(part)


def consumer(settings: Settings) -> AIOKafkaConsumer:
    """A consumer that hears of a change at once, and is in no group."""
    return AIOKafkaConsumer(
        **connection(settings),
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=250,
    )


async def write(settings: Settings, records: Iterable[Record]) -> None:
    """Write records in this order, acknowledged by all replicas in sync."""
    producer = AIOKafkaProducer(**connection(settings), acks="all", enable_idempotence=True)
    async with producer:
        for key, value in records:
            text = None if value is None else json.dumps(value, ensure_ascii=False).encode()
            await producer.send_and_wait(settings.topic(TOPIC), text, key.encode(), partition=0)
