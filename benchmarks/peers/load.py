"""Impressions of which some decide: a share of them goes to a pool of hot pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray

from benchmarks.load import CHUNK, Load

__all__ = ["HotLoad"]

TAIL_DELAY = 120_000
"""By how many milliseconds of event time the last impression of each partition comes later."""


@dataclass(frozen=True)
class HotLoad(Load):
    """Users and campaigns drawn evenly, but for `hot_share` of the events.

    Those are of `hot_pairs` pairs of a user and a campaign. Event `i` has the time `times[i]`,
    each its own, `step` milliseconds apart. One more impression a partition follows, two minutes
    later and of a user of its own, so that systems which answer when a window closes close all.
    """

    hot_share: float = 0.1
    hot_pairs: int = 20_000
    step: int = 1

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """Milliseconds since the epoch, ascending; the tail's behind."""
        last = self.until * 1000
        events = last - self.step * np.arange(self.events - 1, -1, -1, dtype=np.int64)
        tail = last + TAIL_DELAY + np.arange(self.partitions, dtype=np.int64)
        return np.concatenate([events, tail])

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The user and the campaign of each event."""
        rng = np.random.default_rng(self.seed)
        users = rng.integers(0, self.users, self.events)
        campaigns = rng.integers(0, self.campaigns, self.events)
        hot = rng.random(self.events) < self.hot_share
        pair = rng.integers(0, self.hot_pairs, self.events)
        users[hot] = rng.integers(0, self.users, self.hot_pairs)[pair[hot]]
        campaigns[hot] = rng.integers(0, self.campaigns, self.hot_pairs)[pair[hot]]
        return (
            np.concatenate([users, self._tail_users()]),
            np.concatenate([campaigns, np.zeros(self.partitions, np.int64)]),
        )

    @cached_property
    def partition(self) -> NDArray[np.int64]:
        """Where each event lies."""
        of_user = self._partitions()
        return np.concatenate([of_user[self.pairs[0][: self.events]], np.arange(self.partitions)])

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """How many events of its partition lie before each event."""
        position = np.empty(len(self.partition), np.int64)
        for partition in range(self.partitions):
            (here,) = np.nonzero(self.partition == partition)
            position[here] = np.arange(len(here))
        return position

    def index(self, event: str | float) -> int:
        """Which event an id (`evt-0000000012`) or a time in seconds names."""
        if isinstance(event, str):
            return int(event[4:])
        return int(np.searchsorted(self.times, round(event * 1000)))

    def records(self, first: int, last: int) -> dict[int, list[tuple[bytes, bytes, int]]]:
        """By partition: key, value and time of the events from `first` to `last`."""
        records: dict[int, list[tuple[bytes, bytes, int]]] = {}
        span = slice(first, last)
        columns = (self.times, *self.pairs, self.partition)
        listed = (column[span].tolist() for column in columns)
        for i, (ts, user, campaign, partition) in enumerate(zip(*listed, strict=True), first):
            event = (
                b'{"event_id":"evt-%010d","user_id":"user-%08d","ts":%d.%03d,'
                b'"campaign_id":"campaign-%d","impression_id":"imp-%010d",'
                b'"creative_id":"creative-%d","advertiser_id":"advertiser-%d",'
                b'"category":"IAB%d","channel":"display","surface":"web"}'
            ) % (
                i, user, ts // 1000, ts % 1000, campaign, i, campaign, campaign % 50, campaign % 26,
            )  # fmt: skip
            records.setdefault(partition, []).append((b"user-%08d" % user, event, ts))
        return records

    def chunks(self) -> Iterator[dict[int, list[tuple[bytes, bytes, int]]]]:
        """Records by partition, with the tail at the end."""
        for first in range(0, len(self.times), CHUNK):
            yield self.records(first, min(first + CHUNK, len(self.times)))

    def _tail_users(self) -> NDArray[np.int64]:
        """A user for each partition, beyond those of the load."""
        found: dict[int, int] = {}
        user = self.users
        while len(found) < self.partitions:
            found.setdefault((murmur2(b"user-%08d" % user) & 0x7FFFFFFF) % self.partitions, user)
            user += 1
        return np.array([found[partition] for partition in range(self.partitions)], np.int64)
