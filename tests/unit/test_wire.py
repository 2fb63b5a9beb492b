"""Record batches read and written, against aiokafka's own code for the same format."""

import contextlib
import io
import os
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from governor.records import Records
from streams import producer as sending
from streams.producer import PiecewiseProduceRequest
from streams.wire import CorruptBatch, PreparedBatch, build, parse

NOW = 1_763_000_000_000
HEADER_SIZE = 61

Triple = tuple[bytes | None, bytes | None, int]


def batch(
    triples: list[Triple],
    *,
    base_offset: int = 0,
    codec: int = 0,
    producer: int = -1,
    transactional: bool = False,
    headers: tuple[tuple[str, bytes | None], ...] = (),
) -> bytes:
    """A batch as aiokafka writes it and the broker stores it."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 1 << 30)
    for i, (key, value, timestamp) in enumerate(triples):
        builder.append(i, timestamp, key, value, list(headers))
    return stored(builder.build(), base_offset)


def stored(data: bytes | bytearray, base_offset: int = 0, attributes: int = 0) -> bytes:
    """`data` with its base offset, further attribute bits, and a checksum that fits."""
    made = bytearray(data)
    struct.pack_into(">q", made, 0, base_offset)
    struct.pack_into(">h", made, 21, struct.unpack_from(">h", made, 21)[0] | attributes)
    struct.pack_into(">I", made, 17, calc_crc32c(bytes(made[21:])))
    return bytes(made)


def marker(kind: int, producer: int, base_offset: int) -> bytes:
    """A control batch: kind 0 aborts, 1 commits."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 1 << 20)
    builder.append(0, NOW, struct.pack(">hh", 0, kind), b"\0\0\0\0\0\0", [])
    return stored(builder.build(), base_offset, 0x20)


def read(
    data: bytes,
    fetch_offset: int = 0,
    aborted: list[tuple[int, int]] | None = None,
    committed_only: bool = True,
) -> tuple[list[tuple[int, bytes | None, bytes | None, int]], int]:
    records, next_offset = parse(
        data, fetch_offset, aborted, check_crcs=True, committed_only=committed_only
    )
    return [
        (int(records.offset[i]), records.key(i), records.value(i), int(records.timestamp[i]))
        for i in range(len(records))
    ], next_offset


def built(triples: list[Triple], max_bytes: int = 1 << 20, **state: bool) -> list[bytes]:
    frames = build(Records.of(triples), max_bytes=max_bytes)
    return [bytes(PreparedBatch(frame, **state)._build()) for frame in frames]


fields = st.one_of(st.none(), st.binary(max_size=200))
some_records = st.lists(st.tuples(fields, fields, st.integers(0, 2**50)), min_size=1, max_size=30)


@given(some_records, st.integers(0, 2**50))
def test_reads_what_aiokafka_writes(triples: list[Triple], base_offset: int) -> None:
    rows, next_offset = read(batch(triples, base_offset=base_offset), base_offset)
    assert rows == [(base_offset + i, *triple) for i, triple in enumerate(triples)]
    assert next_offset == base_offset + len(triples)


@given(some_records)
def test_aiokafka_reads_what_is_built(triples: list[Triple]) -> None:
    (data,) = built(triples)
    theirs = DefaultRecordBatch(data)
    assert theirs.validate_crc()
    assert [(r.offset, r.key, r.value, r.timestamp) for r in theirs] == [
        (i, *triple) for i, triple in enumerate(triples)
    ]


@given(some_records)
def test_builds_the_bytes_that_aiokafka_builds(triples: list[Triple]) -> None:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for i, (key, value, timestamp) in enumerate(triples):
        builder.append(i, timestamp, key, value, [])
    assert built(triples) == [bytes(builder.build())]


@given(some_records, st.integers(HEADER_SIZE, 1000))
def test_no_built_batch_is_larger_than_allowed_unless_it_is_one_record(
    triples: list[Triple], max_bytes: int
) -> None:
    found: list[Triple] = []
    for data in built(triples, max_bytes):
        theirs = [(r.key, r.value, r.timestamp) for r in DefaultRecordBatch(data)]
        assert len(data) <= max_bytes or len(theirs) == 1
        found += theirs
    assert found == triples


@given(st.lists(some_records, min_size=1, max_size=4))
def test_joined_records_are_those_of_all_parts(parts: list[list[Triple]]) -> None:
    joined = Records.joined([Records.of(part) for part in parts])
    found = [(joined.key(i), joined.value(i), int(joined.timestamp[i])) for i in range(len(joined))]
    assert found == [triple for part in parts for triple in part]


@given(st.lists(some_records, min_size=1, max_size=4), st.integers(HEADER_SIZE, 1000))
def test_builds_of_parts_what_it_builds_of_all_in_one(
    parts: list[list[Triple]], max_bytes: int
) -> None:
    whole = build(Records.of([triple for part in parts for triple in part]), max_bytes=max_bytes)
    assert list(build(*map(Records.of, parts), max_bytes=max_bytes)) == list(whole)


