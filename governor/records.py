"""Keyed records as columns: how events come in and how rows and decisions go out.

One buffer holds the bytes of every key and value; the columns say where they lie. A fetch of
thousands of records is a handful of arrays, so nothing in the hot path makes one Python object
per record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Records"]


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one partition, in log order.

    Every column has one element a record. A size of -1 is a null key or value.
    """

    buffer: NDArray[np.uint8]
    offset: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    """The record's own timestamp in the log: milliseconds since the epoch."""
    key_start: NDArray[np.int64]
    key_size: NDArray[np.int64]
    value_start: NDArray[np.int64]
    value_size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    def key(self, i: int) -> bytes | None:
        """The key of record ``i``, copied."""
        return _slice(self.buffer, int(self.key_start[i]), int(self.key_size[i]))

    def value(self, i: int) -> bytes | None:
        """The value of record ``i``, copied."""
        return _slice(self.buffer, int(self.value_start[i]), int(self.value_size[i]))

    def select(self, rows: slice | NDArray[np.int64]) -> Records:
        """The same records, only those at ``rows``; shares the buffer."""
        return Records(
            self.buffer,
            self.offset[rows],
            self.timestamp[rows],
            self.key_start[rows],
            self.key_size[rows],
            self.value_start[rows],
            self.value_size[rows],
        )

    @classmethod
    def of(
        cls,
        records: Iterable[tuple[bytes | None, bytes | None, int]],
        *,
        first_offset: int = 0,
    ) -> Records:
        """Columns from ``(key, value, timestamp in milliseconds)`` triples."""
        triples = list(records)
        n = len(triples)
        keys = np.array([-1 if key is None else len(key) for key, _, _ in triples], np.int64)
        values = np.array(
            [-1 if value is None else len(value) for _, value, _ in triples], np.int64
        )
        sizes = np.empty(2 * n, np.int64)
        sizes[0::2] = np.maximum(keys, 0)
        sizes[1::2] = np.maximum(values, 0)
        starts = np.zeros(2 * n, np.int64)
        np.cumsum(sizes[:-1], out=starts[1:])
        data = b"".join(part for key, value, _ in triples for part in (key or b"", value or b""))
        return cls(
            np.frombuffer(data, np.uint8),
            np.arange(first_offset, first_offset + n, dtype=np.int64),
            np.array([timestamp for _, _, timestamp in triples], np.int64),
            starts[0::2].copy(),
            keys,
            starts[1::2].copy(),
            values,
        )

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """One after the other, of at least one; shares the buffer of one that is alone."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(len(part.buffer) for part in parts[:-1])]).tolist()
        return cls(
            np.concatenate([part.buffer for part in parts]),
            np.concatenate([part.offset for part in parts]),
            np.concatenate([part.timestamp for part in parts]),
            np.concatenate([p.key_start + at for p, at in zip(parts, starts, strict=True)]),
            np.concatenate([part.key_size for part in parts]),
            np.concatenate([p.value_start + at for p, at in zip(parts, starts, strict=True)]),
            np.concatenate([part.value_size for part in parts]),
        )


def _slice(buffer: NDArray[np.uint8], start: int, size: int) -> bytes | None:
    return None if size < 0 else buffer[start : start + size].tobytes()
