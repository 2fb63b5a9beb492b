"""Events of the past from a file: JSON lines, plain or gzipped, or Parquet.

Each line, or row, is an event as it would go on a topic. ``topic`` says which, where an event has
that field; else one with a ``campaign_id`` and no ``type`` is an impression, one with a control's
type a control, any other an engagement. Parquet is read by pyarrow, which must be installed.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from governor.events import CONTROL_TYPES
from governor.records import Records
from streams.topics import EVENT_TOPICS

__all__ = ["Batch", "HistoryError", "batches", "filed"]

BATCH = 5_000
LONG_AGO = -1
"""A record's timestamp that judges no event's time: there was no broker."""


class HistoryError(Exception):
    """A file that cannot be read as events; says what to do."""


class _Head(msgspec.Struct):
    user_id: str = ""
    topic: str | None = None
    type: str | None = None


_head = msgspec.json.Decoder(_Head).decode

Batch = tuple[str, Records]
"""A topic without prefix, and events for it keyed by their users."""


def batches(path: Path) -> Iterator[Batch]:
    """The events of a file in its order, as far as topics can be told apart.

    A line that is no event of any topic is given as an impression, and so becomes a dead letter.
    """
    waiting: dict[str, list[tuple[bytes, bytes, int]]] = {}
    for line in _lines(path):
        topic, key = filed(line)
        some = waiting.setdefault(topic, [])
        some.append((key, line, LONG_AGO))
        if len(some) == BATCH:
            yield topic, Records.of(waiting.pop(topic))
    for topic, some in waiting.items():
        yield topic, Records.of(some)


def filed(line: bytes) -> tuple[str, bytes]:
    """The topic of an event and its key."""
    try:
        head = _head(line)
    except msgspec.MsgspecError:
        return "impressions", b""
    key = head.user_id.encode()
    if head.topic in EVENT_TOPICS:
        return head.topic, key
    if head.type is None:
        return "impressions", key
    return ("controls" if head.type in CONTROL_TYPES else "engagements"), key


def _lines(path: Path) -> Iterator[bytes]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield line.strip()
    except (OSError, EOFError) as error:
        raise HistoryError(f"{path}: {error}") from error


def _parquet(path: Path) -> Iterator[bytes]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise HistoryError(
            f"{path}: Parquet needs the package pyarrow: pip install pyarrow, or give JSON lines"
        ) from None
    for batch in parquet.ParquetFile(path).iter_batches(batch_size=BATCH):
        for row in batch.to_pylist():
            yield msgspec.json.encode(
                {name: _plain(value) for name, value in row.items() if value is not None}
            )


def _plain(value: object) -> object:
    """Times as epoch seconds, naive ones as UTC; the rest as it is."""
    if not isinstance(value, datetime):
        return value
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
