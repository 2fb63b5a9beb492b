"""Events as columns: JSON in, arrays out, and a reason for each message that is no event.

A batch is decoded whole; only when something in it cannot be decoded are its messages taken one
by one, so a bad message costs only itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from enum import StrEnum
from itertools import repeat
from typing import Any, cast

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from governor.ads import FIELDS, TYPE_KEY, Ad
from governor.compiled import compiled
from governor.consent import BadConsentError
from governor.consent import decode as decode_consent
from governor.entries import (
    CONSENT,
    CONTROL,
    ENGAGEMENT,
    ERASE,
    EXPOSURE,
    HIDE,
    INVALID,
    LESS_OFTEN,
    LINK,
    MAX_TIME,
    OPT_IN,
    OPT_OUT,
    OTHER,
    RETARGETING,
    TYPE_SHIFT,
    UNMEASURABLE,
)
from governor.hashing import hash_spans
from governor.labels import Labels, find_ad
from governor.policy import ID_TYPE_NAMES, is_other_id_type
from governor.records import Records
from governor.rules import ENGAGEMENT_TYPES
from governor.scan import UNKNOWN_ZONE, Times, ad_spans, lone_exposures, scan
from governor.ticks import SECOND

__all__ = [
    "MAX_ID_BYTES",
    "Columns",
    "Limits",
    "Reason",
    "Rejected",
    "decode_controls",
    "decode_engagements",
    "decode_impressions",
    "row_key",
]

MAX_ID_BYTES = 512
"""The longest id or label value, in bytes of UTF-8."""

MAX_LABELS = 64
"""Custom labels of one event."""

MILLISECONDS_FROM = 1e11
"""An epoch time of the year 5138 in seconds, of 1973 in milliseconds: no event's time in seconds
is as large, and every one in milliseconds since 1973 is."""

EXPOSURE_TYPES = {None: 0, "impression": 0, "loaded": 1, "viewable": 2}
MAX_IDS = 16
"""Ids besides the user's of one event."""

CONTROL_TYPES = {
    "opt_out": OPT_OUT,
    "opt_in": OPT_IN,
    "consent": CONSENT,
    "less_often": LESS_OFTEN,
    "erase": ERASE,
    "link": LINK,
    "hide": HIDE,
}


class Reason(StrEnum):
    """Why a message is a dead letter."""

    MALFORMED = "malformed"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    EMPTY_ID = "empty_id"
    ID_TOO_LONG = "id_too_long"
    NUL_BYTE = "nul_byte"
    MILLISECONDS = "milliseconds"
    FUTURE = "future"
    PAST = "past"
    TOO_LARGE = "too_large"
    NO_VALUE = "no_value"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is no event."""

    index: int
    """Its place in the records given."""
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a message may be; times in ticks, measured from the record's own timestamp."""

    max_future: int = 300 * SECOND
    max_age: int = 3650 * 86400 * SECOND
    max_bytes: int = 65536


@dataclass(frozen=True, slots=True)
class Columns:
    """Events of one kind; every column but ``text`` has one element an event."""

    text: NDArray[np.uint8]
    """Keys of rows, end to end: a user's id; of other ids their type, NUL, and the value."""
    user_start: NDArray[np.int64]
    user_size: NDArray[np.int64]
    ts: NDArray[np.int64]
    """Event time in ticks."""
    what: NDArray[np.int64]
    """Kind, type and flags, as in word 0 of an entry."""
    event: NDArray[np.uint64]
    exposure: NDArray[np.uint64]
    ad: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    """The record's own timestamp in milliseconds."""
    source: NDArray[np.int64]
    """Which record the event came in. One that names several ids is there once for each."""
    zone: NDArray[np.int64]
    """The ad that stands for the event's time zone; -1 where it names none that exists."""
    consent: NDArray[np.int64]
    """What the event says about retargeting: 1 granted, 2 refused, 0 nothing."""

    def __len__(self) -> int:
        return len(self.ts)

    def select(self, rows: NDArray[np.int64]) -> Columns:
        """The same events, only those at ``rows``."""
        return Columns(
            self.text, *(getattr(self, column.name)[rows] for column in fields(self)[1:])
        )


