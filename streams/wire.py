"""Kafka's record batches (format v2), read into columns and written from them.

The layout is that of `DefaultRecordBatch` and `DefaultRecord` in Kafka's Java client. Headers
of batches, one for hundreds of records, are read in Python; records in compiled loops. No Python
object stands for a record in either direction.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from google_crc32c import value as crc32c
from numpy.typing import NDArray

from governor.compiled import compiled, integer
from governor.records import Records

__all__ = ["CorruptBatch", "Frame", "PreparedBatch", "build", "parse", "seal"]

# BaseOffset, Length, LeaderEpoch, Magic, CRC, Attributes, LastOffsetDelta, BaseTimestamp,
# MaxTimestamp, ProducerId, ProducerEpoch, BaseSequence, count of records
_HEADER = struct.Struct(">qiibIhiqqqhii")
_HEADER_SIZE = 61
_LEAD = struct.Struct(">qi")  # the length counts what follows it
_CRC = struct.Struct(">I")
_MAGIC_AT = 16
_CRC_AT = 17
_SUMMED_AT = 21  # the checksum covers all from the attributes on

_CODEC = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20

_LEAST_RECORD = 7  # length, attributes, two deltas, two sizes, count of headers
_ABORT_MARKER = bytes(4)  # version 0, type 0

_CODECS = {
    1: ("gzip", gzip_decode),
    2: ("snappy", snappy_decode),
    3: ("lz4", lz4_decode),
    4: ("zstd", zstd_decode),
}

# Beyond this no sum of two timestamps could leave 64 bits; it is 140 million years from now.
_FAR = 2**62


class CorruptBatch(Exception):  # noqa: N818
    """The bytes are not a sound record batch of format v2."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A record batch whose header is still empty."""

    buffer: memoryview
    count: int
    first_timestamp: int
    max_timestamp: int


class _Head(NamedTuple):
    """A batch in a message set: what its header says, and where its records are."""

    start: int
    end: int
    records: int
    base_offset: int
    last_delta: int
    first_timestamp: int
    append_time: int
    attributes: int
    producer: int


def parse(
    message_set: bytes | memoryview,
    fetch_offset: int,
    aborted: Iterable[tuple[int, int]] | None,
    *,
    check_crcs: bool,
    committed_only: bool,
) -> tuple[Records, int]:
    """The records that one partition's part of a fetch response holds, and where to go on.

    A batch cut off at the end is normal and left for the next fetch. Records before
    `fetch_offset` (a batch is sent whole), control records and, with `committed_only`, those of
    the transactions in `aborted` (producer id, first offset) are left out. The next offset is
    behind them as well, and so behind records that compaction removed from a batch's end.

    Raises CorruptBatch.
    """
    view = memoryview(message_set)
    parts: list[Any] = [view]
    total = len(view)
    wanted: list[_Head] = []
    to_abort = sorted(aborted or (), key=lambda transaction: transaction[1], reverse=True)
    aborting: set[int] = set()
    next_offset = fetch_offset
    for head in _heads(view, check_crcs):
        # Never backwards, or one batch would be fetched for ever.
        next_offset = max(next_offset, head.base_offset + head.last_delta + 1)
        while to_abort and to_abort[-1][1] <= head.base_offset:
            aborting.add(to_abort.pop()[0])
        if head.attributes & _CONTROL:
            if _is_abort_marker(view, head):
                # Not `remove`: the marker may end a transaction without records here.
                aborting.discard(head.producer)
            continue
        if committed_only and head.attributes & _TRANSACTIONAL and head.producer in aborting:
            continue
        if head.records and head.attributes & _CODEC:
            body = _decompress(view, head)
            parts.append(body)
            head = head._replace(start=total, end=total + len(body))
            total += len(body)
        wanted.append(head)
    whole = view if len(parts) == 1 else b"".join(parts)
    return _records(np.frombuffer(whole, np.uint8), wanted, fetch_offset), next_offset


def _checksum(view: memoryview) -> int:
    # The library takes bytes, or arrays, which it need not copy.
    return int(crc32c(np.frombuffer(view, np.uint8)))


