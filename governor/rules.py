"""A policy as arrays, for the compiled code.

Rules that count the same exposures share a *selector*: id type, dimensions, match, and what
counts. Under a selector an ad has at most one label value, its *slot* (see `governor.scopes`), so
that a row is counted once for all the rules of a selector, however many there are; each rule is
then a threshold of that count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.ads import ad_hash
from governor.entries import CLICK, COMPLAINT, CONVERSION, HIDDEN, OTHER
from governor.policy import (
    Attribution,
    Cap,
    Fatigue,
    Ignored,
    Policy,
    Reaction,
    Rule,
    Spacing,
)
from governor.policy.durations import DAY
from governor.siphash import key_of

__all__ = [
    "CALENDARS",
    "CAP",
    "CONTROL_REASONS",
    "ENGAGEMENT_TYPES",
    "FATIGUE",
    "IGNORED",
    "REACTION",
    "SPACING",
    "STATES",
    "RuleArrays",
    "Rules",
    "Scalar",
    "Selector",
    "Span",
    "attribution_windows",
    "compile_rules",
    "needed_by",
]

CAP, SPACING, REACTION, IGNORED, FATIGUE = 0, 1, 2, 3, 4
"""Kinds of rules."""

_KINDS = {
    "cap": CAP,
    "spacing": SPACING,
    "reaction": REACTION,
    "ignored": IGNORED,
    "fatigue": FATIGUE,
}

CALENDARS = ("day", "week", "month")

STATES = ("prospect", "engaged", "customer", "lapsed")
"""Lifecycle states, in the order of their bits."""

CURVED = ("creative", "campaign", "category")
"""Dimensions whose labels have curves of their own, from the finest on."""

ALL_STATES = (1 << len(STATES)) - 1

ENGAGEMENT_TYPES = {
    "click": CLICK,
    "dwell": 2,
    "visit": 3,
    "conversion": CONVERSION,
    "hide": HIDDEN,
    "complaint": COMPLAINT,
}

CUSTOM_TYPE = OTHER + 1
"""Engagement types that are texts of their own are numbered from here, in the policy's order."""

CONTROL_REASONS = ("opt_out", "hide", "consent")
"""What throttles besides rules, numbered after them."""


class Span:
    """Columns of `RuleArrays.spans`: where an id type's selectors of each sort begin and end."""

    COUNTED = 0  # caps and spacings that count whatever was rendered
    VIEWED = 1  # caps and spacings that count what was seen
    IGNORED = 2
    FATIGUE = 3
    REACTION = 4
    END = 5
    LONGEST = 6  # ticks that the counting rules look back
    SIZE = 7


class Scalar:
    """What the numbers in `RuleArrays.scalars` are."""

    RULES = 0
    HIDE = 1  # ticks that a control lasts
    LESS_OFTEN = 2
    REQUIRED = 3  # whether unknown consent is refused
    CUSTOMER = 4
    ENGAGED = 5
    LIFECYCLE = 6  # whether any rule asks for the lifecycle
    HOLDOUT = 7  # buckets of 10,000 on which soft rules do not act
    UNGOVERNED = 8  # the bucket after the last on which no rule acts
    HOLDOUT_TYPE = 9  # index of the id type that decides
    MULTIPLIER = 10  # hundredths, of times where the category is sensitive
    HORIZON = 11
    CALENDAR = 12  # bits of CALENDARS that rules use
    SIZE = 13


class Ordered:
    """Columns of `RuleArrays.ordered`."""

    THRESHOLD = 0  # hundredths of exposures; ascending within a selector
    WINDOW = 1  # look-back, distance or rest in ticks
    CALENDAR = 2  # 1 + index in CALENDARS; 0: the window rolls
    NUMBER = 3  # in the policy's order
    SPACING = 4  # whether the window is longer for what is sensitive
    SIZE = 5


class ByRule:
    """Columns of `RuleArrays.rule`, whose rows are rules by number."""

    KIND = 0
    SHADOW = 1
    STATES = 2  # bits of STATES
    CALENDAR = 3
    LIMIT = 4  # of a cap; exposures in a row that an ignored rule takes
    WINDOW = 5
    WITHIN = 6
    LEVELS = 7
    SOFT = 8  # does not act in a holdout
    SEEN = 9  # counts what was seen only
    SELECTOR = 10
    SIZE = 11


