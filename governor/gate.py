"""What an event passes before it comes to a row: is it in the right place, is the person gone?

A `Gate` belongs to one partition, as its `governor.ledger.Ledger` does, and shares its changelog:
redirects of linked ids, which ids became an id (its *origins*), and marks of erased ones.

    r, row key                               see governor.redirects
    o, size of the row key (2 bytes, little-endian), row key, row key of one origin -> empty value
    e, mark                                  see governor.erasures
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from governor import erasures, redirects
from governor.compiled import allocating, integer
from governor.erasures import Erasures
from governor.events import Columns
from governor.partitioning import partitions_of
from governor.records import Records
from governor.redirects import Redirects

__all__ = ["Gate", "again", "away"]

_ORIGIN = b"o"
_SIZE = struct.Struct("<H")


class Gate:
    """Redirects, origins and erasures of one partition."""

    def __init__(self, *, secret: bytes, retention: int) -> None:
        self.redirects = Redirects()
        self.erasures = Erasures(secret, retention)
        self._origins: dict[bytes, set[bytes]] = {}
        self._changed: set[tuple[bytes, bytes]] = set()

    def origins(self, key: bytes) -> set[bytes]:
        """The ids that became this one, directly and over others."""
        return set(self._origins.get(key, ()))

    def add_origins(self, key: bytes, origins: Iterable[bytes]) -> None:
        """Note which ids became this one."""
        known = self._origins.setdefault(key, set())
        new = set(origins) - known - {key}
        known |= new
        self._changed |= {(key, each) for each in new}
        if not known:
            del self._origins[key]

    def take_origins(self, key: bytes) -> set[bytes]:
        """The same as `origins`, and forget them."""
        known = self._origins.pop(key, set())
        self._changed |= {(key, each) for each in known}
        return known

    def take(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values for the changelog: what changed since the last call."""
        changed, self._changed = self._changed, set()
        origins: list[tuple[bytes, bytes | None]] = [
            (
                _ORIGIN + _SIZE.pack(len(key)) + key + origin,
                b"" if origin in self._origins.get(key, ()) else None,
            )
            for key, origin in sorted(changed)
        ]
        return [*self.redirects.take(), *origins, *self.erasures.take()]

    def everything(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values of all that holds."""
        origins: list[tuple[bytes, bytes | None]] = [
            (_ORIGIN + _SIZE.pack(len(key)) + key + origin, b"")
            for key, known in sorted(self._origins.items())
            for origin in sorted(known)
        ]
        return [*self.redirects.all(), *origins, *self.erasures.all()]

    def load(self, changelog: Records) -> Records:
        """Take over the gate's records of a changelog; the others, which are the ledger's."""
        if not len(changelog):
            return changelog
        first = changelog.buffer[np.minimum(changelog.key_start, len(changelog.buffer) - 1)]
        mine = np.isin(first, _MINE) & (changelog.key_size > 1)
        if not mine.any():
            return changelog
        for i in np.flatnonzero(mine).tolist():
            key, value = changelog.key(i) or b"", changelog.value(i)
            if key[:1] == redirects.KEY:
                self.redirects.load(key[1:], value)
            elif key[:1] == erasures.KEY:
                self.erasures.load(key[1:], value)
            else:
                self._load_origin(key[1:], value)
        return changelog.select(np.flatnonzero(~mine))

    def _load_origin(self, key: bytes, value: bytes | None) -> None:
        (size,) = _SIZE.unpack_from(key)
        row, origin = key[_SIZE.size : _SIZE.size + size], key[_SIZE.size + size :]
        known = self._origins.setdefault(row, set())
        if value is None:
            known.discard(origin)
        else:
            known.add(origin)
        if not known:
            del self._origins[row]


_MINE = np.frombuffer(redirects.KEY + _ORIGIN + erasures.KEY, np.uint8)


def away(columns: Columns, partition: int, count: int) -> tuple[NDArray[np.int64], bool]:
    """The partition in which each event's row lives, and whether any is not this one."""
    where = partitions_of(columns.text, columns.user_start, columns.user_size, count)
    return where, bool((where != partition).any())


def again(columns: Columns, records: int) -> NDArray[np.bool_]:
    """Which elements repeat an event that is there before under another of its ids."""
    return _again(columns.source, records)


@allocating
def _again(source: NDArray[np.int64], records: int) -> NDArray[np.bool_]:
    seen = np.zeros(records, np.bool_)
    out = np.zeros(len(source), np.bool_)
    for i in range(len(source)):
        at = integer(source[i])
        out[i] = seen[at]
        seen[at] = True
    return out
