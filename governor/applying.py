"""The loop that enters events into rows, compiled; it reads like the definition of a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.entries import (
    CONSENT,
    CONTROL,
    CUT,
    ENGAGEMENT,
    ERASE,
    EXPOSURE,
    FACT,
    FACTS,
    GRANT,
    LINK,
    REFUSAL,
    SHADOW,
    TYPE_SHIFT,
    WORDS,
    ZONE,
    any_shadowed,
    cast_shadow,
    cast_shadows,
    fact_of,
    facts_from,
    kind_of,
    newest_of,
    older,
    ticks_of,
    time_word,
    type_of,
)
from governor.hashing import hash_bytes
from governor.kept import prune, prune_exposures
from governor.prefetch import AHEAD, prefetch
from governor.rows import (
    DIRTY,
    GONE,
    OTHERS,
    Rows,
    State,
    add,
    ask,
    find,
    flags_of,
    has_room,
    hint,
    id_size,
    id_start,
    length_of,
    mark_dirty,
    remove,
    reserve,
    run_of,
    set_length,
)
from governor.rules import RuleArrays, Scalar
from governor.scopes import Ads
from governor.scratch import RING, ScratchArrays
from governor.situation import id_type_of, refused_at

__all__ = [
    "APPLIED", "DROPPED", "DUPLICATE", "ERASED", "EXCLUDED", "LATE", "NO_ROOM", "REFUSED",
    "apply_event", "apply_events", "enter", "erase", "insert", "note_kinds", "settle_row", "state",
    "tidy",
]  # fmt: skip

APPLIED, DUPLICATE, LATE, DROPPED, REFUSED, EXCLUDED, ERASED = 0, 1, 2, 3, 4, 5, 6
"""What became of an event. ERASED ones are sorted out before they come here."""

NO_ROOM = -1
"""Instead, where the table must grow before the event can be applied."""

_NEWEST, _OVERFLOW, _DIRTY = State.NEWEST, State.OVERFLOW, State.DIRTY
_REQUIRED = Scalar.REQUIRED
_AD_BITS = np.uint64(24)
_EXPOSURE_BITS = np.uint64((1 << 40) - 1)
_GONE, _OTHERS = np.uint64(GONE), np.uint64(OTHERS)
_GRANTED = 1
_RING = RING - 1
_SHADOW = np.uint64(SHADOW)


@compiled
def apply_events(
    table: Rows,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    ts: NDArray[np.int64],
    what: NDArray[np.int64],
    event: NDArray[np.uint64],
    exposure: NDArray[np.uint64],
    ad: NDArray[np.int64],
    zone: NDArray[np.int64],
    consent: NDArray[np.int64],
    skipped: NDArray[np.uint8],
    ad_hash: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
    outcome: NDArray[np.uint8],
    first: int,
) -> int:
    """Apply events from ``first`` on; return where it stopped for want of room."""
    for i in range(first - 3 * AHEAD, len(ts)):
        _ask(table, text, start, size, scratch, i, first)
        if i < first:
            continue
        if skipped[i]:
            outcome[i] = EXCLUDED
            continue
        became = apply_event(
            table, text, start[i], size[i], scratch.hash[i & _RING], ts[i], what[i], event[i],
            exposure[i], ad[i], zone[i], consent[i], ad_hash, rules, ads, scratch, horizon,
            row_limit,
        )  # fmt: skip
        if became == NO_ROOM:
            return i
        outcome[i] = became
    return len(ts)


@inlined
def apply_event(
    table: Rows,
    text: NDArray[np.uint8],
    start: int,
    size: int,
    hashed: np.uint64,
    ts: int,
    what: int,
    event: np.uint64,
    exposure: np.uint64,
    ad: int,
    zone: int,
    consent: int,
    ad_hash: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> int:
    """Apply one event, ``hashed`` being its id's hash; what became of it, or NO_ROOM, where nothing
    was changed."""
    new = scratch.entry
    row = find(table, hashed, text, start, size)
    entries = 2 + FACTS
    if row >= 0:
        entries += length_of(table.header[row, 0])
    if (
        table.state[_DIRTY] == len(table.dirty)
        or entries > len(scratch.mark)
        or not has_room(table, row, entries, size)
    ):
        return NO_ROOM
    kind, sort = what & 3, what >> TYPE_SHIFT & 31
    if kind == CONTROL and sort == ERASE:
        return APPLIED if row >= 0 and erase(table, row, ts) else DUPLICATE
    if kind == CONTROL and (sort == LINK or (sort == CONSENT and consent == 0)):
        return DUPLICATE
    if row < 0:
        row = add(table, hashed, text, start, size)
    new[1] = event
    became, changed = DUPLICATE, False
    if not (kind == CONTROL and sort == CONSENT):
        new[0] = time_word(ts, what)
        new[2] = ((exposure & _EXPOSURE_BITS) << _AD_BITS) | np.uint64(ad)
        became = insert(table, row, new, ad_hash, rules, ads, scratch, horizon, row_limit)
        changed = became == APPLIED
    if consent > 0:
        fact = GRANT if consent == _GRANTED else REFUSAL
        new[0], new[2] = time_word(ts, FACT | fact << TYPE_SHIFT), np.uint64(0)
        if state(table, row, new, ad_hash, rules, ads, scratch, horizon, row_limit):
            changed = True
            if kind == CONTROL and sort == CONSENT:
                became = APPLIED
    if zone >= 0 and became != REFUSED:
        new[0] = time_word(ts, FACT | ZONE << TYPE_SHIFT)
        new[2] = np.uint64(zone)
        if state(table, row, new, ad_hash, rules, ads, scratch, horizon, row_limit):
            changed = True
    settle_row(table, row, ts, changed)
    return became


@inlined
def _ask(
    table: Rows,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    scratch: ScratchArrays,
    i: int,
    first: int,
) -> None:
    """Have what events behind the i-th will need fetched, of each of three a step further on."""
    n = len(start)
    far, near, next_ = i + 3 * AHEAD, i + 2 * AHEAD, i + AHEAD
    if far < n:
        hashed = hash_bytes(text, start[far], size[far])
        scratch.hash[far & _RING] = hashed
        prefetch(table.slots, hashed & np.uint64(len(table.slots) - 1))
    if first <= near < n:
        row = hint(table, scratch.hash[near & _RING])
        scratch.hint[near & _RING] = row
        prefetch(table.header, row)
    if first <= next_ < n and scratch.hint[next_ & _RING] >= 0:
        ask(table, scratch.hint[next_ & _RING])


@compiled
def settle_row(table: Rows, row: int, ts: int, changed: bool) -> None:
    """Have a changed row taken; forget one that was made for nothing."""
    if changed:
        mark_dirty(table, row)
        table.state[_NEWEST] = max(table.state[_NEWEST], ts)
    elif length_of(table.header[row, 0]) == 0 and not flags_of(table.header[row, 1]) & DIRTY:
        remove(table, row)


@compiled
def insert(
    table: Rows,
    row: int,
    new: NDArray[np.uint64],
    ad_hash: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> int:
    """Put one entry that is no fact into a row; say what became of it."""
    start, length = run_of(table.header[row, 0]), length_of(table.header[row, 0])
    entry = table.arena[start:]
    ts, kind = ticks_of(new[0]), kind_of(new[0])
    if kind != CONTROL and length > 0 and ts <= newest_of(entry, length) - horizon:
        return LATE
    if kind == ENGAGEMENT and _refuses(entry, length, ts, rules):
        return REFUSED

    bare = facts_from(entry, length)
    at = 0
    order = 1
    while at < bare:
        order = older(new, entry[at], ad_hash)
        if order != 1:
            break
        at += 1
    if at < bare and order == 0:
        return DUPLICATE

    simple = kind == EXPOSURE and not flags_of(table.header[row, 1]) & OTHERS
    dropped = False
    if simple and at == 0:
        kept = _expire(entry, length, bare, ts - horizon)
        dropped = kept < length
        set_length(table, row, kept)
    _open(table, row, new, at)
    entry = table.arena[run_of(table.header[row, 0]) :]
    bare = facts_from(entry, length_of(table.header[row, 0]))
    if dropped and any_shadowed(entry, bare):
        cast_shadows(entry, bare)
    else:
        cast_shadow(entry, bare, at)
    if simple and bare <= row_limit:
        return APPLIED

    cut = _cut_of(table, row)
    if simple:
        _prune_crowded(table, row, rules, ads, scratch, horizon, row_limit)
    else:
        table.header[row, 1] |= _OTHERS
        _prune_row(table, row, rules, ads, scratch, horizon, row_limit)
    if scratch.mark[at] == 1:
        return APPLIED
    if _cut_of(table, row) != cut:
        mark_dirty(table, row)  # it tells how far back it has been cut, and must after a restart
    return DROPPED if scratch.mark[at] == 2 else LATE


@compiled
def _cut_of(table: Rows, row: int) -> int:
    """The time of the newest entry that was pushed out of a row, or -1."""
    length = length_of(table.header[row, 0])
    entry = table.arena[run_of(table.header[row, 0]) :]
    at = fact_of(entry, length, CUT)
    return ticks_of(entry[at, 0]) if at >= 0 else -1


@compiled
def _expire(entry: NDArray[np.uint64], length: int, bare: int, oldest: int) -> int:
    """Let go of a plain row's end that is not later than ``oldest``; how many entries are left."""
    kept = bare
    while kept > 0 and ticks_of(entry[kept - 1, 0]) <= oldest:
        kept -= 1
    for i in range(bare, length):
        if ticks_of(entry[i, 0]) > oldest or type_of(entry[i, 0]) in (GRANT, REFUSAL):
            for word in range(WORDS):
                entry[kept, word] = entry[i, word]
            kept += 1
    return kept


