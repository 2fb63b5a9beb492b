"""Words in bytes, compiled and not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.words import put_word, word_at


@compiled
def _moved(source: NDArray[np.uint8], first: int, target: NDArray[np.uint8], at: int) -> np.uint64:
    word = word_at(source, first)
    put_word(target, at, word)
    return word


BYTES = np.arange(0xF0, 0xF0 + 16, dtype=np.uint16).astype(np.uint8)  # both halves of the sign


@pytest.mark.parametrize("move", [_moved, getattr(_moved, "py_func", _moved)])
@pytest.mark.parametrize("at", [0, 1, 5, 8])
def test_a_word_is_eight_bytes_wherever_they_lie(move: Callable[..., np.uint64], at: int) -> None:
    source, target = BYTES.copy(), np.zeros(24, np.uint8)
    source.flags.writeable = False

    word = move(source, at, target, 3)

    assert int(word) == int.from_bytes(bytes(BYTES[at : at + 8]), "little")
    assert bytes(target) == bytes(3) + bytes(BYTES[at : at + 8]) + bytes(13)
