"""Dead letters: messages that are no events, with the reason and where they came from."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable

from governor.events import Rejected
from governor.records import Records

__all__ = ["MAX_KEPT", "Letter", "letters"]

Letter = tuple[bytes | None, bytes, int]
"""Key, value, timestamp in milliseconds."""

MAX_KEPT = 64 * 1024
"""Bytes of the message that its dead letter holds; six times as many when all are escaped."""


def letters(
    topic: str, partition: int, records: Records, rejected: Iterable[Rejected]
) -> list[Letter]:
    """One dead letter for each rejected record, keyed by where that one is.

    So a tombstone can withdraw the one letter, and compaction remove it: see `streams.privacy`.

    The value is JSON; the message is text in ``message`` where it is UTF-8, else in
    ``message_base64``, at most `MAX_KEPT` bytes of it.
    """
    return [
        (
            f"{topic}/{partition}/{int(records.offset[one.index])}".encode(),
            _letter(topic, partition, records, one),
            max(0, int(records.timestamp[one.index])),
        )
        for one in rejected
    ]


def _letter(topic: str, partition: int, records: Records, one: Rejected) -> bytes:
    value = records.value(one.index)
    letter: dict[str, object] = {
        "reason": str(one.reason),
        "detail": one.detail,
        "topic": topic,
        "partition": partition,
        "offset": int(records.offset[one.index]),
        "timestamp": int(records.timestamp[one.index]) / 1000,
        "bytes": None if value is None else len(value),
    }
    if value is not None:
        kept = value[:MAX_KEPT]
        letter["truncated"] = len(value) > len(kept)
        try:
            letter["message"] = kept.decode()
        except UnicodeDecodeError:
            letter["message_base64"] = b64encode(kept).decode()
    return json.dumps(letter, ensure_ascii=False).encode()