def _heads(view: memoryview, check_crcs: bool) -> Iterator[_Head]:
    """The batches that are there in full."""
    at = 0
    while len(view) - at >= _LEAD.size:
        base_offset, length = _LEAD.unpack_from(view, at)
        end = at + _LEAD.size + length
        if length <= _MAGIC_AT - _LEAD.size:
            raise CorruptBatch(f"batch at offset {base_offset}: its length is {length}")
        if end > len(view):
            return
        if (magic := view[at + _MAGIC_AT]) != 2:
            raise CorruptBatch(
                f"batch at offset {base_offset} has format {magic}, not 2: "
                "let the producers write with a client of Kafka 0.11 or newer"
            )
        if end - at < _HEADER_SIZE:
            raise CorruptBatch(f"batch at offset {base_offset}: its length is {length}")
        (_, _, _, _, crc, attributes, last_delta, first_timestamp, max_timestamp, producer, _, _,
         count) = _HEADER.unpack_from(view, at)  # fmt: skip
        if check_crcs and _checksum(view[at + _SUMMED_AT : end]) != crc:
            raise CorruptBatch(f"batch at offset {base_offset}: its checksum is wrong")
        if not (0 <= base_offset < _FAR and last_delta >= 0 and count >= 0) or not (
            -_FAR < first_timestamp < _FAR
        ):
            raise CorruptBatch(f"batch at offset {base_offset}: its header makes no sense")
        # Where the broker stamps, one time holds for the whole batch.
        append_time = max_timestamp if attributes & _LOG_APPEND_TIME else -_FAR
        yield _Head(
            at + _HEADER_SIZE,
            end,
            count,
            base_offset,
            last_delta,
            first_timestamp,
            append_time,
            attributes,
            producer,
        )
        at = end


def _decompress(view: memoryview, head: _Head) -> bytes:
    codec = head.attributes & _CODEC
    if codec not in _CODECS:
        raise CorruptBatch(f"batch at offset {head.base_offset}: there is no compression {codec}")
    name, decode = _CODECS[codec]
    try:
        return bytes(decode(view[head.start : head.end].tobytes()))
    except NotImplementedError:
        raise RuntimeError(
            f"batch at offset {head.base_offset} is compressed with {name}: "
            "install the package cramjam"
        ) from None
    except Exception as cause:  # every codec has errors of its own
        raise CorruptBatch(
            f"batch at offset {head.base_offset} cannot be decompressed ({name}): {cause}"
        ) from cause


def _is_abort_marker(view: memoryview, head: _Head) -> bool:
    records = _records(np.frombuffer(view, np.uint8), [head], 0)
    return len(records) > 0 and records.key(0) == _ABORT_MARKER


def _records(buffer: NDArray[np.uint8], heads: list[_Head], fetch_offset: int) -> Records:
    for head in heads:
        if head.records > (head.end - head.start) // _LEAST_RECORD:
            raise CorruptBatch(
                f"batch at offset {head.base_offset}: too short for {head.records} records"
            )
    columns = np.empty((6, sum(head.records for head in heads)), np.int64)
    spans = np.array([head[:7] for head in heads], np.int64).reshape(len(heads), 7)
    rows, bad = _read(buffer, spans, fetch_offset, *columns)
    if bad >= 0:
        raise CorruptBatch(f"batch at offset {heads[bad].base_offset}: a record in it is malformed")
    return Records(buffer, *columns[:, :rows])


@compiled
def _varint(buffer: NDArray[np.uint8], at: int, end: int) -> tuple[int, int]:
    """The zigzag number at `at` and the place behind it, which is -1 if it is not sound."""
    bits = np.int64(0)
    shift = 0
    while at < end and shift < 70:
        byte = np.int64(buffer[at])
        at += 1
        if shift < 63:
            bits |= (byte & 0x7F) << shift
        elif byte & 1:  # of the tenth byte one bit is left
            bits |= np.int64(-(2**63))
        if byte < 0x80:
            return integer(((bits >> 1) & 0x7FFFFFFFFFFFFFFF) ^ -(bits & 1)), at
        shift += 7
    return integer(0), -1


@compiled
def _skip_headers(buffer: NDArray[np.uint8], at: int, end: int) -> int:
    """The place behind a record's headers, -1 if they do not end where the record does."""
    count, at = _varint(buffer, at, end)
    if at < 0 or count < 0:
        return -1
    while count > 0:
        size, at = _varint(buffer, at, end)
        if at < 0 or size < 0 or size > end - at:
            return -1
        size, at = _varint(buffer, at + size, end)
        if at < 0 or size < -1 or size > end - at:
            return -1
        if size > 0:
            at += size
        count -= 1
    return at if at == end else -1


