"""Plain impressions straight into columns, without an object an event.

Most impressions are a flat JSON object of ASCII strings and one number. For those this compiled
scanner does what the decoder in `governor.events` does, at a sixth of its cost. It judges nothing:
an event that is out of the ordinary in any way (escapes, nesting, other characters, a field twice,
a wrong type, a value out of bounds, no JSON at all) it leaves to that decoder, which knows the
reasons.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.ads import FIELDS
from governor.compiled import allocating, compiled, integer
from governor.entries import INVALID, MAX_TIME, RETARGETING, TYPE_SHIFT, UNMEASURABLE
from governor.hashing import hash_bytes, mix
from governor.labels import AdTable, find_ad

__all__ = ["UNKNOWN_ZONE", "Found", "Times", "ad_spans", "lone_exposures", "scan"]

_NAMES = (
    "event_id",
    "user_id",
    "ts",
    "impression_id",
    "kind",
    "retargeting",
    "measurable",
    "invalid",
    "tz",
    "labels",
    "ids",
    "consent",
    *(
        f"{field}_id" if field in ("campaign", "creative", "advertiser") else field
        for field in FIELDS
    ),
)
_EVENT, _USER, _TS, _IMPRESSION, _KIND, _RETARGETING, _MEASURABLE, _INVALID, _TZ = range(9)
_FIRST_NESTED = 9
_FIRST_LABEL = 12
_CAMPAIGN = _FIRST_LABEL
_COUNT = len(_NAMES)
_NAME_SIZE = np.array([len(name) for name in _NAMES], np.int64)
_NAME = np.zeros((_COUNT, max(_NAME_SIZE)), np.uint8)
for _i, _name in enumerate(_NAMES):
    _NAME[_i, : len(_name)] = np.frombuffer(_name.encode(), np.uint8)

_KINDS = ("impression", "loaded", "viewable")  # in the order of their codes
_KIND_SIZE = np.array([len(name) for name in _KINDS], np.int64)
_KIND_NAME = np.zeros((len(_KINDS), max(_KIND_SIZE)), np.uint8)
for _i, _name in enumerate(_KINDS):
    _KIND_NAME[_i, : len(_name)] = np.frombuffer(_name.encode(), np.uint8)

_TRUE = np.frombuffer(b"true", np.uint8)
_FALSE = np.frombuffer(b"false", np.uint8)
_NULL = np.frombuffer(b"null", np.uint8)
_ABSENT, _UNSEEN = -1, -2
UNKNOWN_ZONE = -2
"""Instead of the number of a time zone that has not been entered."""

_QUOTE, _BACKSLASH, _COLON, _COMMA = ord('"'), ord("\\"), ord(":"), ord(",")
_OPEN, _CLOSE, _MINUS, _POINT = ord("{"), ord("}"), ord("-"), ord(".")
_ZERO, _NINE, _T, _F, _N = ord("0"), ord("9"), ord("t"), ord("f"), ord("n")
_ONE = np.uint64(1)
_LONE = np.uint64(0x6C6F6E65)


class Times(NamedTuple):
    """What an event's time may be, in ticks after and before its record's timestamp."""

    max_future: int
    max_age: int


class Found(NamedTuple):
    """What `scan` found; one element a record."""

    plain: NDArray[np.bool_]
    """Whether the other columns hold the event."""
    user_start: NDArray[np.int64]
    user_size: NDArray[np.int64]
    ts: NDArray[np.int64]
    what: NDArray[np.int64]
    event: NDArray[np.uint64]
    exposure: NDArray[np.uint64]
    ad: NDArray[np.int64]
    """-1 where the table does not know the ad."""
    ad_key: NDArray[np.uint64]
    zone: NDArray[np.int64]
    """-1 for none, UNKNOWN_ZONE where the table does not know it."""
    zone_start: NDArray[np.int64]
    zone_size: NDArray[np.int64]


def scan(
    buffer: NDArray[np.uint8],
    timestamp: NDArray[np.int64],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    table: AdTable,
    zones: AdTable,
    times: Times,
    max_bytes: int,
    max_id: int,
) -> Found:
    """Scan the impressions that lie at ``start`` in ``buffer``."""
    n = len(start)
    start_of, size_of, ts, what, ad, zone_start, zone_size = (
        np.zeros(n, np.int64) for _ in range(7)
    )
    event, exposure, ad_key = (np.zeros(n, np.uint64) for _ in range(3))
    found = Found(
        np.zeros(n, np.bool_), start_of, size_of, ts, what, event, exposure, ad, ad_key,
        np.full(n, -1, np.int64), zone_start, zone_size,
    )  # fmt: skip
    spans, ticks = np.empty((_COUNT, 2), np.int64), np.zeros(2, np.int64)
    _scan(
        buffer, timestamp, start, size, table, zones, times, max_bytes, max_id, spans, ticks, found
    )
    return found


def ad_spans(buffer: NDArray[np.uint8], start: int, size: int) -> list[str | None]:
    """The values of `FIELDS` in one plain impression."""
    spans = np.empty((_COUNT, 2), np.int64)
    _scan_one(buffer, start, start + size, spans, np.zeros(2, np.int64))
    return [
        buffer[first : first + length].tobytes().decode("ascii") if length > 0 else None
        for first, length in spans[_FIRST_LABEL:].tolist()
    ]


@compiled
def lone_exposure(event: np.uint64) -> np.uint64:
    """The exposure of an event that names none: the event's own, and no impression id's."""
    return mix(event, _LONE)


@allocating
def lone_exposures(event: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same for many."""
    out = np.empty_like(event)
    for i in range(len(event)):
        out[i] = lone_exposure(event[i])
    return out


