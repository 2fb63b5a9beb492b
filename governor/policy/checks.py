"""What no field shows by itself: names given twice, rules that other rules make pointless, and
rules that ask for more than rows keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations
from typing import Any, Final

from governor.policy.durations import DAY, written
from governor.policy.fields import MAX_ROW_LIMIT, Bounds
from governor.policy.mistakes import Mistake, shown
from governor.policy.model import (
    Cap,
    Fatigue,
    Ignored,
    Policy,
    Reaction,
    Scoped,
    Spacing,
    multiplied,
)
from governor.policy.reading import Path, line_of

__all__ = ["Checked", "looks_back"]

_INSIDE: Final = {"day": {"day", "week", "month"}, "week": {"week"}, "month": {"month"}}
"""Which calendar periods hold every one of a kind whole."""

_HOUR: Final = DAY // 24
_SHORTEST: Final = {"day": DAY - _HOUR, "week": 7 * DAY - _HOUR, "month": 28 * DAY - _HOUR}
_LONGEST: Final = {"day": DAY + _HOUR, "week": 7 * DAY + _HOUR, "month": 31 * DAY + _HOUR}
"""What a calendar period is taken for in warnings: clocks are set by an hour."""


@dataclass(frozen=True)
class _Factors:
    """By what ads change caps and spacings, in hundredths."""

    lightest: int
    heaviest: int
    """The least and the most that one exposure weighs."""
    longest: int
    """By how much a spacing is longer at most."""

    @property
    def equal(self) -> bool:
        """Whether every exposure weighs the same."""
        return self.lightest == self.heaviest == 100

    @classmethod
    def of(cls, policy: Policy) -> _Factors:
        longest = policy.sensitive.multiplier if policy.sensitive else 100
        weights = [ad.weight for ad in policy.ads]
        return cls(
            multiplied(each for each in weights if each < 100),
            multiplied([longest, *(each for each in weights if each > 100)]),
            longest,
        )


@dataclass
class Checked:
    """What was found in one document."""

    document: Mapping[str, Any]
    lines: Mapping[Path, int]
    bounds: Bounds
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Mistake] = field(default_factory=list)

    def names(self, section: str) -> None:
        """Names that stand twice in a list of the file."""
        first: dict[str, int] = {}
        items = self.document.get(section)
        for i, item in enumerate(items if isinstance(items, list) else ()):
            name = item.get("name") if isinstance(item, Mapping) else None
            if isinstance(name, str):
                line = line_of(self.lines, (section, i, "name"))
                if name in first:
                    message = f"name {shown(name)} is used on line {first[name]} too: write another"
                    self.mistakes.append(Mistake(line, message))
                first.setdefault(name, line)

    def rules(self, rules: Sequence[tuple[int, Scoped]]) -> None:
        """Each valid rule by itself, and every two of them against each other."""
        for i, rule in rules:
            self._rule(i, rule)
        pointless: set[int] = set()
        for one, other in combinations(rules, 2):
            for (i, strict), (j, lax) in ((one, other), (other, one)):
                same = strict.scope == lax.scope and _counted(strict) == _counted(lax)
                if pointless.isdisjoint({i, j}) and same and _implies(strict, lax):
                    pointless.add(j)
                    line, late = (line_of(self.lines, ("rules", each)) for each in (i, j))
                    message = (
                        f"{lax.name} can never be the first to fire: {strict.name} on line {line} "
                        f"allows no more per {' x '.join(lax.per)} in at least the same time: "
                        "remove one of them"
                    )
                    self.mistakes.append(Mistake(late, message))

    def _idle_rules(self, policy: Policy) -> None:
        """Rules that others leave nothing to do, as long as those are obeyed."""
        factors = _Factors.of(policy)
        idle: set[int] = set()
        for (i, strict), (j, lax) in permutations(enumerate(policy.rules), 2):
            line, late = (line_of(self.lines, ("rules", each)) for each in (i, j))
            why = _idle(strict, lax, line, factors) if idle.isdisjoint({i, j}) else None
            if why is not None:
                idle.add(j)
                self.warnings.append(Mistake(late, f"{lax.name} will not fire {why}"))

    def whole(self, policy: Policy) -> None:
        """What rules need of the policy's other parts, and of what rows keep."""
        self._idle_rules(policy)
        for i, rule in enumerate(policy.rules):
            for key, message in _beyond(rule, policy, self.bounds):
                self.mistakes.append(Mistake(line_of(self.lines, ("rules", i, key)), message))
        asked = [i for i, rule in enumerate(policy.rules) if "lapsed" in rule.lifecycle]
        horizon = self.bounds.horizon
        if asked and horizon is not None and policy.lifecycle.customer >= horizon:
            message = (
                f"nobody is ever lapsed: conversions are forgotten after {written(horizon)}, while "
                f"one makes a customer for {written(policy.lifecycle.customer)}: shorten "
                "lifecycle: {customer: ...}, or set GOVERNOR_HISTORY to more"
            )
            self.warnings.append(
                Mistake(line_of(self.lines, ("rules", asked[0], "match")), message)
            )
        if policy.holdout.share + policy.holdout.ungoverned > 10_000:
            message = "share and ungoverned are more than everybody together: lower one of them"
            self.mistakes.append(Mistake(line_of(self.lines, ("holdout",)), f"holdout {message}"))
        for i, hours in enumerate(policy.quiet_hours):
            if hours.start == hours.end:
                message = "from and to are the same time: write two, or remove the item"
                self.mistakes.append(Mistake(line_of(self.lines, ("quiet_hours", i)), message))
        for i, ad in enumerate(policy.ads):
            if (ad.weight, ad.measurable, ad.priority) == (100, True, None):
                message = (
                    "the item of ads changes nothing: write weight: 2, measurable: false or "
                    "priority: always, or remove it"
                )
                self.mistakes.append(Mistake(line_of(self.lines, ("ads", i)), message))

    def _rule(self, i: int, rule: Scoped) -> None:
        line = line_of(self.lines, ("rules", i))
        if isinstance(rule, Cap) and (rule.rolling is None) == (rule.calendar is None):
            if rule.calendar:
                line = line_of(self.lines, ("rules", i, "calendar"))
                message = "the cap has both window and calendar: remove one of them"
            else:
                message = "window is missing: write window: 1d, or calendar: day"
            self.mistakes.append(Mistake(line, message))
        if isinstance(rule, Ignored):
            needed, most = rule.ignored * rule.levels, self.bounds.row_limit
            if needed > most:
                raised = f", or raise GOVERNOR_ROW_LIMIT to {needed}"
                message = (
                    f"ignored {rule.ignored} times {rule.levels} levels asks about {needed} "
                    f"exposures in a row, more than the {most} newest that are kept of a user: "
                    f"lower one of them{raised if needed <= MAX_ROW_LIMIT else ''}"
                )
                line = line_of(self.lines, ("rules", i, "reaction", "ignored"))
                self.mistakes.append(Mistake(line, message))
        if isinstance(rule, Fatigue) and rule.full is not None and rule.full <= rule.floor:
            message = (
                f"full {rule.full:g} is not above the floor of {rule.floor:g}: raise full, lower "
                "floor, or remove full"
            )
            line = line_of(self.lines, ("rules", i, "fatigue", "full"))
            self.mistakes.append(Mistake(line, message))