@compiled
def _refuses(entry: NDArray[np.uint64], length: int, ts: int, rules: RuleArrays) -> bool:
    """Whether the row keeps no engagement of this time, for want of consent."""
    if refused_at(entry, length, rules.scalars[_REQUIRED]) >= -1:
        return True
    refusal = fact_of(entry, length, REFUSAL)
    return refusal >= 0 and ts <= ticks_of(entry[refusal, 0])


@compiled
def _open(table: Rows, row: int, new: NDArray[np.uint64], at: int) -> None:
    """Put an entry at a place, those behind it one further."""
    length = length_of(table.header[row, 0])
    reserve(table, row, length + 1)
    entry = table.arena[run_of(table.header[row, 0]) :]
    for i in range(length, at, -1):
        for word in range(WORDS):
            entry[i, word] = entry[i - 1, word]
    for word in range(WORDS):
        entry[at, word] = new[word]
    set_length(table, row, length + 1)
    table.header[row, 1] &= ~_GONE


@compiled
def tidy(
    table: Rows,
    row: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> None:
    """Of a row as it was written elsewhere, keep what a row keeps here."""
    length = length_of(table.header[row, 0])
    entry = table.arena[run_of(table.header[row, 0]) :]
    oldest = newest_of(entry, length) - horizon
    bare = facts_from(entry, length)
    plain = bare == length and bare <= row_limit and ticks_of(entry[bare - 1, 0]) > oldest
    for i in range(bare):
        plain = plain and kind_of(entry[i, 0]) == EXPOSURE
    if not plain:
        dropped = table.state[_OVERFLOW]
        _prune_row(table, row, rules, ads, scratch, horizon, row_limit)
        table.state[_OVERFLOW] = dropped


@compiled
def _prune_row(
    table: Rows,
    row: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> None:
    """Let go of what the row does not keep, and note whether it holds more than exposures."""
    header0, header1 = table.header[row, 0], table.header[row, 1]
    entry = table.arena[run_of(header0) :]
    id_type = id_type_of(table.ids, id_start(header1), id_size(header1), rules)
    length = length_of(header0)
    bare = facts_from(entry, length)
    kept = prune(entry, length, id_type, rules, ads, scratch, horizon, row_limit)
    for i in range(bare):
        table.state[_OVERFLOW] += scratch.mark[i] == 2
    set_length(table, row, kept)
    note_kinds(table, row)


@compiled
def _prune_crowded(
    table: Rows,
    row: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> None:
    """`_prune_row` of a row that holds nothing but exposures and facts."""
    header0, header1 = table.header[row, 0], table.header[row, 1]
    id_type = id_type_of(table.ids, id_start(header1), id_size(header1), rules)
    kept, dropped = prune_exposures(
        table.arena[run_of(header0) :],
        length_of(header0),
        id_type,
        rules,
        ads,
        scratch,
        horizon,
        row_limit,
    )
    table.state[_OVERFLOW] += dropped
    set_length(table, row, kept)


@compiled
def note_kinds(table: Rows, row: int) -> None:
    """Note whether the row holds more than exposures."""
    entry = table.arena[run_of(table.header[row, 0]) :]
    others = False
    for i in range(length_of(table.header[row, 0])):
        others = others or kind_of(entry[i, 0]) in (ENGAGEMENT, CONTROL)
    if others:
        table.header[row, 1] |= _OTHERS
    else:
        table.header[row, 1] &= ~_OTHERS


@compiled
def state(
    table: Rows,
    row: int,
    new: NDArray[np.uint64],
    ad_hash: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> bool:
    """Put a fact into a row, unless it knows a later one; whether it did."""
    length = length_of(table.header[row, 0])
    entry = table.arena[run_of(table.header[row, 0]) :]
    kind = type_of(new[0])
    if kind == ZONE and ticks_of(new[0]) <= newest_of(entry, length) - horizon:
        return False
    at = fact_of(entry, length, kind)
    if at >= 0:
        if older(new, entry[at], ad_hash) >= 0:
            return False
        for word in range(WORDS):
            entry[at, word] = new[word]
    else:
        at = facts_from(entry, length)
        while at < length and type_of(entry[at, 0]) < kind:
            at += 1
        _open(table, row, new, at)
    if kind != ZONE:
        _prune_row(table, row, rules, ads, scratch, horizon, row_limit)
    return True


@compiled
def erase(table: Rows, row: int, ts: int) -> bool:
    """Let go of all that a row holds up to a time; whether there was anything."""
    length = length_of(table.header[row, 0])
    entry = table.arena[run_of(table.header[row, 0]) :]
    kept, bare = 0, 0
    for i in range(length):
        if ticks_of(entry[i, 0]) > ts:
            for word in range(WORDS):
                entry[kept, word] = entry[i, word]
            kept += 1
            bare += kind_of(entry[i, 0]) != FACT
    if kept == length:
        return False
    if any_shadowed(entry, bare):
        cast_shadows(entry, bare)
    set_length(table, row, kept)
    if kept == 0:
        table.header[row, 1] |= _GONE
    mark_dirty(table, row)
    return True


@compiled
def enter(
    table: Rows,
    row: int,
    entries: NDArray[np.uint64],
    ad_hash: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
    first: int,
) -> int:
    """Put entries of another row into this one from ``first`` on; where it stopped for room."""
    new = scratch.entry
    for i in range(first, len(entries)):
        if not has_room(table, row, length_of(table.header[row, 0]) + 2, 0):
            return i
        for word in range(WORDS):
            new[word] = entries[i, word]
        if kind_of(new[0]) == FACT:
            state(table, row, new, ad_hash, rules, ads, scratch, horizon, row_limit)
        else:
            new[0] &= ~_SHADOW
            insert(table, row, new, ad_hash, rules, ads, scratch, horizon, row_limit)
        table.state[_NEWEST] = max(table.state[_NEWEST], ticks_of(new[0]))
    return len(entries)
