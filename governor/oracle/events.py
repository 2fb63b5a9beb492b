"""Events as the definitions see them: JSON in, one entry for each id's row out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from governor.consent import BadConsentError
from governor.consent import decode as decode_consent
from governor.policy import Consent

__all__ = ["SECOND", "Entry", "RejectedError", "decode", "key_of", "seconds", "ticks"]

SECOND = 1_000_000
"""Ticks in a second: all times in here are whole microseconds."""

MAX_ID_BYTES = 512
MAX_IDS = 16
MAX_MAGNITUDE = 100_000_000_000
"""Seconds; an epoch time this large is in milliseconds or finer."""

LABEL_FIELDS = {
    "campaign": "campaign_id",
    "creative": "creative_id",
    "advertiser": "advertiser_id",
    "category": "category",
    "channel": "channel",
    "surface": "surface",
    "segment": "segment",
}
KINDS = ("loaded", "impression", "viewable")
CONTROL_TYPES = ("opt_out", "opt_in", "consent", "less_often", "hide", "erase", "link")


class RejectedError(Exception):
    """An event that is a dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """One accepted event as one id's row takes it; equal ones are one event delivered twice."""

    topic: str
    """``impression``, ``engagement`` or ``control``."""
    key: str
    """A user's id; of other ids their type, NUL, and the value."""
    event_id: str
    ts: int
    impression_id: str | None
    content: str
    """Everything in the event that means something, in one canonical text."""
    labels: Mapping[str, str] = field(hash=False, compare=False)
    """Value by dimension."""
    kind: str = field(compare=False)
    """Of an impression: loaded, impression or viewable."""
    type: str = field(compare=False)
    """Of an engagement or control."""
    retargeting: bool = field(compare=False)
    measurable: bool = field(compare=False)
    invalid: bool = field(compare=False)
    zone: str | None = field(compare=False)
    """The zone that it names, known or not."""
    consent: bool | None = field(compare=False)
    """Whether it grants or refuses retargeting."""
    to: str | None = field(compare=False)
    """Of a link: the id that the person is known by."""

    @property
    def label(self) -> str:
        """Of a control: the text of the label that it is about."""
        order = [*LABEL_FIELDS, *sorted(self.labels.keys() - LABEL_FIELDS.keys())]
        named = [f"{each}:{self.labels[each]}" for each in order if each in self.labels]
        return " x ".join(named) or "user"


def ticks(seconds: float | Decimal) -> int:
    """Epoch seconds as whole microseconds, to the nearest."""
    exact = Decimal(str(seconds)) if isinstance(seconds, float) else Decimal(seconds)
    return round(exact * SECOND)


def seconds(tick: int) -> int | float:
    """Ticks as the JSON number that a decision carries."""
    return tick // SECOND if tick % SECOND == 0 else tick / SECOND


def key_of(id_type: str, value: str) -> str:
    """The key of an id's row."""
    return value if id_type == "user" else f"{id_type}\0{value}"


def decode(
    topic: str, value: bytes | Mapping[str, Any] | None, consent: Consent | None = None
) -> list[Entry]:
    """An entry for each id that the event names; `RejectedError` if it is a dead letter."""
    event = _object(value)
    own = "campaign_id" if topic == "impression" else "type"
    for name in ("event_id", "user_id", own, "ts"):
        _require(name in event, "missing_field", name)
        _require(event[name] is not None, "wrong_type", name)
        _require(name == "ts" or _text(event, name), "empty_id", name)

    impression_id = _text(event, "impression_id") or None if topic != "control" else None
    for name, default in (("retargeting", False), ("measurable", True), ("invalid", False)):
        if topic == "impression":
            _require(isinstance(event.get(name, default), bool), "wrong_type", name)
    if topic == "impression":
        _require(event.get("kind") in (None, *KINDS), "wrong_type", "kind")
    elif topic == "control":
        _require(event["type"] in CONTROL_TYPES, "wrong_type", "type")
        to, linked = _text(event, "to"), event["type"] == "link"
        _require(not linked or to is not None, "missing_field", "to")
        _require(not linked or to, "empty_id", "to")
        _require(not linked or not event.get("ids"), "wrong_type", "ids")

    ts = event["ts"]
    is_number = isinstance(ts, int | float | Decimal) and not isinstance(ts, bool)
    _require(is_number and math.isfinite(ts), "wrong_type", "ts")
    _require(abs(ts) < MAX_MAGNITUDE, "milliseconds", "ts")

    labels = _labels(event, topic)
    if topic == "engagement":
        _require(impression_id or labels, "missing_field", "impression_id or a label")
    if topic == "control" and event["type"] == "hide":
        _require(labels, "missing_field", "label")
    shown = topic == "impression"
    kind = (event.get("kind") or "impression") if shown else ""
    kind_of_event = "" if shown else str(event["type"])
    retargeting = shown and event.get("retargeting", False)
    measurable = not shown or event.get("measurable", True)
    content = (
        sorted(labels.items()),
        impression_id,
        kind,
        kind_of_event,
        retargeting,
        measurable,
    )
    return [
        Entry(
            topic,
            key,
            event["event_id"],
            ticks(ts),
            impression_id,
            repr(content),
            labels,
            kind,
            kind_of_event,
            retargeting,
            measurable,
            shown and event.get("invalid", False),
            _text(event, "tz"),
            _consent(topic, event, consent or Consent()),
            _text(event, "to") if topic == "control" and event["type"] == "link" else None,
        )
        for key in _keys(event)
    ]


