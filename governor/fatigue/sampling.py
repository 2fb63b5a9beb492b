"""Who is observed: a stable share of people, larger for campaigns that few people see.

A person's mark is a keyed hash of their id (SipHash-2-4). They are observed when the mark lies
within the share of any campaign that their row holds: whom a share lets in, every larger one does.
Only rows of users are sampled, so that nobody is observed twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.entries import EXPOSURE, ad_of, kind_of
from governor.rows import GONE, USED, Rows, flags_of, id_size, id_start, length_of, run_of
from governor.siphash import key_of, siphash

__all__ = ["MOST_HALVINGS", "Marks", "Sampled", "Shares", "choose"]

MOST_HALVINGS = 40
"""No share is smaller than one in so many doublings: about a trillionth."""

_ALL = (1 << 64) - 1


@dataclass(frozen=True)
class Shares:
    """How many people are observed: each share is all of them, halved so many times."""

    halvings: int = 6
    """Of campaigns that are not named. To begin with one in 64, as nobody knows how many people
    there are."""
    campaigns: Mapping[str, int] = field(default_factory=dict)
    """Those that have a larger share, by name."""

    def of(self, campaign: str | None) -> int:
        """The halvings of a campaign's share."""
        return min(self.halvings, self.campaigns.get(campaign or "", self.halvings))

    def bound(self, campaign: str | None) -> int:
        """The largest mark within a campaign's share."""
        return _ALL >> self.of(campaign)

    def within(self, others: Shares) -> bool:
        """Whether whoever is observed is observed under the others too."""
        return self.halvings >= others.halvings and all(
            halvings >= others.of(campaign) for campaign, halvings in self.campaigns.items()
        )

    @property
    def widest(self) -> int:
        """The largest mark within any."""
        return _ALL >> min([self.halvings, *self.campaigns.values()])

    def to_fields(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"halvings": self.halvings, "campaigns": dict(self.campaigns)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Shares:
        """What `to_fields` gave."""
        campaigns = {str(name): int(n) for name, n in fields["campaigns"].items()}
        return cls(int(fields["halvings"]), campaigns)


class Marks:
    """The key of the marks.

    Args:
        secret: what the hash is keyed by, the same for all workers.
    """

    def __init__(self, secret: bytes) -> None:
        # Not the key of the marks of the erased, which would tell who of them was observed.
        self.key = key_of(b"sample\0" + secret)

    def of(self, key: bytes) -> int:
        """The mark of a row key."""
        text = np.frombuffer(key, np.uint8)
        return int(siphash(self.key[0], self.key[1], text, 0, len(text)))


@dataclass(frozen=True, slots=True)
class Sampled:
    """Of some rows, those that are observed."""

    changed: list[bytes]
    """Keys of rows to be told of."""
    gone: list[int]
    """Marks of rows that are no longer there, and may have been observed."""


def choose(
    table: Rows, rows: NDArray[np.int64], marks: Marks, bound: NDArray[np.uint64], widest: int
) -> Sampled:
    """Which of these rows are observed.

    Args:
        bound: the largest mark that is observed, by ad.
        widest: the largest of all.
    """
    mark = np.zeros(len(rows), np.uint64)
    chosen = np.zeros(len(rows), np.uint8)
    _choose(table, rows, marks.key[0], marks.key[1], bound, np.uint64(widest), mark, chosen)
    spans = np.empty((int((chosen == _CHANGED).sum()), 2), np.int64)
    _spans(table, rows, chosen, spans)
    changed = [table.ids[start:end].tobytes() for start, end in spans.tolist()]
    return Sampled(changed, mark[chosen == _LEFT].tolist())


_CHANGED, _LEFT = 1, 2


@compiled
def _spans(
    table: Rows, rows: NDArray[np.int64], chosen: NDArray[np.uint8], spans: NDArray[np.int64]
) -> None:
    """Where the ids of changed rows begin and end."""
    n = 0
    for k in range(len(rows)):
        if chosen[k] == _CHANGED:
            header1 = table.header[rows[k], 1]
            spans[n, 0] = id_start(header1)
            spans[n, 1] = id_start(header1) + id_size(header1)
            n += 1


@compiled
def _choose(
    table: Rows,
    rows: NDArray[np.int64],
    key0: np.uint64,
    key1: np.uint64,
    bound: NDArray[np.uint64],
    widest: np.uint64,
    mark: NDArray[np.uint64],
    chosen: NDArray[np.uint8],
) -> None:
    for k in range(len(rows)):
        row = rows[k]
        header1 = table.header[row, 1]
        start, size = id_start(header1), id_size(header1)
        if not flags_of(header1) & USED or _is_other(table.ids, start, size):
            continue
        mark[k] = siphash(key0, key1, table.ids, start, size)
        if mark[k] > widest:
            continue
        length = length_of(table.header[row, 0])
        if flags_of(header1) & GONE or length == 0:
            chosen[k] = _LEFT
            continue
        entry = table.arena[run_of(table.header[row, 0]) :]
        for i in range(length):
            if kind_of(entry[i, 0]) == EXPOSURE and mark[k] <= bound[ad_of(entry[i, 2])]:
                chosen[k] = _CHANGED
                break


@compiled
def _is_other(ids: NDArray[np.uint8], start: int, size: int) -> bool:
    """Whether an id has a type of its own."""
    for i in range(size):  # noqa: SIM110 - compiled, a loop is what it should be
        if ids[start + i] == 0:
            return True
    return False
