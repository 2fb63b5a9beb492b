"""Each rule and each control as it is defined: what rests, from when, until when, and why."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from governor.fatigue.versions import Version
from governor.oracle.calendars import period
from governor.oracle.events import Entry, seconds
from governor.oracle.fatigue import tired
from governor.oracle.rows import Row, label_of, matches
from governor.policy import (
    Cap,
    Fatigue,
    Holdout,
    Ignored,
    Policy,
    Reaction,
    Rule,
    Spacing,
    multiplied,
)

__all__ = ["Decision", "decide"]

Decision = dict[str, Any]


class Rest(NamedTuple):
    """A label that one rule or control has rest."""

    label: str
    match: Mapping[str, Sequence[str]]
    shadow: bool
    reason: str
    start: int
    until: int | None
    """None: it has no end."""
    evidence: Mapping[str, Any]
    share: float = 0.0
    """To bid at instead of resting."""


def decide(row: Row, policy: Policy, version: Version | None = None) -> Decision | None:
    """The decision that follows from a row, under a version of curves; None if nothing rests."""
    arm = arm_of(row, policy.holdout)
    rests = [*opted_out(row), *hidden(row, policy), *refused(row)]
    for rule in policy.rules:
        if rule.id == row.id_type and acts(rule, arm):
            rests += during_lifecycle(rule, row, policy, by_rule(rule, row, policy, version))
    throttles: dict[tuple[str, str, str], Decision] = {}
    for rest in rests:
        key = rest.label, repr(sorted(rest.match.items())), _state(rest)
        throttle = throttles.setdefault(key, _empty(rest))
        throttle["factor"] = min(throttle["factor"], _factor(rest))
        throttle["from"] = min(throttle["from"], seconds(rest.start))
        endless = rest.until is None or throttle["until"] is None
        throttle["until"] = None if endless else max(throttle["until"], seconds(rest.until or 0))
        throttle["reasons"].append(rest.reason)
        throttle["evidence"][rest.reason] = dict(rest.evidence)
    if not throttles:
        return None
    decision: Decision = {"id": row.id, "throttles": list(throttles.values())}
    if row.id_type != "user":
        decision["id_type"] = row.id_type
    if arm:
        decision["arm"] = arm
    return decision


def _state(rest: Rest) -> str:
    if rest.shadow:
        return "shadow"
    return "softened" if rest.share else "throttled"


def _factor(rest: Rest) -> float:
    return 1 if rest.shadow else rest.share or 0


def _empty(rest: Rest) -> Decision:
    throttle: Decision = {
        "label": rest.label,
        "state": _state(rest),
        "factor": _factor(rest),
        "from": seconds(rest.start),
        "until": 0,
        "remaining": 0,
        "reasons": [],
        "evidence": {},
    }
    if rest.match:
        throttle["match"] = {key: list(values) for key, values in sorted(rest.match.items())}
    return throttle


# ---- Which rules are asked ---------------------------------------------------------------------


def arm_of(row: Row, holdout: Holdout) -> str | None:
    """The part of an experiment that the person is in, by a hash of salt and id."""
    if row.id_type != holdout.id:
        return None
    key = blake2b(holdout.salt.encode(), digest_size=16).digest()
    bucket = siphash(key, row.id.encode()) % 10_000
    if bucket < holdout.share:
        return "holdout"
    return "ungoverned" if bucket < holdout.share + holdout.ungoverned else None


def acts(rule: Rule, arm: str | None) -> bool:
    """Soft rules do not act on the holdout, no rule on the ungoverned."""
    soft = rule.kind in ("ignored", "fatigue")
    return arm != "ungoverned" and not (arm == "holdout" and soft)


def by_rule(rule: Rule, row: Row, policy: Policy, version: Version | None = None) -> Iterator[Rest]:
    """What rests by a rule, whatever the person's state."""
    if isinstance(rule, Cap):
        return capped(rule, row, policy)
    if isinstance(rule, Spacing):
        return spaced(rule, row, policy)
    if isinstance(rule, Reaction):
        return reacted(rule, row, policy)
    if isinstance(rule, Ignored):
        return ignored(rule, row, policy)
    return tiring(rule, row, policy, version)


