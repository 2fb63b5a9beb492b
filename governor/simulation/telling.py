"""What a simulation found, in the terms of the report, with the truth beside the estimates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governor.fatigue import frailty
from governor.fatigue.curves import ALL
from governor.fatigue.exposures import NEVER, past
from governor.hashing import mix
from governor.policy import Policy
from governor.replay.tallying import (
    ByRule,
    CampaignFound,
    Findings,
    Frontier,
    LogFound,
    PolicyFound,
    Shown,
    Watched,
    campaign_found,
    story,
)
from governor.simulation.loop import Drawn, Run
from governor.ticks import SECOND

__all__ = ["capped", "found", "truth_of"]


def truth_of(run: Run) -> list[float]:
    """By depth, what fatigue truly left of the campaign's measurable exposures, averaged."""
    shown = run.exposures()
    order = np.lexsort((run.drawn.occasions.ts, run.drawn.occasions.person))
    left = run.left[order][: len(shown)]
    depth = np.minimum(past(shown, "campaign").depth, frailty.MOST_DEPTH)
    counted = (shown.campaign >= 0) & shown.measurable
    total = np.bincount(depth[counted], left[counted], minlength=frailty.MOST_DEPTH + 1)[1:]
    count = np.bincount(depth[counted], minlength=frailty.MOST_DEPTH + 1)[1:]
    means = np.full(frailty.MOST_DEPTH, math.nan)
    np.divide(total, count, out=means, where=count > 0)
    return [float(each) for each in means]


def capped(none: Run, runs: Iterable[tuple[int, Run]]) -> list[Frontier]:
    """What ad servers with caps of their own do, against one without."""
    return [
        Frontier(
            cap,
            none.shown - run.shown,
            none.engagements - run.engagements,
            none.shown,
            none.engagements,
        )
        for cap, run in runs
    ]


def found(
    none: Run,
    governed: Sequence[tuple[str, Policy, Run]],
    frontier: Sequence[Frontier],
    rule: str,
    told: Mapping[str, Any],
) -> Findings:
    """All of it.

    Args:
        none: the run without a governor.
        governed: runs of the same people and occasions under policies, by name.
        told: what the simulation was of, for the report.
    """
    campaigns = [_campaign("ungoverned", none)]
    campaigns += [_campaign(f"under {name}", run) for name, _, run in governed]
    people = [one for name, policy, run in governed for one in _people(name, policy, run)]
    return Findings(
        log=_log(none),
        policies=[_policy(name, policy, run, none) for name, policy, run in governed],
        campaigns=campaigns,
        frontier=frontier,
        frontier_rule=rule,
        people=people,
        simulated=dict(told),
    )


def _log(none: Run) -> LogFound:
    drawn = none.drawn
    campaign = none.campaign
    return LogFound(
        source=drawn.world.name,
        events=len(drawn.occasions.ts) + none.engagements,
        exposures=none.shown,
        people=len(np.unique(drawn.occasions.person[campaign])),
        campaigns=1,
        begin=drawn.begin / SECOND,
        end=drawn.end / SECOND,
        engagements={"click": none.engagements},
        unanswered=0,
        repeated=0,
        early=0,
        coverage=float(none.measurable[campaign].mean()) if none.shown else 0.0,
    )


def _policy(name: str, policy: Policy, run: Run, none: Run) -> PolicyFound:
    person = run.drawn.occasions.person
    return PolicyFound(
        name=name,
        version=policy.version,
        exposures=none.shown,
        held=none.shown - run.shown,
        excluded=0,
        engagements=none.engagements,
        lost=none.engagements - run.engagements,
        people_held=len(np.unique(person[run.held])),
        people=len(np.unique(person[none.campaign])),
        rules=list(_rules(policy, run)),
        campaigns={},
        curves=len(run.curves),
        simulated=True,
    )


def _rules(policy: Policy, run: Run) -> Iterable[ByRule]:
    bits = run.rules[run.held]
    alone = np.bitwise_count(bits) == 1
    for number, rule in enumerate(policy.rules):
        by = (bits & (np.uint64(1) << np.uint64(number))) != 0
        # What would have been answered is known of nobody who was not shown it.
        yield ByRule(rule.name, int(by.sum()), int((by & alone).sum()), 0)


def _campaign(name: str, run: Run) -> CampaignFound:
    now = run.drawn.end
    curves = frailty.fit(run.exposures(), None, now=now)
    curve = curves.curve("campaign:C" if "campaign:C" in curves.curves else ALL)
    return campaign_found(f"campaign:{name}", curve, run.shown, run.engagements, truth_of(run))


def _people(name: str, policy: Policy, run: Run, limit: int = 3) -> Iterable[Watched]:
    drawn: Drawn = run.drawn
    people, counts = np.unique(drawn.occasions.person[run.held], return_counts=True)
    middle = np.median(counts) if len(counts) else 0.0
    for i in np.argsort(np.abs(counts - middle), kind="stable")[:limit].tolist():
        mine = np.flatnonzero((drawn.occasions.person == people[i]) & run.offered)[:60]
        shown = [_shown(policy, run, at) for at in mine.tolist()]
        hashed = int(mix(np.uint64(people[i] + 1), np.uint64(7)))
        yield Watched(f"{hashed:016x}"[:8], name, story(shown), shown)


def _shown(policy: Policy, run: Run, at: int) -> Shown:
    bits: NDArray[np.uint64] = run.rules
    held = bool(run.held[at])
    why = [rule.name for k, rule in enumerate(policy.rules) if int(bits[at]) >> k & 1]
    return Shown(
        float(run.drawn.occasions.ts[at]) / SECOND,
        "the campaign",
        held,
        bool(run.engaged_at[at] != NEVER),
        tuple(why) if held else (),
    )
