"""The ledger as a store of a Faust table: one `Ledger` a partition, rows from the changelog.

Faust assigns partitions, runs recovery and keeps standbys; rows come in whole fetches. What the
agents change goes to the changelog through the outbox, not through the table, so the table
itself is only ever read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from faust.stores import base
from faust.types import TP, EventT

from governor.gate import Gate
from governor.ledger import Ledger, Taken
from governor.records import Records
from streams.redirected import with_gate

__all__ = ["Store"]

log = logging.getLogger(__name__)


class Store(base.Store):
    """Registered as ``ledger://``.

    ``options["make"]`` makes an empty `Ledger`, ``options["gate"]`` an empty `Gate`;
    ``options["take_over"]`` sees to it that nobody else writes the partitions that this worker is
    given, before their rows are read.

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
        self.ledgers: dict[int, Ledger] = {}
        self.gates: dict[int, Gate] = {}
        self._offsets: dict[TP, int] = {}
        self._live: set[int] = set()
        self._failed = False

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

    def take(self, partition: int, decided_at: int) -> Taken:
        """What changed in a partition since the last call: see `Ledger.take`."""
        ledger, gate = self.ledger(partition), self.gate(partition)
        gate.erasures.expire(ledger.newest)
        return with_gate(ledger.take(decided_at), gate)

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT],
        to_key: Callable[[Any], Any],  # noqa: ARG002 - Faust's signature
        to_value: Callable[[Any], Any],  # noqa: ARG002
    ) -> None:
        """Load rows; a record that cannot be read stops the worker.

        Faust's recovery logs an exception and goes on, which would go live with rows missing.
        """
        if self._failed:
            return
        for event in batch:
            message = event.message
            if message.partition in self._live:
                continue  # what this worker wrote itself is older than what it holds
            try:
                self._load(message.partition, message.value)
            except Exception as error:
                self._failed = True
                log.critical("%s[%d]: %s", message.topic, message.partition, error)
                asyncio.ensure_future(self.app.crash(error))  # noqa: RUF006
                raise
            self._offsets[message.tp] = message.offset

    def _load(self, partition: int, records: Records) -> None:
        self.ledger(partition).load(self.gate(partition).load(records))

    def persisted_offset(self, tp: TP) -> int | None:
        """The newest changelog offset whose row is in memory."""
        return self._offsets.get(tp)

    def written(self, partition: int, offset: int) -> None:
        """Note that the changelog of a partition holds, up to ``offset``, what memory holds."""
        self._offsets[TP(self.table.changelog_topic_name, partition)] = offset

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
        for partition in [each for each in self.ledgers if each not in kept]:
            del self.ledgers[partition]
            self.gates.pop(partition, None)
        for tp in [each for each in self._offsets if each.partition not in kept]:
            del self._offsets[tp]
        actives = self.app.assignor.assigned_actives()
        await self._take_over({tp.partition for tp in actives if tp.topic == topic})

    async def on_recovery_completed(self, active_tps: set[TP], standby_tps: set[TP]) -> None:
        """Say that the rows are there."""
        self._live = {tp.partition for tp in active_tps}
        log.info(
            "ready: %d partitions with %d users, %d standbys",
            len(active_tps),
            sum(len(self.ledger(tp.partition)) for tp in active_tps),
            len(standby_tps),
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
