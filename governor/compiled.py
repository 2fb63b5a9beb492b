"""``@compiled``: a function of numbers and arrays, translated to machine code by numba.

It is compiled at its first call for each combination of types and cached on disk; it runs without
the interpreter's lock, and as plain Python with ``NUMBA_DISABLE_JIT=1``, so that a debugger and
coverage see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit

__all__ = ["compiled", "integer"]

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The compiled function; to a type checker it is what it was."""
    return cast(Function, njit(cache=True, nogil=True)(function))


@compiled
def integer(word: np.generic) -> int:
    """A 64-bit word as a signed number; numba's own ``int`` would keep it unsigned."""
    return np.int64(word)  # type: ignore[return-value]
