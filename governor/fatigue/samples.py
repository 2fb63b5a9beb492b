"""All the histories that are observed, as they are known by now, and the clocks of partitions.

The samples topic is a map: the newest record of each key is all there is to know, so reading it
again, or twice, changes nothing.

    p, mark (8 bytes)     partition (2), then a history; null where the person is gone
    w, partition (2)      newest event time in ticks (8), and whether all that was there is read (1)

Numbers are little-endian. **The clock of a partition** is its newest event. A partition whose owner
has read all there is goes by the others' clocks too, `LATENESS` behind the latest of them: nothing
older can still be in it, unless it is written that late. So people settle in partitions where
nothing happens, and where a worker lags behind they wait for it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from governor.fatigue.exposures import Exposures, from_columns
from governor.fatigue.histories import History, HistoryError, Outline
from governor.fatigue.sampling import MOST_HALVINGS, Shares
from governor.ticks import SECOND

__all__ = [
    "LATENESS",
    "Samples",
    "SamplesError",
    "clock_record",
    "history_of",
    "history_record",
    "mark_key",
]

LATENESS = 300 * SECOND
"""By how much, in ticks, an idle partition's clock is behind the latest."""

ENOUGH = 1_000
"""People of whom a campaign's curve can be told well."""

_MARK, _PARTITION, _CLOCK = struct.Struct("<Q"), struct.Struct("<H"), struct.Struct("<qB")


class SamplesError(ValueError):
    """A record that is none of ours."""


def mark_key(mark: int) -> bytes:
    """The key of a person's history."""
    return b"p" + _MARK.pack(mark)


def history_record(mark: int, partition: int, history: History) -> tuple[bytes, bytes]:
    """Key and value of a person's history."""
    return mark_key(mark), _PARTITION.pack(partition) + history.pack()


def history_of(value: bytes) -> History:
    """The history in a record's value.

    Raises:
        HistoryError: it is none.
    """
    return History.unpack(value[_PARTITION.size :])


def clock_record(partition: int, newest: int, *, drained: bool) -> tuple[bytes, bytes]:
    """Key and value of a partition's clock."""
    return b"w" + _PARTITION.pack(partition), _CLOCK.pack(newest, drained)


@dataclass(frozen=True, slots=True)
class _Person:
    partition: int
    value: bytes
    """The record's: columns are made of it when all are asked for."""
    outline: Outline