def _counted(rule: Scoped) -> str:
    """Which exposures a rule counts."""
    return rule.count if isinstance(rule, Cap | Spacing | Ignored | Fatigue) else ""


def _implies(strict: Scoped, lax: Scoped) -> bool:
    """Whether ``strict`` is in force whenever ``lax`` is, obeyed or not; they are of one scope and
    count the same."""
    if isinstance(strict, Cap) and isinstance(lax, Cap):
        if strict.limit > lax.limit:
            return False
        if strict.calendar and lax.calendar:
            return strict.calendar in _INSIDE[lax.calendar]
        return bool(strict.rolling and lax.rolling and strict.rolling >= lax.rolling)
    if isinstance(strict, Spacing) and isinstance(lax, Spacing):
        return strict.window >= lax.window
    if isinstance(strict, Reaction) and isinstance(lax, Reaction):
        return strict.type == lax.type and strict.rest >= lax.rest
    if isinstance(strict, Ignored) and isinstance(lax, Ignored):
        return (strict.reaction, strict.rest) == (lax.reaction, lax.rest)
    if isinstance(strict, Fatigue) and isinstance(lax, Fatigue):
        same = (strict.floor, strict.full) == (lax.floor, lax.full)
        surer = strict.probability == lax.probability
        return same and (surer or (lax.full is None and strict.probability < lax.probability))
    return False


def _idle(strict: Scoped, lax: Scoped, line: int, factors: _Factors) -> str | None:
    """Why ``lax`` will not fire as long as ``strict``, on ``line``, is obeyed."""
    while_obeyed = f"while {strict.name} on line {line} is obeyed"
    if isinstance(lax, Ignored) and isinstance(strict, Ignored):
        same = (strict.scope, strict.count, strict.reaction) == (lax.scope, lax.count, lax.reaction)
        shorter = same and strict.rest >= lax.rest
        return f"{while_obeyed}: remove one of them" if shorter else None
    if not isinstance(lax, Cap | Spacing) or not isinstance(strict, Cap | Spacing):
        return None
    if strict.count not in ("rendered", lax.count) or not _covers(strict, lax):
        return None
    if isinstance(lax, Cap):
        most = _most(strict, _span(lax, _LONGEST), factors)
        if most < 100 * lax.limit:
            room = f"{most // 100} exposures" if factors.equal else f"a weight of {most / 100:g}"
            return (
                f"{while_obeyed}, which leaves room for {room} in that time: lower cap to "
                f"{most // 100}, or remove one of them"
            )
        covered = isinstance(strict, Spacing) and strict.window >= _span(lax, _LONGEST)
        if covered or _implies(strict, lax):
            return f"before {strict.name} on line {line}, which covers more: remove one of them"
    if isinstance(lax, Spacing) and _spaces(strict, lax, factors):
        return f"{while_obeyed}: raise spacing, or remove one of them"
    return None