class _Impression(msgspec.Struct, gc=False):
    event_id: str
    user_id: str
    ts: float
    campaign_id: str
    impression_id: str | None = None
    creative_id: str | None = None
    advertiser_id: str | None = None
    category: str | None = None
    channel: str | None = None
    surface: str | None = None
    segment: str | None = None
    labels: dict[str, str] | None = None
    kind: str | None = None
    retargeting: bool = False
    ids: dict[str, str] | None = None
    tz: str | None = None
    consent: Any = None
    invalid: bool = False
    measurable: bool = True


class _Engagement(msgspec.Struct, gc=False):
    event_id: str
    user_id: str
    ts: float
    type: str
    impression_id: str | None = None
    campaign_id: str | None = None
    creative_id: str | None = None
    advertiser_id: str | None = None
    category: str | None = None
    channel: str | None = None
    surface: str | None = None
    segment: str | None = None
    labels: dict[str, str] | None = None
    ids: dict[str, str] | None = None
    tz: str | None = None


class _Control(msgspec.Struct, gc=False):
    event_id: str
    user_id: str
    ts: float
    type: str
    label: str | None = None
    campaign_id: str | None = None
    creative_id: str | None = None
    advertiser_id: str | None = None
    category: str | None = None
    channel: str | None = None
    surface: str | None = None
    segment: str | None = None
    labels: dict[str, str] | None = None
    ids: dict[str, str] | None = None
    to: str | None = None
    tz: str | None = None
    consent: Any = None


class _BadEventError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class _Decoded:
    """Columns of Python values, as a decoder of one kind hands them on."""

    event_id: Sequence[str]
    user_id: Sequence[str]
    ts: Sequence[float]
    exposure_id: Sequence[str | None]
    what: Sequence[int]
    ads: Iterable[Ad]
    alone: bool = False
    """Whether an event without an exposure id is an exposure of its own."""
    ids: Sequence[dict[str, str] | None] = ()
    """Ids besides the user's of each event; empty when no event has any."""
    zone: Sequence[str | None] = ()
    consent: Sequence[int] = ()
    """As in `Columns`; empty when no event says anything."""


def _impressions(events: Sequence[_Impression], known: Labels) -> _Decoded:
    (
        event_id, user_id, ts, campaign, impression_id, creative, advertiser, category, channel,
        surface, segment, labels, kind, retargeting, ids, zone, consent, invalid, measurable,
    ) = zip(*map(astuple, events), strict=True)  # fmt: skip
    if "" in campaign:
        raise _BadEventError(Reason.EMPTY_ID, "campaign_id is empty")
    if any(kind) or any(retargeting):
        what = list(map(_exposure, kind, retargeting))
    else:
        what = [EXPOSURE] * len(events)
    if any(invalid) or not all(measurable):
        flags = zip(what, invalid, measurable, strict=True)
        what = [one | INVALID * bad | UNMEASURABLE * (not seen) for one, bad, seen in flags]
    return _Decoded(
        event_id,
        user_id,
        ts,
        impression_id,
        what,
        _ads(campaign, creative, advertiser, category, channel, surface, segment, labels),
        alone=True,
        ids=ids,
        zone=zone,
        consent=_consents(consent, known),
    )


def _consents(said: Sequence[Any], known: Labels) -> Sequence[int]:
    """What events say about retargeting, in the codes of `Columns.consent`."""
    if not any(one is not None for one in said):
        return ()
    try:
        granted = [None if one is None else decode_consent(one, known.consent) for one in said]
    except BadConsentError as error:
        raise _BadEventError(Reason.WRONG_TYPE, str(error)) from None
    return [0 if one is None else 1 if one else 2 for one in granted]


def _exposure(kind: str | None, retargeting: bool) -> int:
    code = EXPOSURE_TYPES.get(kind)
    if code is None:
        raise _BadEventError(Reason.WRONG_TYPE, f"kind is {kind!r}: loaded, impression, viewable")
    return EXPOSURE | code << TYPE_SHIFT | (RETARGETING if retargeting else 0)


