"""Which columns of somebody's log hold what the governor asks for: ``--map FIELD=COLUMN``.

A field that is not mapped is taken from the column of its own name. A field of several columns
(``impression_id=page+item``) is their texts joined by ``-``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from governor.policy import ID_TYPE_NAMES, is_other_id_type

__all__ = ["FIELDS", "LABELS", "TIMES", "Mapped", "MappingError", "Source", "mapped"]

LABELS: Final[Mapping[str, str]] = {
    "campaign_id": "campaign",
    "creative_id": "creative",
    "advertiser_id": "advertiser",
    "category": "category",
    "channel": "channel",
    "surface": "surface",
    "segment": "segment",
}
"""Fields that are labels, and their dimensions."""

TIMES: Final[Mapping[str, float]] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of a time that is a number, in seconds."""

FIELDS: Final[Mapping[str, str]] = {
    "user_id": "who was shown it; needed",
    "ts": "when; needed. A number of seconds since 1970, ts=COLUMN:ms for milliseconds (:us, :ns), "
    "or a time in words",
    "campaign_id": "needed of impressions",
    "creative_id": "",
    "advertiser_id": "",
    "category": "",
    "channel": "",
    "surface": "",
    "segment": "",
    "event_id": "without it each row is an event of its own",
    "impression_id": "what an engagement answers; shared by the events of one exposure",
    "type": "in a log of all kinds: empty or impression, click, conversion, opt_out, ...",
    "topic": "impressions, engagements or controls, where the type does not say it",
    "click": "of an impression: 1 or true where it was clicked, at the same time",
    "click_ts": "of an impression: when it was clicked, empty where it was not",
    "kind": "loaded, impression or viewable",
    "retargeting": "",
    "measurable": "",
    "invalid": "",
    "consent": "",
    "tz": "",
    "label": "of a control",
    "to": "of a link",
}
"""What can be mapped, besides ``labels.ANY`` and ``ids.TYPE``."""


class MappingError(ValueError):
    """A mapping that means nothing, or does not fit the columns; says what to write."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field comes from."""

    columns: tuple[str, ...]
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Mapped:
    """Sources by field; of other fields the columns of their names."""

    sources: Mapping[str, Source] = field(default_factory=dict)

    def fit(self, columns: Sequence[str], needed: Iterable[str], where: str) -> dict[str, Source]:
        """The sources of all fields that a log with these columns has.

        Raises:
            MappingError: a column that is mapped, or a field that is needed, is not there.
        """
        wrong = []
        found = {}
        for name, source in self.sources.items():
            missing = [one for one in source.columns if one not in columns]
            if missing:
                wrong.append(f"--map {name}={'+'.join(source.columns)}: no column {missing[0]}")
            else:
                found[name] = source
        for column in columns:
            plain = column in FIELDS or column.startswith(("labels.", "ids."))
            if plain and not _is_field(column):
                wrong.append(_no_other_id(column))
            elif plain and column not in found:
                found[column] = Source((column,))
        for name in needed:
            if name not in found and name not in self.sources:
                near = _near(name, columns)
                wrong.append(f"{name}: no such column; write --map {name}={near}")
        if wrong:
            listed = ", ".join(columns) or "none"
            raise MappingError(f"{where}: {'; '.join(wrong)} (columns found: {listed})")
        return found


_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "user_id": ("uid", "user", "userid", "cookie", "device_id", "visitor"),
    "ts": ("time", "timestamp", "event_time", "datetime", "date"),
    "campaign_id": ("campaign", "cid", "item_id", "ad_id"),
}


def _near(name: str, columns: Sequence[str]) -> str:
    lower = {column.lower(): column for column in columns}
    wanted = [name, *_ALIASES.get(name, ())]
    for one in wanted:
        close = difflib.get_close_matches(one, lower, 1, 0.75)
        if close:
            return lower[close[0]]
    return "COLUMN"


def _is_field(name: str) -> bool:
    """Whether events can have a field of this name: of ``ids.TYPE`` not every type is one."""
    kind = name.removeprefix("ids.")
    return kind == name or is_other_id_type(kind)


def _no_other_id(name: str) -> str:
    return f"{name}: no type of other ids; write ids. and {ID_TYPE_NAMES}; not user"


def mapped(options: Iterable[str]) -> Mapped:
    """What ``--map`` options say.

    Raises:
        MappingError: for what is not ``FIELD=COLUMN``, with a unit only where a time is meant.
    """
    sources: dict[str, Source] = {}
    wrong = []
    for option in options:
        name, equals, value = option.partition("=")
        column, colon, unit = value.rpartition(":")
        if not colon or name not in ("ts", "click_ts"):
            column, unit = value, ""
        if not (equals and name and column):
            wrong.append(f"{option!r} is not FIELD=COLUMN: write one such as user_id=uid")
        elif name not in FIELDS and not name.startswith(("labels.", "ids.")):
            near = difflib.get_close_matches(name, FIELDS, 1)
            meant = f": did you mean {near[0]}?" if near else f": one of {', '.join(FIELDS)}"
            wrong.append(f"{option!r}: there is no field {name}{meant}")
        elif not _is_field(name):
            wrong.append(f"{option!r}: {_no_other_id(name)}")
        elif unit and unit not in TIMES:
            wrong.append(f"{option!r}: {unit} is no unit: write s, ms, us or ns")
        else:
            sources[name] = Source(tuple(column.split("+")), unit or None)
    if wrong:
        raise MappingError("; ".join(wrong))
    return Mapped(sources)
