"""The loop that leads a log past a ledger: may this be shown, and if so, it was.

An exposure that would have been held back never happens: it is not entered, nor is what answers
it. So rows hold what people would have met under the policy, and each decision follows from that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.applying import NO_ROOM, apply_event
from governor.compiled import allocating, compiled, integer
from governor.entries import ENGAGEMENT, EXPOSURE
from governor.hashing import hash_bytes, mix
from governor.holding import DONE, FULL, SHARES, Governing, held_back
from governor.rows import find

__all__ = ["ASKED", "EXCLUDED", "HELD", "LOST", "SHOWN", "Passing", "Verdicts", "walk"]

ASKED, SHOWN, HELD, EXCLUDED, LOST = 0, 1, 2, 3, 4
"""What became of an event: not met yet; took place (also of engagements and controls); held back;
not taken in by the policy; an engagement whose exposure was held back."""

_SHOWN, _HELD, _EXCLUDED, _LOST = SHOWN, HELD, EXCLUDED, LOST
_EXPOSURE, _ENGAGEMENT = EXPOSURE, ENGAGEMENT
_ZERO, _LUCK, _SHARES = np.uint64(0), np.uint64(0x1C), np.uint64(SHARES)


class Passing(NamedTuple):
    """Rows of a log, as `Ledger.apply` takes them; the last two arrays are by event."""

    text: NDArray[np.uint8]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    ts: NDArray[np.int64]
    what: NDArray[np.int64]
    event: NDArray[np.uint64]
    exposure: NDArray[np.uint64]
    ad: NDArray[np.int64]
    zone: NDArray[np.int64]
    consent: NDArray[np.int64]
    source: NDArray[np.int64]
    skipped: NDArray[np.uint8]
    unit: NDArray[np.int32]
    answers: NDArray[np.int32]


class Verdicts(NamedTuple):
    """What became of each event of a log."""

    fate: NDArray[np.uint8]
    rules: NDArray[np.uint64]
    """Of an exposure the bits of the rules that held it back, by number."""
    shadow: NDArray[np.uint64]
    """And of those that would have, were they not in shadow."""
    controls: NDArray[np.uint8]
    """And of the controls, in the order of `rules.CONTROL_REASONS`."""


@allocating
def walk(
    governing: Governing, rows: Passing, verdicts: Verdicts, progress: NDArray[np.int64]
) -> int:
    """Lead rows past a ledger, from ``progress[0]`` on.

    Returns:
        0 at the end; FULL where the ledger must grow for the row at ``progress[0]``; or what
        `holding.held_back` misses. It is then to be called again.
    """
    by = np.zeros(2, np.uint64)
    i = progress[0]
    while i < len(rows.ts):
        progress[0] = i
        n = rows.source[i]
        end = i + 1
        while end < len(rows.ts) and rows.source[end] == n:
            end += 1
        if rows.skipped[i]:
            verdicts.fate[n] = _EXCLUDED
            i = end
            continue
        kind = rows.what[i] & 3
        if kind == _EXPOSURE and verdicts.fate[n] == 0:
            if rows.unit[n] == n:
                missing = _ask(governing, rows, verdicts, by, i, end)
                if missing < 0:
                    return missing
            else:
                verdicts.fate[n] = verdicts.fate[rows.unit[n]]
        elif kind == _ENGAGEMENT:
            answered = rows.answers[n]
            held = answered >= 0 and verdicts.fate[answered] == _HELD
            verdicts.fate[n] = _LOST if held else _SHOWN
        else:
            verdicts.fate[n] = max(verdicts.fate[n], _SHOWN)
        if verdicts.fate[n] == _SHOWN:
            for k in range(i, end):
                if rows.skipped[k]:
                    continue
                became = apply_event(
                    governing.table, rows.text, rows.start[k], rows.size[k],
                    hash_bytes(rows.text, rows.start[k], rows.size[k]), rows.ts[k], rows.what[k],
                    rows.event[k], rows.exposure[k], rows.ad[k], rows.zone[k], rows.consent[k],
                    governing.ad_hash, governing.rules, governing.ads, governing.scratch,
                    governing.horizon, governing.row_limit,
                )  # fmt: skip
                if became == NO_ROOM:
                    return FULL
        i = end
    progress[0] = i
    return DONE


@compiled
def _ask(
    governing: Governing,
    rows: Passing,
    verdicts: Verdicts,
    by: NDArray[np.uint64],
    begin: int,
    end: int,
) -> int:
    """Ask for an exposure under all ids that it names; any may hold it back."""
    n = rows.source[begin]
    held, shadow, said = _ZERO, _ZERO, 0
    # The same for every policy, so that policies differ by what they say alone.
    luck = integer(mix(rows.event[begin], _LUCK) % _SHARES)
    for k in range(begin, end):
        hashed = hash_bytes(rows.text, rows.start[k], rows.size[k])
        row = find(governing.table, hashed, rows.text, rows.start[k], rows.size[k])
        controls = held_back(governing, row, rows.ts[k], rows.what[k], rows.ad[k], luck, by)
        if controls < 0:
            return controls
        held |= by[0]
        shadow |= by[1]
        said |= controls
    verdicts.rules[n], verdicts.shadow[n], verdicts.controls[n] = held, shadow, said
    verdicts.fate[n] = _HELD if held != _ZERO or said else _SHOWN
    return 0
