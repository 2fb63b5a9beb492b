"""Events from columns of values, as tables keep them: the same `Columns`, no JSON in between.

What holds of events in JSON (`governor.events`) holds here: the same fields, limits and reasons. A
table may leave out ``event_id``; then each of its rows is an event of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from governor.ads import FIELDS, TYPE_KEY, Ad
from governor.compiled import allocating, compiled
from governor.consent import BadConsentError
from governor.consent import decode as decode_consent
from governor.consent import from_text as consent_of
from governor.entries import (
    CLICK,
    ENGAGEMENT,
    EXPOSURE,
    INVALID,
    MAX_TIME,
    OTHER,
    RETARGETING,
    TYPE_SHIFT,
    UNMEASURABLE,
)
from governor.events import MAX_ID_BYTES, MILLISECONDS_FROM, Columns, Reason
from governor.hashing import hash_bytes, mix
from governor.labels import AdTable, Labels, add_ad, find_ad
from governor.rules import ENGAGEMENT_TYPES
from governor.scan import lone_exposures
from governor.ticks import SECOND

__all__ = ["NO_TIME", "Decoder", "Refused", "Table", "Texts", "texts_of"]

NO_TIME = -(1 << 62)
"""Instead of a time: there is none, or it cannot be read."""

KINDS = {"": 0, "impression": 0, "loaded": 1, "viewable": 2}

_MISSING, _TOO_LONG, _NUL, _TIME, _MILLISECONDS, _RANGE, _LABEL, _UNANSWERED, _CONSENT = range(
    1, 10
)
_REASONS: Mapping[int, tuple[Reason, str]] = {
    _MISSING: (Reason.MISSING_FIELD, "user_id, event_id, type or campaign_id is empty"),
    _TOO_LONG: (Reason.ID_TOO_LONG, f"an id has more than {MAX_ID_BYTES} bytes"),
    _NUL: (Reason.NUL_BYTE, "an id contains a NUL"),
    _TIME: (Reason.WRONG_TYPE, "ts is missing or cannot be read as a time"),
    _MILLISECONDS: (Reason.MILLISECONDS, "ts is not in seconds"),
    _RANGE: (Reason.PAST, "ts lies before 1970 or after 2041"),
    _LABEL: (Reason.ID_TOO_LONG, "a label is too long or contains a NUL"),
    _UNANSWERED: (
        Reason.MISSING_FIELD,
        "neither impression_id nor a label says what an engagement answers",
    ),
    _CONSENT: (Reason.WRONG_TYPE, "consent is not true, false, a TC string, GPP string or object"),
}
_ZERO, _ONE, _CLICKED = np.uint64(0), np.uint64(1), np.uint64(0xC11C)


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts: a row's is ``text[start:start + size]``; a size of -1 is none."""

    text: NDArray[np.uint8]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    codes: NDArray[np.int64] | None = None
    """Where texts repeat: for each row which of the texts it has, -1 for none."""

    def __len__(self) -> int:
        return len(self.start) if self.codes is None else len(self.codes)

    def spread(self) -> Texts:
        """The same with a start and a size for each row."""
        if self.codes is None:
            return self
        start = np.append(self.start, 0)[self.codes]
        return Texts(self.text, start, np.append(self.size, -1)[self.codes])

    def hashes(self) -> NDArray[np.uint64]:
        """A hash for each row, 0 where there is no text or it is empty."""
        hashed = np.zeros(len(self.start) + 1, np.uint64)
        _hash_texts(self.text, self.start, self.size, hashed)
        return hashed[:-1] if self.codes is None else hashed[self.codes]

    def at(self, row: int) -> str | None:
        """A row's text."""
        if self.codes is not None:
            row = int(self.codes[row])
            if row < 0:
                return None
        start, size = int(self.start[row]), int(self.size[row])
        return None if size < 0 else self.text[start : start + size].tobytes().decode()

    def distinct(self) -> tuple[list[str | None], NDArray[np.int64]]:
        """The distinct texts (perhaps some twice) and for each row which one it has."""
        if self.codes is not None:
            bare = Texts(self.text, self.start, self.size)
            return [bare.at(i) for i in range(len(bare))] + [None], self.codes
        _, first, codes = np.unique(self.hashes(), return_index=True, return_inverse=True)
        return [self.at(int(i)) for i in first], codes.astype(np.int64)

    def select(self, rows: NDArray[np.int64]) -> Texts:
        """The same texts, only of these rows."""
        if self.codes is not None:
            return replace(self, codes=self.codes[rows])
        return Texts(self.text, self.start[rows], self.size[rows])


