"""Which features go together, and how often: what `make test` and `make fuzz` draw from."""

from __future__ import annotations

from tests.fuzz.cases import Features

__all__ = ["LEAST", "MIXES"]

MIXES = (
    Features(),
    Features(ties=True, crowded=True),
    Features(modifiers=True, ids=True),
    Features(calendar=True),
    Features(calendar=True, modifiers=True, controls=True),
    Features(reactions=True),
    Features(reactions=True, modifiers=True, crowded=True, controls=True),
    Features(controls=True, ties=True),
    Features(consent=True, controls=True, reactions=True),
    Features(modifiers=True, calendar=True, reactions=True, controls=True, ids=True),
    Features(widened=True, reactions=True, modifiers=True, calendar=True),
    Features(linked=True, reactions=True, controls=True),
    Features(linked=True, reactions=True, controls=True, consent=True),
    Features(erased=True, reactions=True, controls=True, modifiers=True),
    Features(restarted=True, reactions=True, controls=True, modifiers=True, calendar=True),
    Features(restarted=True, consent=True, controls=True, crowded=True, erased=True),
    Features(fatigue=True, reactions=True),
    Features(fatigue=True, reactions=True, modifiers=True, crowded=True),
    Features(fatigue=True, restarted=True, reactions=True, modifiers=True, erased=True),
)

LEAST = {
    "events": 200_000,
    "overflow": 1_000,
    "later than the window": 1_000,
    "ties": 1_000,
    "clocks set": 1_000,
    "pruned": 1_000,
    "widened policy": 1_000,
    "linked": 1_000,
    "erased then replayed": 1_000,
    "published": 1_000,
    "restarts": 1_000,
    "rows before names": 400,
    "answers": 1_000,
    "tired": 500,
    "softened": 100,
}
"""How much of what a run must have met."""