@pytest.mark.parametrize("least", [0, 1 << 30], ids=["in pieces", "in one"])
@pytest.mark.parametrize("version", range(8))
@given(st.dictionaries(st.text(max_size=9), st.dictionaries(st.integers(0, 99), st.binary())))
def test_a_produce_request_is_encoded_as_aiokafka_encodes_it(
    least: int, version: int, batches: dict[str, dict[int, bytes]]
) -> None:
    topics = [(topic, list(each.items())) for topic, each in batches.items()]
    ours, theirs = (
        made(transactional_id=None, required_acks=-1, timeout=8000, topics=topics)
        for made in (PiecewiseProduceRequest, ProduceRequest)
    )
    versions = {ProduceRequest.API_KEY: (0, version)}
    written = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "_LEAST_PIECE", least)
        request = b"size" + (b"header" + ours.prepare(versions).encode())
    sending._PiecewiseWriter(written).write(request)
    assert written.getvalue() == b"sizeheader" + theirs.prepare(versions).encode()
    assert len(request) == len(written.getvalue())


def test_builds_from_a_selection_of_rows() -> None:
    rows = Records.of([(b"a", b"1", NOW), (b"b", None, NOW), (b"c", b"3", NOW)])
    (frame,) = build(rows.select(np.array([2, 1])), max_bytes=1000)
    assert [r[1:3] for r in read(bytes(PreparedBatch(frame)._build()))[0]] == [
        (b"c", b"3"),
        (b"b", None),
    ]


def test_nothing_builds_nothing() -> None:
    assert built([]) == []


def test_prepared_batch_carries_the_state_of_the_producer() -> None:
    (frame,) = build(Records.of([(b"k", b"v", NOW)] * 3), max_bytes=1000)
    prepared = PreparedBatch(frame, transactional=True)
    prepared._set_producer_state(producer_id=7, producer_epoch=3, base_sequence=99)
    assert prepared.closed()
    prepared.append(timestamp=None, key=None, value=b"refused", headers=[])
    assert prepared.record_count() == 3
    data = prepared._build()
    assert prepared.size() == len(data)
    assert prepared._build() is data
    theirs = DefaultRecordBatch(bytes(data))
    assert theirs.validate_crc()
    assert (theirs.producer_id, theirs.producer_epoch, theirs.base_sequence) == (7, 3, 99)
    assert theirs.is_transactional


@pytest.mark.parametrize("codec", range(5), ids=["none", "gzip", "snappy", "lz4", "zstd"])
def test_reads_compressed_between_plain_batches(codec: int) -> None:
    triples: list[Triple] = [(b"key", b"value" * 50, NOW + i) for i in range(100)]
    data = b"".join(
        [
            batch(triples, base_offset=0),
            batch(triples, base_offset=100, codec=codec),
            batch(triples, base_offset=200),
        ]
    )
    rows, next_offset = read(data)
    assert rows == [(i, *triples[i % 100]) for i in range(300)]
    assert next_offset == 300


def test_headers_are_passed_over() -> None:
    data = batch(
        [(b"k", b"v", NOW), (b"l", b"w", NOW)],
        headers=(("trace", b"abc"), ("null", None), ("", b"")),
    )
    assert [row[1:3] for row in read(data)[0]] == [(b"k", b"v"), (b"l", b"w")]


def test_log_append_time_is_the_timestamp_of_every_record() -> None:
    data = bytearray(batch([(None, b"a", NOW), (None, b"b", NOW + 5)]))
    struct.pack_into(">q", data, 35, NOW + 1000)  # max timestamp: the broker's
    assert [row[3] for row in read(stored(data, attributes=0x08))[0]] == [NOW + 1000] * 2


def test_records_before_the_fetch_offset_are_left_out() -> None:
    data = batch([(None, b"%d" % i, NOW) for i in range(10)], base_offset=40)
    rows, next_offset = read(data, fetch_offset=47)
    assert [row[0] for row in rows] == [47, 48, 49]
    assert next_offset == 50


def test_a_partial_last_batch_is_left_for_the_next_fetch() -> None:
    whole = batch([(None, b"a", NOW)])
    partial = batch([(None, b"b", NOW)], base_offset=1)
    for cut in range(len(partial)):
        rows, next_offset = read(whole + partial[:cut])
        assert [row[2] for row in rows] == [b"a"]
        assert next_offset == 1


def test_offset_moves_behind_records_that_compaction_removed() -> None:
    data = bytearray(batch([(b"k", b"v", NOW)]))
    struct.pack_into(">i", data, 23, 9)  # last offset delta stays when records go
    assert read(stored(data, 30)) == ([(30, b"k", b"v", NOW)], 40)
    empty = bytearray(data[:HEADER_SIZE])
    struct.pack_into(">i", empty, 8, HEADER_SIZE - 12)
    struct.pack_into(">i", empty, 57, 0)  # no records
    assert read(stored(empty, 30)) == ([], 40)


def test_nothing_fetched_is_nothing_moved() -> None:
    assert read(b"", fetch_offset=5) == ([], 5)


