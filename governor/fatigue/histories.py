"""What a row says about answers: its exposures, oldest first, each with what became of it.

This is all that curves are estimated from, and the only thing about a person that leaves the
partition: under a keyed hash, without an id. A history is a function of the row's set of entries;
where an engagement comes late, or somebody is erased, the next one simply says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.entries import EXPOSURE, UNMEASURABLE, ad_of, kind_of, shadowed, ticks_of
from governor.fatigue.settlement import UNANSWERED, join, settles_at
from governor.labels import Labels
from governor.rows import Rows, length_of, run_of
from governor.rules import RuleArrays
from governor.scopes import ALWAYS, UNSEEN, Ads, Col
from governor.scratch import Row, ScratchArrays
from governor.situation import look

__all__ = ["ARMS", "History", "HistoryError", "Outline", "histories_of"]

_TS, _AD, _ANSWER, _SETTLES, _MEASURABLE, _COLUMNS = 0, 1, 2, 3, 4, 5
_ABOUT = 3
_BARE, _NOW, _REFUSED, _ARM = Row.BARE, Row.NOW, Row.REFUSED, Row.ARM
_FLAGS = Col.FLAGS
_UNMEASURABLE, _NOTHING = np.uint64(UNMEASURABLE), np.uint64(0)


class HistoryError(ValueError):
    """Bytes that are no history of this format."""


@dataclass(frozen=True, slots=True)
class History:
    """One row's exposures that count, oldest first. Times are ticks."""

    now: int
    """The row's newest event."""
    ads: Sequence[Mapping[str, str]]
    """Labels of each ad."""
    ts: NDArray[np.int64]
    ad: NDArray[np.int64]
    """Index in ``ads``."""
    answer: NDArray[np.int64]
    """When it was first answered, -1 where it was not by now."""
    settles: NDArray[np.int64]
    """From when on nothing can answer it any more."""
    measurable: NDArray[np.bool_]
    """Whether an answer could have been seen at all."""
    arm: str = "governed"
    """Or ``holdout``, or ``ungoverned``."""

    def __len__(self) -> int:
        return len(self.ts)

    def pack(self) -> bytes:
        """As a record's value."""
        return msgspec.msgpack.encode(
            [
                _FORMAT,
                self.now,
                [dict(each) for each in self.ads],
                self.ts.tolist(),
                self.ad.tolist(),
                self.answer.tolist(),
                self.settles.tolist(),
                self.measurable.tolist(),
                self.arm,
            ]
        )

    @classmethod
    def unpack(cls, value: bytes) -> History:
        """From a record's value.

        Raises:
            HistoryError: it is of another format.
        """
        _, now, ads, ts, ad, answer, settles, measurable, arm = _fields(value)
        return cls(
            now,
            ads,
            np.array(ts, np.int64),
            np.array(ad, np.int64),
            np.array(answer, np.int64),
            np.array(settles, np.int64),
            np.array(measurable, np.bool_),
            arm,
        )


@dataclass(frozen=True, slots=True)
class Outline:
    """What is asked of every history all the time, without making its columns."""

    first: int | None
    """Time of the first exposure, in ticks, where there is one."""
    campaigns: frozenset[str]
    arm: str

    @classmethod
    def of(cls, value: bytes) -> Outline:
        """From a record's value.

        Raises:
            HistoryError: it is of another format.
        """
        _, _, ads, ts, _, _, _, _, arm = _fields(value)
        return cls(ts[0] if ts else None, frozenset(ad.get("campaign", "") for ad in ads), arm)


ARMS = ("governed", "holdout", "ungoverned")
"""By number of the row's arm."""

_FORMAT = 1
_Fields = tuple[
    int,
    int,
    list[dict[str, str]],
    list[int],
    list[int],
    list[int],
    list[int],
    list[bool],
    str,
]
_decode = msgspec.msgpack.Decoder(_Fields).decode


def _fields(value: bytes) -> _Fields:
    try:
        fields: _Fields = _decode(value)
    except (msgspec.MsgspecError, ValueError) as error:
        raise HistoryError(str(error)) from error
    number, _, ads, ts, ad, answer, settles, measurable, _ = fields
    sizes = {len(ts), len(ad), len(answer), len(settles), len(measurable)}
    if number != _FORMAT or len(sizes) > 1 or (ad and not 0 <= min(ad) <= max(ad) < len(ads)):
        raise HistoryError(f"format {number}, columns of {sizes}")
    return fields


def histories_of(
    table: Rows,
    rows: NDArray[np.int64],
    rules: RuleArrays,
    ads: Ads,
    labels: Labels,
    scratch: ScratchArrays,
) -> list[History]:
    """The histories of rows of which none is empty, each by itself."""
    most = int(_entries_of(table, rows))
    out = np.empty((most, _COLUMNS), np.int64)
    about = np.empty((len(rows), _ABOUT), np.int64)
    _extract_all(table, rows, rules, ads, scratch, out, about)
    known: dict[int, dict[str, str]] = {}
    made = []
    begin = 0
    for end, now, arm in about.tolist():
        columns = out[begin:end]
        ad = columns[:, _AD].tolist()
        used = sorted(set(ad))
        for number in used:
            if number not in known:
                known[number] = labels.labels_of(number)
        place = {number: at for at, number in enumerate(used)}
        made.append(
            History(
                now,
                [known[number] for number in used],
                columns[:, _TS],
                np.array([place[number] for number in ad], np.int64),
                columns[:, _ANSWER],
                columns[:, _SETTLES],
                columns[:, _MEASURABLE].astype(np.bool_),
                ARMS[arm],
            )
        )
        begin = end
    return made


@compiled
def _entries_of(table: Rows, rows: NDArray[np.int64]) -> int:
    """Entries of rows, all together."""
    entries = 0
    for row in rows:
        entries += length_of(table.header[row, 0])
    return entries


@compiled
def _extract_all(
    table: Rows,
    rows: NDArray[np.int64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    out: NDArray[np.int64],
    about: NDArray[np.int64],
) -> None:
    """Write the exposures of each row into ``out``; where they end, the row's newest event and its
    arm into ``about``."""
    end = 0
    for k in range(len(rows)):
        end += _extract(table, rows[k], rules, ads, scratch, out[end:])
        about[k, 0] = end
        about[k, 1] = scratch.row[_NOW]
        about[k, 2] = scratch.row[_ARM]


@compiled
def _extract(
    table: Rows,
    row: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    out: NDArray[np.int64],
) -> int:
    """Write a row's exposures into ``out``, oldest first; how many there are."""
    entry = table.arena[run_of(table.header[row, 0]) :]
    look(table, row, rules, ads, scratch)
    join(entry, ads, scratch)
    n = 0
    for i in range(scratch.row[_BARE] - 1, -1, -1):
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        flags = ads.ad[ad_of(entry[i, 2]), _FLAGS]
        if flags & ALWAYS:
            continue
        dark = (entry[i, 0] & _UNMEASURABLE) != _NOTHING or flags & UNSEEN
        out[n, _TS] = ticks_of(entry[i, 0])
        out[n, _AD] = ad_of(entry[i, 2])
        out[n, _ANSWER] = -1 if scratch.answer[i] == UNANSWERED else scratch.answer[i]
        out[n, _SETTLES] = settles_at(entry, ads, i)
        out[n, _MEASURABLE] = not (dark or scratch.row[_REFUSED])
        n += 1
    return n