class Samples:
    """What the topic holds. ``take`` changes it; everything else asks."""

    def __init__(self) -> None:
        self._people: dict[int, _Person] = {}
        self._clocks: dict[int, tuple[int, bool]] = {}
        self._ads: dict[tuple[str, str, str], int] = {}
        self.changes = 0
        """Grows with everything that is taken."""

    def __len__(self) -> int:
        return len(self._people)

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take in a record.

        Raises:
            SamplesError: it is none of ours; nothing has changed.
        """
        self.changes += 1
        try:
            if key is not None and key[:1] == b"p":
                self._take_person(_MARK.unpack(key[1:])[0], value)
            elif key is not None and key[:1] == b"w" and value is not None:
                newest, drained = _CLOCK.unpack(value)
                self._clocks[_PARTITION.unpack(key[1:])[0]] = newest, bool(drained)
            else:
                raise SamplesError(f"a record with the key {key!r}")
        except (struct.error, HistoryError) as error:
            raise SamplesError(f"a record with the key {key!r}: {error}") from error

    def _take_person(self, mark: int, value: bytes | None) -> None:
        if value is None:
            self._people.pop(mark, None)
            return
        (partition,) = _PARTITION.unpack(value[:2])
        self._people[mark] = _Person(partition, value, Outline.of(value[_PARTITION.size :]))

    def clock(self, partition: int) -> int:
        """Up to when everything of a partition is known, in ticks."""
        newest, drained = self._clocks.get(partition, (0, False))
        if not drained:
            return newest
        latest = max(clock for clock, _ in self._clocks.values())
        return max(newest, latest - LATENESS)

    @property
    def now(self) -> int:
        """The latest clock."""
        return max((self.clock(partition) for partition in self._clocks), default=0)

    @property
    def settled_until(self) -> int:
        """Up to when everything of every partition that has somebody is known."""
        partitions = {person.partition for person in self._people.values()}
        return min((self.clock(partition) for partition in partitions), default=0)

    @property
    def since(self) -> int:
        """The earliest exposure that is held: before it nobody has been observed."""
        firsts = (one.outline.first for one in self._people.values())
        return min((first for first in firsts if first is not None), default=0)

    def exposures(self) -> Exposures:
        """All that is held, in an order that depends on nothing but what is held."""
        marks = sorted(self._people)
        people = [self._people[mark] for mark in marks]
        histories = [history_of(one.value) for one in people]
        sizes = [len(one) for one in histories]
        ad = _joined([self._numbered(one) for one in histories])
        names = [("", "", "")] * len(self._ads)
        for name, number in self._ads.items():
            names[number] = name
        columns, known = [], []
        for i in range(3):
            values = sorted({names[number][i] for number in np.unique(ad)} - {""})
            place = {name: at for at, name in enumerate(values)}
            column = np.array([place.get(name[i], -1) for name in names] or [-1], np.int32)
            columns.append(column[ad])
            known.append(values)
        answer = _joined([one.answer for one in histories])
        clocks = np.array([self.clock(one.partition) for one in people], np.int64)
        settles = _joined([one.settles for one in histories])
        return from_columns(
            np.repeat(np.array(marks, np.uint64), sizes),
            _joined([one.ts for one in histories]),
            campaign=columns[0],
            campaigns=known[0],
            creative=columns[1],
            creatives=known[1],
            category=columns[2],
            categories=known[2],
            measurable=_joined([one.measurable.astype(np.int64) for one in histories]).astype(
                np.bool_
            ),
            engaged=answer >= 0,
            engaged_at=answer,
            settled=settles <= np.repeat(clocks, sizes),
        )

    def _numbered(self, history: History) -> NDArray[np.int64]:
        """The ad of each exposure, as `_ads` numbers them."""
        numbers = [
            self._ads.setdefault(
                (ad.get("campaign", ""), ad.get("creative", ""), ad.get("category", "")),
                len(self._ads),
            )
            for ad in history.ads
        ]
        return np.array(numbers, np.int64)[history.ad] if numbers else history.ad

    def arms(self) -> dict[int, str]:
        """The arm of everybody who is observed, by mark."""
        return {mark: one.outline.arm for mark, one in self._people.items()}

    def outside(self, shares: Shares) -> list[int]:
        """Marks of people who are held and not within any share."""
        return [
            mark
            for mark, one in self._people.items()
            if all(mark > shares.bound(campaign) for campaign in one.outline.campaigns)
        ]

    def adapted(self, shares: Shares, most: int, there: int = 0) -> Shares:
        """Shares under which no more than ``most`` people are held, and campaigns that few people
        see have more of them than others, as far as there is room.

        With more than ``most`` everybody's share is halved until few enough are left; with less
        than a quarter it is doubled until about half as many are expected. While there is room, a
        campaign of which fewer than `ENOUGH` people are held has its share doubled; one of which
        four times as many are, halved.

        Of ``there`` people that are known to be there no share is so large that it would hold more
        than ``most``, whether they are held already or not.
        """
        people = Counter(c for one in self._people.values() for c in one.outline.campaigns if c)
        least = 0
        while there >> least > most and least < MOST_HALVINGS:
            least += 1
        if len(self) > most:
            return self._fewer(shares, most, least)
        halvings = max(shares.halvings, least)
        expected = max(1, len(self))
        while halvings > least and expected < most // 4:
            halvings, expected = halvings - 1, 2 * expected
        room = len(self) < most // 2
        named = {}
        for campaign, count in people.items():
            own = shares.of(campaign)
            if count < ENOUGH and room:
                own = max(0, own - 1)
            elif count > 4 * ENOUGH:
                own += 1
            if own < halvings:
                named[campaign] = own
        return Shares(halvings, named)

    def _fewer(self, shares: Shares, most: int, least: int) -> Shares:
        shares = replace(shares, halvings=max(shares.halvings, least))
        while len(self) - len(self.outside(shares)) > most and shares.halvings < MOST_HALVINGS:
            named = {name: halvings + 1 for name, halvings in shares.campaigns.items()}
            shares = replace(shares, halvings=shares.halvings + 1, campaigns=named)
        return shares


def _joined(parts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    parts = list(parts)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
