"""Impressions by the million: one template, its digits written by columns.

All impressions of a template have one size, so a chunk of them is a matrix of bytes and making
one costs a tenth of what reading it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import CHUNK, Load
from governor.compiled import compiled
from governor.records import Records

__all__ = ["Template", "Traffic", "partition_of"]

_REQUIRED = (
    b'{"event_id":"evt-0000000000","user_id":"user-00000000","ts":0000000000.000000,'
    b'"campaign_id":"campaign-00000","impression_id":"imp-0000000000"'
)
_LABELS = (
    b',"creative_id":"creative-00000","advertiser_id":"advertiser-00","category":"IAB00",'
    b'"channel":"display","surface":"web"'
)
_NOTE = b',"n":""'
_NUMBERS = {
    b"evt-": 10, b"user-": 8, b"campaign-": 5, b"imp-": 10, b"creative-": 5, b"advertiser-": 2,
    b"IAB": 2,
}  # fmt: skip
_USER_BYTES = len(b"user-00000000")


class Template:
    """An impression of ``payload`` bytes, or of all fields and no more when that is 0.

    Below the size of all fields only the required ones are there; what is missing to ``payload``
    goes into a field that the governor ignores.
    """

    def __init__(self, payload: int = 0) -> None:
        full = len(_REQUIRED) + len(_LABELS) + 1
        text = _REQUIRED if 0 < payload < full + len(_NOTE) else _REQUIRED + _LABELS
        if payload:
            room = payload - len(text) - len(_NOTE) - 1
            if room < 0:
                raise ValueError(f"no impression has {payload} bytes")
            text += _NOTE[:-1] + b"x" * room + b'"'
        self._text = np.frombuffer(text + b"}", np.uint8)
        self._at = {name: text.find(name) + len(name) for name in _NUMBERS if name in text}
        self.key_at = text.find(b"user-")
        self.ts_at = text.find(b'"ts":') + len(b'"ts":')

    def __len__(self) -> int:
        return len(self._text)

    def fill(
        self,
        number: NDArray[np.int64],
        user: NDArray[np.int64],
        campaign: NDArray[np.int64],
        ts: NDArray[np.int64],
    ) -> NDArray[np.uint8]:
        """A row of bytes an impression; ``ts`` in ticks."""
        out = np.tile(self._text, (len(number), 1))
        values = {
            b"evt-": number, b"user-": user, b"campaign-": campaign, b"imp-": number,
            b"creative-": campaign, b"advertiser-": campaign % 50, b"IAB": campaign % 26,
        }  # fmt: skip
        for name, at in self._at.items():
            _put(out, at, _NUMBERS[name], values[name])
        _put(out, self.ts_at, 10, ts // 1_000_000)
        _put(out, self.ts_at + 11, 6, ts % 1_000_000)
        return out

    def number(self, rows: NDArray[np.uint8], number: int) -> None:
        """Give all rows this event and impression number; fine where users differ."""
        digits = np.frombuffer(b"%010d" % number, np.uint8)
        for name in (b"evt-", b"imp-"):
            rows[:, self._at[name] : self._at[name] + len(digits)] = digits

    def records(self, rows: NDArray[np.uint8], timestamp: NDArray[np.int64]) -> Records:
        """Rows of bytes as records keyed by user; ``timestamp`` in milliseconds."""
        n = len(rows)
        start = np.arange(n, dtype=np.int64) * len(self)
        return Records(
            np.ascontiguousarray(rows).reshape(-1),
            np.arange(n, dtype=np.int64),
            timestamp,
            start + self.key_at,
            np.full(n, _USER_BYTES, np.int64),
            start,
            np.full(n, len(self), np.int64),
        )


@compiled
def _put(out: NDArray[np.uint8], at: int, digits: int, value: NDArray[np.int64]) -> None:
    for i in range(len(value)):
        rest = value[i]
        for place in range(at + digits - 1, at - 1, -1):
            out[i, place] = 48 + rest % 10
            rest //= 10


@cache
def partition_of(users: int, partitions: int) -> NDArray[np.int64]:
    """Where Kafka's own partitioner puts each of the users."""
    return Load(0, users, 1, partitions, 0)._partitions()  # noqa: SLF001 - our own load


@dataclass(frozen=True)
class Traffic(Load):
    """A load with skewed users and payloads of a given size.

    ``skew`` 0 draws users evenly; else the n-th most frequent has a share of ``n ** -skew``.
    ``payload`` is as in `Template`.
    """

    skew: float = 0.0
    payload: int = 0

    def chunks(self) -> Iterator[dict[int, list[tuple[bytes, bytes, int]]]]:
        """As `Load.chunks`."""
        rng = np.random.default_rng(self.seed)
        template = Template(self.payload)
        where = partition_of(self.users, self.partitions)
        share = np.cumsum(np.arange(1, self.users + 1) ** -self.skew)
        share /= share[-1]
        shuffled = rng.permutation(self.users)
        start = self.until * 1_000_000 - self.events * 1_000
        for first in range(0, self.events, CHUNK):
            number = np.arange(first, min(first + CHUNK, self.events), dtype=np.int64)
            user = shuffled[np.searchsorted(share, rng.random(len(number)), side="right")]
            campaign = rng.integers(0, self.campaigns, len(number))
            rows = template.fill(number, user, campaign, start + 1_000 * number)
            keys = rows[:, template.key_at : template.key_at + _USER_BYTES]
            chunk: dict[int, list[tuple[bytes, bytes, int]]] = {}
            for partition, key, value in zip(where[user].tolist(), keys, rows, strict=True):
                chunk.setdefault(partition, []).append(
                    (key.tobytes(), value.tobytes(), self.until * 1000)
                )
            yield chunk
