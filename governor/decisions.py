"""Decisions: which labels of a user rest, until when, and why.

A rule of limit L and window W stops a label from its L-th most recent exposure on; the throttle
ends at the time of that exposure plus W, when it leaves the window ``(t - W, t]``. Spacing is the
same with L = 1. Rules are evaluated at the newest event of the row, so an answer depends on the
row alone and not on when it was asked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.entries import EXPOSURE, ad_of, kind_of, shadowed, ticks_of
from governor.hashing import mix
from governor.labels import Labels, ad_hash
from governor.policy import Cap, Policy, Rule, Spacing
from governor.records import Records
from governor.rows import (
    GONE,
    Rows,
    State,
    id_size,
    id_start,
    length_of,
    run_of,
)
from governor.ticks import SECOND, seconds_text

__all__ = ["GRACE", "Rules", "Scratch", "compile_rules", "encode_one", "take"]

GRACE = 3600 * SECOND
"""How long a decision that has run out may stay on the topic, in ticks behind the watermark. One
device's clock may run ahead of all others; what is withdrawn has run out by everybody's."""

_NEWEST, _DIRTY = State.NEWEST, State.DIRTY
_GRACE, _SECOND = GRACE, SECOND
_NONE = np.uint64(0)
_ONE = np.uint64(1)


class RuleArrays(NamedTuple):
    """Rules sorted by dimension: those of dimension d are ``first[d]`` to ``first[d + 1]``."""

    first: NDArray[np.int64]
    limit: NDArray[np.int64]
    window: NDArray[np.int64]
    number: NDArray[np.int64]  # in the policy's order
    sorted_at: NDArray[np.int64]  # where the rule of that number stands here
    hash: NDArray[np.uint64]
    text: NDArray[np.uint8]  # by number: the quoted name, then the beginning of its evidence
    name_end: NDArray[np.int64]
    text_start: NDArray[np.int64]
    tail: NDArray[np.uint8]  # the end of the record, up to decided_at


@dataclass(frozen=True)
class Rules:
    """A policy, ready to be evaluated."""

    dimensions: tuple[str, ...]
    arrays: RuleArrays
    longest: int


class _Plain(NamedTuple):
    """A rule as far as it can be compiled yet: one dimension, no condition, a rolling window."""

    name: str
    per: str
    limit: int
    window: int


def _plain(rule: Rule) -> _Plain:
    """The rule; one that cannot be compiled yet as a cap that no row reaches."""
    known = isinstance(rule, Spacing) or (isinstance(rule, Cap) and rule.rolling is not None)
    if not known or rule.where or rule.shadow or rule.id != "user" or len(rule.per) > 1:
        return _Plain(rule.name, rule.per[0], 1 << 40, SECOND)
    assert isinstance(rule, Cap | Spacing)
    return _Plain(rule.name, rule.per[0], rule.limit, rule.window)


def compile_rules(policy: Policy) -> Rules:
    """The policy's rules as arrays."""
    rules = [_plain(rule) for rule in policy.rules]
    dimensions = tuple(dict.fromkeys(rule.per for rule in rules))
    number = sorted(range(len(rules)), key=lambda i: dimensions.index(rules[i].per))
    counts = [sum(rule.per == dimension for rule in rules) for dimension in dimensions]
    names = [json.dumps(rule.name).encode() for rule in rules]
    evidence = [
        b'%s:{"limit":%d,"window":%s,"exposures":'
        % (name, rule.limit, seconds_text(rule.window).encode())
        for name, rule in zip(names, rules, strict=True)
    ]
    texts = [name + text for name, text in zip(names, evidence, strict=True)]
    starts = np.cumsum([0] + [len(text) for text in texts]).astype(np.int64)
    tail = b'],"policy":%s,"curves":null,"decided_at":' % json.dumps(policy.version).encode()
    arrays = RuleArrays(
        np.cumsum([0, *counts]).astype(np.int64),
        np.array([rules[i].limit for i in number], np.int64),
        np.array([rules[i].window for i in number], np.int64),
        np.array(number, np.int64),
        np.argsort(np.array(number, np.int64)).astype(np.int64),
        np.array([ad_hash(rules[i].name.encode()) for i in number], np.uint64),
        np.frombuffer(b"".join(texts), np.uint8),
        starts[:-1] + np.array([len(name) for name in names], np.int64),
        starts,
        np.frombuffer(tail, np.uint8),
    )
    return Rules(dimensions, arrays, max((rule.window for rule in rules), default=0))