def _engagements(events: Sequence[_Engagement], _known: Labels) -> _Decoded:
    for event in events:
        if not event.type:
            raise _BadEventError(Reason.MISSING_FIELD, "type is empty")
        if not event.impression_id and not any(astuple(event)[5:13]):
            raise _BadEventError(
                Reason.MISSING_FIELD, "neither impression_id nor a label says what it answers"
            )
    (
        event_id, user_id, ts, kind, impression_id, campaign, creative, advertiser, category,
        channel, surface, segment, labels, ids, zone,
    ) = zip(*map(astuple, events), strict=True)  # fmt: skip
    return _Decoded(
        event_id,
        user_id,
        ts,
        impression_id,
        [ENGAGEMENT | ENGAGEMENT_TYPES.get(one, OTHER) << TYPE_SHIFT for one in kind],
        _ads(
            campaign,
            creative,
            advertiser,
            category,
            channel,
            surface,
            segment,
            _typed(labels, kind),
        ),
        ids=ids,
        zone=zone,
    )


def _typed(labels: Sequence[Any], kind: Sequence[str]) -> list[Any]:
    """Engagements' own labels, and among them a type that is a text of the sender's."""
    return [
        own if one in ENGAGEMENT_TYPES else {**(own or {}), TYPE_KEY: one}
        for own, one in zip(labels, kind, strict=True)
    ]


def _controls(events: Sequence[_Control], known: Labels) -> _Decoded:
    for event in events:
        if event.type not in CONTROL_TYPES:
            raise _BadEventError(
                Reason.WRONG_TYPE, f"type is {event.type!r}: {', '.join(CONTROL_TYPES)}"
            )
        if event.label:
            _spread(event, event.label)
            event.label = None
        if event.type == "link":
            _check_link(event)
        if event.to:
            _check_strings(event)
        if event.type == "hide" and not any(astuple(event)[5:13]):
            raise _BadEventError(Reason.MISSING_FIELD, "label is missing: hide what?")
        if event.type != "consent":
            event.consent = None
    (
        event_id, user_id, ts, kind, _, campaign, creative, advertiser, category, channel, surface,
        segment, labels, ids, _, zone, consent,
    ) = zip(*map(astuple, events), strict=True)  # fmt: skip
    return _Decoded(
        event_id,
        user_id,
        ts,
        list(repeat(None, len(events))),
        [CONTROL | CONTROL_TYPES[one] << TYPE_SHIFT for one in kind],
        _ads(campaign, creative, advertiser, category, channel, surface, segment, labels),
        ids=ids,
        zone=zone,
        consent=_consents(consent, known),
    )


def _check_link(event: _Control) -> None:
    if event.to is None:
        raise _BadEventError(Reason.MISSING_FIELD, "to is missing: the id that user_id becomes")
    if not event.to:
        raise _BadEventError(Reason.EMPTY_ID, "to is empty")
    if event.ids:
        raise _BadEventError(Reason.WRONG_TYPE, "ids has no meaning in a link")


def _spread(event: _Control, label: str) -> None:
    """Turn ``label: "campaign:C7"`` into the field that it means."""
    dimension, colon, value = label.partition(":")
    if label == "user":
        return
    if not colon or not dimension or not value:
        raise _BadEventError(
            Reason.WRONG_TYPE, f"label is {label[:64]!r}: write user, or dimension:value"
        )
    if dimension in ("campaign", "creative", "advertiser"):
        setattr(event, f"{dimension}_id", value)
    elif dimension in FIELDS:
        setattr(event, dimension, value)
    else:
        event.labels = {**(event.labels or {}), dimension: value}


def _ads(*columns: Sequence[Any]) -> Iterable[Ad]:
    *fields, labels = columns
    if any(one is not None for one in labels):
        labels = [tuple(sorted(one.items())) if one else None for one in labels]
    return cast(Iterable[Ad], zip(*fields, labels, strict=True))