@compiled
def _read(
    buffer: NDArray[np.uint8],
    spans: NDArray[np.int64],
    fetch_offset: int,
    offset: NDArray[np.int64],
    timestamp: NDArray[np.int64],
    key_start: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_start: NDArray[np.int64],
    value_size: NDArray[np.int64],
) -> tuple[int, int]:
    """Fill the columns; the number of rows and the first bad span, -1 when all are sound."""
    row = 0
    for i in range(len(spans)):
        at, end, count, base_offset, last_delta, first_timestamp, append_time = spans[i]
        for _ in range(count):
            length, at = _varint(buffer, at, end)
            if at < 0 or length < 1 or length > end - at:
                return row, i
            stop = at + length
            timestamp_delta, at = _varint(buffer, at + 1, stop)  # 1: attributes, unused
            if at < 0 or not -_FAR < timestamp_delta < _FAR:
                return row, i
            offset_delta, at = _varint(buffer, at, stop)
            if at < 0 or offset_delta < 0 or offset_delta > last_delta:
                return row, i
            key, at = _varint(buffer, at, stop)
            if at < 0 or key < -1 or key > stop - at:
                return row, i
            key_at = at
            value, at = _varint(buffer, at + max(key, 0), stop)
            if at < 0 or value < -1 or value > stop - at:
                return row, i
            value_at = at
            at = _skip_headers(buffer, at + max(value, 0), stop)
            if at < 0:
                return row, i
            if base_offset + offset_delta >= fetch_offset:
                offset[row] = base_offset + offset_delta
                if append_time > -_FAR:
                    timestamp[row] = append_time
                else:
                    timestamp[row] = first_timestamp + timestamp_delta
                key_start[row] = key_at
                key_size[row] = key
                value_start[row] = value_at
                value_size[row] = value
                row += 1
        if at != end:
            return row, i
    return row, -1


def build(*parts: Records, max_bytes: int) -> Iterator[Frame]:
    """Frame records, in order and those of one part after those of the one before, as uncompressed
    batches of at most `max_bytes` with the header, each when it is asked for. There is one part at
    least.

    A record that is larger alone gets a batch of its own, which the broker may refuse.
    """
    begins = np.cumsum([0, *map(len, parts)]).tolist()
    timestamp, key_size, value_size = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("timestamp", "key_size", "value_size")
    )
    cuts = np.empty(begins[-1] + 1, np.int64)
    sizes = np.empty(begins[-1], np.int64)
    count = _cut(timestamp, key_size, value_size, max_bytes, cuts, sizes)
    for i in range(count):
        first, last = int(cuts[i]), int(cuts[i + 1])
        begun = int(timestamp[first])
        out, at = np.empty(int(sizes[i]), np.uint8), _HEADER_SIZE
        out[:at] = 0
        for part, begin in zip(parts, begins, strict=False):
            lowest, highest = max(first - begin, 0), min(last - begin, len(part))
            if lowest < highest:
                at = _write(
                    part.buffer,
                    part.timestamp,
                    part.key_start,
                    part.key_size,
                    part.value_start,
                    part.value_size,
                    lowest,
                    highest,
                    begun,
                    begin - first,
                    out,
                    at,
                )
        yield Frame(out.data, last - first, begun, int(timestamp[first:last].max()))


@compiled
def _varint_size(number: int) -> int:
    bits = (number << 1) ^ (number >> 63)
    size = 1
    bits = (bits >> 7) & 0x01FFFFFFFFFFFFFF  # the first shift fills with zeros
    while bits:
        bits >>= 7
        size += 1
    return size


@compiled
def _put_varint(out: NDArray[np.uint8], at: int, number: int) -> int:
    bits = (number << 1) ^ (number >> 63)
    low = bits & 0x7F
    bits = (bits >> 7) & 0x01FFFFFFFFFFFFFF
    while bits:
        out[at] = 0x80 | low
        at += 1
        low = bits & 0x7F
        bits >>= 7
    out[at] = low
    return at + 1


@compiled
def _body_size(timestamp_delta: int, offset_delta: int, key_size: int, value_size: int) -> int:
    return (
        2  # attributes, count of headers
        + _varint_size(timestamp_delta)
        + _varint_size(offset_delta)
        + _varint_size(key_size)
        + max(key_size, 0)
        + _varint_size(value_size)
        + max(value_size, 0)
    )


