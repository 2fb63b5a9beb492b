"""What readers of one partition were told, and which exposures came against it.

A decision says of labels when to stop, and Kafka says when it took the record. An exposure later
than both, by more than a grace, was shown by somebody who did not obey. What was published is read
here as a reader reads it, from the record's own text, and kept by hashes for as long as it holds.

A stop goes on where its next record finds it in force, so that whoever shows an ad every second
cannot renew the grace each time.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.applying import APPLIED
from governor.compiled import allocating, compiled, integer
from governor.entries import EXPOSURE, RETARGETING
from governor.events import Columns
from governor.hashing import hash_bytes, mix
from governor.jsontext import literal
from governor.labels import Labels
from governor.records import Records
from governor.scopes import ABSENT, ALWAYS, Col
from governor.ticks import SECOND

__all__ = ["Told"]

_KEY, _USER, _SINCE, _UNTIL, _TURN, _COLUMNS = 0, 1, 2, 3, 4, 5
"""Columns: the person's hash, mixed with the label's or alone; the person's hash; when it was in
force and published; when it ends; which record says so. A person's own entry holds the last end,
and the record that the entries of labels must be of."""

_USED, _EARLIEST, _NEXT_TURN, _STATE = 0, 1, 2, 3

_FOREVER = 1 << 62
_KEPT = 600 * SECOND
"""How long a stop is kept after its end, for exposures that come late."""
_LEAST_STOP = 100
"""Bytes of a record that a stop takes at least."""

_OPEN = literal('{"label":"')
_HELD = literal(',"state":"throttled","factor":0,"from":')
_UNTIL_TEXT = literal(',"until":')
_RETARGETING_LABEL = literal('retargeting"')

_EXPOSURE, _RETARGETING, _APPLIED, _SECOND = EXPOSURE, RETARGETING, APPLIED, SECOND


class _Stops(NamedTuple):
    """An open table; zero is free."""

    entry: NDArray[np.int64]  # (power of two, columns)
    state: NDArray[np.int64]


class Told:
    """The stops that were published, by person and label.

    Args:
        grace: how long readers have to learn of one, in ticks.
    """

    def __init__(self, grace: int = 0) -> None:
        self._grace = grace
        self._stops = _empty(64)
        self._known: object = None
        self._label_start = np.zeros(1, np.int64)
        self._label = np.zeros(0, np.uint64)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self._stops.entry.nbytes + self._label.nbytes + self._label_start.nbytes

    def publish(self, decisions: Records, appended: int) -> None:
        """Kafka has taken these records, whose keys are those of rows.

        Args:
            decisions: as they are on the topic; a null value takes back all that was said.
            appended: when, in ticks: the broker's own time.
        """
        if not len(decisions):
            return
        most = int(np.maximum(decisions.value_size, 0).sum()) // _LEAST_STOP + len(decisions)
        if 10 * (int(self._stops.state[_USED]) + most) > 7 * len(self._stops.entry):
            self._stops = _rebuilt(self._stops, most, appended)
        _publish(
            self._stops,
            decisions.buffer,
            decisions.key_start,
            decisions.key_size,
            decisions.value_start,
            decisions.value_size,
            appended,
        )

    def against(
        self, columns: Columns, outcome: NDArray[np.uint8], labels: Labels
    ) -> NDArray[np.int64]:
        """How long after a stop was published the exposures came that it should have prevented.

        Args:
            columns: events just applied.
            outcome: what became of each; only new exposures count.
            labels: of the partition.

        Returns:
            Ticks, an element for each such exposure; all are longer than the grace. An exposure
            that several stops should have prevented came after the first of them.
        """
        if self._stops.state[_USED] == 0:
            return np.zeros(0, np.int64)
        self._learn(labels)
        late = np.zeros(len(columns), np.int64)
        _against(
            self._stops,
            columns.text,
            columns.user_start,
            columns.user_size,
            columns.ts,
            columns.what,
            columns.ad,
            outcome,
            self._label_start,
            self._label,
            self._grace,
            late,
        )
        return late[late > 0]

    def _learn(self, labels: Labels) -> None:
        """Know the labels, as decisions write them, of every ad."""
        if self._known is not labels.scopes:
            self._known = labels.scopes
            self._label_start = np.zeros(1, np.int64)
            self._label = np.zeros(0, np.uint64)
        first = len(self._label_start) - 1
        if first == len(labels):
            return
        found = [_labels_of(labels, ad) for ad in range(first, len(labels))]
        ends = self._label_start[-1] + np.cumsum([len(one) for one in found])
        self._label_start = np.concatenate((self._label_start, ends))
        more = np.array([each for one in found for each in one], np.uint64)
        self._label = np.concatenate((self._label, more))


def _labels_of(labels: Labels, ad: int) -> list[int]:
    """Hashes of the labels whose stops hold an ad back: those that rules have for it, and each of
    its own by itself, as people speak of."""
    scopes = labels.scopes
    assert scopes is not None
    row, ads = scopes.ads.ad[ad], scopes.ads
    numbers = {int(ads.slot_label[slot]) for slot in row[Col.SLOTS :] if slot != ABSENT}
    texts = [ads.label_text[ads.label_start[n] : ads.label_start[n + 1]].tobytes() for n in numbers]
    if not row[Col.FLAGS] & ALWAYS:
        texts.append(b'user"')
    for key, value in labels.labels_of(ad).items():
        texts.append(f"{json.dumps(f'{key}:{value}', ensure_ascii=False)[1:]}".encode())
    spans = (np.frombuffer(text, np.uint8) for text in dict.fromkeys(texts))
    return [int(hash_bytes(span, 0, len(span))) for span in spans]


def _empty(slots: int) -> _Stops:
    state = np.zeros(_STATE, np.int64)
    state[_EARLIEST], state[_NEXT_TURN] = _FOREVER, 1
    return _Stops(np.zeros((slots, _COLUMNS), np.int64), state)


def _rebuilt(stops: _Stops, more: int, now: int) -> _Stops:
    """Those that may hold at ``now`` or shortly before, with room for ``more``."""
    held = _held(stops, now - _KEPT)
    slots = len(_empty(64).entry)
    while 10 * (int(held.sum()) + more) > 6 * slots:
        slots *= 2
    new = _empty(slots)
    new.state[_NEXT_TURN] = stops.state[_NEXT_TURN]
    _move(stops, held, new)
    return new


@compiled
def _find(stops: _Stops, key: int) -> int:
    """Where an entry is, or the free slot where it would be."""
    mask = len(stops.entry) - 1
    at = key & mask
    while stops.entry[at, _KEY] != 0 and stops.entry[at, _KEY] != key:
        at = (at + 1) & mask
    return at


@allocating
def _held(stops: _Stops, now: int) -> NDArray[np.bool_]:
    """Which entries are worth keeping."""
    held = np.zeros(len(stops.entry), np.bool_)
    for at in range(len(stops.entry)):
        if stops.entry[at, _KEY] != 0 and stops.entry[at, _UNTIL] > now:
            person = _find(stops, stops.entry[at, _USER])
            held[at] = stops.entry[person, _TURN] == stops.entry[at, _TURN]
    return held


@compiled
def _move(stops: _Stops, held: NDArray[np.bool_], new: _Stops) -> None:
    for at in range(len(stops.entry)):
        if held[at]:
            to = _find(new, stops.entry[at, _KEY])
            for column in range(_COLUMNS):
                new.entry[to, column] = stops.entry[at, column]
            new.state[_USED] += 1
            if stops.entry[at, _KEY] != stops.entry[at, _USER]:
                new.state[_EARLIEST] = min(new.state[_EARLIEST], stops.entry[at, _SINCE])


@compiled
def _publish(
    stops: _Stops,
    text: NDArray[np.uint8],
    key_start: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_start: NDArray[np.int64],
    value_size: NDArray[np.int64],
    appended: int,
) -> None:
    for i in range(len(key_start)):
        hashed = hash_bytes(text, key_start[i], key_size[i])
        user = integer(hashed)
        person = _find(stops, user)
        known = stops.entry[person, _KEY] != 0
        before = stops.entry[person, _TURN] if known else -1
        turn = stops.state[_NEXT_TURN]
        stops.state[_NEXT_TURN] = turn + 1
        last = 0
        at, end = value_start[i], value_start[i] + value_size[i]
        while at < end:
            at = _after(text, at, end, _OPEN)
            label = at
            at = _after(text, at, end, _HELD)
            if at >= end:
                break
            # A stop's own label is the last one in front of it: others are of the shadow.
            begin = _last_open(text, label, at)
            size = at - len(_HELD) - begin
            since, at = _time(text, at)
            until, at = _time(text, at + len(_UNTIL_TEXT))
            if until > appended:  # else nobody could be told in time
                key = integer(mix(hash_bytes(text, begin, size), hashed))
                _enter(stops, key, user, since, until, before, turn, appended)
                last = max(last, until)
        if known or last > 0:
            if not known:
                # Entries of labels may have taken the slot.
                person = _find(stops, user)
                stops.state[_USED] += 1
            one = stops.entry[person]
            one[_KEY], one[_USER], one[_UNTIL], one[_TURN] = user, user, last, turn


@compiled
def _enter(
    stops: _Stops,
    key: int,
    user: int,
    since: int,
    until: int,
    before: int,
    turn: int,
    appended: int,
) -> None:
    """Note one stop; it goes on where the record ``before`` said it and leaves no gap."""
    one = stops.entry[_find(stops, key)]
    goes_on = one[_KEY] == key and one[_TURN] == before and one[_UNTIL] >= max(since, appended)
    stops.state[_USED] += one[_KEY] != key
    if not goes_on:
        one[_SINCE] = max(since, appended)
        stops.state[_EARLIEST] = min(stops.state[_EARLIEST], one[_SINCE])
    one[_KEY], one[_USER], one[_UNTIL], one[_TURN] = key, user, until, turn


@compiled
def _after(text: NDArray[np.uint8], at: int, end: int, what: NDArray[np.uint8]) -> int:
    """The end of the first occurrence of ``what``, or ``end``."""
    size = len(what)
    while at + size <= end:
        same = 0
        while same < size and text[at + same] == what[same]:
            same += 1
        if same == size:
            return at + size
        at += 1
    return end


@compiled
def _last_open(text: NDArray[np.uint8], first: int, end: int) -> int:
    """Behind the last opening of a throttle between these places; ``first`` is behind one."""
    while True:
        following = _after(text, first, end, _OPEN)
        if following >= end:
            return first
        first = following


@compiled
def _time(text: NDArray[np.uint8], at: int) -> tuple[int, int]:
    """A time as decisions write it, in ticks, and where it ends; null is for ever."""
    if text[at] == 110:
        return _FOREVER, at + 4
    seconds = 0
    while 48 <= text[at] <= 57:
        seconds = 10 * seconds + integer(text[at]) - 48
        at += 1
    ticks = seconds * _SECOND
    if text[at] == 46:
        at += 1
        unit = _SECOND // 10
        while 48 <= text[at] <= 57:
            ticks += unit * (integer(text[at]) - 48)
            unit //= 10
            at += 1
    return ticks, at


@compiled
def _against(
    stops: _Stops,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    ts: NDArray[np.int64],
    what: NDArray[np.int64],
    ad: NDArray[np.int64],
    outcome: NDArray[np.uint8],
    label_start: NDArray[np.int64],
    label: NDArray[np.uint64],
    grace: int,
    late: NDArray[np.int64],
) -> None:
    earliest = stops.state[_EARLIEST] + grace
    retargeting = hash_bytes(_RETARGETING_LABEL, 0, len(_RETARGETING_LABEL))
    for i in range(len(ts)):
        if ts[i] <= earliest or what[i] & 3 != _EXPOSURE or outcome[i] != _APPLIED:
            continue
        hashed = hash_bytes(text, start[i], size[i])
        person = stops.entry[_find(stops, integer(hashed))]
        if person[_KEY] == 0 or person[_UNTIL] <= ts[i]:
            continue
        since = _FOREVER
        for k in range(label_start[ad[i]], label_start[ad[i] + 1]):
            since = min(since, _since(stops, label[k], hashed, person[_TURN], ts[i]))
        if what[i] & _RETARGETING:
            since = min(since, _since(stops, retargeting, hashed, person[_TURN], ts[i]))
        if ts[i] > since + grace:
            late[i] = ts[i] - since


@compiled
def _since(stops: _Stops, label: np.uint64, user: np.uint64, turn: int, ts: int) -> int:
    """From when readers could know of a stop that is in force at ``ts``; never, without one."""
    key = integer(mix(label, user))
    one = stops.entry[_find(stops, key)]
    if one[_KEY] == key and one[_TURN] == turn and one[_UNTIL] > ts:
        return integer(one[_SINCE])
    return _FOREVER