@compiled
def _scan(
    buffer: NDArray[np.uint8],
    timestamp: NDArray[np.int64],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    table: AdTable,
    zones: AdTable,
    times: Times,
    max_bytes: int,
    max_id: int,
    spans: NDArray[np.int64],
    ticks: NDArray[np.int64],
    found: Found,
) -> None:
    for i in range(len(start)):
        if size[i] > max_bytes or timestamp[i] < 0:
            continue
        if not _scan_one(buffer, start[i], start[i] + size[i], spans, ticks):
            continue
        now = timestamp[i] * 1000
        if (
            not 0 < ticks[0] <= MAX_TIME
            or ticks[0] >= now + times.max_future
            or ticks[0] <= now - times.max_age
        ):
            continue
        if not _bounded(spans, max_id):
            continue
        kind = _kind(buffer, spans[_KIND, 0], spans[_KIND, 1])
        if kind < 0:
            continue
        found.what[i] = kind << TYPE_SHIFT
        if spans[_RETARGETING, 1] == 1:
            found.what[i] |= RETARGETING
        if spans[_MEASURABLE, 1] == 0:
            found.what[i] |= UNMEASURABLE
        if spans[_INVALID, 1] == 1:
            found.what[i] |= INVALID
        if spans[_TZ, 1] > 0:
            found.zone_start[i], found.zone_size[i] = spans[_TZ, 0], spans[_TZ, 1]
            known = find_ad(zones, hash_bytes(buffer, spans[_TZ, 0], spans[_TZ, 1]))
            found.zone[i] = known if known >= 0 else UNKNOWN_ZONE
        found.user_start[i] = spans[_USER, 0]
        found.user_size[i] = spans[_USER, 1]
        found.ts[i] = ticks[0]
        found.event[i] = hash_bytes(buffer, spans[_EVENT, 0], spans[_EVENT, 1])
        found.exposure[i] = lone_exposure(found.event[i])
        if spans[_IMPRESSION, 1] > 0:
            found.exposure[i] = hash_bytes(buffer, spans[_IMPRESSION, 0], spans[_IMPRESSION, 1])
        key = _ONE
        for field in range(_FIRST_LABEL, _COUNT):
            if spans[field, 1] > 0:
                key = mix(
                    key ^ np.uint64(field), hash_bytes(buffer, spans[field, 0], spans[field, 1])
                )
        found.ad_key[i] = key | _ONE
        found.ad[i] = find_ad(table, found.ad_key[i])
        found.plain[i] = True


@compiled
def _bounded(spans: NDArray[np.int64], max_id: int) -> bool:
    """Whether required fields are there and not empty, and none is too long."""
    if spans[_TS, 1] <= 0:
        return False
    for field in range(_COUNT):
        if spans[field, 1] > max_id and field != _TZ:
            return False
    return bool(spans[_EVENT, 1] > 0 and spans[_USER, 1] > 0 and spans[_CAMPAIGN, 1] > 0)


@compiled
def _kind(buffer: NDArray[np.uint8], start: int, size: int) -> int:
    """The code of the exposure's kind, or -1."""
    if size in (_ABSENT, _UNSEEN):
        return 0
    for code in range(len(_KIND_SIZE)):
        if size == _KIND_SIZE[code] and _same(buffer, start, _KIND_NAME[code], size):
            return code
    return -1


@compiled
def _same(buffer: NDArray[np.uint8], start: int, text: NDArray[np.uint8], size: int) -> bool:
    for i in range(size):  # noqa: SIM110 - compiled, a loop is what it should be
        if buffer[start + i] != text[i]:
            return False
    return True


@compiled
def _field(buffer: NDArray[np.uint8], start: int, size: int) -> int:
    """Which field this name is, or -1 for one that is ignored."""
    for field in range(_COUNT):
        if size == _NAME_SIZE[field] and _same(buffer, start, _NAME[field], size):
            return field
    return -1


@compiled
def _blank(buffer: NDArray[np.uint8], at: int, end: int) -> int:
    """Where the white space at ``at`` ends."""
    while at < end and (
        buffer[at] == 0x20 or buffer[at] == 0x0A or buffer[at] == 0x0D or buffer[at] == 0x09
    ):
        at += 1
    return at


