"""Ties. Entries are ordered by time, then by hashes that are the ledger's own business.

Order decides an answer only where entries of one time meet: two contents of one event, two
exposures of one impression, more of them than a row has room for, two words on one matter. The
oracle does not know who wins there, so it tries every order that the hashes could have made (any
order of the events, and of the contents within an event): all *admissible* answers, nearly always
one. That the ledger sticks to its choice, whatever the order of arrival, is for other tests.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from governor.oracle.events import Entry

__all__ = ["Rank", "TooManyOrdersError", "orders"]

MOST_ORDERS = 6_000

Rank = Mapping[Entry, int]
"""Breaks ties: of entries of one time the one with the smaller rank is the smaller."""


class TooManyOrdersError(Exception):
    """More ties than the oracle is willing to try."""


def orders(row: Collection[Entry], row_limit: int, *, every_tie: bool) -> Iterator[Rank]:
    """Every order of entries of equal time that could change an answer.

    ``every_tie``: any two entries of a time may matter, and not only twins, the last place of a
    row, and those behind it, of which each rule keeps the newest of each label.
    """
    contested = _contested(set(row), row_limit, every_tie)
    events = sorted({e.event_id for e in contested})
    contents: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in sorted(contested, key=lambda e: (e.event_id, e.ts, e.topic, e.content)):
        contents[entry.event_id, entry.ts].append(entry)
    sizes = [len(events), *map(len, contents.values())]
    count = math.prod(math.factorial(size) for size in sizes)
    if count > MOST_ORDERS:
        raise TooManyOrdersError(f"{count} orders of {len(contested)} tied entries")
    for order in itertools.permutations(events):
        place = {event_id: i * (len(row) + 1) for i, event_id in enumerate(order)}
        for chosen in itertools.product(*map(itertools.permutations, contents.values())):
            rank = dict.fromkeys(row, 0)
            for group in chosen:
                rank.update({e: place[e.event_id] + i for i, e in enumerate(group)})
            yield rank


def _contested(row: set[Entry], row_limit: int, every_tie: bool) -> set[Entry]:
    by_ts: dict[int, list[Entry]] = defaultdict(list)
    for entry in row:
        by_ts[entry.ts].append(entry)
    contested: set[Entry] = set()
    for tied in by_ts.values():
        for a, b in itertools.combinations(tied, 2):
            twins = a.event_id == b.event_id or (
                a.impression_id is not None and a.impression_id == b.impression_id
            )
            if every_tie or (twins and a.topic == b.topic):
                contested |= {a, b}
    for topic in ("impression", "engagement", "control"):
        newer = 0
        for ts in sorted(by_ts, reverse=True):
            of_topic = {e for e in by_ts[ts] if e.topic == topic}
            if len(of_topic) > 1 and row_limit < newer + len(of_topic):
                contested |= of_topic
            newer += len(of_topic)
    return contested