class ScratchArrays(NamedTuple):
    """Working memory of `_evaluate`: counts by label, and the throttles found."""

    round: NDArray[np.int64]
    seen_in: NDArray[np.int64]
    exposures: NDArray[np.int64]
    newest: NDArray[np.int64]
    label: NDArray[np.int64]
    rule: NDArray[np.int64]
    start: NDArray[np.int64]
    until: NDArray[np.int64]


@dataclass
class Scratch:
    """Holds the working memory between calls and lets it grow."""

    arrays: ScratchArrays = field(
        default_factory=lambda: ScratchArrays(*(np.zeros(1, np.int64) for _ in range(8)))
    )

    def sized(self, labels: int, throttles: int) -> ScratchArrays:
        """The arrays, with room for so many labels and throttles of one row."""
        if len(self.arrays.seen_in) < labels or len(self.arrays.label) < throttles:
            labels, throttles = 2 * labels, 2 * throttles
            self.arrays = ScratchArrays(
                np.zeros(1, np.int64),
                *(np.zeros(labels, np.int64) for _ in range(3)),
                *(np.zeros(throttles, np.int64) for _ in range(4)),
            )
        return self.arrays


def encode_one(
    table: Rows, row: int, rules: Rules, labels: Labels, scratch: Scratch
) -> bytes | None:
    """The decision record of one row, or None when nothing holds."""
    arrays = _sized(scratch, rules, labels, np.array([row], np.int64), table)
    found = _evaluate(table, row, rules.arrays, rules.longest, labels.ad_label, arrays)
    if found == 0:
        return None
    size = _size_bound(table, row, rules.arrays, labels.label_start, arrays, found)
    out = np.empty(size, np.uint8)
    end = _encode(
        out, 0, table, row, rules.arrays, labels.ad_label, labels.label_text, labels.label_start,
        arrays, found, 0,
    )  # fmt: skip
    return out[:end].tobytes()


def take(
    table: Rows, rules: Rules, labels: Labels, scratch: Scratch, decided_at: int, horizon: int
) -> tuple[Records, NDArray[np.int64], int]:
    """Decisions of dirty rows that differ from what was last taken, and note them as taken.

    Rows that nobody can ask about any more are marked GONE on the way.

    Returns:
        The records, throttles by rule, tombstones.
    """
    count = int(table.state[State.DIRTY])
    arrays = _sized(scratch, rules, labels, table.dirty[:count], table)
    starts = np.zeros(count, np.int64)
    key_size = np.zeros(count, np.int64)
    value_size = np.zeros(count, np.int64)
    by_rule = np.zeros(len(rules.arrays.limit), np.int64)
    out = np.empty(4096 + 320 * count, np.uint8)
    progress = np.zeros(3, np.int64)  # dirty rows done, records, bytes
    while True:
        wanted = _take(
            table, rules.arrays, rules.longest, labels.ad_label, labels.label_hash,
            labels.label_text, labels.label_start, arrays, decided_at, horizon, out, starts,
            key_size, value_size, by_rule, progress,
        )  # fmt: skip
        if wanted == 0:
            break
        grown = np.empty(2 * len(out) + wanted, np.uint8)
        grown[: progress[2]] = out[: progress[2]]
        out = grown
    n = int(progress[1])
    starts, key_size, value_size = starts[:n], key_size[:n], value_size[:n]
    nothing = np.zeros(n, np.int64)
    records = Records(
        out[: progress[2]], nothing, nothing, starts, key_size, starts + key_size, value_size
    )
    return records, by_rule, int(np.count_nonzero(value_size < 0))


