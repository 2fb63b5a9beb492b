"""``@compiled``: a function of numbers and arrays, translated to machine code by numba.

It is compiled at its first call for each combination of types and cached on disk, until it or
anything that it calls changes; it runs without the interpreter's lock, and as plain Python with
``NUMBA_DISABLE_JIT=1``, so that a debugger and coverage see it.

Compiled functions borrow their arrays from whoever calls them: no references are counted, which
took a quarter of the time of applying and deciding. Such a function can make no array. The few
that do are ``@allocating``. On the path of every event a function of many arrays is ``@inlined``
into its callers, as handing it hundreds of words costs more than what it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

__all__ = ["allocating", "compiled", "inlined", "integer"]

Function = TypeVar("Function", bound=Callable[..., object])


def _without_scipy() -> None:
    """Have numba not look for SciPy.

    It imports all of its linear algebra where it is installed, a tenth of a worker's start, for
    functions that nothing here compiles.
    """
    if (name := "scipy.linalg") not in sys.modules:
        sys.modules[name] = cast(ModuleType, None)
        try:
            import_module("numba.np.arraymath")
        finally:
            del sys.modules[name]


_without_scipy()


def compiled(function: Function) -> Function:
    """The compiled function; to a type checker it is what it was."""
    return _compiled(function, _nrt=False)


def inlined(function: Function) -> Function:
    """The same, always made part of the compiled functions that call it."""
    return _compiled(function, _nrt=False, forceinline=True)


def allocating(function: Function) -> Function:
    """The same for one that makes arrays: those that it touches are counted."""
    return _compiled(function)


def _compiled(function: Function, **options: bool) -> Function:
    made = njit(cache=True, nogil=True, **options)(function)
    if isinstance(made, Dispatcher):
        # numba has no public place for it
        made._cache = _Cache(function, options)  # type: ignore[attr-defined]  # noqa: SLF001
    return cast(Function, made)


class _Cache(FunctionCache):
    """numba's cache, which by itself would go on using what was compiled with callees of old."""

    def __init__(self, function: Callable[..., object], options: dict[str, bool]) -> None:
        super().__init__(function)
        self._options = sorted(options.items())

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), _digest(self._py_func, self._options))


def _digest(function: FunctionType, options: object) -> bytes:
    """A hash of a function, the functions that it calls and the constants that they use; of those
    that are not compiled themselves but have an overload, of all that stands in their file."""
    hashed = blake2b(repr(options).encode(), digest_size=16)
    seen: set[FunctionType] = set()
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        hashed.update(f"{one.__module__}.{one.__qualname__}".encode())
        for code in _codes(one.__code__):
            hashed.update(code.co_code)
            hashed.update(repr([c for c in code.co_consts if not isinstance(c, CodeType)]).encode())
            for name in code.co_names:
                value = one.__globals__.get(name)
                hashed.update(name.encode())
                if isinstance(value, Dispatcher):
                    waiting.append(value.py_func)
                elif isinstance(value, FunctionType):
                    # What numba has in its place stands in the same file.
                    hashed.update(_source(value.__code__.co_filename))
                elif isinstance(value, np.ndarray):
                    hashed.update(value.tobytes())
                elif isinstance(value, bool | int | float | str | tuple | np.generic):
                    hashed.update(repr(value).encode())
    return hashed.digest()


@cache
def _source(file: str) -> bytes:
    return Path(file).read_bytes()


def _codes(code: CodeType) -> list[CodeType]:
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return [code, *(each for one in inner for each in _codes(one))]


@compiled
def integer(word: np.generic | int) -> int:
    """A 64-bit word as a signed number; numba's own ``int`` would keep it unsigned."""
    return np.int64(word)  # type: ignore[return-value]
