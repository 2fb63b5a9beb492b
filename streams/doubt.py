"""Whether decisions on the topic may say more than the rows that this worker took over.

A flush publishes decisions before it writes rows. A worker that ends in between leaves decisions
on the topic that its rows do not know of. Its successor applies the same events again and comes to
the same rows; but where these, with what has come since, decide what the rows it took over said
already, it would find nothing changed and leave the dead worker's word standing: a person who opted
out and in again would stay opted out. So until a partition's new owner has gone through everything
that the former one can have read, it publishes the decision of every row that changes, the same or
not.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiokafka.errors import KafkaError

__all__ = ["Doubt", "Offsets"]

log = logging.getLogger(__name__)

Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""

_FENCE = 1
"""Records in a partition of decisions where nobody decided yet: this owner's fence."""

Ask = Callable[[Iterable[int]], Awaitable[Offsets]]


class Doubt:
    """Of the partitions of one worker.

    Args:
        ends: asks for the ends of the topics of events, of some partitions.
        committed: asks for what the group has committed of them.
        decided: asks for the ends of the decisions topic.
        most: how many events beyond what is committed a worker can have applied.
    """

    def __init__(self, ends: Ask, committed: Ask, decided: Ask, most: int) -> None:
        self._ends = ends
        self._committed = committed
        self._decided = decided
        self._most = most
        self._left: dict[int, dict[tuple[str, int], int] | None] = {}
        self._reached: dict[tuple[str, int], int] = defaultdict(int)

    def begin(self, partitions: Iterable[int]) -> None:
        """These partitions, and no others, have just been taken over; nobody else writes them."""
        self._left = dict.fromkeys(partitions)
        self._reached.clear()

    def applied(self, topic: str, partition: int, next_offset: int) -> None:
        """All records of a topic before this offset have been applied."""
        where = topic, partition
        self._reached[where] = max(next_offset, self._reached[where])
        left = self._left.get(partition)
        if left and self._reached[where] >= left.get(where, 0):
            left.pop(where, None)

    async def measure(self, partitions: Iterable[int]) -> None:
        """Learn how far the former owners of these can have read, where it is not known yet."""
        new = [one for one in partitions if one in self._left and self._left[one] is None]
        if not new:
            return
        try:
            ends, committed = await self._ends(new), await self._committed(new)
            decided = await self._decided(new)
        except KafkaError as error:
            log.debug("not known yet how far the former owners read: %r", error)
            return  # in doubt still; the next flush asks again
        untouched = {partition for (_, partition), end in decided.items() if end <= _FENCE}
        for partition in new:
            if partition in untouched:
                del self._left[partition]
                continue
            limits = {
                where: min(end, committed.get(where, 0) + self._most)
                for where, end in ends.items()
                if where[1] == partition
            }
            self._left[partition] = {
                where: limit
                for where, limit in limits.items()
                if limit > max(committed.get(where, 0), self._reached[where])
            }

    def holds(self, partition: int) -> bool:
        """Whether the rows that changed are to be published the same or not."""
        return partition in self._left

    def taken(self, partition: int) -> None:
        """What has been applied by now is about to be published."""
        if self._left.get(partition) == {}:
            del self._left[partition]
