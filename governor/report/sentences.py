"""What the figures mean, in sentences, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator

from governor.fatigue.curves import ENOUGH
from governor.replay.tallying import CampaignFound, Findings, PolicyFound
from governor.report.moments import named
from governor.report.plots import name_of

__all__ = ["advice", "of_campaign", "of_log", "of_policy", "span"]

HALF = 0.5


def of_log(found: Findings) -> str:
    """What was looked at."""
    log = found.log
    kinds = ", ".join(f"{count:,} {name}s" for name, count in log.engagements.items())
    return (
        f"{log.exposures:,} exposures of {log.campaigns:,} campaign{'s' * (log.campaigns != 1)} "
        f"to {log.people:,} people, "
        f"{span(log.begin, log.end)}; {kinds or 'no engagements'}."
    )


def span(begin: float, end: float) -> str:
    """A stretch of time in words, in UTC."""
    first, last = (named(at, "%d %B %Y") for at in (begin, end))
    return f"on {first}" if first == last else f"{first} to {last}"


def of_policy(one: PolicyFound) -> str:
    """What a policy would have done, or did to simulated people."""
    if one.simulated:
        change = -one.cost
        return (
            f"{one.name}: {one.held:,} of {one.exposures:,} exposures fewer ({one.saved:.1%}) than "
            f"without a governor, {one.engagements - one.lost:,} instead of {one.engagements:,} "
            f"engagements ({change:+.1%})."
        )
    if not one.held:
        return f"{one.name} would have held back nothing."
    text = (
        f"{one.name} would have held back {one.held:,} of {one.exposures:,} exposures "
        f"({one.saved:.1%}) from {one.people_held:,} of {one.people:,} people"
    )
    if not one.engagements:
        return f"{text}; the log has no engagements that it could have cost."
    if not one.lost:
        return f"{text}, and not one of the {one.engagements:,} engagements with them."
    return (
        f"{text}, and with them at most {one.lost:,} of {one.engagements:,} engagements "
        f"({one.cost:.1%})."
    )


def of_campaign(one: CampaignFound) -> str:
    """What is known of fatigue with a campaign."""
    name = name_of(one.label)
    if not one.engagements:
        return f"{name}: no engagement in {one.exposures:,} exposures, so nothing can be said."
    if not one.identified:
        why = one.reason or "fatigue cannot be told from who was shown more"
        return f"{name}: it cannot be told whether people tire of it: {why}."
    known = [each for each in one.depths if each.exposures and each.depth > 1]
    worn = next((each for each in known if each.high < HALF), None)
    if worn is not None:
        return (
            f"{name}: the {_nth(worn.depth)} exposure gives {worn.estimate:.0%} of what the first "
            f"gives ({worn.low:.0%} to {worn.high:.0%})."
        )
    tired = next((each for each in known if each.high < 1.0), None)
    if tired is not None:
        last = known[-1]
        return (
            f"{name}: people tire of it a little: the {_nth(tired.depth)} exposure gives "
            f"{tired.estimate:.0%} of the first ({tired.low:.0%} to {tired.high:.0%}), "
            f"the {_nth(last.depth)} {last.estimate:.0%}."
        )
    return f"{name}: no sign that people tire of it."


def advice(found: Findings) -> list[str]:
    """What to do next."""
    return [*_on_policies(found), *_on_campaigns(found), *_on_data(found)][:6]


def _on_policies(found: Findings) -> Iterator[str]:
    worth = [one for one in found.policies if one.held and one.engagements]
    if len(worth) > 1:
        best = min(worth, key=lambda one: one.cost / one.saved)
        yield (
            f"Per exposure held back, {best.name} costs least: {best.saved:.1%} fewer exposures "
            f"for {'' if best.simulated else 'at most '}{best.cost:.1%} fewer engagements."
        )
    for one in worth:
        dear = [
            rule
            for rule in one.rules
            if not one.simulated
            and not rule.shadow
            and rule.exposures
            and rule.engagements / one.engagements > rule.exposures / one.exposures
        ]
        for rule in dear[:1]:
            yield (
                f"Look at {rule.name} in {one.name}: the exposures that it holds back are engaged "
                f"with more often than the others ({rule.engagements:,} engagements in "
                f"{rule.exposures:,})."
            )
    for one in found.policies:
        idle = [rule.name for rule in one.rules if not rule.exposures and not rule.shadow]
        if idle and one.held:
            yield f"In {one.name} these rules never held anything back: {', '.join(idle)}."


def _on_campaigns(found: Findings) -> Iterator[str]:
    # The first is of all ads together, or of simulated people without a governor.
    campaigns = found.campaigns[:1] if found.simulated else found.campaigns[1:]
    for one in campaigns:
        name = "the campaign" if found.simulated else name_of(one.label)
        worn = next((each for each in one.depths if each.exposures and each.high < HALF), None)
        if one.identified and worn is not None and worn.depth > 1:
            yield (
                f"Rest {name} after some {worn.depth - 1} exposures a person: from "
                f"the {_nth(worn.depth)} on they give less than half of the first."
            )
    unsure = [one for one in campaigns if not one.identified]
    few = [name_of(one.label) for one in unsure if one.engagements < ENOUGH]
    if few:
        yield (
            f"{_some(few)}: too few engagements to learn whether people tire. Replay a longer log, "
            "or name a category (--map category=...): small campaigns start from their category's "
            "curve."
        )
    dark = [name_of(one.label) for one in unsure if one.engagements >= ENOUGH]
    if dark:
        yield (
            f"To learn whether people tire of {_some(dark)}, let a random share of people be shown "
            "it on (holdout in the policy), and let the log begin a week before the campaign does."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


def _on_data(found: Findings) -> Iterator[str]:
    if found.log.unanswered > sum(found.log.engagements.values()):
        yield "Most engagements answer nothing in the log: check the mapping of impression_id."
    if found.log.coverage < 1.0:
        yield (
            f"{1 - found.log.coverage:.0%} of the exposures could not be answered visibly; they "
            "tire people all the same and count towards caps."
        )


def _nth(number: int) -> str:
    tail = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{tail}"
