"""A partition of this worker: its rows, what stands in front of them, and what is not its own.

`Home.take_in` is the way of decoded events: those of rows that live elsewhere are forwarded, those
of erased people dropped, the rest applied; then links and erasures do what goes beyond one row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from governor.entries import CONTROL, TYPE_SHIFT
from governor.events import CONTROL_TYPES, Columns, Limits, decode_controls, row_key
from governor.gate import Gate, again, away
from governor.ledger import Applied, Ledger
from governor.links import Merge, Step, next_hop
from governor.partitioning import partition_of
from governor.records import Records
from governor.redirects import Link
from governor.ticks import seconds_text
from governor.told import Told
from streams.repartition import KINDS, MERGE, Forwards

__all__ = ["FORWARDED", "Home", "forwarded_columns"]

FORWARDED = ("misrouted", "identity", "redirect", "link", "erase")
"""Why a record goes to the repartition topic."""

_WHAT = (1 << TYPE_SHIFT + 5) - 1
_LINK = CONTROL | CONTROL_TYPES["link"] << TYPE_SHIFT
_ERASE = CONTROL | CONTROL_TYPES["erase"] << TYPE_SHIFT


@dataclass
class Home:
    """What one partition holds, and what it has to send on."""

    partition: int
    partitions: int
    """Of every topic."""
    ledger: Ledger
    gate: Gate
    forwards: Forwards = field(default_factory=Forwards)
    forwarded: Counter[str] = field(default_factory=Counter)
    """Records handed to `forwards`, by reason."""
    told: Told = field(default_factory=Told)
    """What readers were told of the rows."""
    late: list[NDArray[np.int64]] = field(default_factory=list)
    """How long after that exposures came that it should have prevented: see `Told.against`."""
    erased: list[bytes] = field(default_factory=list)
    """Row keys of which something was erased."""

    def take_in(self, kind: str, records: Records, columns: Columns) -> Counter[str]:
        """Apply events, or send them where they belong.

        Args:
            kind: the topic that they came on.
            records: as they came.
            columns: what they say, as `governor.events` decodes it.

        Returns:
            Events by outcome: those of `governor.ledger`, ``forwarded`` and ``erased``. An event
            with several ids counts as what became of it under the user's.
        """
        outcomes: Counter[str] = Counter()
        repeated = again(columns, len(records)) if len(columns) else np.zeros(0, np.bool_)
        skipped = self.ledger.excluded(columns)
        if skipped.any():
            outcomes["excluded"] += int((skipped & ~repeated).sum())
            columns, repeated = columns.select(np.flatnonzero(~skipped)), repeated[~skipped]
        where, any_away = away(columns, self.partition, self.partitions)
        if any_away:
            columns, repeated = self._send_away(kind, records, columns, repeated, where, outcomes)
        new = self._erase_all(records, columns) if kind == "controls" else []
        if len(self.gate.erasures):
            erased = self.gate.erasures.hits(columns)
            erased[new] = False
            outcomes["erased"] += int((erased & ~repeated).sum())
            columns, repeated = columns.select(np.flatnonzero(~erased)), repeated[~erased]
        if len(self.gate.redirects):
            columns, repeated = self._redirect(kind, records, columns, repeated, outcomes)
        links = np.flatnonzero(columns.what & _WHAT == _LINK)
        if len(links):
            linking = columns.select(links)
            outcomes["applied"] += len(links)
            columns, repeated = (
                columns.select(np.flatnonzero(columns.what & _WHAT != _LINK)),
                repeated[columns.what & _WHAT != _LINK],
            )
        outcomes.update(self._apply(columns, repeated))
        for i in range(len(links)):
            self._link(records, linking, i)
        return outcomes

    def merge(self, key: bytes, merge: Merge, timestamp: int) -> None:
        """Take a row that has come to be united with this id's, or send it on."""
        hop = next_hop(self.gate, key, merge)
        if hop is not None:
            self._send_merge(*hop, timestamp)
            return
        name = key.decode()
        self.gate.add_origins(key, {step.id for step in merge.path} | set(merge.origins))
        self.ledger.merge(name, merge.entries, max(step.ts for step in merge.path))
        erased = self.gate.erasures.erased(key)
        if erased is not None:
            # Nothing from before may come back with the merge, nor may the link outlive it.
            self._say(name, erased, type="erase")
            for step in merge.path:
                if step.ts <= erased:
                    self._send_erasure(step.id, erased, timestamp)

    def _say(self, name: str, ts: int, **control: object) -> None:
        """Apply a control of our own to a row."""
        records = Records.of([(None, _control(name, ts, **control), ts // 1000)])
        columns, rejected = decode_controls(records, self.ledger.labels, Limits())
        assert not rejected, rejected
        text = np.frombuffer(name.encode(), np.uint8)
        start, size = np.zeros(1, np.int64), np.array([len(text)])
        self.ledger.apply(replace(columns, text=text, user_start=start, user_size=size))

    def _apply(self, columns: Columns, repeated: NDArray[np.bool_]) -> dict[str, int]:
        applied = self.ledger.apply(columns)
        late = self.told.against(columns, applied.outcome, self.ledger.labels)
        if len(late):
            self.late.append(late)
        if repeated.any():
            applied = Applied(applied.outcome[~repeated])
        return applied.counts()

    def _send_away(
        self,
        kind: str,
        records: Records,
        columns: Columns,
        repeated: NDArray[np.bool_],
        where: NDArray[np.int64],
        outcomes: Counter[str],
    ) -> tuple[Columns, NDArray[np.bool_]]:
        """Forward what lives elsewhere; the rest."""
        gone = where != self.partition
        rows = np.flatnonzero(gone)
        keys = columns.text, columns.user_start[rows], columns.user_size[rows]
        self.forwards.add_events(kind, records, columns.source[rows], where[rows], keys)
        ids = int((gone & repeated).sum())
        self.forwarded["identity"] += ids
        self.forwarded["misrouted"] += len(rows) - ids
        outcomes["forwarded"] += len(rows) - ids
        return columns.select(np.flatnonzero(~gone)), repeated[~gone]

    def _redirect(
        self,
        kind: str,
        records: Records,
        columns: Columns,
        repeated: NDArray[np.bool_],
        outcomes: Counter[str],
    ) -> tuple[Columns, NDArray[np.bool_]]:
        """Forward the events of ids that have become others; the rest.

        Links and erasures stay: they are about the id itself.
        """
        kept = np.ones(len(columns), np.bool_)
        for i, link in self.gate.redirects.hits(columns):
            if int(columns.what[i]) & _WHAT in (_LINK, _ERASE):
                continue
            kept[i] = False
            self._send_event(kind, records, int(columns.source[i]), link.to)
            self.forwarded["redirect"] += 1
            outcomes["forwarded"] += not repeated[i]
        return columns.select(np.flatnonzero(kept)), repeated[kept]

    def _send_event(self, kind: str, records: Records, source: int, key: bytes) -> None:
        text = np.frombuffer(key, np.uint8)
        self.forwards.add_events(
            kind,
            records,
            np.array([source]),
            np.array([partition_of(key, self.partitions)]),
            (text, np.zeros(1, np.int64), np.array([len(key)])),
        )

    def _send_merge(self, key: bytes, merge: Merge, timestamp: int) -> None:
        value = bytes([MERGE]) + merge.encode()
        self.forwards.add(partition_of(key, self.partitions), key, value, timestamp)
        self.forwarded["link"] += 1

    def _link(self, records: Records, columns: Columns, i: int) -> None:
        """Let an id become another: its row goes there, and so does what comes for it later."""
        source = int(columns.source[i])
        key = _key(columns, i)
        to = row_key("user", msgspec.json.decode(records.value(source) or b"")["to"]).encode()
        link = Link(int(columns.ts[i]), int(columns.event[i]), to)
        if not self.gate.redirects.follow(key, link):
            return
        name = key.decode()
        merge = Merge(
            (Step(link.ts, link.event, key),),
            tuple(sorted(self.gate.take_origins(key))),
            self.ledger.raw(name),
        )
        self._send_merge(to, merge, int(records.timestamp[source]))
        self.ledger.forget(name)

    def _erase_all(self, records: Records, columns: Columns) -> list[int]:
        """Do what erasures do beyond the row; which elements are new ones."""
        new = []
        for i in np.flatnonzero(columns.what & _WHAT == _ERASE).tolist():
            known = self.gate.erasures.erased(_key(columns, i))
            if known is None or known < int(columns.ts[i]):
                self._erase(records, columns, i)
                new.append(i)
        return new

    def _erase(self, records: Records, columns: Columns, i: int) -> None:
        """Erase an id for good, and with it the ids that became it and the one that it became."""
        key, ts = _key(columns, i), int(columns.ts[i])
        link = self.gate.redirects.get(key)
        others = sorted(self.gate.take_origins(key) | ({link.to} if link else set()))
        self.gate.redirects.forget(key)
        self.gate.erasures.erase(key, ts)
        self.erased.append(key)
        for other in others:
            self._send_erasure(other, ts, int(records.timestamp[int(columns.source[i])]))

    def _send_erasure(self, key: bytes, ts: int, timestamp: int) -> None:
        value = bytes([KINDS["controls"]]) + _control(key.decode(), ts, type="erase")
        self.forwards.add(partition_of(key, self.partitions), key, value, timestamp)
        self.forwarded["erase"] += 1


def _control(name: str, ts: int, **control: object) -> bytes:
    """The JSON of a control of our own; the same for the same id, time and control."""
    event = f"governor:{control['type']}:{ts}"
    user = name.partition("\0")[2] or name
    seconds = msgspec.Raw(seconds_text(ts).encode())
    return msgspec.json.encode({"event_id": event, "user_id": user, "ts": seconds, **control})


def _key(columns: Columns, i: int) -> bytes:
    start = int(columns.user_start[i])
    return columns.text[start : start + int(columns.user_size[i])].tobytes()


def forwarded_columns(records: Records, columns: Columns) -> Columns:
    """Forwarded events, each for the row that its record's key names, whatever ids it has."""
    columns = columns.select(np.flatnonzero(~again(columns, len(records))))
    source = columns.source
    return replace(
        columns,
        text=records.buffer,
        user_start=records.key_start[source],
        user_size=records.key_size[source],
    )
