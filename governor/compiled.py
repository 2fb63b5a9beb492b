"""``@compiled``: a function of numbers and arrays, translated to machine code by numba.

It is compiled at its first call for each combination of types and cached on disk; it runs without
the interpreter's lock, and as plain Python with ``NUMBA_DISABLE_JIT=1``, so that a debugger and
coverage see it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

__all__ = ["compiled"]

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The compiled function; to a type checker it is what it was."""
    return cast(Function, njit(cache=True, nogil=True)(function))
