"""What came of a log under each policy, and what it says about fatigue: the figures of the report.

`Findings` holds plain numbers and texts only, and is what the report shows and its JSON says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from governor.entries import ENGAGEMENT
from governor.fatigue import frailty
from governor.fatigue.curves import ALL, Curve, CurveSet, Depth
from governor.fatigue.exposures import NEVER
from governor.replay.linking import AGAIN, NOTHING, Links
from governor.replay.log import Log
from governor.replay.replaying import DAY, Observed, Outcome, sample
from governor.rules import CONTROL_REASONS, ENGAGEMENT_TYPES
from governor.ticks import SECOND
from governor.walking import EXCLUDED, HELD

__all__ = [
    "ByRule", "CampaignFound", "Findings", "Frontier", "LogFound", "PolicyFound", "Shown",
    "Watched", "campaign_found", "campaigns_of", "log_found", "people_of", "policy_found", "story",
    "warned",
]  # fmt: skip

CAMPAIGNS: Final = 12
"""The campaigns with the most exposures, of which curves are shown."""

FLOOD: Final = 0.05
"""A person with more than this share of all engagements, or exposures, is named."""


@dataclass(frozen=True)
class LogFound:
    """What a log holds. Times in epoch seconds."""

    source: str
    events: int
    exposures: int
    people: int
    campaigns: int
    begin: float
    end: float
    engagements: Mapping[str, int]
    """By type; those that answer an exposure of the log."""
    unanswered: int
    """Engagements that answer no exposure of the log."""
    repeated: int
    """Engagements told twice."""
    early: int
    """Engagements told for a time before their exposure."""
    coverage: float
    """Share of exposures with which an engagement could have been seen."""
    refused: Sequence[str] = ()
    """What could not be read, in words."""


@dataclass(frozen=True)
class ByRule:
    """What one rule, or control, held back."""

    name: str
    exposures: int
    alone: int
    """Of these, those that nothing else would have held back."""
    engagements: int
    shadow: bool = False


@dataclass(frozen=True)
class PolicyFound:
    """What a policy did to a log."""

    name: str
    version: str
    exposures: int
    """Asked for."""
    held: int
    excluded: int
    engagements: int
    lost: int
    """Answers to exposures that were held back."""
    people_held: int
    people: int
    rules: Sequence[ByRule]
    campaigns: Mapping[str, tuple[int, int, int, int]]
    """By campaign: exposures, held back; engagements, lost."""
    curves: int = 0
    """Versions of curves that governed."""
    simulated: bool = False
    """Whether what would have happened is known: held and lost are then against no governor."""

    @property
    def saved(self) -> float:
        """The share of exposures that was held back."""
        return self.held / max(1, self.exposures)

    @property
    def cost(self) -> float:
        """The share of engagements that was lost."""
        return self.lost / max(1, self.engagements)


@dataclass(frozen=True)
class CampaignFound:
    """What a campaign's exposures say about fatigue."""

    label: str
    exposures: int
    engagements: int
    people: int
    coverage: float
    identified: bool
    reason: str
    source: str
    depths: Sequence[Depth]
    wear: Sequence[tuple[float, float, float, float]]
    """The curve: wear, low, estimate, high."""
    recovery: float
    """Seconds in which wear halves; 0 where it is not known to recover."""
    truth: Sequence[float] = ()
    """By depth, where it is known: what fatigue truly leaves, averaged over those exposures."""


@dataclass(frozen=True)
class Frontier:
    """What a plain cap of so many exposures would do."""

    cap: int
    held: int
    lost: int
    exposures: int
    engagements: int


@dataclass(frozen=True)
class Shown:
    """One exposure on a person's timeline."""

    at: float
    campaign: str
    held: bool
    engaged: bool
    why: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watched:
    """A person's time with the ads, as an example; the id is a hash."""

    id: str
    policy: str
    story: str
    shown: Sequence[Shown]


