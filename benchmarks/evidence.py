"""All that Kafka holds of some users, for whoever looks into a difference."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from streams.reader import Reader
from streams.settings import Settings
from streams.topics import EVENT_TOPICS

__all__ = ["history"]


async def history(
    settings: Settings, partitions: int, users: Iterable[tuple[str, int]]
) -> dict[str, list[dict[str, Any]]]:
    """Every record of these users and the fences between them, in the order of their times.

    Args:
        settings: where to read.
        partitions: how many the topics have.
        users: with their partitions.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    async with Reader(settings, partitions) as reader:
        for user, partition in users:
            records = []
            for name in (*EVENT_TOPICS, "decisions", "ledger"):
                topic = settings.topic(name)
                begin = await reader.begin(topic, partition)
                end = await reader.end(topic, partition)
                async for some in reader.read(topic, partition, begin, end):
                    for i in range(len(some)):
                        key = some.key(i) or b""
                        if key in (user.encode(), b"u" + user.encode(), b"f"):
                            at, when = int(some.offset[i]), int(some.timestamp[i])
                            records.append(_told(name, key, some.value(i), at, when))
            found[user] = sorted(records, key=lambda one: str(one["written"]))
    return found


def _told(name: str, key: bytes, value: bytes | None, offset: int, ms: int) -> dict[str, Any]:
    what: Any = None
    if key == b"f":
        what = f"fence {value!r}"
    elif value is not None and name == "ledger":
        entries = int.from_bytes(value[2:4], "little")
        newest = int.from_bytes(value[20:28], "little") >> 12
        what = f"row of {entries} entries, newest {newest / 1e6}, digest {value[4:12].hex()}"
    elif value is not None:
        what = json.loads(value)
        if name == "decisions":
            what = [
                {each: one[each] for each in ("label", "from", "until", "reasons")}
                for one in what["throttles"]
            ] + [{"decided_at": what["decided_at"]}]
        what = msgspec.json.encode(what).decode()
    written = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {"written": written, "topic": name, "offset": offset, "value": what}
