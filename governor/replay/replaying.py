"""A log under a policy: the ledger that governs live, led through the past in its own time.

Every exposure of the log is asked for when it happened. What a rule or a control holds back does
not take place: neither it nor its answers enter the rows, so that what follows is decided as it
would have been. What people would have done with an ad that they were spared, and what else they
would have been shown in its place, no log can tell: engagements with exposures held back count as
lost, which is the most that the policy can have cost.

Curves of fatigue are estimated while the log goes by, from what took place and had settled by
then, at equal steps of event time, and govern from there on, as the aggregator's do live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating
from governor.entries import UNMEASURABLE
from governor.fatigue import frailty
from governor.fatigue.curves import CurveSet
from governor.fatigue.exposures import NEVER, Exposures, from_columns
from governor.fatigue.versions import Version
from governor.hashing import hash_spans, mix
from governor.holding import Spoken
from governor.ledger import Ledger
from governor.policy import Fatigue, Policy
from governor.replay.linking import NOTHING, Links
from governor.replay.log import Log
from governor.ticks import SECOND
from governor.walking import SHOWN, Passing, Verdicts, walk

__all__ = ["DAY", "Estimates", "Observed", "Outcome", "Terms", "observed", "replay", "sample"]

DAY = 86_400 * SECOND

_SAMPLED, _HALF = np.uint64(0x5A), np.uint64(32)

SLICE = 65_536
"""Rows led past the ledger at a time; what comes out does not depend on it."""

POSITIVE = np.array([1, 1, 1, 1, 1, 0, 0] + [1] * 25, np.bool_)
"""By the code of an engagement's type: whether it is an answer; hide and complaint are not."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The exposures of a log in the terms of `governor.fatigue`, in the log's order."""

    event: NDArray[np.int64]
    """Which event of the log each is."""
    person: NDArray[np.uint64]
    ts: NDArray[np.int64]
    campaign: NDArray[np.int32]
    creative: NDArray[np.int32]
    category: NDArray[np.int32]
    measurable: NDArray[np.bool_]
    engaged_at: NDArray[np.int64]
    """Of the earliest answer, `NEVER` without one."""
    campaigns: tuple[str, ...]
    creatives: tuple[str, ...]
    categories: tuple[str, ...]

    def exposures(self, chosen: NDArray[np.bool_], now: int, within: int) -> Exposures:
        """The chosen ones as they were known at ``now``, with an attribution window ``within``."""
        engaged_at = self.engaged_at[chosen]
        known = (engaged_at != NEVER) & (engaged_at <= now)
        return from_columns(
            self.person[chosen],
            self.ts[chosen],
            campaign=self.campaign[chosen],
            creative=self.creative[chosen],
            category=self.category[chosen],
            engaged=known,
            engaged_at=np.where(known, engaged_at, NEVER),
            measurable=self.measurable[chosen],
            settled=self.ts[chosen] + within <= now,
            campaigns=self.campaigns,
            creatives=self.creatives,
            categories=self.categories,
        )


def observed(log: Log, links: Links, policy: Policy | None = None) -> Observed:
    """What was shown to whom and what came of it, as the log tells it.

    Args:
        policy: whose ``ads`` say what is not measurable; without one only the events do.
    """
    first = log.first
    event = np.flatnonzero(links.unit == np.arange(len(first))).astype(np.int64)
    row = first[event]
    names, codes = _dimensions(log)
    ad = log.ad[row]
    engaged_at = np.full(len(first), np.iinfo(np.int64).max, np.int64)
    positive = POSITIVE[(log.what[first] >> 2) & 31] & (links.answers > NOTHING)
    np.minimum.at(engaged_at, links.answers[positive], log.ts[first[positive]])
    engaged_at[engaged_at == np.iinfo(np.int64).max] = NEVER
    seen = (log.what[row] & UNMEASURABLE) == 0
    if policy is not None:
        seen &= ~_unseen(log, policy)[ad]
    return Observed(
        event,
        hash_spans(log.text, log.key_start, log.key_size)[log.who[row]],
        log.ts[row],
        codes["campaign"][ad],
        codes["creative"][ad],
        codes["category"][ad],
        seen,
        engaged_at[event],
        names["campaign"],
        names["creative"],
        names["category"],
    )


def _dimensions(log: Log) -> tuple[dict[str, tuple[str, ...]], dict[str, NDArray[np.int32]]]:
    """By dimension the names of its labels, and by ad which of them it has."""
    names: dict[str, dict[str, int]] = {"campaign": {}, "creative": {}, "category": {}}
    codes = {each: np.full(len(log.labels), NEVER, np.int32) for each in names}
    for ad in range(len(log.labels)):
        labels = log.labels.labels_of(ad)
        for dimension, known in names.items():
            if dimension in labels:
                codes[dimension][ad] = known.setdefault(labels[dimension], len(known))
    return {each: tuple(known) for each, known in names.items()}, codes


def _unseen(log: Log, policy: Policy) -> NDArray[np.bool_]:
    """By ad: whether the policy says that an engagement with it cannot be seen."""
    return np.array(
        [
            any(
                not item.measurable
                and all(labels.get(key) in values for key, values in item.match.items())
                for item in policy.ads
            )
            for labels in map(log.labels.labels_of, range(len(log.labels)))
        ],
        np.bool_,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a log under a policy."""

    policy: Policy
    verdicts: Verdicts
    curves: tuple[CurveSet, ...] = ()
    """The versions that governed, in the order of their times; none without a rule that asks."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How to replay."""

    horizon: int = 32 * DAY
    row_limit: int = 128
    within: int = DAY
    """The attribution window of answers."""
    refit: int = DAY
    """Event time between two estimates of the curves."""
    most: int = 100_000
    """Exposures, of whole people, that an estimate is made of at most."""