@dataclass(frozen=True)
class Findings:
    """All of it."""

    log: LogFound
    policies: Sequence[PolicyFound]
    campaigns: Sequence[CampaignFound]
    frontier: Sequence[Frontier] = ()
    frontier_rule: str = ""
    frontier_share: float = 1.0
    """The share of people that the frontier was worked out for."""
    people: Sequence[Watched] = ()
    warnings: Sequence[str] = ()
    sampled: float = 1.0
    """The share of exposures that the curves are made of."""
    simulated: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON takes it: None for what is not known."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def log_found(
    log: Log, links: Links, seen: Observed, source: str, refused: Iterable[str]
) -> LogFound:
    """What a log holds."""
    first = log.first
    what, ts = log.what[first], log.ts[first]
    engagement = (what & 3) == ENGAGEMENT
    answers = links.answers
    linked = engagement & (answers > NOTHING)
    sorts = np.bincount((what[linked] >> 2) & 31, minlength=32)
    names = {code: name for name, code in ENGAGEMENT_TYPES.items()}
    return LogFound(
        source=source,
        events=len(log),
        exposures=len(seen.event),
        people=len(np.unique(seen.person)),
        campaigns=len(np.unique(seen.campaign)),
        begin=float(ts[0]) / SECOND if len(ts) else 0.0,
        end=float(ts[-1]) / SECOND if len(ts) else 0.0,
        engagements={
            names.get(code, "other"): int(sorts[code]) for code in np.flatnonzero(sorts).tolist()
        },
        unanswered=int((engagement & (answers == NOTHING)).sum()),
        repeated=int((answers == AGAIN).sum()),
        early=int((ts[linked] < ts[answers[linked]]).sum()),
        coverage=float(seen.measurable.mean()) if len(seen.event) else 0.0,
        refused=tuple(refused),
    )


def policy_found(name: str, outcome: Outcome, seen: Observed) -> PolicyFound:
    """What a policy did to a log."""
    fate = outcome.verdicts.fate[seen.event]
    held = fate == HELD
    answered = seen.engaged_at != NEVER
    names = [*(rule.name for rule in outcome.policy.rules), *CONTROL_REASONS]
    return PolicyFound(
        name=name,
        version=outcome.policy.version,
        exposures=len(fate),
        held=int(held.sum()),
        excluded=int((fate == EXCLUDED).sum()),
        engagements=int(answered.sum()),
        lost=int((answered & held).sum()),
        people_held=len(np.unique(seen.person[held])),
        people=len(np.unique(seen.person)),
        rules=_by_rule(names, outcome, seen, held, answered),
        campaigns=_by_campaign(seen, held, answered),
        curves=len(outcome.curves),
    )


def _by_rule(
    names: Sequence[str],
    outcome: Outcome,
    seen: Observed,
    held: NDArray[np.bool_],
    answered: NDArray[np.bool_],
) -> list[ByRule]:
    verdicts, found = outcome.verdicts, []
    rules = len(outcome.policy.rules)
    bits = verdicts.rules[seen.event]
    controls = verdicts.controls[seen.event].astype(np.uint64)
    shadow = verdicts.shadow[seen.event]
    alone = np.bitwise_count(bits) + np.bitwise_count(controls) == 1
    for number, name in enumerate(names):
        of_rule = number < rules
        bit = np.uint64(1) << np.uint64(number if of_rule else number - rules)
        by = ((bits if of_rule else controls) & bit) != 0
        in_shadow = (shadow & bit) != 0 if of_rule else np.zeros(len(by), np.bool_)
        some = by & held
        if of_rule and (in_shadow.any() or outcome.policy.rules[number].shadow):
            found.append(
                ByRule(name, int(in_shadow.sum()), 0, int((in_shadow & answered).sum()), True)
            )
        elif of_rule or some.any():
            found.append(
                ByRule(
                    name, int(some.sum()), int((some & alone).sum()), int((some & answered).sum())
                )
            )
    return found


def _by_campaign(
    seen: Observed, held: NDArray[np.bool_], answered: NDArray[np.bool_]
) -> dict[str, tuple[int, int, int, int]]:
    n = len(seen.campaigns)
    code = seen.campaign
    named = code >= 0
    columns = [
        np.bincount(code[named & chosen], minlength=n)
        for chosen in (np.ones(len(code), np.bool_), held, answered, answered & held)
    ]
    order = np.argsort(-columns[0], kind="stable")[:CAMPAIGNS]
    return {
        seen.campaigns[i]: (
            int(columns[0][i]), int(columns[1][i]), int(columns[2][i]), int(columns[3][i])
        )
        for i in order.tolist()
    }  # fmt: skip