def during_lifecycle(rule: Rule, row: Row, policy: Policy, rests: Iterator[Rest]) -> Iterator[Rest]:
    """A rule for some states holds in them only, and ends with them."""
    listed = rule.lifecycle
    if not listed:
        yield from rests
        return
    state, ends, then = lifecycle(row, policy)
    for rest in rests:
        until = rest.until
        if state not in listed:
            continue
        if until is not None and ends is not None and then not in listed:
            until = min(until, ends)
            if until <= rest.start:
                continue
            if "until" in rest.evidence:
                rest = rest._replace(evidence={**rest.evidence, "until": seconds(until)})
        yield rest._replace(until=until)


def lifecycle(row: Row, policy: Policy) -> tuple[str, int | None, str]:
    """A person's state, when it ends without a new event, and what it is then."""
    bought = [e.ts for e in row.engaged if e.type == "conversion"]
    liked = [e.ts for e in row.engaged if e.type not in ("hide", "complaint")]
    if bought and max(bought) > row.now - policy.lifecycle.customer:
        return "customer", max(bought) + policy.lifecycle.customer, "lapsed"
    if bought:
        return "lapsed", None, "lapsed"
    if liked and max(liked) > row.now - policy.lifecycle.engaged:
        return "engaged", max(liked) + policy.lifecycle.engaged, "prospect"
    return "prospect", None, "prospect"


# ---- Exposures ---------------------------------------------------------------------------------


def counting(
    rule: Cap | Spacing | Ignored | Fatigue, row: Row, policy: Policy
) -> dict[str, list[Entry]]:
    """By label, the exposures that a rule counts, newest first."""
    found: dict[str, list[Entry]] = defaultdict(list)
    match = rule.match
    for e in row.shown:
        label = label_of(rule.per, e.labels)
        always = any(ad.priority == "always" for ad in items(e, policy))
        seen = rule.count == "rendered" or viewed(e, row)
        if label and matches(match, e.labels) and not always and seen:
            found[label].append(e)
    return found


def viewed(exposure: Entry, row: Row) -> bool:
    """Whether a kept event says that this exposure was viewable, as itself or as its twin."""
    for i, e in enumerate(row.exposures):
        same = e is exposure or (
            e.impression_id is not None and e.impression_id == exposure.impression_id
        )
        older = row.exposures[i + 1 :]
        if same and e.kind == "viewable" and all(o.event_id != e.event_id for o in older):
            return True
    return False


def items(e: Entry, policy: Policy) -> list[Any]:
    """The items of ``ads`` that concern an exposure."""
    return [ad for ad in policy.ads if matches(ad.match, e.labels)] if policy.ads else []


def sensitive(labels: Mapping[str, str], policy: Policy) -> bool:
    """Whether an ad is of a sensitive category."""
    category = labels.get("category")
    return bool(policy.sensitive and category and policy.sensitive.covers(category))


def stretched(time: int, labels: Mapping[str, str], policy: Policy) -> int:
    """A time, longer for a sensitive category."""
    if policy.sensitive and sensitive(labels, policy):
        return time * policy.sensitive.multiplier // 100
    return time


def weight(e: Entry, policy: Policy) -> int:
    """How much an exposure counts, in hundredths."""
    factors = [ad.weight for ad in items(e, policy)]
    if policy.sensitive and sensitive(e.labels, policy):
        factors.append(policy.sensitive.multiplier)
    return multiplied(factors)


# ---- Caps and spacings -------------------------------------------------------------------------


def capped(rule: Cap, row: Row, policy: Policy) -> Iterator[Rest]:
    """At most so many in a time, fewer where the person asked for less."""
    for label, shown in counting(rule, row, policy).items():
        requests = sorted(
            e.ts + policy.controls.less_often
            for e in row.said
            if e.type == "less_often" and e.label == label
        )
        until = _free_again(rule, row, policy, shown, requests)
        if until is None:
            continue
        limit, window = eased(rule, row, sum(end > row.now for end in requests))
        if rule.calendar:
            since = period(row.zone, rule.calendar, row.now)[0]
            looks: dict[str, Any] = {"calendar": rule.calendar}
        else:
            since = row.now - window + 1
            looks = {"window": seconds(window)}
        evidence = {
            "exposures": sum(e.ts >= since for e in shown),
            "limit": limit,
            "until": seconds(until),
            **looks,
        }
        yield _rest(rule, policy, label, shown[0].ts, until, evidence)