def _sized(
    scratch: Scratch, rules: Rules, labels: Labels, rows: NDArray[np.int64], table: Rows
) -> ScratchArrays:
    longest = _longest_row(table, rows)
    return scratch.sized(max(1, len(labels.label_names)), max(1, longest * len(rules.arrays.limit)))


@compiled
def _longest_row(table: Rows, rows: NDArray[np.int64]) -> int:
    longest = 0
    for row in rows:
        longest = max(longest, length_of(table.header[row, 0]))
    return longest


@compiled
def _evaluate(
    table: Rows,
    row: int,
    rules: RuleArrays,
    longest: int,
    ad_label: NDArray[np.int32],
    scratch: ScratchArrays,
) -> int:
    """Find the throttles of a row at its newest event; return how many."""
    length = length_of(table.header[row, 0])
    if length == 0:
        return 0
    entry = table.arena[run_of(table.header[row, 0]) :]
    now = ticks_of(entry[0, 0])
    scratch.round[0] += 1
    this_round = scratch.round[0]
    dimensions = len(rules.first) - 1
    found = 0
    for i in range(length):
        ts = ticks_of(entry[i, 0])
        if ts <= now - longest:
            break
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        ad = ad_of(entry[i, 2])
        for dimension in range(dimensions):
            label = ad_label[ad, dimension]
            if label < 0:
                continue
            if scratch.seen_in[label] != this_round:
                scratch.seen_in[label] = this_round
                scratch.exposures[label] = 0
                scratch.newest[label] = ts
            scratch.exposures[label] += 1
            for rule in range(rules.first[dimension], rules.first[dimension + 1]):
                if scratch.exposures[label] == rules.limit[rule]:
                    until = ts + rules.window[rule]
                    if until > now:
                        scratch.label[found] = label
                        scratch.rule[found] = rule
                        scratch.start[found] = scratch.newest[label]
                        scratch.until[found] = until
                        found += 1
    return found


@compiled
def _digest(
    rules: RuleArrays, label_hash: NDArray[np.uint64], scratch: ScratchArrays, found: int
) -> np.uint64:
    """A hash of the throttles found, in whatever order; zero for none."""
    if found == 0:
        return _NONE
    total = _NONE
    for k in range(found):
        what = mix(label_hash[scratch.label[k]], rules.hash[scratch.rule[k]])
        when = mix(np.uint64(scratch.start[k]), np.uint64(scratch.until[k]))
        total += mix(what, when)
    return total | _ONE


@compiled
def _take(
    table: Rows,
    rules: RuleArrays,
    longest: int,
    ad_label: NDArray[np.int32],
    label_hash: NDArray[np.uint64],
    label_text: NDArray[np.uint8],
    label_start: NDArray[np.int64],
    scratch: ScratchArrays,
    decided_at: int,
    horizon: int,
    out: NDArray[np.uint8],
    starts: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_size: NDArray[np.int64],
    by_rule: NDArray[np.int64],
    progress: NDArray[np.int64],
) -> int:
    """Go on until all dirty rows are done (0) or ``out`` is too short (by how much at most)."""
    watermark = table.state[_NEWEST]
    for k in range(progress[0], table.state[_DIRTY]):
        row = table.dirty[k]
        header0 = table.header[row, 0]
        newest = ticks_of(table.arena[run_of(header0), 0])
        found = 0
        if newest <= watermark - 2 * horizon:
            table.header[row, 1] |= np.uint64(GONE)
        else:
            found = _evaluate(table, row, rules, longest, ad_label, scratch)
        last = 0
        for i in range(found):
            last = max(last, scratch.until[i])
        if last <= watermark - _GRACE:
            found = 0
        digest = _digest(rules, label_hash, scratch, found)
        if digest != table.header[row, 2]:
            at = progress[2]
            bound = _size_bound(table, row, rules, label_start, scratch, found)
            if at + bound > len(out):
                progress[0] = k
                return bound
            header1 = table.header[row, 1]
            record = progress[1]
            starts[record] = at
            key_size[record] = id_size(header1)
            at = _put(out, at, table.ids, id_start(header1), id_size(header1))
            if found == 0:
                value_size[record] = -1
            else:
                begin = at
                at = _encode(
                    out, at, table, row, rules, ad_label, label_text, label_start, scratch, found,
                    decided_at,
                )  # fmt: skip
                value_size[record] = at - begin
                for i in range(found):
                    by_rule[rules.number[scratch.rule[i]]] += 1
            table.header[row, 2] = digest
            table.header[row, 3] = np.uint64(last)
            progress[1] += 1
            progress[2] = at
    progress[0] = table.state[_DIRTY]
    return 0