def campaigns_of(
    seen: Observed, within: int, most: int
) -> tuple[list[CampaignFound], float, CurveSet | None]:
    """Curves of the campaigns with the most exposures, and of all together, as the log ends.

    Exposures whose attribution window has not passed by then are left out.

    Returns:
        The campaigns, all of them first; the share of exposures that they rest on; the curves.
    """
    if not len(seen.event):
        return [], 1.0, None
    now = int(seen.ts.max()) + 1
    settled = seen.ts + within <= now
    if now - int(seen.ts.min()) < 2 * within:
        # So short a log would have next to nothing settled: take it for whole.
        settled, within = np.ones(len(seen.ts), np.bool_), 0
    # Of the last exposures only those would count that were answered already.
    chosen = sample(seen.person, most) & settled
    count = np.bincount(seen.campaign[seen.campaign >= 0], minlength=len(seen.campaigns))
    top = np.argsort(-count, kind="stable")[:CAMPAIGNS]
    # To these, the others are what else people were shown; thousands would take hours to estimate.
    few = replace(seen, campaign=np.where(np.isin(seen.campaign, top), seen.campaign, NEVER))
    curves = frailty.fit(few.exposures(chosen, now, within), None, now=now)
    answered = seen.engaged_at != NEVER
    hits = np.bincount(seen.campaign[answered & (seen.campaign >= 0)], minlength=len(count))
    found = [campaign_found(ALL, curves.curve(ALL), len(answered), int(answered.sum()))]
    for i in top[count[top] > 0].tolist():
        label = f"campaign:{seen.campaigns[i]}"
        found.append(campaign_found(label, curves.curve(label), int(count[i]), int(hits[i])))
    return found, float(chosen.sum() / settled.sum()), curves


def campaign_found(
    label: str, curve: Curve, exposures: int, engagements: int, truth: Sequence[float] = ()
) -> CampaignFound:
    """A curve as the report shows it.

    Args:
        exposures, engagements: of the campaign, also those that the curve is not made of.
    """
    wears = [w / 2 for w in range(49)]
    return CampaignFound(
        label=label,
        exposures=exposures,
        engagements=engagements,
        people=curve.people,
        coverage=curve.coverage,
        identified=curve.identified,
        reason=curve.reason,
        source=curve.source,
        depths=curve.depths,
        wear=[(wear, *curve.at(wear)) for wear in wears],
        recovery=curve.recovery / SECOND,
        truth=truth,
    )


def people_of(
    outcome: Outcome, name: str, seen: Observed, limit: int = 3, rows: int = 60
) -> list[Watched]:
    """Some people whom the policy held back, each for another rule first of all."""
    verdicts = outcome.verdicts
    held = verdicts.fate[seen.event] == HELD
    chosen: list[int] = []
    names = [rule.name for rule in outcome.policy.rules]
    known: set[int] = set()
    for number in range(len(names) + 1):
        if number < len(names):
            bit = np.uint64(1) << np.uint64(number)
            some = held & ((verdicts.rules[seen.event] & bit) != 0)
        else:
            some = held
        people, counts = np.unique(seen.person[some], return_counts=True)
        # Neither the least nor the most extreme: whom people of the rule mostly are like.
        middle = np.median(counts) if len(counts) else 0.0
        for i in np.argsort(np.abs(counts - middle), kind="stable")[:8].tolist():
            if int(people[i]) not in known:
                known.add(int(people[i]))
                chosen.append(int(people[i]))
                break
    return [_watched(outcome, name, seen, person, rows) for person in chosen[:limit]]