Decode = Callable[[Records, Labels, Limits], tuple[Columns, list[Rejected]]]


def decode_impressions(
    records: Records, labels: Labels, limits: Limits
) -> tuple[Columns, list[Rejected]]:
    """Impressions as columns; ads are interned in ``labels``.

    Returns:
        Columns of the messages that are events, and the others with their reasons.
    """
    plain, others = _plain(records, labels, limits)
    if not len(others):
        return plain, []
    columns, rejected = _decode(_IMPRESSION, _impressions, records.select(others), labels, limits)
    rejected = [Rejected(int(others[one.index]), one.reason, one.detail) for one in rejected]
    columns = replace(columns, source=others[columns.source])
    return _joined(plain, columns), rejected


def _plain(records: Records, labels: Labels, limits: Limits) -> tuple[Columns, NDArray[np.int64]]:
    """Events that `governor.scan` can read, and which records it leaves."""
    found = scan(
        records.buffer,
        records.timestamp,
        records.value_start,
        records.value_size,
        labels.table,
        labels.zone_table,
        Times(limits.max_future, limits.max_age),
        limits.max_bytes,
        MAX_ID_BYTES,
    )
    new = np.flatnonzero(found.plain & (found.ad < 0)).tolist()
    for i in new:
        found.ad[i] = find_ad(labels.table, found.ad_key[i])
        if found.ad[i] < 0:
            start, size = int(records.value_start[i]), int(records.value_size[i])
            ad = cast(Ad, (*ad_spans(records.buffer, start, size), None))
            found.ad[i] = labels.enter(int(found.ad_key[i]), ad)
    for i in np.flatnonzero(found.plain & (found.zone == UNKNOWN_ZONE)).tolist():
        start, size = int(found.zone_start[i]), int(found.zone_size[i])
        found.zone[i] = labels.enter_zone(
            records.buffer[start : start + size].tobytes().decode("ascii")
        )
    columns = Columns(
        records.buffer,
        found.user_start,
        found.user_size,
        found.ts,
        found.what,
        found.event,
        found.exposure,
        found.ad,
        records.timestamp,
        np.arange(len(records), dtype=np.int64),
        found.zone,
        np.zeros(len(records), np.int64),
    )
    others = np.flatnonzero(~found.plain)
    return (columns.select(np.flatnonzero(found.plain)) if len(others) else columns), others


def _joined(a: Columns, b: Columns) -> Columns:
    """The events of both."""
    if not len(a) or not len(b):
        return a if len(a) else b
    b = replace(b, user_start=b.user_start + len(a.text))
    joined = Columns(
        *(
            np.concatenate((getattr(a, column.name), getattr(b, column.name)))
            for column in fields(Columns)
        )
    )
    # As every other text is: numba would compile all that reads it once more for another kind.
    joined.text.flags.writeable = False
    return joined


def decode_engagements(
    records: Records, labels: Labels, limits: Limits
) -> tuple[Columns, list[Rejected]]:
    """The same for engagements."""
    return _decode(_ENGAGEMENT, _engagements, records, labels, limits)


def decode_controls(
    records: Records, labels: Labels, limits: Limits
) -> tuple[Columns, list[Rejected]]:
    """The same for controls."""
    return _decode(_CONTROL, _controls, records, labels, limits)


_IMPRESSION = msgspec.json.Decoder(_Impression).decode
_ENGAGEMENT = msgspec.json.Decoder(_Engagement).decode
_CONTROL = msgspec.json.Decoder(_Control).decode


def _decode(
    decode: Callable[[memoryview], Any],
    spread: Callable[[Sequence[Any], Labels], _Decoded],
    records: Records,
    labels: Labels,
    limits: Limits,
) -> tuple[Columns, list[Rejected]]:
    size = records.value_size
    if len(records) > 0 and size.min() >= 0 and size.max() <= limits.max_bytes:
        view = records.buffer.data
        start = records.value_start.tolist()
        end = (records.value_start + size).tolist()
        try:
            if not _ascii(records.buffer, records.value_start, size):
                for a, b in zip(start, end, strict=True):
                    str(view[a:b], "utf-8")  # what is skipped must be UTF-8 too
            decoded = spread([decode(view[a:b]) for a, b in zip(start, end, strict=True)], labels)
            columns, good = _columns(decoded, records, labels, limits)
            if good is None:
                return columns, []
        except (msgspec.MsgspecError, UnicodeError, RecursionError, _BadEventError):
            pass  # something in here is no event: find out which, one by one
    return _decode_singly(decode, spread, records, labels, limits)


