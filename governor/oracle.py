"""The definitions in plain Python: which labels of a user rest, until when, and why.

Written to be read beside the documentation and to check the compiled ledger against; it is slow
and shares nothing with it. Times are whole microseconds, *ticks*.

Two exposures of one event or impression at the very same instant count once, and which of their
contents counts is a matter of hashes that only the ledger knows; so is which of several at one
instant a full row lets go. Here the smaller text decides, or whatever order `ties` names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

__all__ = ["Event", "live", "throttles", "tied"]

Event = tuple[str, Mapping[str, Any]]
"""The topic it came on, ``impressions``, ``engagements`` or ``controls``, and the JSON object."""

SECOND = 1_000_000
UNITS = {"ms": 1_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
UNITS["w"] = 7 * UNITS["d"]

FIELDS = {
    "campaign": "campaign_id",
    "creative": "creative_id",
    "advertiser": "advertiser_id",
    "category": "category",
    "channel": "channel",
    "surface": "surface",
    "segment": "segment",
}


class Exposure(NamedTuple):
    """All that an impression says; two that are equal are the same event delivered twice."""

    ts: int
    event_id: str
    impression_id: str
    labels: tuple[tuple[str, str], ...]
    """Dimension and label, such as ``("campaign", "campaign:C7")``."""
    kind: str
    retargeting: bool


class Mark(NamedTuple):
    """As much of an event as says which others it is one with."""

    ts: int
    event_id: str
    impression_id: str


One = TypeVar("One", Exposure, Mark)


def throttles(
    policy: Mapping[str, Any],
    events: Iterable[Event],
    *,
    horizon: int,
    row_limit: int = 128,
    ties: int = 0,
) -> dict[str, dict[str, Any]]:
    """What rests after these events of one user, at the time of the newest of them.

    Args:
        policy: what a policy file says, as `yaml.safe_load` reads it.
        events: accepted ones, in any order; the same one any number of times.
        horizon: how far back a row remembers, in ticks.
        row_limit: how many exposures a row remembers.
        ties: which order exposures of one instant have: 0 for that of their texts, any other
            number for one of the others.

    Returns:
        By label, throttles as in the decision record.
    """
    events = list(events)
    now = newest(events)
    shown = times_shown(counted(remembered(events, now, horizon, row_limit, ties)))
    resting: dict[str, dict[str, Any]] = {}
    for rule in policy["rules"]:
        limit, window = limit_and_window(rule)
        for label, times in shown[rule["per"]].items():
            if len(times) >= limit and (until := times[-limit] + window) > now:
                inside = sum(ts > now - window for ts in times)
                throttle = resting.setdefault(label, resting_since(label, times[-1]))
                throttle["until"] = max(throttle["until"], until / SECOND)
                throttle["reasons"].append(rule["name"])
                throttle["evidence"][rule["name"]] = {
                    "exposures": inside,
                    "limit": limit,
                    "window": window / SECOND,
                    "until": until / SECOND,
                }
    return resting


def live(events: Iterable[Event], *, horizon: int, row_limit: int = 128) -> dict[str, int | None]:
    """How many exposures, engagements and controls of one user count, at the newest event.

    Returns:
        By topic; None where a row may have been full, or where ties decide.
    """
    events = list(events)
    now = newest(events)
    found: dict[str, int | None] = {}
    for topic in ("impressions", "engagements", "controls"):
        marks = {
            Mark(ticks(event["ts"]), event["event_id"], event.get("impression_id") or "")
            for each, event in events
            if each == topic
        }
        inside = sorted(mark for mark in marks if mark.ts > now - horizon)
        if sum(each == topic for each, _ in events) > row_limit:
            found[topic] = None
        elif topic != "impressions":
            found[topic] = len({mark.event_id for mark in inside})
        elif len({mark.ts for mark in inside}) < len(inside):
            found[topic] = None
        else:
            found[topic] = len(counted(inside))
    return found


def tied(events: Iterable[Event]) -> bool:
    """Whether two exposures are of one instant, so that `ties` may make a difference."""
    times = [ticks(event["ts"]) for topic, event in events if topic == "impressions"]
    return len(set(times)) < len(times)


def newest(events: Iterable[Event]) -> int:
    """The time of a user's newest event, of any kind."""
    return max((ticks(event["ts"]) for _, event in events), default=0)


def remembered(
    events: Iterable[Event], now: int, horizon: int, row_limit: int, ties: int = 0
) -> list[Exposure]:
    """The exposures that a row holds, oldest first."""
    exposures = {exposure(event) for topic, event in events if topic == "impressions"}
    kept = sorted(one for one in exposures if one.ts > now - horizon)
    if ties:
        kept.sort(key=lambda one: (one.ts, crc32(f"{ties} {one}".encode())))
    return kept[-row_limit:]


def counted(oldest_first: Iterable[One]) -> list[One]:
    """Those that count: of several for one event, or of one impression, the first."""
    counting: list[One] = []
    event_ids: set[str] = set()
    impression_ids: set[str] = set()
    for one in oldest_first:
        if one.event_id not in event_ids and one.impression_id not in impression_ids:
            counting.append(one)
        event_ids.add(one.event_id)
        impression_ids |= {one.impression_id} - {""}
    return counting


def times_shown(oldest_first: Iterable[Exposure]) -> dict[str, dict[str, list[int]]]:
    """When each label was shown, oldest first, by dimension."""
    shown: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for one in oldest_first:
        for dimension, label in one.labels:
            shown[dimension][label].append(one.ts)
    return shown


def limit_and_window(rule: Mapping[str, Any]) -> tuple[int, int]:
    """A spacing is a cap of one in the distance that it asks for."""
    if "spacing" in rule:
        return 1, duration(rule["spacing"])
    return rule["cap"], duration(rule["window"])


def resting_since(label: str, newest: int) -> dict[str, Any]:
    """A throttle to which no rule has given its reason yet."""
    return {
        "label": label,
        "state": "throttled",
        "factor": 0,
        "from": newest / SECOND,
        "until": 0,
        "remaining": 0,
        "reasons": [],
        "evidence": {},
    }


def exposure(event: Mapping[str, Any]) -> Exposure:
    """An impression as it counts: null is absent, unknown fields say nothing."""
    labels = {key: f"{key}:{value}" for key, value in (event.get("labels") or {}).items()}
    for dimension, field in FIELDS.items():
        if event.get(field):
            labels[dimension] = f"{dimension}:{event[field]}"
    labels["user"] = "user"
    return Exposure(
        ticks(event["ts"]),
        event["event_id"],
        event.get("impression_id") or "",
        tuple(sorted(labels.items())),
        event.get("kind") or "impression",
        event.get("retargeting") or False,
    )


def ticks(seconds: float) -> int:
    """The nearest tick."""
    return round(seconds * SECOND)


def duration(text: str) -> int:
    """The ticks of ``90s``, ``1.5h`` or ``2w``."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(Fraction(number) * UNITS[text.removeprefix(number)])