def texts_of(values: Sequence[str | None]) -> Texts:
    """A column of texts from Python's."""
    encoded = [(value or "").encode() for value in values]
    size = np.array(
        [-1 if value is None else len(one) for value, one in zip(values, encoded, strict=True)],
        np.int64,
    )
    start = np.zeros(len(values), np.int64)
    np.cumsum(np.maximum(size, 0)[:-1], out=start[1:])
    return Texts(np.frombuffer(b"".join(encoded) or b" ", np.uint8), start, size)


@dataclass(frozen=True, slots=True)
class Table:
    """Exposures, or engagements, in columns named as their fields in JSON are.

    Attributes:
        kind: EXPOSURE or ENGAGEMENT, of `governor.entries`.
        user_id, ts: ``ts`` in ticks, `NO_TIME` where there is none.
        number: of each row in its source, from which its event gets an id where there is none.
        texts: the other fields that are texts; labels by their dimension, such as ``campaign``,
            ``creative`` or any custom one, under ``labels``.
        flags: ``retargeting``, ``measurable`` and ``invalid``, as far as there are any.
        ids: other ids by their type.
        of_exposures: of engagements that rows of exposures tell of besides: ``event_id`` and
            ``impression_id`` are then those of the exposures.
    """

    kind: int
    user_id: Texts
    ts: NDArray[np.int64]
    number: NDArray[np.uint64]
    texts: Mapping[str, Texts]
    labels: Mapping[str, Texts]
    flags: Mapping[str, NDArray[np.bool_]]
    ids: Mapping[str, Texts]
    of_exposures: bool = False

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class Refused:
    """Rows that are no events, for one reason."""

    reason: Reason
    detail: str
    rows: NDArray[np.int64]