@compiled
def _ascii(buffer: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64]) -> bool:
    """Whether no byte of any span has its high bit set."""
    for i in range(len(start)):
        span = buffer[start[i] : start[i] + size[i]]
        high = np.uint8(0)
        for byte in span:
            high |= byte
        if high & 0x80:
            return False
    return True


def _decode_singly(
    decode: Callable[[memoryview], Any],
    spread: Callable[[Sequence[Any], Labels], _Decoded],
    records: Records,
    labels: Labels,
    limits: Limits,
) -> tuple[Columns, list[Rejected]]:
    rejected: list[Rejected] = []
    events, kept = [], []
    for i in range(len(records)):
        try:
            event = _decode_one(decode, records.value(i), limits)
            spread([event], labels)
            _check_strings(event)
            _row_keys(event.ids or {})
        except _BadEventError as bad:
            rejected.append(Rejected(i, bad.reason, bad.detail))
        else:
            events.append(event)
            kept.append(i)
    if not events:
        return _NOTHING, rejected
    place = np.array(kept, np.int64)
    columns, good = _columns(spread(events, labels), records.select(place), labels, limits)
    if good is not None:
        rejected += [Rejected(kept[i], reason, detail) for i, reason, detail in good.bad]
        place = place[good.rows]
        kept_events = [events[i] for i in good.rows.tolist()]
        if not kept_events:
            return _NOTHING, sorted(rejected, key=lambda one: one.index)
        columns, _ = _columns(spread(kept_events, labels), records.select(place), labels, limits)
    columns = replace(columns, source=place[columns.source])
    return columns, sorted(rejected, key=lambda one: one.index)


def _decode_one(decode: Callable[[memoryview], Any], value: bytes | None, limits: Limits) -> Any:
    if value is None:
        raise _BadEventError(Reason.NO_VALUE, "the record has no value")
    if len(value) > limits.max_bytes:
        raise _BadEventError(
            Reason.TOO_LARGE,
            f"{len(value)} bytes, more than GOVERNOR_MAX_EVENT_BYTES={limits.max_bytes}",
        )
    try:
        str(value, "utf-8")
        return decode(memoryview(value))
    except msgspec.ValidationError as error:
        text = str(error)
        if "missing required field" in text:
            raise _BadEventError(Reason.MISSING_FIELD, text) from None
        if text.startswith("Expected `object`"):
            raise _BadEventError(Reason.MALFORMED, text) from None
        raise _BadEventError(Reason.WRONG_TYPE, text) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _BadEventError(Reason.MALFORMED, str(error)) from None