def eased(rule: Cap, row: Row, requests: int) -> tuple[int, int]:
    """Limit and window after so many requests to see less: half each, then twice as long."""
    limit, window = rule.limit, rule.window
    while requests and limit > 1:
        limit, requests = limit // 2, requests - 1
    return limit, min(window << requests, max(window, row.horizon))


def _free_again(
    rule: Cap, row: Row, policy: Policy, shown: Sequence[Entry], requests: Sequence[int]
) -> int | None:
    """The earliest time from now on at which the cap, as it is then, leaves room; None: now."""
    at = row.now
    while True:
        limit, window = eased(rule, row, sum(end > at for end in requests))
        until = _reached(rule, row, policy, shown, limit, window)
        if until is None or until <= at:
            return None if at == row.now else at
        sooner = [end for end in requests if at < end < until]
        if not sooner:
            return until
        at = min(sooner)


def _reached(
    rule: Cap, row: Row, policy: Policy, shown: Sequence[Entry], limit: int, window: int
) -> int | None:
    """When the exposures with which the limit was reached leave the time that counts."""
    begins, ends = period(row.zone, rule.calendar, row.now) if rule.calendar else (None, 0)
    total = 0
    for e in shown:
        if begins is not None and e.ts < begins:
            return None
        total += weight(e, policy)
        if total >= 100 * limit:
            return ends if begins is not None else e.ts + window
    return None


def spaced(rule: Spacing, row: Row, policy: Policy) -> Iterator[Rest]:
    """A time to pass after each exposure."""
    for label, shown in counting(rule, row, policy).items():
        distance = stretched(rule.window, shown[0].labels, policy)
        until = shown[0].ts + distance
        if until > row.now:
            evidence = {
                "exposures": sum(e.ts > row.now - distance for e in shown),
                "limit": 1,
                "window": seconds(distance),
                "until": seconds(until),
            }
            yield _rest(rule, policy, label, shown[0].ts, until, evidence)


# ---- Reactions ---------------------------------------------------------------------------------


def joined(engagement: Entry, row: Row) -> Entry | None:
    """The exposure that an engagement answers by its impression id."""
    if engagement.impression_id is None:
        return None
    return next((e for e in row.shown if e.impression_id == engagement.impression_id), None)


def reacted(rule: Reaction, row: Row, policy: Policy) -> Iterator[Rest]:
    """A rest after the newest engagement of a type, for the label that it is about."""
    newest: dict[str, tuple[Entry, Mapping[str, str]]] = {}
    for e in row.engaged:
        answered = joined(e, row)
        labels = {**(answered.labels if answered else {}), **e.labels}
        label = label_of(rule.per, labels)
        if e.type == rule.type and label and matches(rule.match, labels):
            newest.setdefault(label, (e, labels))
    for label, (e, about) in newest.items():
        rest = stretched(rule.rest, about, policy)
        if e.ts + rest > row.now:
            evidence = {"type": rule.type, "rest": seconds(rest), "at": seconds(e.ts)}
            yield _rest(rule, policy, label, e.ts, e.ts + rest, evidence)