@compiled
def _size_bound(
    table: Rows,
    row: int,
    rules: RuleArrays,
    label_start: NDArray[np.int64],
    scratch: ScratchArrays,
    found: int,
) -> int:
    """No record of these throttles is longer, its key included."""
    size = 128 + 7 * id_size(table.header[row, 1]) + len(rules.tail)
    for k in range(found):
        label, number = scratch.label[k], rules.number[scratch.rule[k]]
        size += 224 + label_start[label + 1] - label_start[label]
        size += 2 * (rules.text_start[number + 1] - rules.text_start[number])
    return size


@compiled
def _encode(
    out: NDArray[np.uint8],
    at: int,
    table: Rows,
    row: int,
    rules: RuleArrays,
    ad_label: NDArray[np.int32],
    label_text: NDArray[np.uint8],
    label_start: NDArray[np.int64],
    scratch: ScratchArrays,
    found: int,
    decided_at: int,
) -> int:
    """Write the decision record; return where it ends."""
    header1 = table.header[row, 1]
    at = _put(out, at, _ID, 0, len(_ID))
    at = _put_escaped(out, at, table.ids, id_start(header1), id_size(header1))
    at = _put(out, at, _THROTTLES, 0, len(_THROTTLES))
    written = 0
    for k in range(found):
        label = scratch.label[k]
        if label < 0:
            continue
        start, until = scratch.start[k], scratch.until[k]
        for j in range(k + 1, found):
            if scratch.label[j] == label:
                start = min(start, scratch.start[j])
                until = max(until, scratch.until[j])
        if written > 0:
            at = _put(out, at, _COMMA, 0, 1)
        written += 1
        at = _put(out, at, _LABEL, 0, len(_LABEL))
        first = label_start[label]
        at = _put(out, at, label_text, first, label_start[label + 1] - first)
        at = _put(out, at, _FROM, 0, len(_FROM))
        at = _put_ticks(out, at, start)
        at = _put(out, at, _UNTIL, 0, len(_UNTIL))
        at = _put_ticks(out, at, until)
        at = _put(out, at, _REASONS, 0, len(_REASONS))
        at = _put_reasons(out, at, rules, scratch, found, label)
        at = _put(out, at, _EVIDENCE, 0, len(_EVIDENCE))
        at = _put_evidence(out, at, table, row, rules, ad_label, scratch, found, label)
        at = _put(out, at, _CLOSE, 0, len(_CLOSE))
        for j in range(k, found):
            if scratch.label[j] == label:
                scratch.label[j] = -1 - label
    for k in range(found):
        scratch.label[k] = -1 - scratch.label[k]
    at = _put(out, at, rules.tail, 0, len(rules.tail))
    at = _put_ticks(out, at, decided_at)
    return _put(out, at, _BRACE, 0, 1)


@compiled
def _put_reasons(
    out: NDArray[np.uint8],
    at: int,
    rules: RuleArrays,
    scratch: ScratchArrays,
    found: int,
    label: int,
) -> int:
    """The names of the rules in force on a label, in the policy's order."""
    written = 0
    for number in range(len(rules.limit)):
        if _throttle(scratch, found, label, rules.sorted_at[number]) >= 0:
            if written > 0:
                at = _put(out, at, _COMMA, 0, 1)
            written += 1
            first = rules.text_start[number]
            at = _put(out, at, rules.text, first, rules.name_end[number] - first)
    return at