def _object(value: bytes | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if value is None:
        raise RejectedError("no_value", "tombstone")
    if isinstance(value, bytes):
        try:
            value = json.loads(
                value.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant
            )
            json.dumps(value, default=str, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise RejectedError("malformed", str(error)) from None
    if not isinstance(value, Mapping):
        raise RejectedError("malformed", "not an object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _require(condition: object, reason: str, detail: str) -> None:
    if not condition:
        raise RejectedError(reason, detail)


def _text(event: Mapping[str, Any], name: str) -> str | None:
    """An optional string that can be an id or a label; null counts as absent."""
    value = event.get(name)
    if value is None:
        return None
    if isinstance(value, str) and 4 * len(value) <= MAX_ID_BYTES and "\0" not in value:
        return value
    _require(isinstance(value, str), "wrong_type", name)
    _require("\0" not in value, "nul_byte", name)
    _require(len(value.encode()) <= MAX_ID_BYTES, "id_too_long", name)
    return str(value)


def _keys(event: Mapping[str, Any]) -> list[str]:
    """The rows that the event belongs to: the user's, and one for each other id."""
    ids = {} if event.get("ids") is None else event["ids"]
    _require(isinstance(ids, Mapping), "wrong_type", "ids")
    _require(len(ids) <= MAX_IDS, "too_large", "ids")
    keys = [str(event["user_id"])]
    for id_type in ids:
        usable = re.fullmatch("[a-z][a-z0-9_]{0,31}", id_type) and id_type != "user"
        _require(usable, "wrong_type", f"ids.{id_type}")
        value = _text(ids, id_type)
        _require(value is not None, "wrong_type", f"ids.{id_type}")
        _require(value, "empty_id", f"ids.{id_type}")
        keys.append(key_of(id_type, str(value)))
    return keys


def _labels(event: Mapping[str, Any], topic: str) -> dict[str, str]:
    custom = {} if event.get("labels") is None else event["labels"]
    _require(isinstance(custom, Mapping), "wrong_type", "labels")
    labels = {}
    for key in custom:
        value = _text(custom, key)
        _require(value is not None, "wrong_type", f"labels.{key}")
        labels[key] = str(value)
    for dimension, name in LABEL_FIELDS.items():
        value = _text(event, name)
        if value:
            labels[dimension] = value
    label = _text(event, "label") if topic == "control" else None
    if label and label != "user":
        dimension, colon, value = label.partition(":")
        _require(dimension and colon and value, "wrong_type", "label")
        labels[dimension] = str(value)
    return labels


def _consent(topic: str, event: Mapping[str, Any], policy: Consent) -> bool | None:
    """Consent stands on impressions and on controls of that type."""
    stated = event.get("consent")
    if stated is None or topic == "engagement":
        return None
    if topic == "control" and event["type"] != "consent":
        return None
    try:
        return decode_consent(stated, policy)
    except BadConsentError as error:
        raise RejectedError("wrong_type", str(error)) from None
