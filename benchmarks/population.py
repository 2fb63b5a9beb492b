"""A partition full of users, made by the real path: JSON, decode, apply, take.

Every user comes by once a round, in an order shuffled anew each time; a user's own visits are six
hours of event time apart. The horizon is so many rounds as rows shall hold exposures. Once full,
rows therefore keep their length, whatever the number of users: each event enters one exposure and
drops one. Half of the users meet two campaigns and are held back by a cap, half meet five and are
not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.impressions import Template
from governor.events import Limits, decode_impressions
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND
from streams.outbox import SWEEP_ROWS

__all__ = ["BATCH", "Population", "Spent", "empty_ledger"]

BATCH = 4_000
"""Events a batch, and with it dirty rows a flush: about what one fetch brings."""

BLOCK = 10 * BATCH
ROUND = 6 * 3600 * SECOND
START = 1_700_000_000 * SECOND

POLICY = """
rules:
  - {name: user-daily, cap: 20, per: user, window: 1d}
  - {name: campaign-daily, cap: 2, per: campaign, window: 1d}
  - {name: advertiser-daily, cap: 10, per: advertiser, window: 1d}
  - {name: category-daily, cap: 10, per: category, window: 1d}
"""


@dataclass
class Spent:
    """CPU seconds by what they were spent on."""

    decode: float = 0.0
    apply: float = 0.0
    take: float = 0.0
    events: int = 0

    def per_event(self) -> dict[str, float]:
        """Microseconds an event."""
        parts = {"decode": self.decode, "apply": self.apply, "take": self.take}
        found = {name: 1e6 * seconds / self.events for name, seconds in parts.items()}
        return {**found, "all": sum(found.values())}


class Population:
    """One ledger and its users, at least `BATCH` of them."""

    def __init__(
        self, users: int, campaigns: int, exposures: int = 4, policy: str = POLICY
    ) -> None:
        self.ledger = empty_ledger(exposures, policy)
        self.users = users
        self._campaigns = campaigns
        self._exposures = exposures
        self._random = np.random.default_rng(1)
        self._template = Template()
        self._turn = 0
        self._order = np.arange(users)
        self._done = users

    def fill(self) -> Iterator[Records]:
        """Let everyone come by until all rows are full, some ten thousand users after the other.

        Yields:
            the changelog: every ad and every row once.
        """
        for first in range(0, self.users, BLOCK):
            block = np.arange(first, min(first + BLOCK, self.users))
            for turn in range(self._exposures):
                for start in range(0, len(block), BATCH):
                    self._enter(block[start : start + BATCH], turn, Spent())
            yield self.ledger.take(START).changelog
        self._turn = self._exposures - 1

    def run(self, events: int) -> Spent:
        """Let so many events come by, with a flush after each batch."""
        spent = Spent(events=events)
        while events > 0:
            if self._done == self.users:
                self._turn += 1
                self._order = self._random.permutation(self.users)
                self._done = 0
            user = self._order[self._done : self._done + min(BATCH, events)]
            self._enter(user, self._turn, spent)
            began = time.process_time()
            self.ledger.sweep(SWEEP_ROWS)
            self.ledger.take(START)
            self.ledger.tidy()
            spent.take += time.process_time() - began
            self._done += len(user)
            events -= len(user)
        return spent

    def rest(self) -> None:
        """Hold nothing but the ledger between two rounds."""
        assert self._done == self.users
        self._order = self._order[:0].copy()

    def _enter(self, user: NDArray[np.int64], turn: int, spent: Spent) -> None:
        ts = START + turn * ROUND + user * ROUND // self.users
        campaign = (7 * user + turn % np.where(user % 2, 5, 2)) % self._campaigns
        rows = self._template.fill(turn * self.users + user, user, campaign, ts)
        records = self._template.records(rows, ts // 1000)
        began = time.process_time()
        columns, rejected = decode_impressions(records, self.ledger.labels, Limits())
        decoded = time.process_time()
        applied = self.ledger.apply(columns)
        spent.apply += time.process_time() - decoded
        spent.decode += decoded - began
        assert not rejected
        assert applied.counts()["applied"] == len(user)


def empty_ledger(exposures: int = 4, policy: str = POLICY) -> Ledger:
    """A ledger whose rows, once full, hold so many exposures of a `Population`; at least four."""
    horizon = exposures * ROUND
    return Ledger(load(policy, horizon=horizon), horizon=horizon)