@compiled
def _put_evidence(
    out: NDArray[np.uint8],
    at: int,
    table: Rows,
    row: int,
    rules: RuleArrays,
    ad_label: NDArray[np.int32],
    scratch: ScratchArrays,
    found: int,
    label: int,
) -> int:
    """For each rule in force on a label: limit, window, exposures in it, until when."""
    written = 0
    for number in range(len(rules.limit)):
        rule = rules.sorted_at[number]
        k = _throttle(scratch, found, label, rule)
        if k >= 0:
            if written > 0:
                at = _put(out, at, _COMMA, 0, 1)
            written += 1
            first = rules.name_end[number]
            at = _put(out, at, rules.text, first, rules.text_start[number + 1] - first)
            exposures = _exposures(table, row, rules, ad_label, rule, label)
            at = _put_integer(out, at, exposures)
            at = _put(out, at, _UNTIL, 0, len(_UNTIL))
            at = _put_ticks(out, at, scratch.until[k])
            at = _put(out, at, _BRACE, 0, 1)
    return at


@compiled
def _throttle(scratch: ScratchArrays, found: int, label: int, rule: int) -> int:
    """Which of the throttles found is this rule's on this label, or -1."""
    for k in range(found):
        if scratch.label[k] == label and scratch.rule[k] == rule:
            return k
    return -1


@compiled
def _exposures(
    table: Rows,
    row: int,
    rules: RuleArrays,
    ad_label: NDArray[np.int32],
    rule: int,
    label: int,
) -> int:
    """Exposures of a label inside a rule's window at the row's newest event."""
    dimension = 0
    while rules.first[dimension + 1] <= rule:
        dimension += 1
    entry = table.arena[run_of(table.header[row, 0]) :]
    now = ticks_of(entry[0, 0])
    count = 0
    for i in range(length_of(table.header[row, 0])):
        if ticks_of(entry[i, 0]) <= now - rules.window[rule]:
            break
        counts = kind_of(entry[i, 0]) == EXPOSURE and not shadowed(entry[i, 0])
        if counts and ad_label[ad_of(entry[i, 2]), dimension] == label:
            count += 1
    return count


def _literal(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_ID = _literal('{"id":"')
_THROTTLES = _literal('","throttles":[')
_LABEL = _literal('{"label":"')
_FROM = _literal('","state":"throttled","factor":0,"from":')
_UNTIL = _literal(',"until":')
_REASONS = _literal(',"remaining":0,"reasons":[')
_EVIDENCE = _literal('],"evidence":{')
_CLOSE = _literal("}}")
_COMMA = _literal(",")
_BRACE = _literal("}")
_HEX = _literal("0123456789abcdef")
_ESCAPE = _literal("\\u00")


@compiled
def _put(out: NDArray[np.uint8], at: int, text: NDArray[np.uint8], start: int, size: int) -> int:
    for i in range(size):
        out[at + i] = text[start + i]
    return at + size


@compiled
def _put_escaped(
    out: NDArray[np.uint8], at: int, text: NDArray[np.uint8], start: int, size: int
) -> int:
    """A JSON string's inside: quotes, backslashes and control characters escaped."""
    for i in range(size):
        byte = text[start + i]
        if byte < 0x20 or byte == 0x22 or byte == 0x5C:
            at = _put(out, at, _ESCAPE, 0, 4)
            out[at] = _HEX[byte >> 4]
            out[at + 1] = _HEX[byte & 15]
            at += 2
        else:
            out[at] = byte
            at += 1
    return at


@compiled
def _put_integer(out: NDArray[np.uint8], at: int, value: int) -> int:
    digits = 1
    power = 10
    while value >= power:
        digits += 1
        power *= 10
    for i in range(digits):
        out[at + digits - 1 - i] = 48 + value % 10
        value //= 10
    return at + digits


@compiled
def _put_ticks(out: NDArray[np.uint8], at: int, ticks: int) -> int:
    """Ticks as seconds: up to six decimals, none needless."""
    at = _put_integer(out, at, ticks // _SECOND)
    rest = ticks % _SECOND
    if rest == 0:
        return at
    out[at] = 46
    for i in range(6):
        out[at + 6 - i] = 48 + rest % 10
        rest //= 10
    at += 7
    while out[at - 1] == 48:
        at -= 1
    return at
