"""Events of the past from files: JSON lines, CSV or Parquet; the one reader of such files.

`batches` gives events as they would go on topics, `tables` gives a table's events as columns. A
line of JSON, or a row, is one event. What it is of: ``topic`` says so where there is one; else a
``type`` that is a control's makes a control, ``impression`` or none an impression, any other an
engagement. `streams.mapping` says which columns hold what.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from governor.columnar import KINDS, NO_TIME, Table, Texts
from governor.consent import from_text as consent_of
from governor.entries import CONTROL, ENGAGEMENT, EXPOSURE
from governor.events import CONTROL_TYPES
from governor.records import Records
from governor.ticks import SECOND, from_seconds
from streams.mapping import LABELS, TIMES, Mapped, Source
from streams.topics import EVENT_TOPICS

__all__ = ["Batch", "HistoryError", "Part", "batches", "filed", "is_table", "tables"]

BATCH = 5_000
ROWS = 131_072
"""Rows of a table at a time."""

LONG_AGO = -1
"""A record's timestamp that judges no event's time: there was no broker."""

_TABLES: Final = {".parquet": "", ".pq": "", ".csv": ",", ".tsv": "\t"}
_TRUE: Final = frozenset({"1", "true", "t", "yes", "y", "1.0"})


class HistoryError(Exception):
    """A file that cannot be read as events; says what to do."""


class _Head(msgspec.Struct):
    user_id: str = ""
    topic: str | None = None
    type: str | None = None


_head = msgspec.json.Decoder(_Head).decode

Batch = tuple[str, Records]
"""A topic without prefix, and events for it keyed by their users."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a table."""

    rows: int
    tables: Sequence[Table]
    others: Sequence[Batch]
    """Controls."""
    skipped: int = 0
    """Rows with too few or too many columns before these."""


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table: CSV or Parquet, the former perhaps gzipped."""
    return _format(path) in _TABLES


def _format(path: Path) -> str:
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def batches(path: Path, mapping: Mapped | None = None) -> Iterator[Batch]:
    """The events of a file in its order, as far as topics can be told apart.

    A line that is no event of any topic is given as an impression, and so becomes a dead letter.
    """
    waiting: dict[str, list[tuple[bytes, bytes, int]]] = {}
    for line in _events(path, mapping or Mapped()):
        topic, key = filed(line)
        some = waiting.setdefault(topic, [])
        some.append((key, line, LONG_AGO))
        if len(some) == BATCH:
            yield topic, Records.of(waiting.pop(topic))
    for topic, some in waiting.items():
        yield topic, Records.of(some)


def filed(line: bytes) -> tuple[str, bytes]:
    """The topic of an event and its key."""
    try:
        head = _head(line)
    except msgspec.MsgspecError:
        return "impressions", b""
    key = head.user_id.encode()
    if head.topic in EVENT_TOPICS:
        return head.topic, key
    return _topic_of(head.type), key


def _topic_of(sort: str | None) -> str:
    if not sort or sort in KINDS:
        return "impressions"
    return "controls" if sort in CONTROL_TYPES else "engagements"


def _events(path: Path, mapping: Mapped) -> Iterator[bytes]:
    if is_table(path):
        number = 0
        for batch, sources, _ in _rows(path, mapping):
            for i, row in enumerate(batch.to_pylist()):
                for event in _as_events(row, sources, f"{path.name}-{number + i}"):
                    yield msgspec.json.encode(event)
            number += batch.num_rows
        return
    for line in _lines(path):
        yield _renamed(line, mapping) if mapping.sources else line


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield line.strip()
    except (OSError, EOFError) as error:
        raise HistoryError(f"{path}: {error}") from error


def _renamed(line: bytes, mapping: Mapped) -> bytes:
    """A line of JSON with the fields that the mapping names."""
    try:
        row = msgspec.json.decode(line)
    except msgspec.MsgspecError:
        return line
    if not isinstance(row, dict):
        return line
    event = {name: value for name, value in row.items() if name not in mapping.sources}
    for name, source in mapping.sources.items():
        values = [row.get(column) for column in source.columns]
        if not all(value is None for value in values):
            _put(event, name, _value(name, values, source))
    return msgspec.json.encode(event)


# --- Tables as events in JSON ---------------------------------------------------------------------


def _as_events(
    row: Mapping[str, Any], sources: Mapping[str, Source], number: str
) -> Iterator[dict[str, Any]]:
    """The events of one row: an impression with a click is two."""
    event: dict[str, Any] = {}
    for name, source in sources.items():
        values = [row[column] for column in source.columns]
        if not all(value is None or value == "" for value in values):
            _put(event, name, _value(name, values, source))
    clicked, at = event.pop("click", None), event.pop("click_ts", None)
    event.setdefault("event_id", number)
    for flag in ("retargeting", "measurable", "invalid"):
        if flag in event:
            event[flag] = _true(event[flag])
    if event.get("type") in KINDS and event.get("topic", "impressions") == "impressions":
        event.pop("type", None)
    yield event
    if at is not None or (clicked is not None and _true(clicked)):
        if "impression_id" not in event:
            event["impression_id"] = event["event_id"]
        yield {
            "topic": "engagements",
            "event_id": f"{event['event_id']}-click",
            "user_id": event.get("user_id"),
            "ts": event.get("ts") if at is None else at,
            "type": "click",
            "impression_id": event["impression_id"],
        }


def _put(event: dict[str, Any], name: str, value: object) -> None:
    group, dot, key = name.partition(".")
    if dot:
        event.setdefault(group, {})[key] = value
    else:
        event[name] = value


def _value(name: str, values: Sequence[Any], source: Source) -> object:
    if name in ("ts", "click_ts"):
        return _seconds(values[0], source.unit)
    if len(values) > 1:
        return "-".join("" if value is None else str(value) for value in values)
    value = values[0]
    if name == "consent" and isinstance(value, (bool, int, str)):
        return consent_of(str(value)) if value != "" else None
    if isinstance(value, bool) or value is None or name in ("consent", "labels", "ids"):
        return value
    return str(value)


def _seconds(value: object, unit: str | None) -> object:
    """A time in epoch seconds; as it is where it is none."""
    if isinstance(value, str):
        ticks = _ticks_of(value, unit)
        return value if ticks == NO_TIME else ticks / SECOND
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value * TIMES[unit or "s"]
    return value


def _true(value: object) -> bool:
    return value is True or str(value).lower() in _TRUE


# --- Tables as columns ----------------------------------------------------------------------------


def tables(
    path: Path, mapping: Mapped | None = None, *, engagements: bool = False, number: int = 0
) -> Iterator[Part]:
    """The events of a CSV or Parquet file as columns.

    Args:
        engagements: whether rows without a type are clicks rather than impressions.
        number: of the file among those that are read together; tells rows of two files apart.

    Raises:
        HistoryError: it cannot be read.
        MappingError: its columns are others than those that are mapped or needed.
    """
    row = number << 40
    for batch, sources, skipped in _rows(path, mapping or Mapped(), engagements):
        yield _part(batch, sources, engagements, row, skipped)
        row += batch.num_rows


def _rows(
    path: Path, mapping: Mapped, engagements: bool = False
) -> Iterator[tuple[Any, dict[str, Source], int]]:
    """Record batches with the columns that are mapped; the sources; rows that were skipped."""
    needed = ("user_id", "ts") if engagements else ("user_id", "ts", "campaign_id")
    try:
        if _format(path) in (".parquet", ".pq"):
            file = parquet.ParquetFile(path, pre_buffer=True)
            schema = file.schema_arrow
            sources = mapping.fit(schema.names, _wanted(needed, schema.names, mapping), str(path))
            columns = _columns_of(sources)
            texts = [
                name
                for field_name, source in sources.items()
                if field_name in LABELS or field_name in ("type", "topic", "kind", "tz", "consent")
                for name in source.columns
                if pa.types.is_string(schema.field(name).type)
            ]
            file = parquet.ParquetFile(path, read_dictionary=texts, pre_buffer=True)
            for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                yield batch, sources, 0
            return
        yield from _csv(path, mapping, needed)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise HistoryError(f"{path}: cannot be read: {error}") from error


def _wanted(needed: Sequence[str], columns: Sequence[str], mapping: Mapped) -> list[str]:
    """What must be there: a log that has a type may have rows without a campaign."""
    mixed = {"type", "topic"} & (set(columns) | set(mapping.sources))
    return [name for name in needed if not (mixed and name == "campaign_id")]


def _columns_of(sources: Mapping[str, Source]) -> list[str]:
    return list(dict.fromkeys(one for source in sources.values() for one in source.columns))


@dataclass
class _Skipped:
    """Counts rows of a CSV file that have too few or too many columns."""

    count: int = 0

    def __call__(self, _row: object) -> str:
        self.count += 1
        return "skip"

    def taken(self) -> int:
        count, self.count = self.count, 0
        return count


def _csv(
    path: Path, mapping: Mapped, needed: Sequence[str]
) -> Iterator[tuple[Any, dict[str, Source], int]]:
    """All columns as texts: what a type is guessed from at the top may not hold further down."""
    parse = csv.ParseOptions(delimiter=_TABLES[_format(path)])
    with pa.input_stream(path, compression="detect") as head:
        first = head.read(1 << 16).split(b"\n", 1)[0]
    if not first.strip():
        raise HistoryError(f"{path}: is empty: its first line must name the columns")
    names = csv.read_csv(pa.BufferReader(first + b"\n"), parse_options=parse).column_names
    sources = mapping.fit(names, _wanted(needed, names, mapping), str(path))
    columns = _columns_of(sources)
    skipped = _Skipped()
    parse.invalid_row_handler = skipped
    with pa.input_stream(path, compression="detect") as stream:
        reader = csv.open_csv(
            stream,
            read_options=csv.ReadOptions(block_size=1 << 23),
            parse_options=parse,
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=columns,
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        for batch in reader:
            yield batch, sources, skipped.taken()


@dataclass
class _Columns:
    """The fields of a record batch."""

    batch: Any
    sources: Mapping[str, Source]
    known: dict[str, Texts] = field(default_factory=dict)
    times: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.sources

    def arrow(self, name: str) -> Any:
        """A field as one Arrow array."""
        columns = [self.batch.column(one) for one in self.sources[name].columns]
        if len(columns) == 1:
            return columns[0]
        texts = [_as_text(column).fill_null("") for column in columns]
        return pc.binary_join_element_wise(*texts, "-")

    def texts(self, name: str) -> Texts:
        """A field as texts."""
        if name not in self.known:
            self.known[name] = _texts(self.arrow(name))
        return self.known[name]

    def ticks(self, name: str) -> NDArray[np.int64]:
        """A field as times."""
        if name not in self.times:
            self.times[name] = _ticks(self.arrow(name), self.sources[name].unit)
        return self.times[name]

    def flag(self, name: str, otherwise: bool) -> NDArray[np.bool_]:
        """A field as yes or no."""
        array = self.arrow(name)
        if pa.types.is_boolean(array.type):
            return np.asarray(array.fill_null(otherwise))
        names, codes = _texts(array).distinct()
        meant = [otherwise if not text else text.lower() in _TRUE for text in names]
        return np.array(meant, np.bool_)[codes]


def _part(
    batch: Any, sources: Mapping[str, Source], engagements: bool, row: int, skipped: int
) -> Part:
    columns = _Columns(batch, sources)
    kind = _kinds(columns, ENGAGEMENT if engagements else EXPOSURE)
    found = []
    for one in (EXPOSURE, ENGAGEMENT):
        rows = np.flatnonzero(kind == one)
        if len(rows):
            found.append(_table(columns, one, None if len(rows) == len(kind) else rows, row))
    clicked = _clicked(columns, kind)
    if clicked is not None:
        rows, at = clicked
        if len(rows):
            found.append(_clicks(columns, rows, at, row))
    said = np.flatnonzero(kind == CONTROL)
    others: list[Batch] = []
    if len(said):
        lines = [
            msgspec.json.encode(event)
            for i, one in zip(said.tolist(), batch.take(pa.array(said)).to_pylist(), strict=True)
            for event in _as_events(one, sources, str(row + i))
        ]
        others.append(("controls", Records.of((b"", line, LONG_AGO) for line in lines)))
    return Part(batch.num_rows, found, others, skipped)


_TOPICS: Final = {"impressions": EXPOSURE, "engagements": ENGAGEMENT, "controls": CONTROL}


def _kinds(columns: _Columns, otherwise: int) -> NDArray[np.int64]:
    kind = np.full(columns.batch.num_rows, otherwise, np.int64)
    if "type" in columns:
        names, codes = columns.texts("type").distinct()
        of = [_TOPICS[_topic_of(name)] if name else otherwise for name in names]
        kind = np.array(of, np.int64)[codes]
    if "topic" in columns:
        names, codes = columns.texts("topic").distinct()
        told = np.array([_TOPICS.get(name or "", -1) for name in names], np.int64)[codes]
        kind = np.where(told >= 0, told, kind)
    return kind


def _clicked(
    columns: _Columns, kind: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None] | None:
    """Which impressions were clicked, by a column of their own, and when if it says so."""
    if "click_ts" in columns:
        at = columns.ticks("click_ts")
        rows = np.flatnonzero((kind == EXPOSURE) & (at != NO_TIME))
        return rows, at[rows]
    if "click" in columns:
        return np.flatnonzero((kind == EXPOSURE) & columns.flag("click", False)), None
    return None


def _table(
    columns: _Columns, kind: int, rows: NDArray[np.int64] | None, number: int, plain: bool = False
) -> Table:
    def texts(name: str) -> Texts:
        found = columns.texts(name)
        return found if rows is None else found.select(rows)

    every = np.arange(columns.batch.num_rows) if rows is None else rows
    names = ["event_id", "impression_id", "tz"]
    names += [] if plain else ["consent", "kind" if kind == EXPOSURE else "type"]
    own = "kind" if kind == EXPOSURE and "kind" not in columns and "type" in columns else ""
    found = {name: texts(name) for name in names if name in columns}
    if own:
        found["kind"] = texts("type")
    ts = columns.ticks("ts")
    flags = {"retargeting": False, "measurable": True, "invalid": False}
    custom = {name[7:]: name for name in columns.sources if name.startswith("labels.")}
    return Table(
        kind=kind,
        user_id=texts("user_id"),
        ts=ts if rows is None else ts[rows],
        number=every.astype(np.uint64) + np.uint64(number),
        texts=found,
        labels={
            dimension: texts(name)
            for name, dimension in {**LABELS, **{v: k for k, v in custom.items()}}.items()
            if name in columns and not plain
        },
        flags={
            name: columns.flag(name, usual)[every]
            for name, usual in flags.items()
            if name in columns and not plain
        },
        ids={name[4:]: texts(name) for name in columns.sources if name.startswith("ids.")},
    )


def _clicks(
    columns: _Columns, rows: NDArray[np.int64], at: NDArray[np.int64] | None, number: int
) -> Table:
    """The clicks that impressions tell of themselves."""
    table = _table(columns, ENGAGEMENT, rows, number, plain=True)
    return Table(
        table.kind, table.user_id, table.ts if at is None else at, table.number, table.texts,
        {}, {}, table.ids, of_exposures=True,
    )  # fmt: skip


# --- Arrow's arrays as NumPy's --------------------------------------------------------------------


def _as_text(array: Any) -> Any:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def _texts(array: Any) -> Texts:
    """Texts of an array, without copying them."""
    if pa.types.is_dictionary(array.type):
        known = _texts(array.dictionary)
        codes = np.asarray(array.indices.fill_null(-1)).astype(np.int64)
        return Texts(known.text, known.start, known.size, codes)
    array = _as_text(array)
    n = len(array)
    _, offsets, data = array.buffers()
    text = np.frombuffer(data if data is not None and data.size else b" ", np.uint8)
    if offsets is None:
        return Texts(text, np.zeros(n, np.int64), np.full(n, -1, np.int64))
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + n + 1].astype(np.int64)
    size = np.diff(ends)
    if array.null_count:
        size[np.asarray(array.is_null())] = -1
    return Texts(text, ends[:-1], size)


def _ticks(array: Any, unit: str | None) -> NDArray[np.int64]:
    """Times in ticks, `NO_TIME` where there is none that can be read."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    sort = array.type
    if pa.types.is_string(sort) or pa.types.is_large_string(sort):
        return _read_times(array, unit)
    if pa.types.is_date(sort):
        array, sort = array.cast(pa.timestamp("us")), pa.timestamp("us")
    if pa.types.is_timestamp(sort):
        array = array.cast(pa.timestamp("us", sort.tz), safe=False).cast(pa.int64())
        return np.asarray(array.fill_null(NO_TIME))
    try:
        numbers = np.asarray(array.cast(pa.float64(), safe=False).fill_null(np.nan))
    except pa.ArrowException as error:
        raise HistoryError(f"a column of {sort} is no time: {error}") from None
    return _scaled(numbers, unit)


def _scaled(numbers: NDArray[np.float64], unit: str | None) -> NDArray[np.int64]:
    scaled = numbers * (TIMES[unit or "s"] * SECOND)
    scaled[~np.isfinite(scaled)] = NO_TIME
    return np.rint(np.clip(scaled, NO_TIME, -NO_TIME)).astype(np.int64)


def _read_times(array: Any, unit: str | None) -> NDArray[np.int64]:
    """Times that are written out: as numbers, or as ISO has it, without a zone in UTC."""
    for sort in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return _ticks(array.cast(sort), unit)
        except pa.ArrowException:
            continue
    return np.array([_ticks_of(text, unit) for text in array.to_pylist()], np.int64)


def _ticks_of(text: str | None, unit: str | None) -> int:
    if not text:
        return NO_TIME
    try:
        return int(_scaled(np.array([float(text)]), unit)[0])
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return NO_TIME
    return from_seconds((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