class Decoder:
    """Turns tables into columns; ads are numbered in ``labels``."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._table = AdTable(np.zeros(256, np.uint64), np.zeros(256, np.int64))
        self._entered = 0

    def decode(self, table: Table) -> tuple[Columns, list[Refused]]:
        """The events of a table, and its rows that are none; ``source`` tells an event's row."""
        n = len(table)
        bad = np.zeros(n, np.uint8)
        bad[table.ts == NO_TIME] = _TIME
        late = (table.ts > MAX_TIME) | (table.ts < 0)
        bad[(bad == 0) & late] = _RANGE
        bad[(bad == _RANGE) & (table.ts >= int(MILLISECONDS_FROM) * SECOND)] = _MILLISECONDS
        user = table.user_id.spread()
        _check(user.text, user.start, user.size, True, bad)
        event = self._event_hashes(table, bad)
        exposure = self._exposure_hashes(table, event, bad)
        if table.of_exposures:
            event = _mixed(event, _CLICKED)
        what = self._what(table, bad)
        ad = self._ads(table, bad)
        if table.kind == EXPOSURE:
            campaign = table.labels.get("campaign")
            empty = np.ones(n, np.bool_) if campaign is None else campaign.spread().size <= 0
            bad[(bad == 0) & empty] = _MISSING
        else:
            bad[(bad == 0) & (exposure == _ZERO) & (self._own_labels(table) == 0)] = _UNANSWERED
        columns = Columns(
            user.text, user.start, user.size, table.ts, what, event, exposure, ad,
            np.full(n, -1, np.int64), np.arange(n, dtype=np.int64), self._zones(table),
            self._consents(table, bad),
        )  # fmt: skip
        good = np.flatnonzero(bad == 0)
        refused = [
            Refused(*_REASONS[code], np.flatnonzero(bad == code))
            for code in np.unique(bad[bad > 0]).tolist()
        ]
        if len(good) < n:
            columns = columns.select(good)
        return self._with_ids(columns, table), refused

    def _event_hashes(self, table: Table, bad: NDArray[np.uint8]) -> NDArray[np.uint64]:
        ids = table.texts.get("event_id")
        if ids is None:
            kind = EXPOSURE if table.of_exposures else table.kind
            return _mixed(table.number, np.uint64(1 + kind))
        spread = ids.spread()
        _check(spread.text, spread.start, spread.size, True, bad)
        return ids.hashes()

    def _exposure_hashes(
        self, table: Table, event: NDArray[np.uint64], bad: NDArray[np.uint8]
    ) -> NDArray[np.uint64]:
        ids = table.texts.get("impression_id")
        if ids is None:
            exposure = np.zeros(len(table), np.uint64)
        else:
            spread = ids.spread()
            _check(spread.text, spread.start, spread.size, False, bad)
            exposure = ids.hashes()
        if table.kind != EXPOSURE and not table.of_exposures:
            return exposure
        return np.where(exposure == _ZERO, lone_exposures(event), exposure)

    def _what(self, table: Table, bad: NDArray[np.uint8]) -> NDArray[np.int64]:
        what = np.full(len(table), table.kind, np.int64)
        name = "kind" if table.kind == EXPOSURE else "type"
        sorts = table.texts.get(name)
        if sorts is not None:
            texts, codes = sorts.distinct()
            if table.kind == EXPOSURE:
                known = [KINDS.get(text or "", -1) for text in texts]
            else:
                known = [ENGAGEMENT_TYPES.get(text, OTHER) if text else CLICK for text in texts]
            sort = np.array(known, np.int64)[codes]
            bad[(bad == 0) & (sort < 0)] = _MISSING
            what |= np.maximum(sort, 0) << TYPE_SHIFT
        elif table.kind == ENGAGEMENT:
            what |= CLICK << TYPE_SHIFT
        for flag, bit, when in (
            ("retargeting", RETARGETING, True),
            ("invalid", INVALID, True),
            ("measurable", UNMEASURABLE, False),
        ):
            if flag in table.flags:
                what |= bit * (table.flags[flag] == when)
        return what

    def _ads(self, table: Table, bad: NDArray[np.uint8]) -> NDArray[np.int64]:
        columns = dict(table.labels)
        if table.kind == ENGAGEMENT and "type" in table.texts:
            columns[TYPE_KEY] = table.texts["type"]
        key = np.ones(len(table), np.uint64)
        for name, texts in columns.items():
            hashes = texts.hashes()
            if name == TYPE_KEY:
                known, codes = texts.distinct()
                plain = np.array([one in ENGAGEMENT_TYPES for one in known], np.bool_)[codes]
                hashes = np.where(plain, _ZERO, hashes)
            name_bytes = np.frombuffer(name.encode(), np.uint8)
            _mix_in(key, hashes, np.uint64(hash_bytes(name_bytes, 0, len(name_bytes))))
        ad = _find_ads(self._table, key)
        for i in np.flatnonzero(ad < 0).tolist():
            ad[i] = find_ad(self._table, key[i])
            if ad[i] < 0:
                ad[i] = self._enter(key[i], columns, i)
        bad[(bad == 0) & (ad == _REFUSED)] = _LABEL
        return np.maximum(ad, 0)

    def _enter(self, key: np.uint64, columns: Mapping[str, Texts], row: int) -> int:
        labels = {name: texts.at(row) for name, texts in columns.items()}
        if labels.get(TYPE_KEY) in ENGAGEMENT_TYPES:
            del labels[TYPE_KEY]
        known = {name: text for name, text in labels.items() if text}
        wrong = any("\0" in text or len(text.encode()) > MAX_ID_BYTES for text in known.values())
        number = _REFUSED
        if not wrong:
            custom = tuple(sorted(item for item in known.items() if item[0] not in FIELDS))
            ad = cast(Ad, (*(known.get(field) for field in FIELDS), custom or None))
            number = self.labels.intern(ad)
        self._entered += 1
        if 2 * self._entered > len(self._table.key):
            old, size = self._table, 2 * len(self._table.key)
            self._table = AdTable(np.zeros(size, np.uint64), np.zeros(size, np.int64))
            for at in np.flatnonzero(old.key):
                add_ad(self._table, old.key[at], int(old.ad[at]))
        add_ad(self._table, key, number)
        return number

    def _own_labels(self, table: Table) -> NDArray[np.int64]:
        count = np.zeros(len(table), np.int64)
        for texts in table.labels.values():
            count += texts.hashes() != _ZERO
        return count

    def _zones(self, table: Table) -> NDArray[np.int64]:
        texts = table.texts.get("tz")
        if texts is None:
            return np.full(len(table), -1, np.int64)
        names, codes = texts.distinct()
        return np.array([self.labels.zone(name) if name else -1 for name in names], np.int64)[codes]

    def _consents(self, table: Table, bad: NDArray[np.uint8]) -> NDArray[np.int64]:
        texts = table.texts.get("consent")
        if texts is None or table.kind != EXPOSURE:
            return np.zeros(len(table), np.int64)
        names, codes = texts.distinct()
        said = np.array([self._consent(name) for name in names], np.int64)[codes]
        bad[(bad == 0) & (said < 0)] = _CONSENT
        return np.maximum(said, 0)

    def _consent(self, text: str | None) -> int:
        """As in `Columns.consent`; -1 for what is no statement."""
        if not text:
            return 0
        try:
            granted = decode_consent(consent_of(text), self.labels.consent)
        except BadConsentError:
            return -1
        return 0 if granted is None else 1 if granted else 2

    def _with_ids(self, columns: Columns, table: Table) -> Columns:
        """The events, those with other ids once more for each."""
        if not table.ids:
            return columns
        keys: list[str] = []
        rows: list[int] = []
        for i, row in enumerate(columns.source.tolist()):
            for kind, texts in table.ids.items():
                value = texts.at(row)
                if value and "\0" not in value and len(value.encode()) <= MAX_ID_BYTES:
                    keys.append(f"{kind}\0{value}")
                    rows.append(i)
        if not keys:
            return columns
        spans = texts_of(keys)
        again = columns.select(np.array(rows, np.int64))
        text = np.concatenate((columns.text, spans.text))
        text.flags.writeable = False
        joined = {
            field.name: np.concatenate((getattr(columns, field.name), getattr(again, field.name)))
            for field in fields(Columns)
        }
        joined |= {
            "text": text,
            "user_start": np.concatenate((columns.user_start, spans.start + len(columns.text))),
            "user_size": np.concatenate((columns.user_size, spans.size)),
        }
        return Columns(**joined)