def _check_strings(event: msgspec.Struct) -> None:
    """Every string that becomes an id or a label: encodable, short enough, without NUL."""
    for name, value in msgspec.structs.asdict(event).items():
        if name in ("tz", "consent"):
            continue
        pairs = value.items() if isinstance(value, dict) else [(name, value)]
        for key, text in pairs:
            if not isinstance(text, str):
                continue
            for one in (key, text):
                try:
                    size = len(one.encode())
                except UnicodeEncodeError as error:
                    raise _BadEventError(Reason.MALFORMED, f"{name}: {error.reason}") from None
                if "\0" in one:
                    raise _BadEventError(Reason.NUL_BYTE, f"{name} contains a NUL")
                if size > MAX_ID_BYTES:
                    raise _BadEventError(
                        Reason.ID_TOO_LONG, f"{name} has {size} bytes, more than {MAX_ID_BYTES}"
                    )
    labels = getattr(event, "labels", None)
    if labels and len(labels) > MAX_LABELS:
        raise _BadEventError(
            Reason.TOO_LARGE, f"labels has {len(labels)} entries, more than {MAX_LABELS}"
        )
    for name in ("event_id", "user_id"):
        if getattr(event, name) == "":
            raise _BadEventError(Reason.EMPTY_ID, f"{name} is empty")


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Which events are good, and what is wrong with the others."""

    rows: NDArray[np.int64]
    bad: list[tuple[int, Reason, str]]


def _columns(
    decoded: _Decoded, records: Records, labels: Labels, limits: Limits
) -> tuple[Columns, _Sorted | None]:
    """Arrays from values, or, when some are out of bounds, which ones."""
    n = len(decoded.ts)
    seconds = np.array(decoded.ts, np.float64)
    bad = _check_times(seconds, records.timestamp, limits)
    if bad:
        wrong = {i for i, _, _ in bad}
        rows = np.array([i for i in range(n) if i not in wrong], np.int64)
        return _NOTHING, _Sorted(rows, bad)

    exposure_id = [one or "" for one in decoded.exposure_id]
    text, start, size = _spans([*decoded.user_id, *decoded.event_id, *exposure_id])
    if size.max() > MAX_ID_BYTES or size[: 2 * n].min() == 0 or 0 in text:
        raise _BadEventError(Reason.ID_TOO_LONG, "an id is empty, too long, or contains a NUL")
    event = hash_spans(text, start[n : 2 * n], size[n : 2 * n])
    exposure = hash_spans(text, start[2 * n :], size[2 * n :])
    exposure[size[2 * n :] == 0] = 0
    if decoded.alone:
        exposure = np.where(exposure == 0, lone_exposures(event), exposure)
    known = labels.known
    ads = list(decoded.ads)
    ad = list(map(known.get, ads))
    if None in ad:
        for i, number in enumerate(ad):
            if number is None:
                ad[i] = labels.intern(_checked(ads[i]))
    columns = Columns(
        text,
        start[:n],
        size[:n],
        _ticks(seconds, records),
        np.fromiter(decoded.what, np.int64, n),
        event,
        exposure,
        np.array(ad, np.int64),
        records.timestamp,
        np.arange(n, dtype=np.int64),
        _zones(decoded.zone, n, labels),
        np.array(decoded.consent or [0] * n, np.int64),
    )
    return (_with_ids(columns, decoded.ids) if any(decoded.ids) else columns), None


def _ticks(seconds: NDArray[np.float64], records: Records) -> NDArray[np.int64]:
    """The tick nearest to each time as its message writes it, whatever number of decimals it has.

    A float of today resolves a quarter of a tick: where it lies that near to the middle between
    two, the text decides. Of a clock's readings, which have seven decimals, every fourth does.
    """
    whole = np.floor(seconds)
    rest = (seconds - whole) * SECOND
    nearest = np.rint(rest)
    ticks = whole.astype(np.int64) * SECOND + nearest.astype(np.int64)
    doubtful = 0.5 - np.abs(rest - nearest) <= 0.51 * np.spacing(seconds) * SECOND
    for i in np.flatnonzero(doubtful).tolist():
        exact = json.loads(records.value(i) or b"", parse_float=Decimal)["ts"]
        ticks[i] = round(exact * SECOND)
    return ticks


def _zones(names: Sequence[str | None], n: int, labels: Labels) -> NDArray[np.int64]:
    if not any(names):
        return np.full(n, -1, np.int64)
    return np.array([labels.zone(name) if name else -1 for name in names], np.int64)


def _with_ids(columns: Columns, ids: Sequence[dict[str, str] | None]) -> Columns:
    """The events, and behind them each once more for every id besides the user's."""
    keys = [_row_keys(one or {}) for one in ids]
    text, start, size = _spans([key for some in keys for key in some])
    again = columns.select(np.repeat(np.arange(len(keys)), [len(some) for some in keys]))
    return _joined(columns, replace(again, text=text, user_start=start, user_size=size))