def transactions() -> bytes:
    """Producer 1 aborts offsets 0, 3 and commits 6; producer 2 commits 1, 4."""
    return b"".join(
        [
            batch([(None, b"a", NOW)], base_offset=0, producer=1, transactional=True),
            batch([(None, b"b", NOW)], base_offset=1, producer=2, transactional=True),
            batch([(None, b"plain", NOW)], base_offset=2),
            batch([(None, b"c", NOW)], base_offset=3, producer=1, transactional=True),
            batch([(None, b"d", NOW)], base_offset=4, producer=2, transactional=True),
            marker(0, 1, 5),
            batch([(None, b"e", NOW)], base_offset=6, producer=1, transactional=True),
            marker(1, 1, 7),
            marker(1, 2, 8),
        ]
    )


def test_records_of_aborted_transactions_and_markers_are_left_out() -> None:
    rows, next_offset = read(transactions(), aborted=[(1, 0)])
    assert [(row[0], row[2]) for row in rows] == [(1, b"b"), (2, b"plain"), (4, b"d"), (6, b"e")]
    assert next_offset == 9


def test_without_committed_only_just_the_markers_are_left_out() -> None:
    rows, next_offset = read(transactions(), aborted=[(1, 0)], committed_only=False)
    assert [row[0] for row in rows] == [0, 1, 2, 3, 4, 6]
    assert next_offset == 9


def test_a_fetch_of_nothing_but_aborted_records_moves_on() -> None:
    data = batch([(None, b"a", NOW)], base_offset=7, producer=1, transactional=True)
    assert read(data + marker(0, 1, 8), 7, aborted=[(1, 7)]) == ([], 9)


def test_a_wrong_checksum_is_an_error() -> None:
    data = bytearray(batch([(b"k", b"v", NOW)], base_offset=12))
    data[-1] ^= 1
    with pytest.raises(CorruptBatch, match=r"offset 12.*checksum"):
        read(bytes(data))


@pytest.mark.parametrize("magic", [0, 1, 3])
def test_another_format_is_an_error(magic: int) -> None:
    data = bytearray(batch([(b"k", b"v", NOW)]))
    data[16] = magic
    with pytest.raises(CorruptBatch, match=f"format {magic}, not 2"):
        read(bytes(data))


@pytest.mark.parametrize("length", [-1, 0, 4, 5, 48])
def test_a_length_below_that_of_a_header_is_an_error(length: int) -> None:
    data = bytearray(batch([(b"k", b"v", NOW)]))
    struct.pack_into(">i", data, 8, length)
    with pytest.raises(CorruptBatch):
        read(bytes(data))


@pytest.mark.parametrize("count", [-1, 3, 5, 2**31 - 1])
def test_a_wrong_count_of_records_is_an_error(count: int) -> None:
    data = bytearray(batch([(b"k", b"v" * 30, NOW)] * 4))
    struct.pack_into(">i", data, 57, count)
    with pytest.raises(CorruptBatch):
        read(stored(data))


def damaged(rng: random.Random) -> bytes:
    """Sound batches of every kind with a few bytes changed, moved or cut."""
    sizes = [rng.randrange(1, 12) for _ in range(3)]
    data = bytearray()
    for size in sizes:
        triples: list[Triple] = [
            (
                rng.choice([None, b"", rng.randbytes(rng.randrange(90))]),
                rng.choice([None, b"", rng.randbytes(rng.randrange(300))]),
                NOW + rng.randrange(-1000, 1000),
            )
            for _ in range(size)
        ]
        data += batch(
            triples,
            base_offset=rng.randrange(1000),
            codec=rng.choice([0, 0, 0, 1, 2, 3, 4]),
            producer=rng.choice([-1, 1]),
            transactional=rng.random() < 0.3,
            headers=rng.choice([(), (("h", b"1"), ("i", None))]),
        )
        if rng.random() < 0.2:
            data += marker(rng.randrange(2), 1, 1000)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at : at + 10] = b"\xff" * 10
            case 3:
                del data[at : at + rng.randrange(1, 40)]
    return bytes(data)


def survives(seed: int) -> bool:
    """Whether the damaged bytes of `seed` parsed; anything but CorruptBatch is a failure."""
    rng = random.Random(seed)
    data = damaged(rng)
    try:
        records, _ = parse(
            data, rng.randrange(1000), [(1, 0)], check_crcs=False, committed_only=True
        )
    except CorruptBatch:
        return False
    size = len(records.buffer)
    for start, length in (
        (records.key_start, records.key_size),
        (records.value_start, records.value_size),
    ):
        assert (length >= -1).all()
        assert (start >= 0).all()
        assert (start + np.maximum(length, 0) <= size).all()
    return True


@given(st.integers(0, 2**64))
@settings(max_examples=3000)
def test_damaged_bytes_parse_or_are_refused(seed: int) -> None:
    survives(seed)


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(CorruptBatch):
        parse(data, 0, None, check_crcs=False, committed_only=True)


INTERPRETED = """
from tests.unit.test_wire import survives
parsed = sum(survives(seed) for seed in range(1500))
assert 100 < parsed < 1400, parsed
"""


def test_damaged_bytes_never_read_out_of_bounds() -> None:
    """Interpreted, so that an index out of bounds raises instead of reading what is there."""
    ended = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-c",
            INTERPRETED,
        ],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