_REFUSED = -2
"""Instead of an ad's number: its labels cannot be labels."""


@compiled
def _hash_texts(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    out: NDArray[np.uint64],
) -> None:
    for i in range(len(start)):
        if size[i] > 0:
            out[i] = hash_bytes(text, start[i], size[i])


@compiled
def _check(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    required: bool,
    bad: NDArray[np.uint8],
) -> None:
    """Note ids that cannot be ids."""
    for i in range(len(start)):
        if bad[i]:
            continue
        if size[i] <= 0:
            if required:
                bad[i] = _MISSING
        elif size[i] > MAX_ID_BYTES:
            bad[i] = _TOO_LONG
        else:
            for at in range(start[i], start[i] + size[i]):
                if text[at] == 0:
                    bad[i] = _NUL


@compiled
def _mix_in(key: NDArray[np.uint64], hashes: NDArray[np.uint64], name: np.uint64) -> None:
    """Take a label into the keys of ads; one that is missing changes nothing."""
    for i in range(len(key)):
        if hashes[i] != _ZERO:
            key[i] += mix(name, hashes[i])


@allocating
def _find_ads(table: AdTable, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    ad = np.empty(len(key), np.int64)
    for i in range(len(key)):
        if key[i] == _ZERO:
            key[i] = _ONE
        ad[i] = find_ad(table, key[i])
    return ad


@allocating
def _mixed(number: NDArray[np.uint64], salt: np.uint64) -> NDArray[np.uint64]:
    out = np.empty(len(number), np.uint64)
    for i in range(len(number)):
        out[i] = mix(number[i], salt)
        if out[i] == _ZERO:
            out[i] = _ONE
    return out