def ignored(rule: Ignored, row: Row, policy: Policy) -> Iterator[Rest]:
    """A rest after every so many exposures in a row that nobody answered, doubling."""
    answered = set()
    for e in row.engaged:
        exposure = joined(e, row)
        if exposure is None and e.labels:
            candidates = (
                x
                for x in row.shown
                if e.ts - rule.within < x.ts <= e.ts
                and all(x.labels.get(key) == value for key, value in e.labels.items())
            )
            exposure = next(candidates, None)
        answered.add(exposure)
    for label, shown in counting(rule, row, policy).items():
        streak, rest = 0, None
        for x in reversed(shown):
            if not x.measurable or any(not ad.measurable for ad in items(x, policy)):
                continue
            if x in answered:
                streak, rest = 0, None
            elif rest is None or not rest[0] <= x.ts < rest[1]:
                streak += 1
                if streak % rule.ignored == 0:
                    level = min(streak // rule.ignored, rule.levels)
                    long = stretched(rule.rest << (level - 1), x.labels, policy)
                    rest = x.ts + rule.within, x.ts + rule.within + long, level
        if rest is not None and rest[1] > row.now:
            evidence = {
                "streak": streak,
                "level": rest[2],
                "ignored": rule.ignored,
                "rest": seconds(rest[1] - rest[0]),
            }
            yield _rest(rule, policy, label, rest[0], rest[1], evidence)


def tiring(rule: Fatigue, row: Row, policy: Policy, version: Version | None) -> Iterator[Rest]:
    """A rest, or a share to bid at, where somebody is tired of a label."""
    for label, shown in counting(rule, row, policy).items() if version else ():
        found = tired(rule, shown, row, policy, version) if version else None
        if found is None:
            continue
        long = min(stretched(found.rest, shown[0].labels, policy), row.horizon)
        if shown[0].ts + long > row.now:
            evidence = {
                "floor": rule.floor,
                "expected": math.floor(found.expected * 10_000 + 0.5) / 10_000,
                "probability": math.floor(found.probability * 10_000 + 0.5) / 10_000,
                "depth": len(shown),
                "curves": version.name if version else None,
            }
            start = shown[0].ts
            rest = _rest(rule, policy, label, start, start + long, evidence)
            yield rest._replace(share=found.share)


def _rest(
    rule: Rule, policy: Policy, label: str, start: int, until: int, evidence: Mapping[str, Any]
) -> Rest:
    shadow = rule.shadow or policy.shadow
    return Rest(label, rule.match, shadow, rule.name, start, until, evidence)


# ---- Controls ----------------------------------------------------------------------------------


def opted_out(row: Row) -> Iterator[Rest]:
    """Labels of which the last word was that the person does not want them."""
    last: dict[str, Entry] = {}
    for e in row.said:
        if e.type in ("opt_out", "opt_in"):
            last.setdefault(e.label, e)
    for label, e in last.items():
        if e.type == "opt_out":
            yield Rest(label, {}, False, "opt_out", e.ts, None, {"at": seconds(e.ts)})


def hidden(row: Row, policy: Policy) -> Iterator[Rest]:
    """Labels that the person asked not to see for a while."""
    last: dict[str, Entry] = {}
    for e in row.said:
        if e.type == "hide":
            last.setdefault(e.label, e)
    for label, e in last.items():
        until = e.ts + policy.controls.hide
        if until > row.now:
            evidence = {"at": seconds(e.ts), "until": seconds(until)}
            yield Rest(label, {}, False, "hide", e.ts, until, evidence)


def refused(row: Row) -> Iterator[Rest]:
    """All retargeting of a person who refused it."""
    if not row.refused:
        return
    oldest = (row.exposures or [*row.engagements, *row.controls])[-1:]
    since = row.refused_at if row.refused_at is not None else min(e.ts for e in oldest)
    campaigns = [f"campaign:{e.labels['campaign']}" for e in row.shown if e.retargeting]
    at = None if row.refused_at is None else seconds(row.refused_at)
    for label in dict.fromkeys(["retargeting", *campaigns]):
        yield Rest(label, {}, False, "consent", since, None, {"at": at})


# ---- SipHash-2-4 (Aumasson and Bernstein 2012) -------------------------------------------------


def siphash(key: bytes, text: bytes) -> int:
    """64 bits that say nothing about the text to who does not know the key."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]
    padded = text + b"\0" * (-(len(text) + 1) % 8) + bytes([len(text) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        _rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xFF
    _rounds(v, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _rounds(v: list[int], count: int) -> None:
    def turned(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) % 2**64

    for _ in range(count):
        v[0] = (v[0] + v[1]) % 2**64
        v[1] = turned(v[1], 13) ^ v[0]
        v[0] = turned(v[0], 32)
        v[2] = (v[2] + v[3]) % 2**64
        v[3] = turned(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) % 2**64
        v[3] = turned(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) % 2**64
        v[1] = turned(v[1], 17) ^ v[2]
        v[2] = turned(v[2], 32)
