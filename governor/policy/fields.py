"""What one field of a policy may say. Each check takes a value as YAML gives it, and raises
``ValueError`` with a message that begins with the value and names the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import SequenceMatcher
from typing import Any, Final

from pydantic import BeforeValidator, PlainSerializer, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from governor import zones
from governor.policy.durations import DAY, duration, written
from governor.policy.mistakes import shown

__all__ = [
    "AS_CLOCK",
    "AS_DURATION",
    "AS_FACTOR",
    "AS_JOINED",
    "AS_SHARE",
    "DIMENSIONS",
    "ID_TYPE_NAMES",
    "LIFECYCLE",
    "MAX_ROW_LIMIT",
    "PERIODS",
    "Bounds",
    "between",
    "category",
    "clock",
    "dimensions",
    "flag",
    "hundredths",
    "id_type",
    "is_id_type",
    "is_other_id_type",
    "limit",
    "match",
    "name",
    "one_of",
    "period",
    "present",
    "probability",
    "reaction_type",
    "share",
    "some",
    "text",
    "time_zone",
    "version",
    "whole",
]

DIMENSIONS: Final = (
    "user",
    "campaign",
    "creative",
    "advertiser",
    "category",
    "channel",
    "surface",
    "segment",
)
"""The built-in label dimensions; any other is a custom label key."""

CONTROLS: Final = ("hide", "consent")
"""Reasons that decisions give besides the names of rules."""

LIFECYCLE: Final = ("prospect", "engaged", "customer", "lapsed")
ENGAGEMENTS: Final = ("click", "dwell", "visit", "conversion", "hide", "complaint")
ID_TYPES: Final = ("user", "device", "household")
ID_TYPE_NAMES: Final = "a letter of a-z, then a-z, 0-9 and _; at most 32"
"""What `is_id_type` takes, in words."""

PERIODS: Final = {"day": 2 * DAY, "week": 8 * DAY, "month": 32 * DAY}
"""How far a calendar period can look back at most: a clock set back, or a zone that moves over
the date line, makes it up to a day longer than its name says."""

MAX_ROW_LIMIT: Final = 1024
"""The most exposures that a row can be set to keep."""

MAX_TEXT_BYTES: Final = 512
"""The longest label value or id, in bytes of UTF-8: what an event can carry."""

AS_DURATION: Final = PlainSerializer(written, return_type=str, when_used="unless-none")
AS_FACTOR: Final = PlainSerializer(lambda hundredths: hundredths / 100, return_type=float)
AS_SHARE: Final = PlainSerializer(lambda share: share / 10_000, return_type=float)
AS_JOINED: Final = PlainSerializer(" x ".join, return_type=str)
AS_CLOCK: Final = PlainSerializer(lambda at: f"{at // 60:02}:{at % 60:02}", return_type=str)
"""How a policy is written back, in the file's own words."""

_LONGEST: Final = 366 * DAY
_COMBINED: Final = 3


@dataclass(frozen=True)
class Bounds:
    """What the deployment can answer: how far rows look back and how much they hold."""

    horizon: int | None
    row_limit: int


def _bounds(info: ValidationInfo) -> Bounds:
    return info.context if isinstance(info.context, Bounds) else Bounds(None, MAX_ROW_LIMIT)


def _together(mistakes: list[tuple[tuple[str | int, ...], str]]) -> ValidationError:
    """Several mistakes of one mapping, each at its own key."""
    return ValidationError.from_exception_data(
        "policy",
        [
            InitErrorDetails(
                type=PydanticCustomError("mistake", "{error}", {"error": message}),
                loc=path,
                input=None,
            )
            for path, message in mistakes
        ],
    )


# --- Names and words ---------------------------------------------------------------------------


