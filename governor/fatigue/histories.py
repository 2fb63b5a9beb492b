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

__all__ = ["ARMS", "History", "HistoryError", "history_of"]

_TS, _AD, _ANSWER, _SETTLES, _MEASURABLE, _COLUMNS = 0, 1, 2, 3, 4, 5
_BARE, _NOW, _REFUSED = Row.BARE, Row.NOW, Row.REFUSED
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
        try:
            number, now, ads, ts, ad, answer, settles, measurable, arm = _decode(value)
        except (msgspec.MsgspecError, ValueError) as error:
            raise HistoryError(str(error)) from error
        sizes = {len(each) for each in (ts, ad, answer, settles, measurable)}
        if number != _FORMAT or len(sizes) > 1 or any(not 0 <= each < len(ads) for each in ad):
            raise HistoryError(f"format {number}, columns of {sizes}")
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


ARMS = ("governed", "holdout", "ungoverned")
"""By number of the row's arm."""

_FORMAT = 1
_decode = msgspec.msgpack.Decoder(
    tuple[
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
).decode


def history_of(
    table: Rows, row: int, rules: RuleArrays, ads: Ads, labels: Labels, scratch: ScratchArrays
) -> History:
    """The history of a row that is not empty."""
    out = np.empty((length_of(table.header[row, 0]), _COLUMNS), np.int64)
    columns = out[: _extract(table, row, rules, ads, scratch, out)]
    used, ad = np.unique(columns[:, _AD], return_inverse=True)
    return History(
        int(scratch.row[Row.NOW]),
        [labels.labels_of(int(number)) for number in used],
        columns[:, _TS].copy(),
        ad.astype(np.int64),
        columns[:, _ANSWER].copy(),
        columns[:, _SETTLES].copy(),
        columns[:, _MEASURABLE].astype(np.bool_),
        ARMS[int(scratch.row[Row.ARM])],
    )


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
