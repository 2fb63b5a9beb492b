"""Large arrays grow in place, and take what was written to them."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from governor import memory


@pytest.mark.parametrize("rows", [10, 100_000, 1_000_000])
def test_a_longer_array_holds_what_it_held_and_zeros(rows: int) -> None:
    array = memory.zeros((rows, 3), np.uint64)
    assert not array.any()
    array[:] = np.arange(3 * rows, dtype=np.uint64).reshape(rows, 3)
    for _ in range(12):
        array = memory.longer(array, len(array) * 3 // 2)
    assert array.shape[1:] == (3,)
    assert array.flags.c_contiguous
    assert np.array_equal(array[:rows].reshape(-1), np.arange(3 * rows, dtype=np.uint64))
    assert not array[rows:].any()


def test_growing_in_place_copies_nothing() -> None:
    array = memory.zeros((200_000,), np.int64)
    longer = memory.longer(array, 400_000)
    longer[0] = 7
    assert array[0] == 7


def test_room_to_grow_takes_no_memory_and_what_is_let_go_goes_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    arrays = [memory.zeros((64 << 20,), np.uint8) for _ in range(4)]
    for array in arrays:
        array[: 4 << 20] = 1
    taken = process.memory_info().rss - before
    assert taken < 32 << 20
    del arrays, array
    assert process.memory_info().rss - before < taken / 2


def test_where_address_space_is_short_an_array_has_no_room_to_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is copied then."""
    monkeypatch.setattr(memory, "ROOM", 1 << 30)
    array = memory.zeros((1 << 18,), np.int64)
    array[:] = 5
    longer = memory.longer(array, 1 << 19)
    assert longer[: 1 << 18].all()
    assert not longer[1 << 18 :].any()


def test_an_array_that_becomes_large_is_put_together_once_and_holds_what_it_held() -> None:
    array = memory.zeros((memory.HUGE_FROM // 16,), np.int64)
    array[:] = np.arange(len(array))
    assert not memory.put_together(array)
    longer = memory.longer(array, 3 * len(array))
    assert memory.put_together(longer)
    assert not memory.put_together(longer)
    assert np.array_equal(longer[: len(array)], np.arange(len(array)))
    assert not longer[len(array) :].any()
    assert not memory.put_together(memory.zeros((memory.HUGE_FROM,), np.uint8))
    assert not memory.put_together(np.zeros(3))


@pytest.mark.parametrize("rows", [10, 300_000, 1_000_000])
def test_a_shorter_array_gives_back_memory_and_grows_again_with_zeros(rows: int) -> None:
    process = psutil.Process()
    array = memory.zeros((rows, 3), np.uint64)
    array[:] = 7
    full = process.memory_info().rss
    array = memory.shorter(array, rows // 10 + 1)
    let_go = full - process.memory_info().rss
    if rows > 10:
        assert let_go > 5 * array.nbytes
    assert len(array) == rows // 10 + 1
    assert len(memory.shorter(array, rows)) == len(array)
    assert (array == 7).all()
    longer = memory.longer(array, rows)
    assert (longer[: rows // 10 + 1] == 7).all()
    assert not longer[rows // 10 + 1 :].any()