def name(value: object) -> str:
    """A rule's name: it becomes the reason in decisions and the label of metrics."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: write a name such as user-daily")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        plain = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:63]
        raise ValueError(
            f"{shown(value)} is not a name (lower-case letters, digits and hyphens, "
            f"at most 63): write {plain or 'user-daily'}"
        )
    if value in CONTROLS:
        raise ValueError(f"{shown(value)} is the name of people's own controls: write {value}-rule")
    return value


def text(example: str) -> BeforeValidator:
    """A label value or an id."""

    def check(value: object) -> str:
        if isinstance(value, bool | int | float):
            quoted = str(value).lower() if isinstance(value, bool) else str(value)
            raise ValueError(f"{shown(value)} is not text: write it in quotes, such as '{quoted}'")
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is not text: write one value, such as {example}")
        if not value or "\0" in value or len(value.encode("utf-8")) > MAX_TEXT_BYTES:
            raise ValueError(
                f"{shown(value)} is no value that an event can carry: write 1 to "
                f"{MAX_TEXT_BYTES} bytes of text, such as {example}"
            )
        return value

    return BeforeValidator(check)


def version(value: object) -> str:
    """Free text that names the policy in every decision."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: write it in quotes, such as 'spring-2'")
    if not (value.strip() and value.isprintable() and len(value) <= 64):
        raise ValueError(f"{shown(value)} is no version: write 1 to 64 printable characters")
    return value


def one_of(known: tuple[str, ...]) -> BeforeValidator:
    """One of a few words."""

    def check(value: object) -> str:
        if value not in known:
            raise ValueError(f"{shown(value)} is unknown: write {_either(known)}")
        return str(value)

    return BeforeValidator(check)


def _either(words: tuple[str, ...]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def flag(value: object) -> bool:
    """True or false, in YAML's 1.2 words only."""
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not true or false: write true or false")
    return value


def present(value: object) -> object:
    """A section that is begun says something."""
    if value is None:
        raise ValueError(f"{shown(value)} says nothing: write its fields below it, or remove it")
    return value


def some(example: str, most: int) -> BeforeValidator:
    """A list that is not empty; one text alone stands for a list of it."""

    def check(value: object) -> tuple[object, ...]:
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list | tuple):
            raise ValueError(f"{shown(value)} is not a list: write one such as {example}")
        if not value:
            raise ValueError(f"is an empty list: write one such as {example}, or remove it")
        if len(value) > most:
            raise ValueError(f"has {len(value)} entries: write at most {most}")
        return tuple(value)

    return BeforeValidator(check)


# --- What a rule is about ----------------------------------------------------------------------


def _dimension(value: object) -> str:
    known = ", ".join(DIMENSIONS)
    remedy = f"write one of {known}, or the key of a custom label (a-z, 0-9, _; at most 32)"
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a dimension: {remedy}")
    # A mistyped dimension would count as a custom label that no event has, and never fire.
    lower = value[:64].lower()
    likely = max(DIMENSIONS, key=lambda each: SequenceMatcher(None, lower, each).ratio())
    near = SequenceMatcher(None, lower, likely).ratio() > 0.85
    if value not in DIMENSIONS and (near or value == f"{likely}_id"):
        raise ValueError(f"{shown(value)} is not a dimension: did you mean {likely}?")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value):
        raise ValueError(f"{shown(value)} is not a dimension: {remedy}")
    if value == "lifecycle":
        raise ValueError(
            f"{shown(value)} is a person's state and not a label: write match: "
            "{lifecycle: [prospect]} instead"
        )
    return value


def dimensions(value: object) -> tuple[str, ...]:
    """One dimension, or two or three of them joined by `` x ``."""
    if isinstance(value, tuple):
        return tuple(map(_dimension, value))
    if not (isinstance(value, str) and " x " in value):
        return (_dimension(value),)
    parts = tuple(_dimension(part.strip()) for part in value.split(" x "))
    if "user" in parts:
        rest = " x ".join(part for part in parts if part != "user") or "user"
        raise ValueError(f"{shown(value)} combines user, which is always meant: write {rest}")
    if len(set(parts)) < len(parts):
        once = " x ".join(dict.fromkeys(parts))
        raise ValueError(f"{shown(value)} names a dimension twice: write {once}")
    if len(parts) > _COMBINED:
        fewer = " x ".join(parts[:_COMBINED])
        raise ValueError(f"{shown(value)} combines more than three: write {fewer}, or fewer")
    return parts


def match(*, lifecycle: bool) -> BeforeValidator:
    """Values by dimension; ``lifecycle`` says whether a person's state may be asked for."""

    def check(value: object) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, Mapping) or not value:
            empty = "is empty" if value == {} else f"{shown(value)} is not a mapping"
            raise ValueError(f"{empty}: write one such as {{channel: [ctv, web]}}, or remove it")
        found: dict[str, tuple[str, ...]] = {}
        mistakes: list[tuple[tuple[str | int, ...], str]] = []
        for key, each in value.items():
            try:
                found[key] = _matched(key, each, lifecycle)
            except ValueError as error:
                mistakes.append(((key,), str(error)))
        if mistakes:
            raise _together(mistakes)
        return dict(sorted(found.items()))

    return BeforeValidator(check)