class RuleArrays(NamedTuple):
    """The numbers of a policy."""

    first: NDArray[np.int64]  # a selector's rules are ordered[first[s]:first[s + 1]]
    ordered: NDArray[np.int64]
    rule: NDArray[np.int64]
    need: NDArray[np.int64]  # by selector: newest entries that must be kept of a label value
    wanted: NDArray[np.int64]  # by selector: type of engagement, -1 for exposures
    spans: NDArray[np.int64]  # (id types + 1, Span.SIZE); the last is of types without rules
    scalars: NDArray[np.int64]
    hash: NDArray[np.uint64]  # of the names of rules, then of controls
    salt: NDArray[np.uint64]
    type_start: NDArray[np.int64]  # of the texts of id types
    type_text: NDArray[np.uint8]


class Excluded(NamedTuple):
    """Ids that are not taken in, then prefixes of such, end to end."""

    ids: int
    start: NDArray[np.int64]
    text: NDArray[np.uint8]


class RuleTexts(NamedTuple):
    """The beginnings of a record's parts, by the rule's number; controls' after the rules'."""

    text: NDArray[np.uint8]
    start: NDArray[np.int64]  # the quoted name
    name_end: NDArray[np.int64]  # and after it, its evidence up to the first number that varies
    tail: NDArray[np.uint8]  # the end of the record, up to decided_at
    curves: NDArray[np.uint8]  # the version of curves, as JSON


@dataclass(frozen=True)
class Selector:
    """Which entries a rule looks at, and by which labels it tells them apart."""

    id: str
    per: tuple[str, ...]
    match: tuple[tuple[str, tuple[str, ...]], ...]
    sort: int
    """COUNTED, VIEWED, IGNORED, FATIGUE or REACTION of `Span`."""
    what: str = ""
    """A reaction's type of engagement; the own name of a rule that has its selector alone."""

    @property
    def finest(self) -> str:
        """For which dimension there are curves that tell its labels apart, as far as any does."""
        return next((each for each in CURVED if each in self.per), "user")


@dataclass(frozen=True)
class Rules:
    """A policy, ready to be evaluated."""

    policy: Policy
    selectors: tuple[Selector, ...]
    custom_types: Mapping[str, int]
    arrays: RuleArrays
    excluded: Excluded
    texts: RuleTexts

    @property
    def tiring(self) -> bool:
        """Whether any of them asks about curves."""
        return any(isinstance(rule, Fatigue) for rule in self.policy.rules)

    def naming(self, version: str | None) -> Rules:
        """The same, in decisions that name this version of curves where any rule asks about them.

        Args:
            version: None while there is none.
        """
        return replace(self, texts=_texts(self.policy, version if self.tiring else None))


def compile_rules(policy: Policy, *, horizon: int) -> Rules:
    """The policy's rules as arrays, for rows that look back ``horizon`` ticks."""
    types = list(dict.fromkeys(["user", policy.holdout.id, *(rule.id for rule in policy.rules)]))
    by_rule = [_selector(rule) for rule in policy.rules]
    selectors = tuple(
        sorted(
            set(by_rule),
            key=lambda one: (types.index(one.id), one.sort, by_rule.index(one)),
        )
    )
    custom = [rule.type for rule in policy.rules if isinstance(rule, Reaction)]
    custom += [each for one in policy.attribution for each in one.type]
    custom_types = {
        text: CUSTOM_TYPE + i
        for i, text in enumerate(
            dict.fromkeys(one for one in custom if one not in ENGAGEMENT_TYPES)
        )
    }
    place = {one: i for i, one in enumerate(selectors)}
    thresholds = [_threshold(rule) for rule in policy.rules]
    order = sorted(
        range(len(by_rule)),
        key=lambda i: (place[by_rule[i]], thresholds[i], i),
    )
    counts = np.bincount([place[by_rule[i]] for i in order], minlength=len(selectors))
    need = np.zeros(len(selectors), np.int64)
    for i in order:
        at = place[by_rule[i]]
        need[at] = max(need[at], needed_by(policy.rules[i], policy))
    type_start, type_text = _joined(one.encode() for one in types)
    names = [*(rule.name for rule in policy.rules), *CONTROL_REASONS]
    arrays = RuleArrays(
        first=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        ordered=_table(
            Ordered.SIZE,
            (
                (
                    thresholds[i],
                    _window(policy.rules[i]),
                    _calendar(policy.rules[i]),
                    i,
                    isinstance(policy.rules[i], Spacing),
                )
                for i in order
            ),
        ),
        rule=_table(
            ByRule.SIZE,
            (
                _by_rule(rule, policy, place[one])
                for rule, one in zip(policy.rules, by_rule, strict=True)
            ),
        ),
        need=need,
        wanted=np.array([_wanted(one, custom_types) for one in selectors], np.int64),
        spans=_spans(types, selectors, policy),
        scalars=_scalars(policy, types, horizon),
        hash=np.array([ad_hash(name.encode()) for name in names], np.uint64),
        salt=np.array(key_of(policy.holdout.salt.encode()), np.uint64),
        type_start=type_start,
        type_text=type_text,
    )
    excluded = (*policy.exclude.ids, *policy.exclude.prefixes)
    return Rules(
        policy,
        selectors,
        custom_types,
        arrays,
        Excluded(len(policy.exclude.ids), *_joined(one.encode() for one in excluded)),
        _texts(policy),
    )


