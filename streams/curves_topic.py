"""The topic of curves: versions of them, which one governs, who is observed, and what is watched.

One partition, compacted, written by the aggregator alone:

    version:<v>   a version (`governor.fatigue.versions`), which never changes
    current       {"version", "at", "kept"}: what governs, when it was made (epoch seconds), and
                  the versions that are kept, oldest first
    shares        who is observed (`governor.fatigue.sampling.Shares`)
    watched       {"until"}: the end of the last bucket that detectors have seen, in ticks
    detector:<l>  the state of a label's detector

Of versions the newest `KEPT` stay and older ones are withdrawn. A decision may name an older one:
its row has been evaluated under every version since, and stayed what it is, so whoever recomputes
it takes the version that governs instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from governor.fatigue.sampling import Shares
from governor.fatigue.versions import Version
from governor.rowcodec import FENCE_KEY
from streams.patience import connected, read_all
from streams.settings import Settings
from streams.topics import connection

__all__ = [
    "CURRENT", "SHARES", "TOPIC", "Held", "Written", "consumer", "fetch", "shares_record",
    "watched_records",
]  # fmt: skip

TOPIC = "curves"
CURRENT, SHARES, VERSION = "current", "shares", "version:"
WATCHED, DETECTOR = "watched", "detector:"

KEPT = 24

Written = tuple[bytes, bytes | None, int]
"""A record's key, value and timestamp, which the broker overwrites."""


@dataclass(slots=True)
class Held:
    """All that the topic holds."""

    versions: dict[str, bytes] = field(default_factory=dict)
    """Their texts, by name."""
    current: str | None = None
    made_at: float = 0.0
    kept: list[str] = field(default_factory=list)
    shares: Shares = field(default_factory=Shares)
    watched_until: int = 0
    detectors: dict[str, Any] = field(default_factory=dict)
    """State of each label's, as `governor.fatigue.detector.Detector.to_fields` tells it."""

    def take(self, key: bytes | None, value: bytes | None) -> str:
        """Take in a record; what it is about.

        Raises:
            ValueError: it is none of ours; nothing has changed.
        """
        name = (key or b"").decode(errors="replace")
        if name.startswith(VERSION):
            self.versions.pop(name.removeprefix(VERSION), None)
            if value is not None:
                self.versions[name.removeprefix(VERSION)] = value
            return VERSION
        if key == FENCE_KEY:
            return name
        if name.startswith(DETECTOR):
            self.detectors.pop(name.removeprefix(DETECTOR), None)
            if value is not None:
                self.detectors[name.removeprefix(DETECTOR)] = json.loads(value)
            return DETECTOR
        try:
            content = json.loads(value or b"{}")
            if name == CURRENT:
                self.current, self.made_at = content["version"], content["at"]
                self.kept = list(content["kept"])
            elif name == SHARES:
                self.shares = Shares.from_fields(content)
            elif name == WATCHED:
                self.watched_until = int(content["until"])
            else:
                raise ValueError(f"a record with the key {key!r}")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a record with the key {key!r}: {error!r}") from error
        return name

    def version(self, name: str | None = None) -> Version | None:
        """A version by name, or that which governs where it is not kept any more or none is
        named; None where there is none.

        Raises:
            ValueError: its text is none.
        """
        text = self.versions.get(name or "") or self.versions.get(self.current or "")
        return None if text is None else Version.from_json(text)

    def published(self, version: Version, at: float) -> list[Written]:
        """The records that let a version govern, the one that workers wait for last."""
        kept = [*(name for name in self.kept if name != version.name), version.name]
        gone, kept = kept[:-KEPT], kept[-KEPT:]
        return [
            _record(VERSION + version.name, version.to_json()),
            _record(CURRENT, {"version": version.name, "at": round(at, 3), "kept": kept}),
            *(_record(VERSION + name, None) for name in gone),
        ]


def shares_record(shares: Shares) -> Written:
    """The record that says who is observed."""
    return _record(SHARES, shares.to_fields())


def watched_records(until: int, detectors: Mapping[str, Mapping[str, Any] | None]) -> list[Written]:
    """The records of how far is watched, behind those of detectors that have changed; None for one
    of a label that is not seen any more."""
    states = [_record(DETECTOR + label, state) for label, state in detectors.items()]
    return [*states, _record(WATCHED, {"until": until})]


def _record(key: str, content: Mapping[str, Any] | str | None) -> Written:
    if isinstance(content, Mapping):
        content = json.dumps(content, separators=(",", ":"))
    return key.encode(), None if content is None else content.encode(), 0


def consumer(settings: Settings) -> AIOKafkaConsumer:
    """A consumer of the topics with one partition, in no group."""
    return AIOKafkaConsumer(
        **connection(settings),
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=250,
    )


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