@compiled
def _string(buffer: NDArray[np.uint8], at: int, end: int) -> int:
    """Where the closing quote of a plain string is that begins at ``at``, or -1."""
    while at < end:
        byte = buffer[at]
        if byte == _QUOTE:
            return at
        if byte < 0x20 or byte >= 0x80 or byte == _BACKSLASH:
            return -1
        at += 1
    return -1


@compiled
def _literal(buffer: NDArray[np.uint8], at: int, end: int, text: NDArray[np.uint8]) -> bool:
    return at + len(text) <= end and _same(buffer, at, text, len(text))


@compiled
def _number(buffer: NDArray[np.uint8], at: int, end: int, ticks: NDArray[np.int64]) -> int:
    """Where a plain decimal number ends, or -1; its millionths go to ``ticks``, where decimals
    beyond the sixth say which is nearest, of two equally near the even one.

    Plain: at most eleven digits, no zero before them, fifteen decimals, no exponent.
    """
    sign = 1
    if buffer[at] == _MINUS:
        sign = -1
        at += 1
    first = at
    value = 0
    while at < end and _ZERO <= buffer[at] <= _NINE:
        value = 10 * value + integer(buffer[at]) - _ZERO
        at += 1
        if at - first > 11:
            return -1
    if at == first or (at - first > 1 and buffer[first] == _ZERO):
        return -1
    decimals = 0
    beyond = 0  # twice the part of a millionth that is left: below one, one, or above
    if at < end and buffer[at] == _POINT:
        at += 1
        while at < end and _ZERO <= buffer[at] <= _NINE:
            digit = integer(buffer[at]) - _ZERO
            if decimals < 6:
                value = 10 * value + digit
            elif decimals == 6:
                beyond = 2 if digit > 5 else int(digit == 5)
            elif beyond == 1 and digit > 0:
                beyond = 2
            at += 1
            decimals += 1
        if decimals == 0 or decimals > 15:
            return -1
    if at < end and (buffer[at] == 0x45 or buffer[at] == 0x65):
        return -1
    for _ in range(6 - decimals):
        value *= 10
    if beyond == 2 or (beyond == 1 and value % 2 == 1):
        value += 1
    ticks[0] = sign * value
    return at


@compiled
def _scan_one(
    buffer: NDArray[np.uint8],
    at: int,
    end: int,
    spans: NDArray[np.int64],
    ticks: NDArray[np.int64],
) -> bool:
    """Find the fields of one flat object: where each value is and how long; False if unplain."""
    for field in range(_COUNT):
        spans[field, 1] = _UNSEEN
    at = _blank(buffer, at, end)
    if at >= end or buffer[at] != _OPEN:
        return False
    while True:
        at = _blank(buffer, at + 1, end)
        if at >= end or buffer[at] != _QUOTE:
            return False
        close = _string(buffer, at + 1, end)
        if close < 0:
            return False
        field = _field(buffer, at + 1, close - at - 1)
        if field >= 0 and spans[field, 1] != _UNSEEN:
            return False
        at = _blank(buffer, close + 1, end)
        if at >= end or buffer[at] != _COLON:
            return False
        at = _blank(buffer, at + 1, end)
        if at >= end:
            return False
        at = _value(buffer, at, end, field, spans, ticks)
        if at < 0:
            return False
        at = _blank(buffer, at, end)
        if at >= end:
            return False
        if buffer[at] == _CLOSE:
            return _blank(buffer, at + 1, end) == end
        if buffer[at] != _COMMA:
            return False


@compiled
def _is_flag(field: int) -> bool:
    """Whether the field is true or false."""
    return _RETARGETING <= field <= _INVALID


@compiled
def _value(
    buffer: NDArray[np.uint8],
    at: int,
    end: int,
    field: int,
    spans: NDArray[np.int64],
    ticks: NDArray[np.int64],
) -> int:
    """Note the value of a field, if it is of the field's type; where it ends, or -1."""
    byte = buffer[at]
    if byte == _QUOTE:
        close = _string(buffer, at + 1, end)
        if close < 0 or field == _TS or _is_flag(field) or _FIRST_NESTED <= field < _FIRST_LABEL:
            return -1
        if field >= 0:
            spans[field, 0], spans[field, 1] = at + 1, close - at - 1
        return close + 1
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        if field == _TS:
            close = _number(buffer, at, end, ticks)
            spans[_TS, 0], spans[_TS, 1] = at, close - at
            return close
        return _number(buffer, at, end, ticks[1:]) if field < 0 else -1
    if byte == _N and _literal(buffer, at, end, _NULL):
        if field in (_EVENT, _USER, _TS, _CAMPAIGN) or _is_flag(field):
            return -1
        if field >= 0:
            spans[field, 1] = _ABSENT
        return at + 4
    if field >= 0 and not _is_flag(field):
        return -1
    for value, literal in ((1, _TRUE), (0, _FALSE)):
        if _literal(buffer, at, end, literal):
            if field >= 0:
                spans[field, 1] = value
            return at + len(literal)
    return -1
