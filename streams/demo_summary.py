"""What the demo says at the end, for people who plan campaigns."""

from __future__ import annotations

from collections.abc import Iterator

from streams.demo_tally import Episode, Tally
from streams.demo_words import limit, percent, sentence

__all__ = ["examples", "summary"]

EXAMPLES = 3
PURSUED = 3


def summary(tally: Tally, obeyed: Tally, days: int) -> Iterator[str]:
    """Lines of plain text.

    Args:
        tally: of all page views.
        obeyed: of the same, had every exposure in excess been held back.
        days: of the calendar that they span.
    """
    items = {item for person in tally.people.values() for item in person.items}
    yield (
        f"{tally.exposures:,} exposures of {len(items):,} articles to {len(tally.people)} people "
        f"in {days} days, {tally.clicks:,} clicks."
    )
    yield (
        f"{tally.excess:,} exposures ({percent(tally.share)}) came after a cap was reached. "
        f"Click rate up to that point: {percent(tally.rate_before)}, "
        f"after it: {percent(tally.rate_after)}."
    )
    yield from _by_rule(tally)
    yield (
        "Part of the fall is selection: an article that did not interest is shown again more "
        "often, and long pages have fewer clicks an article."
    )
    yield (
        f"Held back from the first on, it would have been {obeyed.excess:,} exposures "
        f"({percent(obeyed.share)}) with {obeyed.excess_clicks:,} of {obeyed.clicks:,} clicks: "
        "what is not shown counts towards no cap."
    )
    yield ""
    yield "The people most pursued:"
    people = sorted(tally.people.values(), key=lambda one: (-one.excess, one.user))
    for person in people[:PURSUED]:
        item, times = person.items.most_common(1)[0]
        yield (
            f"  user {person.user}: {person.exposures:,} exposures, {person.excess:,} after a cap "
            f"was reached; article {item} {times} times"
        )
    yield ""
    yield "Examples:"
    for example in examples(tally):
        yield f"  {sentence(example)}"


def _by_rule(tally: Tally) -> Iterator[str]:
    for rule in tally.rules:
        count = tally.excess_by_rule[rule.name]
        rate = tally.excess_clicks_by_rule[rule.name] / count if count else 0.0
        of = "of the whole site" if rule.per == ("user",) else "of one article"
        yield f"  {count:>6,} after {limit(rule)} {of}, click rate {percent(rate)}"


def examples(tally: Tally) -> list[Episode]:
    """The episodes that grew most: of every cap one, and of different people where there are."""
    largest = sorted(tally.episodes, key=lambda one: (-one.excess, one.reached, one.user))
    left = [one for one in largest if one.rule.kind == "cap" and one.excess]
    chosen: list[Episode] = []
    while left and len(chosen) < EXAMPLES:
        rules = {one.rule.name for one in chosen}
        people = {one.user for one in chosen}
        best = min(left, key=lambda one: (one.rule.name in rules, one.user in people))
        chosen.append(best)
        left.remove(best)
    return chosen
