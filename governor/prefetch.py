"""Asking for memory before it is needed, so that cache misses overlap instead of adding up.

Rows of different people lie anywhere in hundreds of megabytes. A loop over events that comes to
each row cold waits for memory most of its time, and the more people there are the longer. One
that asks some events ahead for what it will read costs nearly the same however many there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic, overload
from numba.np import arrayobj
from numpy.typing import NDArray

__all__ = ["AHEAD", "prefetch"]

AHEAD = 4
"""How many rows ahead each step of a loop asks: longer than memory takes, shorter than what a core
can ask for at once."""


def prefetch(array: NDArray[Any], at: int | np.integer) -> None:
    """Have the cache line at ``array[at]`` fetched. Changes nothing; without numba, does nothing.

    An index behind the array's end is harmless.
    """


@overload(prefetch, jit_options={"_nrt": False, "forceinline": True})
def _compiled_prefetch(array: Any, at: Any) -> Any:  # noqa: ARG001 - numba goes by their names
    def ask(array: Any, at: Any) -> Any:
        _line(array, at)

    return ask


@intrinsic
def _line(_context: Any, array: types.Array, at: types.Integer) -> Any:
    def ask(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        view = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(view.strides, 0)
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        byte = ir.IntType(8).as_pointer()
        address = builder.gep(builder.bitcast(view.data, byte), [builder.mul(index, stride)])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        for_reading, keep, data = (ir.Constant(number, each) for each in (0, 3, 1))
        builder.call(ask, [address, for_reading, keep, data])
        return impl_ret_untracked(
            context, builder, signature.return_type, context.get_dummy_value()
        )

    return types.void(array, at), ask
