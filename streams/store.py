"""The ledger as a store of a Faust table: one `Ledger` a partition, rows from the changelog.

Faust assigns partitions and standbys; `streams.recovery` reads rows, in whole fetches. What the
agents change goes to the changelog through the outbox, not through the table, so the table
itself is only ever read.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from faust.stores import base
from faust.types import TP, EventT

from governor.gate import Gate
from governor.ledger import Ledger, Taken
from governor.records import Records
from governor.rowcodec import RowError
from governor.told import Told
from streams.redirected import with_gate

__all__ = ["Store", "UnreadableRowError"]

log = logging.getLogger(__name__)


Restore = Callable[[Iterable[int]], Awaitable[Mapping[int, tuple[Ledger, Gate, int]]]]
"""Ledgers and gates as they were, and the changelog offsets they go to, by partition."""


class UnreadableRowError(Exception):
    """A changelog record cannot be read; says which one and what to do."""


class Store(base.Store):
    """Registered as ``ledger://``.

    ``options["make"]`` makes an empty `Ledger`, ``options["gate"]`` an empty `Gate`,
    ``options["told"]`` an empty `Told`;
    ``options["take_over"]`` sees to it that nobody else writes the partitions that this worker is
    given, before their rows are read;
    ``options["skipped"]``, where it is given, is told of a record that cannot be read and is
    skipped, and without it such a record stops the worker; ``options["restore"]``, where it is
    given, brings ledgers and the changelog offsets that they go to, by partition.

    Mind the URL's host part: ``ledger://`` alone is a falsy URL, and Faust then takes its
    in-memory store without a word.
    """

    # What Faust logs through this class is Faust's.
    logger = logging.getLogger("faust.stores")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.options or {}
        self._make: Callable[[], Ledger] = options["make"]
        self._take_over: Callable[[Iterable[int]], Awaitable[None]] = options["take_over"]
        self._gate: Callable[[], Gate] = options["gate"]
        self._told: Callable[[], Told] = options["told"]
        self._restore: Restore | None = options.get("restore")
        self._skipped: Callable[[str], None] | None = options.get("skipped")
        self.ledgers: dict[int, Ledger] = {}
        self.gates: dict[int, Gate] = {}
        self.tolds: dict[int, Told] = {}
        self._positions: dict[int, int] = {}
        self._live: set[int] = set()

    def ledger(self, partition: int) -> Ledger:
        """The ledger of a partition, made when it is not there yet."""
        ledger = self.ledgers.get(partition)
        if ledger is None:
            ledger = self.ledgers[partition] = self._make()
        return ledger

    def live(self) -> dict[int, Ledger]:
        """The ledgers that were recovered and whose events this worker applies."""
        return {n: self.ledgers[n] for n in sorted(self._live) if n in self.ledgers}

    def gate(self, partition: int) -> Gate:
        """What stands in front of a partition's ledger, made when it is not there yet."""
        gate = self.gates.get(partition)
        if gate is None:
            gate = self.gates[partition] = self._gate()
        return gate

    def told(self, partition: int) -> Told:
        """What this worker told readers of a partition, made when it is not there yet."""
        told = self.tolds.get(partition)
        if told is None:
            told = self.tolds[partition] = self._told()
        return told

    def tell(self, partition: int, decisions: Records, appended: int) -> None:
        """Note what was published of a partition, and when: see `Told.publish`. It may have gone
        elsewhere meanwhile."""
        if partition in self.ledgers:
            self.told(partition).publish(decisions, appended)

    def take(self, partition: int, decided_at: int, *, again: bool = False) -> Taken:
        """What changed in a partition since the last call: see `Ledger.take`."""
        ledger, gate = self.ledger(partition), self.gate(partition)
        gate.erasures.expire(ledger.newest)
        return with_gate(ledger.take(decided_at, again=again), gate)

    def begin(self, partition: int, offset: int) -> None:
        """Hold nothing of a partition, whose changelog begins at ``offset``."""
        self._forget(partition)
        self._positions[partition] = offset

    def load(self, partition: int, records: Records, next_offset: int) -> None:
        """Load rows from a partition's changelog, all up to ``next_offset``.

        Raises:
            UnreadableRowError: a record cannot be read, and is not to be skipped.
        """
        self._load(self.table.changelog_topic_name, partition, records)
        self._positions[partition] = next_offset

    def _load(self, topic: str, partition: int, records: Records) -> None:
        """Load records of a partition, with or without those that cannot be read."""
        records = self.gate(partition).load(records)
        while len(records):
            try:
                self.ledger(partition).load(records)
                return
            except RowError as error:
                told = f"{topic}[{partition}]: {error}"
                if self._skipped is None:
                    raise UnreadableRowError(
                        f"{told}; or set GOVERNOR_UNREADABLE_ROWS=skip, which forgets such rows "
                        "and counts them"
                    ) from error
                self._skipped(told)
                # A record before it may be one that the first look did not get to.
                self._load(topic, partition, records.select(slice(error.record)))
                records = records.select(slice(error.record + 1, None))

    def position(self, partition: int) -> int | None:
        """The offset from which on the changelog may hold what memory does not.

        None where memory holds nothing.
        """
        return self._positions.get(partition)

    @property
    def read_so_far(self) -> int:
        """Grows with every changelog record that is read."""
        return sum(self._positions.values())

    def written(self, partition: int, offset: int) -> None:
        """Note that the changelog of a partition holds, up to ``offset``, what memory holds."""
        if partition in self.ledgers:  # it may have gone elsewhere meanwhile
            self._positions[partition] = offset + 1

    def persisted_offset(self, tp: TP) -> int | None:
        """The newest changelog offset whose row is in memory."""
        position = self.position(tp.partition)
        return None if position is None else position - 1

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT],
        to_key: Callable[[Any], Any],
        to_value: Callable[[Any], Any],
    ) -> None:
        """Refuse: rows come through `load`."""
        raise NotImplementedError("streams.recovery reads the changelog")

    def _forget(self, partition: int) -> None:
        self.ledgers.pop(partition, None)
        self.gates.pop(partition, None)
        self.tolds.pop(partition, None)
        self._positions.pop(partition, None)

    async def need_active_standby_for(self, tp: TP) -> bool:  # noqa: ARG002
        """Rows are in memory only, so every standby reads the changelog."""
        return True

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],  # noqa: ARG002
        newly_assigned: set[TP],  # noqa: ARG002
        generation_id: int = 0,  # noqa: ARG002
    ) -> None:
        """Forget the partitions that went elsewhere, and fence those that this worker has."""
        self._live.clear()
        topic = self.table.changelog_topic_name
        kept = {tp.partition for tp in assigned if tp.topic == topic}
        for partition in self.ledgers.keys() | self._positions.keys():
            ledger = self.ledgers.get(partition)
            # What could not be flushed any more is read again as events, from their rows on.
            if partition not in kept or (ledger is not None and ledger.dirty):
                self._forget(partition)
        actives = self.app.assignor.assigned_actives()
        await self._take_over({tp.partition for tp in actives if tp.topic == topic})
        if self._restore is not None:
            restored = await self._restore(kept - set(self.ledgers))
            for partition, (ledger, gate, offset) in restored.items():
                self.ledgers[partition], self.gates[partition] = ledger, gate
                self._positions[partition] = offset + 1

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Say that the rows are there."""
        self._live = {tp.partition for tp in active_tps}
        log.info(
            "ready",
            extra={
                "partitions": sorted(self._live),
                "users": sum(len(self.ledger(partition)) for partition in self._live),
                "standbys": sorted(tp.partition for tp in standby_tps),
            },
        )

    def reset_state(self) -> None:
        """Nothing is kept on disk."""

    async def backup_partition(
        self,
        tp: TP | int,
        flush: bool = True,
        purge: bool = False,
        keep: int = 1,
    ) -> None:
        """Refuse: the changelog topic is the backup."""
        raise NotImplementedError(f"nothing to back up of {tp}: the changelog topic has it all")

    def restore_backup(
        self,
        tp: TP | int,
        latest: bool = True,
        backup_id: int = 0,
    ) -> None:
        """Refuse: the changelog topic is the backup."""
        raise NotImplementedError(f"nothing to restore of {tp}: the changelog topic has it all")

    def __len__(self) -> int:
        return sum(len(ledger) for ledger in self.ledgers.values())

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("the ledger is not iterated by user: ask /metrics or a decision's reader")