def _matched(key: str, value: object, lifecycle: bool) -> tuple[str, ...]:
    if key == "lifecycle":
        if not lifecycle:
            raise ValueError(
                "says nothing about an ad: write labels here, and lifecycle in a rule's match"
            )
        check = one_of(LIFECYCLE).func
    elif key == "user":
        raise ValueError("cannot be matched: leave it out, or write exclude: {ids: [...]}")
    else:
        _dimension(key)
        check = text("C7").func
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ValueError("has no value: write one, or remove it")
    return tuple(sorted({str(check(each)) for each in values}))  # type: ignore[call-arg]


_ID_TYPE = re.compile("[a-z][a-z0-9_]{0,31}").fullmatch


def is_id_type(name: str) -> bool:
    """Whether a type of ids can have this name."""
    return _ID_TYPE(name) is not None


def is_other_id_type(name: str) -> bool:
    """Whether ids besides the user's can be of a type with this name."""
    return name != "user" and is_id_type(name)


def id_type(value: object) -> str:
    """Which kind of id a rule is evaluated on."""
    known = ", ".join(ID_TYPES)
    if not isinstance(value, str) or not is_id_type(value):
        raise ValueError(
            f"{shown(value)} is not a type of id: write {known}, or one of your own "
            f"({ID_TYPE_NAMES})"
        )
    likely = max(ID_TYPES, key=lambda each: SequenceMatcher(None, value, each).ratio())
    # A number is no slip: device2 is beside device.
    meant = value in ID_TYPES or any(each.isdigit() for each in value)
    if not meant and SequenceMatcher(None, value, likely).ratio() > 0.8:
        raise ValueError(f"{shown(value)} is not a type of id: did you mean {likely}?")
    return value


def reaction_type(value: object) -> str:
    """The type of engagement that a reaction is to; types of one's own are compared as text."""
    known = ", ".join(ENGAGEMENTS)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 64:
        raise ValueError(
            f"{shown(value)} is not a type of engagement: write {known}, or one of your own"
        )
    likely = max(ENGAGEMENTS, key=lambda each: SequenceMatcher(None, value.lower(), each).ratio())
    if value not in ENGAGEMENTS and SequenceMatcher(None, value.lower(), likely).ratio() > 0.8:
        raise ValueError(f"{shown(value)} is not a type of engagement: did you mean {likely}?")
    return value


# --- Numbers -----------------------------------------------------------------------------------