def _watched(outcome: Outcome, name: str, seen: Observed, person: int, rows: int) -> Watched:
    verdicts = outcome.verdicts
    names = [rule.name for rule in outcome.policy.rules]
    mine = np.flatnonzero(seen.person == np.uint64(person))
    held = verdicts.fate[seen.event[mine]] == HELD
    # One campaign's story: that of which most was held back.
    codes, counts = np.unique(seen.campaign[mine[held]], return_counts=True)
    campaign = int(codes[np.argmax(counts)])
    mine = mine[seen.campaign[mine] == campaign][:rows]
    shown = []
    for i in mine.tolist():
        event = int(seen.event[i])
        bits, controls = int(verdicts.rules[event]), int(verdicts.controls[event])
        why = [one for k, one in enumerate(names) if bits >> k & 1]
        why += [one for k, one in enumerate(CONTROL_REASONS) if controls >> k & 1]
        shown.append(
            Shown(
                float(seen.ts[i]) / SECOND,
                seen.campaigns[campaign] if campaign >= 0 else "",
                bool(verdicts.fate[event] == HELD),
                bool(seen.engaged_at[i] != NEVER),
                tuple(why),
            )
        )
    return Watched(f"{person:016x}"[:8], name, story(shown), shown)


def story(shown: Sequence[Shown]) -> str:
    """A timeline in one or two sentences."""
    held = [one for one in shown if one.held]
    rules = list(dict.fromkeys(name for one in held for name in one.why))
    days = max(1, math.ceil((shown[-1].at - shown[0].at) * SECOND / DAY)) if shown else 1
    clicks = sum(one.engaged for one in shown)
    lost = sum(one.engaged for one in held)
    text = (
        f"Offered {shown[0].campaign} {len(shown)} times within {days} "
        f"day{'s' if days > 1 else ''}, engaged {clicks} times. "
        f"{len(held)} of these would have been held back by {', '.join(rules)}"
    )
    if lost:
        return f"{text}, {lost} of which {'was' if lost == 1 else 'were'} engaged with."
    return f"{text}, none of which was engaged with."


def warned(log: LogFound, campaigns: Sequence[CampaignFound], seen: Observed) -> list[str]:
    """What about the log is odd enough to be told, in sentences."""
    said = list(_warned_of_events(log)) + list(_warned_of_people(seen))
    for one in campaigns[1:]:
        if one.exposures >= 100 and one.engagements == 0:
            said.append(f"{one.label} has no engagement in {one.exposures:,} exposures: are its "
                        "engagements logged?")  # fmt: skip
        elif one.exposures >= 100 and one.engagements == one.exposures:
            said.append(f"every exposure of {one.label} was engaged with: something other than "
                        "people's interest is logged as engagement.")  # fmt: skip
    return said


def _warned_of_events(log: LogFound) -> Iterable[str]:
    total = sum(log.engagements.values())
    if log.exposures and not total:
        yield "No engagement answers any exposure: nothing can be said about fatigue."
    if log.unanswered:
        yield (
            f"{log.unanswered:,} engagements answer no exposure of the log and are left out of the "
            "curves: map impression_id, or the labels that both have, if they should."
        )
    if log.repeated:
        yield f"{log.repeated:,} engagements came twice and count once."
    if log.early:
        yield (
            f"{log.early:,} engagements bear a time before their exposure (a clock is wrong); they "
            "count as immediate."
        )
    if log.exposures and log.coverage < 0.5:
        yield (
            f"Only {log.coverage:.0%} of the exposures are measurable: what is said about fatigue "
            "holds of those."
        )


def _warned_of_people(seen: Observed) -> Iterable[str]:
    answered = seen.engaged_at != NEVER
    for chosen, what in ((answered, "engagements"), (np.ones_like(answered), "exposures")):
        people, counts = np.unique(seen.person[chosen], return_counts=True)
        total = int(counts.sum())
        usual = float(np.median(counts)) if len(counts) else 0.0
        flood = counts > max(FLOOD * total, 20 * usual, 100)
        if flood.any():
            share = counts[flood].sum() / total
            yield (
                f"{int(flood.sum())} {'person has' if flood.sum() == 1 else 'people have'} "
                f"{share:.0%} of all {what} (such as {int(people[flood][0]):016x}): programs, "
                "perhaps; exclude them in the policy."
            )
