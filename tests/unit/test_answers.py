"""What is read in pieces is what asyncio's own reader reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.answers import LARGE, Reader

SIZES = st.lists(
    st.one_of(st.integers(0, 9), st.integers(LARGE - 3, LARGE + 3), st.integers(0, 5 * LARGE)),
    max_size=6,
)


class Transport:
    """Has who feeds wait while reading is paused."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()

    def pause_reading(self) -> None:
        self.reads.clear()

    def resume_reading(self) -> None:
        self.reads.set()


def streamed(length: int) -> bytes:
    return (bytes(i * 7 % 251 for i in range(251)) * (length // 251 + 1))[:length]


async def read(
    kind: type[asyncio.StreamReader], data: bytes, cuts: Sequence[int], sizes: Sequence[int]
) -> tuple[list[bytes], bytes | None]:
    """What reads of these sizes get of data that comes cut into pieces; what the last one missed
    it with, if the data ended before."""
    reader, transport = kind(limit=LARGE), Transport()
    reader.set_transport(transport)  # type: ignore[arg-type]

    async def feed() -> None:
        places = [0, *sorted(cuts), len(data)]
        for begin, end in pairwise(places):
            await transport.reads.wait()
            if begin < end:
                reader.feed_data(data[begin:end])
            if begin % 2:
                await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.ensure_future(feed())
    found: list[bytes] = []
    try:
        for size in sizes:
            found.append(await reader.readexactly(size))  # noqa: PERF401 - what it has got counts
    except asyncio.IncompleteReadError as error:
        return found, error.partial
    finally:
        feeding.cancel()
    return found, None


@given(SIZES, st.lists(st.integers(0, 12 * LARGE), max_size=12), st.integers(-LARGE, LARGE))
def test_reads_what_asyncio_reads(sizes: list[int], cuts: list[int], more: int) -> None:
    data = streamed(max(0, sum(sizes) + more))
    cuts = [min(cut, len(data)) for cut in cuts]
    found, missed = asyncio.run(read(Reader, data, cuts, sizes))
    assert (found, missed) == asyncio.run(read(asyncio.StreamReader, data, cuts, sizes))
    assert data.startswith(b"".join([*found, missed or b""]))


def test_wakes_nobody_before_all_is_there() -> None:
    async def scenario() -> None:
        reader = Reader()
        reading = asyncio.ensure_future(reader.readexactly(3 * LARGE))
        await asyncio.sleep(0)
        waiter = reader._waiter  # type: ignore[attr-defined]
        for _ in range(2):
            reader.feed_data(bytes(LARGE))
            await asyncio.sleep(0)
            assert reader._waiter is waiter  # type: ignore[attr-defined]
            assert not waiter.done()
        reader.feed_data(bytes(LARGE + 5))
        assert await reading == bytes(3 * LARGE)
        assert await reader.readexactly(5) == bytes(5)

    asyncio.run(scenario())


def test_takes_the_place_of_a_reader_that_somebody_waits_for() -> None:
    async def scenario() -> None:
        reader = asyncio.StreamReader()
        reading = asyncio.ensure_future(reader.readexactly(4))
        await asyncio.sleep(0)
        reader.__class__ = Reader
        sent = streamed(4 + 2 * LARGE)
        reader.feed_data(sent[:9])
        assert await reading == sent[:4]
        large = asyncio.ensure_future(reader.readexactly(2 * LARGE))
        await asyncio.sleep(0)
        reader.feed_data(sent[9:])
        assert await large == sent[4:]

    asyncio.run(scenario())


def _broken(reader: asyncio.StreamReader) -> None:
    reader.set_exception(ConnectionResetError("gone"))


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (_broken, ConnectionResetError),
        (asyncio.StreamReader.feed_eof, asyncio.IncompleteReadError),
    ],
)
def test_a_connection_that_ends_ends_the_read(
    end: Callable[[asyncio.StreamReader], None], expected: type[Exception]
) -> None:
    async def scenario() -> None:
        reader = Reader()
        reading = asyncio.ensure_future(reader.readexactly(3 * LARGE))
        await asyncio.sleep(0)
        reader.feed_data(bytes(LARGE))
        end(reader)
        with pytest.raises(expected):
            await reading
        with pytest.raises(expected):
            await reader.readexactly(2 * LARGE)

    asyncio.run(scenario())
