"""A log for ``governor replay``, from files or from topics of Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from governor.columnar import Decoder
from governor.events import (
    Columns,
    Limits,
    Reason,
    Rejected,
    decode_controls,
    decode_engagements,
    decode_impressions,
)
from governor.labels import Labels
from governor.policy import load as load_policy
from governor.records import Records
from governor.replay.log import Log, Logbook
from governor.rules import compile_rules
from governor.scopes import Scopes
from streams.history import Batch, HistoryError, batches, is_table, tables
from streams.mapping import Mapped

__all__ = ["Loaded", "Loader", "Source", "rows_of"]

DECODERS: Final = {
    "impressions": decode_impressions,
    "engagements": decode_engagements,
    "controls": decode_controls,
}
_UNLIMITED: Final = Limits(max_age=1 << 62, max_future=1 << 62)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a log."""

    path: Path
    mapping: Mapped = field(default_factory=Mapped)
    engagements: bool = False
    """Whether what has no type is a click, not an impression."""


@dataclass(slots=True)
class Loaded:
    """How much was read, and what could not be."""

    rows: int = 0
    refused: dict[tuple[Reason, str], int] = field(default_factory=dict)
    example: dict[tuple[Reason, str], str] = field(default_factory=dict)
    """Where the first such row or line was."""

    @property
    def bad(self) -> int:
        """Rows that are no events."""
        return sum(self.refused.values())

    def refuse(self, reason: Reason, detail: str, count: int, where: str) -> None:
        """Count what is no event."""
        key = (reason, detail)
        self.refused[key] = self.refused.get(key, 0) + count
        self.example.setdefault(key, where)

    def said(self) -> list[str]:
        """A sentence for each reason."""
        return [
            f"{count:,} row{'s' if count > 1 else ''} left out ({reason}): {detail}, first "
            f"{self.example[reason, detail]}"
            for (reason, detail), count in sorted(self.refused.items(), key=lambda item: -item[1])
        ]


class Loader:
    """Reads parts of a log, in any order, and makes one of them.

    Args:
        tell: is called with the rows read so far, now and then.
    """

    def __init__(self, tell: Callable[[int], None] | None = None) -> None:
        policy = load_policy("rules: [{name: any, cap: 1, per: user, window: 1h}]")
        self._book = Logbook(Labels(Scopes(compile_rules(policy, horizon=1 << 50))))
        self._decoder = Decoder(self._book.labels)
        self._tell = tell
        self._files = 0
        self.loaded = Loaded()

    def files(self, sources: Iterable[Source]) -> None:
        """Read files.

        Raises:
            HistoryError: one cannot be read.
            MappingError: one has other columns than are mapped.
        """
        for source in sources:
            if is_table(source.path):
                self._table(source)
            else:
                self._lines(source)

    def _table(self, source: Source) -> None:
        done = 0
        parts = tables(
            source.path, source.mapping, engagements=source.engagements, number=self._files
        )
        self._files += 1
        for part in parts:
            if part.skipped:
                self.loaded.refuse(
                    Reason.MALFORMED, "too few or too many columns", part.skipped,
                    f"in {source.path} near row {done + 1:,}",
                )  # fmt: skip
            for table in part.tables:
                columns, refused = self._decoder.decode(table)
                self._book.add(columns)
                for one in refused:
                    row = int(table.number[one.rows[0]] & np.uint64((1 << 40) - 1))
                    detail = one.detail
                    if one.reason == Reason.MILLISECONDS:
                        detail += ": write --map ts=COLUMN:ms (or us, ns)"
                    where = f"in {source.path}, row {row + 1:,}"
                    self.loaded.refuse(one.reason, detail, len(one.rows), where)
            for batch in part.others:
                self._records(batch, str(source.path))
            done += part.rows
            self._count(part.rows)

    def _lines(self, source: Source) -> None:
        done = 0
        for batch in batches(source.path, source.mapping):
            self._records(batch, str(source.path))
            done += len(batch[1])
            self._count(len(batch[1]))
        if not done:
            raise HistoryError(f"{source.path}: is empty: it has no event")

    async def topic(self, name: str, history: AsyncIterator[Batch]) -> None:
        """Read what comes from a topic."""
        async for batch in history:
            self._records(batch, f"topic {name}")
            self._count(len(batch[1]))

    def _records(self, batch: Batch, where: str) -> None:
        kind, records = batch
        columns, rejected = _decoded(kind, records, self._book.labels)
        self._book.add(columns)
        for one in rejected:
            value = (records.value(one.index) or b"")[:80].decode(errors="replace")
            self.loaded.refuse(one.reason, _general(one), 1, f"in {where}: {value}")

    def _count(self, rows: int) -> None:
        self.loaded.rows += rows
        if self._tell is not None:
            self._tell(self.loaded.rows)

    def closed(self) -> Log:
        """The log of all that was read."""
        return self._book.closed()


def _decoded(kind: str, records: Records, labels: Labels) -> tuple[Columns, Sequence[Rejected]]:
    return DECODERS[kind](records, labels, _UNLIMITED)


def _general(one: Rejected) -> str:
    """A detail without the numbers that make each event's its own."""
    words = one.detail.split(": ")[0] if one.reason == Reason.MILLISECONDS else one.detail
    return "".join("#" if each.isdigit() else each for each in words)


def rows_of(paths: Iterable[Path]) -> int | None:
    """How many rows files have, where they say so at no cost: if all are Parquet."""
    total = 0
    for path in paths:
        if path.suffix not in (".parquet", ".pq"):
            return None
        try:
            total += parquet.ParquetFile(path).metadata.num_rows
        except (pa.ArrowException, OSError):
            return None  # what is wrong is said when it is read
    return total