def replay(
    log: Log,
    links: Links,
    policy: Policy,
    terms: Terms | None = None,
    tell: Callable[[int], None] | None = None,
) -> Outcome:
    """Lead a log past a ledger under a policy.

    Args:
        tell: is called with the number of events done, now and then.

    Raises:
        ValueError: a rule of the policy looks further back than the horizon.
    """
    terms = terms or Terms()
    ledger = Ledger(policy, horizon=terms.horizon, row_limit=terms.row_limit)
    log.numbered(ledger.labels)
    n = len(log)
    verdicts = Verdicts(
        np.zeros(n, np.uint8), np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.uint8)
    )
    spoken = Spoken()
    tiring = any(isinstance(rule, Fatigue) for rule in policy.rules)
    estimates = Estimates(log, links, policy, terms) if tiring else None
    for begin, end, at in _slices(log, terms.refit if tiring else 0):
        if estimates is not None and at is not None:
            ledger.learn(Version(estimates.renew(verdicts, at), int(log.ts[0])))
        passing = _passing(log, links, ledger, begin, end)
        progress = np.zeros(1, np.int64)
        ledger.lead(partial(walk, rows=passing, verdicts=verdicts, progress=progress), spoken)
        if tell is not None:
            tell(int(log.source[end - 1]) + 1)
    return Outcome(policy, verdicts, tuple(estimates.versions) if estimates else ())


def _slices(log: Log, step: int) -> Iterator[tuple[int, int, int | None]]:
    """Where slices of rows begin and end, and at which time, if any, the curves are renewed first.

    Args:
        step: event time between renewals, 0 for none.
    """
    rows = len(log.ts)
    begin = 0
    at: int | None = None
    renewal = (int(log.ts[0]) // step + 1) * step if step and rows else None
    while begin < rows:
        end = min(begin + SLICE, rows)
        if renewal is not None:
            end = min(end, max(begin, int(np.searchsorted(log.ts, renewal))))
        while 0 < end < rows and log.source[end] == log.source[end - 1]:
            end += 1
        if end > begin:
            yield begin, end, at
            begin, at = end, None
        if renewal is not None and begin < rows and int(log.ts[begin]) >= renewal:
            at = int(log.ts[begin]) // step * step
            renewal = at + step


def _passing(log: Log, links: Links, ledger: Ledger, begin: int, end: int) -> Passing:
    c = log.columns(begin, end)
    skipped = ledger.excluded(c).astype(np.uint8)
    return Passing(
        c.text, c.user_start, c.user_size, c.ts, c.what, c.event, c.exposure, c.ad, c.zone,
        c.consent, c.source, skipped, links.unit, links.answers,
    )  # fmt: skip


class Estimates:
    """The curves that governed, each made of what had taken place and settled by its time."""

    def __init__(self, log: Log, links: Links, policy: Policy, terms: Terms) -> None:
        self._seen = observed(log, links, policy)
        self._sampled = sample(self._seen.person, terms.most)
        self._within = terms.within
        self.versions: list[CurveSet] = []

    def renew(self, verdicts: Verdicts, at: int) -> CurveSet:
        """The curves as of a time, from what the verdicts say took place before it."""
        seen = self._seen
        took_place = verdicts.fate[seen.event] == SHOWN
        chosen = self._sampled & took_place & (seen.ts < at)
        previous = self.versions[-1] if self.versions else None
        curves = frailty.fit(seen.exposures(chosen, at, self._within), previous, now=at)
        self.versions.append(curves)
        return curves


def sample(person: NDArray[np.uint64], most: int) -> NDArray[np.bool_]:
    """Which exposures are of people in a sample by hash, that has some ``most`` exposures."""
    if len(person) <= most:
        return np.ones(len(person), np.bool_)
    return _drawn(person, np.uint64(int(most / len(person) * (1 << 32))))


@allocating
def _drawn(person: NDArray[np.uint64], below: np.uint64) -> NDArray[np.bool_]:
    chosen = np.empty(len(person), np.bool_)
    for i in range(len(person)):
        chosen[i] = mix(person[i], _SAMPLED) >> _HALF < below
    return chosen
