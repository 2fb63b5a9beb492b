"""Eight bytes as one word, little-endian, wherever they lie: one instruction each when compiled.

Written as loops over bytes they stay loops: the compiler cannot know that an index is no negative
one, which counts from an array's end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload
from numba.np import arrayobj
from numpy.typing import NDArray

__all__ = ["put_word", "word_at"]

_OPTIONS = {"_nrt": False, "forceinline": True}


def word_at(buffer: NDArray[np.uint8], at: int | np.integer) -> np.uint64:
    """The word in ``buffer[at:at + 8]``, contiguous bytes; where it begins is not negative."""
    return np.uint64(int.from_bytes(buffer[at : at + 8].tobytes(), "little"))


def put_word(buffer: NDArray[np.uint8], at: int | np.integer, word: np.uint64) -> None:
    """Write a word to ``buffer[at:at + 8]``."""
    buffer[at : at + 8] = np.frombuffer(int(word).to_bytes(8, "little"), np.uint8)


@overload(word_at, jit_options=_OPTIONS)
def _compiled_word_at(buffer: Any, at: Any) -> Any:  # noqa: ARG001 - numba goes by their names
    def read(buffer: Any, at: Any) -> Any:
        return _load(buffer, at)

    return read


@overload(put_word, jit_options=_OPTIONS)
def _compiled_put_word(buffer: Any, at: Any, word: Any) -> Any:  # noqa: ARG001 - likewise
    def write(buffer: Any, at: Any, word: Any) -> Any:
        _store(buffer, at, word)

    return write


@intrinsic
def _load(_context: Any, buffer: types.Array, at: types.Integer) -> Any:
    def load(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments), align=1)

    return types.uint64(buffer, at), load


@intrinsic
def _store(_context: Any, buffer: types.Array, at: types.Integer, word: types.Integer) -> Any:
    def store(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[2], signature.args[2], types.uint64)
        builder.store(value, _place(context, builder, signature, arguments), align=1)
        return context.get_dummy_value()

    return types.void(buffer, at, word), store


def _place(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    view = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
    index = context.cast(builder, arguments[1], signature.args[1], types.intp)
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(64).as_pointer()
    address = builder.gep(builder.bitcast(view.data, byte), [index])
    return builder.bitcast(address, word)
