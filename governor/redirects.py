"""Ids that have become others, of one partition: where an id's events go after a link.

An id follows the earliest link that it was given, by (time, event hash). Changelog records have
the key ``r`` and the id's row key, and as value, little-endian, the link's time in ticks (8
bytes), its event hash (8), and the row key of the id that it became; null takes it back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled, integer
from governor.events import Columns
from governor.hashing import hash_bytes

__all__ = ["KEY", "Link", "Redirects"]

KEY = b"r"
"""What the keys of changelog records begin with."""

_HEAD = struct.Struct("<qQ")
_FREE = np.uint64(0)
_ONE = np.uint64(1)


class Link(NamedTuple):
    """One id became another; links are ordered by their time and event."""

    ts: int
    event: int
    to: bytes
    """Row key."""


class Redirects:
    """The links that hold, by row key; those changed since `take` go to the changelog."""

    def __init__(self) -> None:
        self._links: dict[bytes, Link] = {}
        self._changed: set[bytes] = set()
        self._hashes: NDArray[np.uint64] = np.zeros(16, np.uint64)

    def __len__(self) -> int:
        return len(self._links)

    def get(self, key: bytes) -> Link | None:
        """The link that the id follows."""
        return self._links.get(key)

    def leading_to(self, key: bytes) -> Iterator[bytes]:
        """The ids that became this one at once, not over others."""
        return (each for each, link in self._links.items() if link.to == key)

    def follow(self, key: bytes, link: Link) -> bool:
        """Let an id follow a link from now on; False when it follows an earlier one already."""
        known = self._links.get(key)
        if known is not None and known <= link:
            return False
        self._enter(key, link)
        self._changed.add(key)
        return True

    def forget(self, key: bytes) -> None:
        """Let an id be one of its own again."""
        if self._links.pop(key, None) is not None:
            self._changed.add(key)

    def hits(self, columns: Columns) -> list[tuple[int, Link]]:
        """The rows of ``columns`` whose ids have become others."""
        if not self._links:
            return []
        hits = _hits(self._hashes, columns.text, columns.user_start, columns.user_size)
        found = []
        for i in np.flatnonzero(hits).tolist():
            start = int(columns.user_start[i])
            key = columns.text[start : start + int(columns.user_size[i])].tobytes()
            if (link := self._links.get(key)) is not None:
                found.append((i, link))
        return found

    def take(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values for the changelog: what changed since the last call."""
        changed, self._changed = self._changed, set()
        return [(KEY + key, _value(self._links.get(key))) for key in sorted(changed)]

    def all(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values of all that hold."""
        return [(KEY + key, _value(link)) for key, link in self._links.items()]

    def load(self, key: bytes, value: bytes | None) -> None:
        """Take over a changelog record; the key without its first byte."""
        if value is None:
            self._links.pop(key, None)
        else:
            ts, event = _HEAD.unpack_from(value)
            self._enter(key, Link(ts, event, value[_HEAD.size :]))

    def _enter(self, key: bytes, link: Link) -> None:
        self._links[key] = link
        if 2 * len(self._links) > len(self._hashes):
            self._hashes = np.zeros(4 * len(self._hashes), np.uint64)
            for each in self._links:
                _add(self._hashes, np.frombuffer(each, np.uint8))
        else:
            _add(self._hashes, np.frombuffer(key, np.uint8))


def _value(link: Link | None) -> bytes | None:
    return None if link is None else _HEAD.pack(link.ts, link.event) + link.to


@compiled
def _add(hashes: NDArray[np.uint64], key: NDArray[np.uint8]) -> None:
    hashed = hash_bytes(key, 0, len(key))
    mask = np.uint64(len(hashes) - 1)
    at = hashed & mask
    while hashes[at] != _FREE and hashes[at] != hashed:
        at = (at + _ONE) & mask
    hashes[at] = hashed


@allocating
def _hits(
    hashes: NDArray[np.uint64],
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which keys may be in the set; a link taken back leaves its hash until the set grows."""
    out = np.zeros(len(start), np.bool_)
    mask = np.uint64(len(hashes) - 1)
    for i in range(len(start)):
        hashed = hash_bytes(text, start[i], size[i])
        at = integer(hashed & mask)
        while hashes[at] != _FREE:
            if hashes[at] == hashed:
                out[i] = True
                break
            at = (at + 1) % len(hashes)
    return out