def attribution_windows(
    fitting: Sequence[Attribution], custom_types: Mapping[str, int]
) -> list[int]:
    """How many ticks after an exposure an engagement still answers it, by the engagement's type.

    Args:
        fitting: the items of ``attribution`` that fit the exposure, in the policy's order.
        custom_types: the numbers of types that are texts.

    Returns:
        By number of the type, 0 for types that are no answer; under 0, which is no type's number,
        the longest.
    """
    names: list[str] = [""] * (CUSTOM_TYPE + len(custom_types))
    for name, number in (*ENGAGEMENT_TYPES.items(), *custom_types.items()):
        names[number] = name
    windows = [
        next((one.window for one in fitting if not one.type or name in one.type), DAY)
        for name in names
    ]
    for number in (HIDDEN, COMPLAINT):
        windows[number] = 0
    known = [*ENGAGEMENT_TYPES.values(), OTHER, *custom_types.values()]
    windows[0] = max(windows[number] for number in known)
    return windows


def _by_rule(rule: Rule, policy: Policy, selector: int) -> tuple[int, ...]:
    return (
        _KINDS[rule.kind],
        rule.shadow or policy.shadow,
        _states(rule.lifecycle),
        _calendar(rule),
        _limit(rule),
        _window(rule),
        rule.within if isinstance(rule, Ignored) else 0,
        rule.levels if isinstance(rule, Ignored) else 0,
        isinstance(rule, Ignored | Fatigue),
        not isinstance(rule, Reaction) and rule.count == "viewable",
        selector,
    )


def _selector(rule: Rule) -> Selector:
    match = tuple(sorted((key, tuple(sorted(values))) for key, values in rule.match.items()))
    if isinstance(rule, Fatigue):
        return Selector(rule.id, rule.per, match, Span.FATIGUE, rule.name)
    if isinstance(rule, Reaction):
        return Selector(rule.id, rule.per, match, Span.REACTION, rule.type)
    if isinstance(rule, Ignored):
        return Selector(rule.id, rule.per, match, Span.IGNORED, rule.name)
    sort = Span.VIEWED if rule.count == "viewable" else Span.COUNTED
    return Selector(rule.id, rule.per, match, sort)


def _threshold(rule: Rule) -> int:
    """Of the weight of a label value's newest exposures, in hundredths; any for a spacing."""
    return 100 * rule.limit if isinstance(rule, Cap) else 1


def _window(rule: Rule) -> int:
    if isinstance(rule, Cap):
        return rule.rolling or 0
    if isinstance(rule, Spacing):
        return rule.window
    return 0 if isinstance(rule, Fatigue) else rule.rest