def _covers(strict: Scoped, lax: Scoped) -> bool:
    """Whether whatever ``lax`` is about, ``strict`` is about as well."""
    wider = set(strict.per) <= set(lax.per) or strict.per == ("user",)
    real = not strict.shadow or lax.shadow
    matched = all(
        key in lax.where and set(lax.where[key]) <= set(values)
        for key, values in strict.where.items()
    )
    return wider and real and matched and strict.id == lax.id


def _spaces(strict: Cap | Spacing, lax: Spacing, factors: _Factors) -> bool:
    """Whether after each exposure ``strict`` lasts at least as long as ``lax``."""
    if isinstance(strict, Spacing):
        return strict.window >= lax.window
    at_once = 100 * strict.limit <= factors.lightest
    return at_once and 100 * (strict.rolling or 0) >= lax.window * factors.longest


def _span(rule: Cap | Spacing, periods: Mapping[str, int]) -> int:
    if isinstance(rule, Cap) and rule.calendar:
        return periods[rule.calendar]
    return rule.window


def _most(rule: Cap | Spacing, time: int, factors: _Factors) -> int:
    """What can be shown in any look-back of ``time`` where ``rule`` is obeyed, in hundredths of an
    exposure."""
    whole = -(-time // _span(rule, _SHORTEST))
    if isinstance(rule, Spacing):
        return whole * factors.heaviest
    if rule.calendar:
        whole += 1
    return whole * (100 * rule.limit + (0 if factors.equal else factors.heaviest - 1))


def _beyond(rule: Scoped, policy: Policy, bounds: Bounds) -> Iterator[tuple[str, str]]:
    """Field and message where a rule, with all that modifies it, asks for more than rows keep."""
    if isinstance(rule, Cap):
        weight = multiplied(ad.weight for ad in policy.ads if ad.weight < 100)
        needed = -(-100 * rule.limit // weight)
        if needed > MAX_ROW_LIMIT:
            message = (
                f"cap {rule.limit} may take {needed} exposures where each weighs {weight / 100:g}, "
                f"more than the {MAX_ROW_LIMIT} that a row can keep: lower the cap, or raise the "
                "weights in ads"
            )
            yield "cap", message
    horizon = bounds.horizon
    if horizon is None:
        return
    key, longest, why = _longest(rule, policy)
    if longest > horizon:
        message = (
            f"{key} of {rule.name} lasts {written(longest)}{why}, longer than the history of "
            f"{written(horizon)}: shorten it, or set GOVERNOR_HISTORY to "
            f"{written(-(-longest // DAY) * DAY)} or more"
        )
        yield key, message
    state = max(policy.lifecycle.engaged, policy.lifecycle.customer)
    if rule.lifecycle and state > horizon:
        message = (
            f"lifecycle of {rule.name} looks back {written(state)}, further than the history of "
            f"{written(horizon)}: shorten lifecycle: {{engaged: ..., customer: ...}}, or set "
            f"GOVERNOR_HISTORY to {written(state)} or more"
        )
        yield "match", message


def looks_back(rule: Scoped, policy: Policy) -> int | None:
    """How far back a rule looks at most, with all that modifies it, in ticks; None: as far as rows
    remember."""
    if isinstance(rule, Fatigue):
        return None
    longest: int = rule.window if isinstance(rule, Cap) else _longest(rule, policy)[1]
    if rule.lifecycle:
        return max(longest, policy.lifecycle.engaged, policy.lifecycle.customer)
    return longest


def _longest(rule: Scoped, policy: Policy) -> tuple[str, int, str]:
    """The field that says how long a rule rests, how long that can get, and why."""
    times = policy.sensitive.multiplier if policy.sensitive else 100
    why = f" in sensitive categories ({times / 100:g} times)" if times > 100 else ""
    if isinstance(rule, Spacing):
        return "spacing", rule.window * times // 100, why
    if isinstance(rule, Reaction):
        return "rest", rule.rest * times // 100, why
    if isinstance(rule, Ignored):
        rest = (rule.rest << (rule.levels - 1)) * times // 100
        level = f" at level {rule.levels}" if rule.levels > 1 else ""
        return "rest", rule.within + rest, level + why
    return "", 0, ""