def _row_keys(ids: dict[str, str]) -> list[str]:
    if len(ids) > MAX_IDS:
        raise _BadEventError(Reason.TOO_LARGE, f"ids has {len(ids)} entries, more than {MAX_IDS}")
    for kind, value in ids.items():
        if not is_other_id_type(kind):
            raise _BadEventError(
                Reason.WRONG_TYPE,
                f"ids: {kind[:64]!r} is no type of other ids: write {ID_TYPE_NAMES}; not user",
            )
        if not value:
            raise _BadEventError(Reason.EMPTY_ID, f"ids.{kind} is empty")
        if "\0" in value:
            raise _BadEventError(Reason.NUL_BYTE, f"ids.{kind} contains a NUL")
        if len(value.encode()) > MAX_ID_BYTES:
            raise _BadEventError(
                Reason.ID_TOO_LONG, f"ids.{kind} has more than {MAX_ID_BYTES} bytes"
            )
    return [row_key(kind, value) for kind, value in ids.items()]


def row_key(id_type: str, value: str) -> str:
    """The key of an id's row. No id holds a NUL, so no two ids share a key."""
    return value if id_type == "user" else f"{id_type}\0{value}"


def _check_times(
    seconds: NDArray[np.float64], timestamp: NDArray[np.int64], limits: Limits
) -> list[tuple[int, Reason, str]]:
    """Indices of events whose time cannot be right, with the reason."""
    now = timestamp / 1000
    unstamped = timestamp < 0
    after = (seconds > now + limits.max_future / SECOND) & ~unstamped
    before = (seconds < now - limits.max_age / SECOND) & ~unstamped
    wrong = after | before | (seconds < 0) | (seconds * SECOND > MAX_TIME)
    bad: list[tuple[int, Reason, str]] = []
    for i in np.flatnonzero(wrong | (np.abs(seconds) >= MILLISECONDS_FROM)).tolist():
        ts = seconds[i]
        if abs(ts) >= MILLISECONDS_FROM:
            bad.append(
                (
                    i,
                    Reason.MILLISECONDS,
                    f"ts {ts:.0f} is not in seconds: divide it by 1000 or more",
                )
            )
        elif before[i] or ts < 0:
            bad.append(
                (i, Reason.PAST, f"ts {ts} is more than GOVERNOR_MAX_AGE before the record's time")
            )
        else:
            bad.append(
                (i, Reason.FUTURE, f"ts {ts} is more than GOVERNOR_MAX_FUTURE after the record's")
            )
    return bad


def _checked(ad: Ad) -> Ad:
    """The ad, if its label values can be labels; checked once per distinct ad."""
    *fields, labels = ad
    pairs = cast(tuple[tuple[str, str], ...], labels or ())
    pairs = tuple((key if key != TYPE_KEY else "", value) for key, value in pairs)
    if sum(bool(key) for key, _ in pairs) > MAX_LABELS:
        raise _BadEventError(Reason.TOO_LARGE, "more labels than an event may have")
    for text in (*fields, *(part for pair in pairs for part in pair)):
        if text is not None and ("\0" in text or len(text.encode()) > MAX_ID_BYTES):
            raise _BadEventError(Reason.ID_TOO_LONG, "a label is too long or contains a NUL")
    return ad


def _spans(
    texts: Sequence[str],
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """All texts end to end in UTF-8, with where each starts and how long it is."""
    joined = "".join(texts)
    data = joined.encode()
    if len(data) == len(joined):
        size = np.fromiter(map(len, texts), np.int64, len(texts))
    else:
        size = np.array([len(text.encode()) for text in texts], np.int64)
    start = np.zeros(len(texts), np.int64)
    np.cumsum(size[:-1], out=start[1:])
    return np.frombuffer(data, np.uint8), start, size


_NO_NUMBERS = np.zeros(0, np.int64)
_NO_HASHES = np.zeros(0, np.uint64)
_NOTHING = Columns(
    np.zeros(0, np.uint8),
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_HASHES,
    _NO_HASHES,
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_NUMBERS,
    _NO_NUMBERS,
)