def needed_by(rule: Rule, policy: Policy) -> int:
    """How many of the newest entries of a label value the rule's answer can depend on."""
    if isinstance(rule, Cap):
        lightest = min([ad.weight for ad in policy.ads] + [100])
        return -(-100 * rule.limit // lightest)
    if isinstance(rule, Fatigue):
        return rule.needed
    return rule.ignored * rule.levels if isinstance(rule, Ignored) else 1


def _limit(rule: Rule) -> int:
    if isinstance(rule, Cap):
        return rule.limit
    return rule.ignored if isinstance(rule, Ignored) else 1


def _calendar(rule: Rule) -> int:
    if isinstance(rule, Cap) and rule.calendar is not None:
        return 1 + CALENDARS.index(rule.calendar)
    return 0


def _wanted(selector: Selector, custom_types: Mapping[str, int]) -> int:
    if selector.sort != Span.REACTION:
        return -1
    return ENGAGEMENT_TYPES.get(selector.what) or custom_types[selector.what]


def _states(names: Sequence[str]) -> int:
    return sum(1 << STATES.index(name) for name in set(names)) or ALL_STATES


def _spans(
    types: Sequence[str],
    selectors: Sequence[Selector],
    policy: Policy,
) -> NDArray[np.int64]:
    spans = np.zeros((len(types) + 1, Span.SIZE), np.int64)
    for i, id_type in enumerate(types):
        for sort in range(Span.END + 1):
            before = [one for one in selectors if (types.index(one.id), one.sort) < (i, sort)]
            spans[i, sort] = len(before)
        counting = [
            rule.window
            for rule in policy.rules
            if rule.id == id_type and isinstance(rule, Cap | Spacing)
        ]
        stretch = policy.sensitive.multiplier if policy.sensitive else 100
        spans[i, Span.LONGEST] = max(counting, default=0) * stretch // 100
    return spans


def _scalars(policy: Policy, types: Sequence[str], horizon: int) -> NDArray[np.int64]:
    scalars = np.zeros(Scalar.SIZE, np.int64)
    scalars[Scalar.RULES] = len(policy.rules)
    scalars[Scalar.HIDE] = policy.controls.hide
    scalars[Scalar.LESS_OFTEN] = policy.controls.less_often
    scalars[Scalar.REQUIRED] = policy.consent.required
    scalars[Scalar.CUSTOMER] = policy.lifecycle.customer
    scalars[Scalar.ENGAGED] = policy.lifecycle.engaged
    scalars[Scalar.LIFECYCLE] = any(rule.lifecycle for rule in policy.rules)
    scalars[Scalar.HOLDOUT] = policy.holdout.share
    scalars[Scalar.UNGOVERNED] = policy.holdout.share + policy.holdout.ungoverned
    scalars[Scalar.HOLDOUT_TYPE] = types.index(policy.holdout.id)
    scalars[Scalar.MULTIPLIER] = policy.sensitive.multiplier if policy.sensitive else 100
    scalars[Scalar.HORIZON] = horizon
    used = {_calendar(rule) for rule in policy.rules} - {0}
    scalars[Scalar.CALENDAR] = sum(1 << (one - 1) for one in used)
    return scalars


def _texts(policy: Policy, version: str | None = None) -> RuleTexts:
    parts, starts, ends, at = [], [], [], 0
    for name, evidence in (
        *((rule.name, _evidence(rule)) for rule in policy.rules),
        *((name, '{"at":') for name in CONTROL_REASONS),
    ):
        quoted = json.dumps(name)
        part = f"{quoted}:{evidence}".encode()
        starts.append(at)
        ends.append(at + len(quoted))
        parts.append(part)
        at += len(part)
    curves = json.dumps(version).encode()
    tail = b'],"policy":%s,"curves":%s,"decided_at":' % (
        json.dumps(policy.version).encode(),
        curves,
    )
    return RuleTexts(
        np.frombuffer(b"".join(parts), np.uint8),
        np.array([*starts, at], np.int64),
        np.array(ends, np.int64),
        np.frombuffer(tail, np.uint8),
        np.frombuffer(curves, np.uint8),
    )


def _evidence(rule: Rule) -> str:
    """What a rule's evidence begins with: all up to its first number that varies."""
    if isinstance(rule, Cap) and rule.calendar is not None:
        return f'{{"calendar":"{rule.calendar}","limit":'
    if isinstance(rule, Cap | Spacing):
        return '{"limit":'
    if isinstance(rule, Reaction):
        return f'{{"type":{json.dumps(rule.type)},"at":'
    if isinstance(rule, Fatigue):
        return f'{{"floor":{rule.floor},"expected":'
    return f'{{"ignored":{rule.ignored},"streak":'


def _table(columns: int, rows: Iterable[Sequence[int]]) -> NDArray[np.int64]:
    return np.array(list(rows), np.int64).reshape(-1, columns)


def _joined(texts: Iterable[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text starts, and where the last ends; and all of them."""
    texts = list(texts)
    start = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    return start, np.frombuffer(b"".join(texts) or b" ", np.uint8)
