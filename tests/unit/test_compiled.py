"""Compiled functions: what is cached follows what a function calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.prefetch import prefetch

CALLEE = """
from governor.compiled import compiled
SCALE = {scale}
@compiled
def scaled(number):
    return SCALE * number + {more}
"""
CALLER = """
from governor.compiled import compiled
from callee import scaled
@compiled
def twice(number):
    return 2 * scaled(number)
print(twice(10), sum(twice.stats.cache_hits.values()) if hasattr(twice, "stats") else 0)
"""


def _run(folder: Path, scale: int, more: int, callee: str = CALLEE) -> list[int]:
    """What the caller gives, and how often it came from the cache."""
    (folder / "callee.py").write_text(callee.format(scale=scale, more=more))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")}
    environment.pop("NUMBA_DISABLE_JIT", None)
    finished = subprocess.run(
        [sys.executable, str(folder / "caller.py")],
        env={**environment, "PYTHONPATH": os.pathsep.join([str(folder), str(Path.cwd())])},
        capture_output=True,
        check=True,
    )
    return [int(word) for word in finished.stdout.split()]


def test_the_cache_notices_that_a_callee_has_changed(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    assert _run(tmp_path, 3, 0) == [60, 0]
    assert _run(tmp_path, 3, 0) == [60, 1]
    assert _run(tmp_path, 3, 1) == [62, 0]
    assert _run(tmp_path, 4, 1) == [82, 0]


OVERLOADED = """
from numba.extending import overload
def scaled(number):
    return number * {scale}
@overload(scaled, jit_options={{"_nrt": False}})
def _compiled_scaled(number):
    return lambda number: number * {scale} + {more}
"""


def test_the_cache_notices_that_an_overload_has_changed(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(CALLER)
    assert _run(tmp_path, 3, 0, OVERLOADED) == [60, 0]
    assert _run(tmp_path, 3, 0, OVERLOADED) == [60, 1]
    assert _run(tmp_path, 3, 1, OVERLOADED) == [62, 0]


def test_asking_for_memory_changes_nothing_even_behind_the_end() -> None:
    @compiled
    def total(array: NDArray[np.int64]) -> int:
        found = 0
        for i in range(len(array)):
            prefetch(array, i + 8)
            found += array[i]
        return found

    numbers = np.arange(20)
    assert total(numbers) == 190
    assert numbers.tolist() == list(range(20))
