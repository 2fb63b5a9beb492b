"""What plain caps of several sizes would do to a log: what a policy is held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from governor.fatigue.exposures import NEVER
from governor.hashing import hash_spans
from governor.policy import load, written
from governor.replay.linking import link
from governor.replay.log import Log
from governor.replay.replaying import Terms, observed, replay
from governor.replay.tallying import Frontier
from governor.walking import HELD

__all__ = ["CAPS", "sweep"]

CAPS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24)

MOST: Final = 300_000
"""Events, of whole people, that caps are tried on at most."""


def sweep(
    log: Log,
    per: str,
    window: int,
    terms: Terms,
    caps: Sequence[int] = CAPS,
    most: int = MOST,
    tell: Callable[[int], None] | None = None,
) -> tuple[list[Frontier], float]:
    """Lead people past caps per label of a dimension in a rolling window.

    Args:
        tell: is called with how many caps have been tried.

    Returns:
        What each cap does, and the share of people that it was tried on: all where the log is
        small enough, a sample by hash else.
    """
    share = min(1.0, most / max(1, len(log)))
    if share < 1.0:
        hashed = hash_spans(log.text, log.key_start, log.key_size)
        small = (hashed >> np.uint64(32)) < np.uint64(int(share * (1 << 32)))
        log = log.of_people(small)
    links = link(log, terms.within)
    seen = observed(log, links)
    answered = seen.engaged_at != NEVER
    found = []
    for done, cap in enumerate(caps, 1):
        text = f"rules: [{{name: cap, cap: {cap}, per: {per}, window: {written(window)}}}]"
        wide = replace(terms, horizon=max(terms.horizon, window))
        policy = load(text, horizon=wide.horizon, row_limit=max(wide.row_limit, cap))
        held = replay(log, links, policy, wide).verdicts.fate[seen.event] == HELD
        found.append(
            Frontier(
                cap,
                int(held.sum()),
                int((held & answered).sum()),
                len(held),
                int(answered.sum()),
            )
        )
        if tell is not None:
            tell(done)
    return found, share