@compiled
def _cut(
    timestamp: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_size: NDArray[np.int64],
    max_bytes: int,
    cuts: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> int:
    """How many batches; batch i is the rows from `cuts[i]` to `cuts[i + 1]`, `sizes[i]` bytes."""
    count = 0
    cuts[0] = 0
    first = 0
    used = _HEADER_SIZE
    for row in range(len(timestamp)):
        delta = timestamp[row] - timestamp[first]
        body = _body_size(delta, integer(row - first), key_size[row], value_size[row])
        body += _varint_size(integer(body))
        if used + body > max_bytes and row > first:
            sizes[count] = used
            count += 1
            cuts[count] = row
            first = row
            used = _HEADER_SIZE
            body = _body_size(integer(0), integer(0), key_size[row], value_size[row])
            body += _varint_size(integer(body))
        used += body
    if len(timestamp):
        sizes[count] = used
        count += 1
        cuts[count] = len(timestamp)
    return count


@compiled
def _copy(buffer: NDArray[np.uint8], start: int, size: int, out: NDArray[np.uint8], at: int) -> int:
    # Views make the loop a copy of whole words: twice as fast, and quick to compile.
    source = buffer[start : start + size]
    target = out[at : at + size]
    for i in range(size):
        target[i] = source[i]
    return at + size


@compiled
def _write(
    buffer: NDArray[np.uint8],
    timestamp: NDArray[np.int64],
    key_start: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_start: NDArray[np.int64],
    value_size: NDArray[np.int64],
    first: int,
    last: int,
    begun: int,
    shift: int,
    out: NDArray[np.uint8],
    at: int,
) -> int:
    """Write the rows from `first` to `last` to `out` from `at` on, in a batch whose first timestamp
    is `begun` and where row 0 has the place `shift`; where they end."""
    for row in range(first, last):
        timestamp_delta = timestamp[row] - begun
        offset_delta = integer(row + shift)
        key = key_size[row]
        value = value_size[row]
        at = _put_varint(out, at, integer(_body_size(timestamp_delta, offset_delta, key, value)))
        out[at] = 0  # attributes
        at = _put_varint(out, at + 1, timestamp_delta)
        at = _put_varint(out, at, offset_delta)
        at = _put_varint(out, at, key)
        at = _copy(buffer, key_start[row], max(key, 0), out, at)
        at = _put_varint(out, at, value)
        at = _copy(buffer, value_start[row], max(value, 0), out, at)
        out[at] = 0  # no headers
        at += 1
    return at


def seal(
    frame: Frame, producer_id: int, producer_epoch: int, base_sequence: int, *, attributes: int = 0
) -> memoryview:
    """Write the frame's header and checksum; the batch, ready to be sent.

    A frame may be sealed again, for another try under other conditions.
    """
    _HEADER.pack_into(
        frame.buffer,
        0,
        0,  # base offset: the broker sets it
        len(frame.buffer) - _LEAD.size,
        -1,  # leader epoch: the broker sets it
        2,
        0,  # checksum: below
        attributes,
        frame.count - 1,
        frame.first_timestamp,
        frame.max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        frame.count,
    )
    _CRC.pack_into(frame.buffer, _CRC_AT, _checksum(frame.buffer[_SUMMED_AT:]))
    return frame.buffer


class PreparedBatch:
    """A `Frame` in the place of aiokafka's BatchBuilder: give it to `producer.send_batch`.

    `transactional` must say whether the producer has a transactional id. The producer's state
    is known when its turn comes; only then are header and checksum written.
    """

    def __init__(self, frame: Frame, *, transactional: bool = False) -> None:
        self._frame = frame
        self._attributes = _TRANSACTIONAL if transactional else 0
        self._producer = (-1, -1, -1)
        self._built = False

    def append(self, **record: Any) -> None:
        """Refuse, as a full batch does: the producer opens another one for single records."""

    def close(self) -> None:
        """Nothing to do: it is closed from the start."""

    def closed(self) -> bool:
        """So that the producer does not linger for more records."""
        return True

    def size(self) -> int:
        """Bytes, with the header."""
        return len(self._frame.buffer)

    def record_count(self) -> int:
        """By how much the producer's sequence number moves."""
        return self._frame.count

    def _set_producer_state(
        self, producer_id: int, producer_epoch: int, base_sequence: int
    ) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> memoryview:
        if not self._built:
            seal(self._frame, *self._producer, attributes=self._attributes)
            self._built = True
        return self._frame.buffer