def _integer(value: object, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError(f"{shown(value)} is text: write {int(value)} without quotes")
        raise ValueError(f"{shown(value)} is not a whole number: write {example}")
    return value


def limit(value: object, info: ValidationInfo) -> int:
    """How many exposures a cap allows."""
    count = _integer(value, "how many exposures, such as 3")
    if count < 1:
        raise ValueError(
            f"{shown(value)} is less than 1: write how many exposures are allowed, from 1"
        )
    most = _bounds(info).row_limit
    if count > most:
        raised = f", or raise GOVERNOR_ROW_LIMIT to {count}" if count <= MAX_ROW_LIMIT else ""
        raise ValueError(
            f"{shown(value)} is more than the {most} newest exposures that are kept of a user: "
            f"write {most} or less{raised}"
        )
    return count


def whole(least: int, most: int) -> BeforeValidator:
    """A whole number within bounds, both included."""

    def check(value: object) -> int:
        count = _integer(value, f"one from {least} to {most}")
        if not least <= count <= most:
            raise ValueError(f"{shown(value)} is out of bounds: write {least} to {most}")
        return count

    return BeforeValidator(check)


def _decimal(value: object, example: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
            raise ValueError(f"{shown(value)} is text: write {value} without quotes")
        raise ValueError(f"{shown(value)} is not a number: write one such as {example}")
    return Decimal(str(value))


def hundredths(least: str, most: str) -> BeforeValidator:
    """A factor, kept as whole hundredths."""

    def check(value: object) -> int:
        number = _decimal(value, "2 or 0.5")
        if not Decimal(least) <= number <= Decimal(most):
            raise ValueError(f"{shown(value)} is out of bounds: write {least} to {most}")
        if number * 100 % 1:
            raise ValueError(
                f"{shown(value)} is finer than hundredths: write {round(number, 2).normalize():f}"
            )
        return int(number * 100)

    return BeforeValidator(check)


def probability(least: str, most: str) -> BeforeValidator:
    """A number between two others, both excluded."""

    def check(value: object) -> float:
        number = _decimal(value, "0.5")
        if not Decimal(least) < number < Decimal(most):
            raise ValueError(
                f"{shown(value)} is out of bounds: write more than {least} and less than {most}"
            )
        return float(number)

    return BeforeValidator(check)


def share(value: object) -> int:
    """``5%`` or ``0.05``, kept as ten-thousandths."""
    try:
        per_cent = isinstance(value, str) and value.endswith("%")
        number = Decimal(str(value)[:-1]) / 100 if per_cent else _decimal(value, "5% or 0.05")
    except InvalidOperation:
        raise ValueError(f"{shown(value)} is no share: write one such as 5% or 0.05") from None
    if not number.is_finite() or not 0 <= number <= 1:
        raise ValueError(f"{shown(value)} is out of bounds: write 0% to 100%, or 0 to 1")
    if number * 10_000 % 1:
        raise ValueError(f"{shown(value)} is finer than 0.01%: write fewer decimals")
    return int(number * 10_000)


# --- Times -------------------------------------------------------------------------------------


def between(shortest: int, longest: int = _LONGEST, *, history: bool = True) -> BeforeValidator:
    """A duration in ticks within bounds; ``history``: that rows must remember."""

    def check(value: object, info: ValidationInfo) -> int:
        ticks = duration(value)
        if ticks < shortest:
            raise ValueError(f"{shown(value)} is too short: write {written(shortest)} or more")
        if ticks > longest:
            raise ValueError(f"{shown(value)} is too long: write {written(longest)} or less")
        horizon = _bounds(info).horizon
        if history and horizon is not None and ticks > horizon:
            raise ValueError(
                f"{shown(value)} looks further back than the history of {written(horizon)}: "
                f"shorten it, or set GOVERNOR_HISTORY to {value} or more"
            )
        return ticks

    return BeforeValidator(check)


def period(value: object, info: ValidationInfo) -> str:
    """Day, ISO week or month."""
    if not isinstance(value, str) or value not in PERIODS:
        also = " (a rolling time is written as window)" if isinstance(value, str | int) else ""
        raise ValueError(f"{shown(value)} is no calendar period: write day, week or month{also}")
    horizon, needed = _bounds(info).horizon, PERIODS[value]
    if horizon is not None and needed > horizon:
        raise ValueError(
            f"{shown(value)} looks further back than the history of {written(horizon)}: write a "
            f"shorter one, or set GOVERNOR_HISTORY to {written(needed)} or more"
        )
    return value


def time_zone(value: object) -> str:
    """The name of an IANA time zone that the pinned data has."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a time zone: write one such as Europe/Berlin")
    if not zones.known(value):
        near = zones.nearest(value)
        remedy = f"did you mean {near}?" if near else "write one such as Europe/Berlin"
        raise ValueError(f"{shown(value)} is not a time zone: {remedy}")
    return value


def clock(value: object) -> int:
    """A time of day as minutes since midnight."""
    if isinstance(value, str) and re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        return int(value[:2]) * 60 + int(value[3:])
    raise ValueError(f"{shown(value)} is not a time of day: write one such as '22:00'")


# --- Categories --------------------------------------------------------------------------------


def category(find: Callable[[str], Any], nearest: Callable[[str], str | None]) -> BeforeValidator:
    """The name or the id of a category that ``find`` knows."""

    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(
                f"{shown(value)} is not a category: write a name or an id of the IAB Content "
                "Taxonomy, such as 'Alcoholic Beverages'"
            )
        if find(str(value)) is None:
            near = nearest(str(value))
            remedy = f"did you mean {near!r}?" if near else "write one of its names or ids"
            raise ValueError(f"{shown(value)} is no category of the IAB Content Taxonomy: {remedy}")
        return str(value)

    return BeforeValidator(check)
