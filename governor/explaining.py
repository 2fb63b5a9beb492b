"""What support and an access request ask of one row: why, and what is held. Not in a hurry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governor.ads import TYPE_KEY, ZONE_KEY
from governor.counting import exposures_in
from governor.decisions import found_in
from governor.entries import (
    CONTROL,
    CUT,
    ENGAGEMENT,
    EXPOSURE,
    GRANT,
    LESS_OFTEN,
    OTHER,
    RETARGETING,
    SHADOW,
    UNMEASURABLE,
    ZONE,
    ad_of,
    fact_of,
    kind_of,
    newest_of,
    shadowed,
    ticks_of,
    type_of,
)
from governor.events import CONTROL_TYPES, EXPOSURE_TYPES
from governor.labels import Labels
from governor.policy import Cap, Policy, Spacing
from governor.rows import Rows, run_of
from governor.rules import ENGAGEMENT_TYPES, STATES, ByRule, Rules, Scalar, Span, needed_by
from governor.scopes import Col, Scopes
from governor.scratch import Found, Row, Scratch
from governor.situation import FOREVER, HOLDOUT, period_of
from governor.ticks import to_seconds

__all__ = ["explain", "export"]


def explain(
    table: Rows, row: int, rules: Rules, labels: Labels, scopes: Scopes, scratch: Scratch
) -> dict[str, Any]:
    """What holds of the row, and by rule and label: in force or not, count, limit, since when it
    could not be known."""
    found = found_in(table, row, rules, labels, scopes, scratch)
    in_force = {
        (int(one[Found.RULE]), int(one[Found.SLOT])): one.copy()
        for one in scratch.arrays.found[:found]
        if one[Found.RULE] < len(rules.policy.rules)
    }
    it = scratch.arrays.row
    start = run_of(table.header[row, 0])
    entry = table.arena[start : start + int(it[Row.LENGTH])]
    told: dict[str, Any] = {"now": to_seconds(int(it[Row.NOW]))}
    zone = fact_of(entry, len(entry), ZONE)
    if zone >= 0:
        told["zone"] = labels.labels_of(ad_of(entry[zone, 2]))[ZONE_KEY]
    if it[Row.ARM] > 0:
        told["arm"] = "holdout" if it[Row.ARM] == HOLDOUT else "ungoverned"
    if any(rule.lifecycle for rule in rules.policy.rules):
        told["lifecycle"] = STATES[int(it[Row.STATE])]
    cut = fact_of(entry, len(entry), CUT)
    since = int(ticks_of(entry[cut, 0])) if cut >= 0 else -1
    told["rules"] = list(_by_rule(entry, since, in_force, rules, scopes, scratch))
    return told


def _by_rule(
    entry: NDArray[np.uint64],
    since: int,
    in_force: dict[tuple[int, int], NDArray[np.int64]],
    rules: Rules,
    scopes: Scopes,
    scratch: Scratch,
) -> Iterator[dict[str, Any]]:
    spans = rules.arrays.spans[int(scratch.arrays.row[Row.TYPE])]
    for number, rule in enumerate(rules.policy.rules):
        selector = int(rules.arrays.rule[number, ByRule.SELECTOR])
        if rule.id != rules.selectors[selector].id or not _asked(selector, spans):
            continue
        slots = _slots(entry, scopes, selector)
        slots = dict.fromkeys((slot for at, slot in in_force if at == number), 0) | slots
        for slot, kept in slots.items():
            one = in_force.get((number, slot))
            told = {
                "rule": rule.name,
                "label": scopes.label_names[int(scopes.ads.slot_label[slot])],
                "state": _state(rules.policy, number) if one is not None else "free",
                "until": _seconds(None if one is None else int(one[Found.UNTIL])),
            }
            if isinstance(rule, Cap | Spacing):
                told |= _counted(entry, rules, scopes, scratch, number, slot, one)
            yield told | _history(rules, scratch, number, kept, since)


def _asked(selector: int, spans: NDArray[np.int64]) -> bool:
    return int(spans[Span.COUNTED]) <= selector < int(spans[Span.END])


def _slots(entry: NDArray[np.uint64], scopes: Scopes, selector: int) -> dict[int, int]:
    """Label values under a selector, and how many exposures of each are kept."""
    slots: dict[int, int] = {}
    for words in entry:
        if kind_of(words[0]) == EXPOSURE:
            slot = int(scopes.ads.ad[ad_of(words[2]), Col.SLOTS + selector])
            if slot >= 0:
                slots[slot] = slots.get(slot, 0) + 1
    return slots


def _state(policy: Policy, number: int) -> str:
    return "shadow" if policy.shadow or policy.rules[number].shadow else "throttled"


def _counted(
    entry: NDArray[np.uint64],
    rules: Rules,
    scopes: Scopes,
    scratch: Scratch,
    number: int,
    slot: int,
    one: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """How much of a cap or spacing is used up."""
    arrays, rule = scratch.arrays, rules.arrays.rule[number]
    limit, window = int(rule[ByRule.LIMIT]), int(rule[ByRule.WINDOW])
    if one is not None:
        limit, window = int(one[Found.FIRST]), int(one[Found.SECOND])
    elif isinstance(rules.policy.rules[number], Cap):
        requests = _requests(entry, rules, scopes, scratch, slot)
        limit, window = _eased(limit, window, requests, int(rules.arrays.scalars[Scalar.HORIZON]))
    calendar = int(rule[ByRule.CALENDAR])
    told: dict[str, Any] = {"limit": limit}
    if calendar:
        period_of(scopes.ads, arrays, calendar)
        oldest = int(arrays.period[calendar - 1, 1]) - 1
        told["calendar"] = ("day", "week", "month")[calendar - 1]
    else:
        oldest = int(arrays.row[Row.NOW]) - window
        told["window"] = to_seconds(window)
    selector = int(rule[ByRule.SELECTOR])
    told["count"] = int(
        exposures_in(entry, rules.arrays, scopes.ads, arrays, selector, slot, oldest)
    )
    return told


def _requests(
    entry: NDArray[np.uint64], rules: Rules, scopes: Scopes, scratch: Scratch, slot: int
) -> int:
    """Requests to see less of a label that hold now."""
    label = scopes.ads.label_plain[scopes.ads.slot_label[slot]]
    since = int(scratch.arrays.row[Row.NOW]) - int(rules.arrays.scalars[Scalar.LESS_OFTEN])
    return sum(
        kind_of(words[0]) == CONTROL
        and type_of(words[0]) == LESS_OFTEN
        and not shadowed(words[0])
        and int(ticks_of(words[0])) > since
        and scopes.ads.ad[ad_of(words[2]), Col.CONTROL] == label
        for words in entry
    )


def _eased(limit: int, window: int, requests: int, horizon: int) -> tuple[int, int]:
    """A cap that nobody is at, after so many requests: half each, then twice the window."""
    while requests and limit > 1:
        limit, requests = limit // 2, requests - 1
    return limit, min(window << requests, max(window, horizon))


def _history(rules: Rules, scratch: Scratch, number: int, kept: int, since: int) -> dict[str, Any]:
    """Since when the row has been cut, where that may matter to a rule."""
    rule = rules.policy.rules[number]
    window = rule.window if isinstance(rule, Cap | Spacing) else None
    oldest = -1 if window is None else int(scratch.arrays.row[Row.NOW]) - window
    if since > oldest and kept < needed_by(rule, rules.policy):
        return {"history_since": to_seconds(since)}
    return {}


def export(key: str, entry: NDArray[np.uint64], labels: Labels) -> dict[str, Any]:
    """Every entry of a row with its labels. Hashes stand for the ids of events, which are not
    kept."""
    kind, _, value = key.rpartition("\0")
    held: dict[str, Any] = {"id": value}
    if kind:
        held["id_type"] = kind
    held["now"] = to_seconds(int(newest_of(entry, len(entry))))
    sections: dict[str, list[dict[str, Any]]] = {
        "exposures": [],
        "engagements": [],
        "controls": [],
        "facts": [],
    }
    names = tuple(sections)
    for words in entry:
        sections[names[int(kind_of(words[0]))]].append(_exported(words, labels))
    return held | sections


def _exported(words: NDArray[np.uint64], labels: Labels) -> dict[str, Any]:
    kind, sort, what = int(kind_of(words[0])), int(type_of(words[0])), int(words[0])
    told: dict[str, Any] = {"ts": to_seconds(int(ticks_of(words[0])))}
    own = labels.labels_of(int(ad_of(words[2])))
    if kind == EXPOSURE:
        told["kind"] = _named(EXPOSURE_TYPES, sort)
        told["retargeting"] = bool(what & RETARGETING)
        told["measurable"] = not what & UNMEASURABLE
    elif kind == ENGAGEMENT:
        told["type"] = own.pop(TYPE_KEY, "") if sort == OTHER else _named(ENGAGEMENT_TYPES, sort)
    elif kind == CONTROL:
        told["type"] = _named(CONTROL_TYPES, sort)
    else:
        told["type"] = ("time zone", "consent", "consent", "history_since")[sort]
        if sort == ZONE:
            told["zone"] = own[ZONE_KEY]
        elif sort != CUT:
            told["granted"] = sort == GRANT
        return told
    told["labels"] = own
    told["event"] = f"{int(words[1]):016x}"
    told["counts"] = not what & SHADOW
    if kind != CONTROL and int(words[2]) >> 24:
        told["impression"] = f"{int(words[2]) >> 24:010x}"
    return told


def _named(types: dict[Any, int], code: int) -> str:
    return next(str(name) for name, number in types.items() if number == code and name)


def _seconds(ticks: int | None) -> int | float | None:
    return None if ticks is None or ticks >= FOREVER else to_seconds(ticks)
