"""What is freed stays, and is there again without a fault."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

PROGRAM = """
import ctypes, resource, threading
import numpy as np
from streams import heap

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: a fault is a page of 4 KiB

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def take():
    before = faults()
    pieces = [np.ones(1 << 20, np.uint8) for _ in range({megabytes})]
    assert all(int(piece.sum()) == 1 << 20 for piece in pieces)
    return faults() - before

kept = {kept}
if kept:
    heap.share_one_heap()
    heap.keep_freed()
found = [take(), take()]
threads = threading.Thread(target=lambda: found.append(take()))
threads.start()
threads.join()
print(*found)
"""


def faults(*, kept: bool, megabytes: int) -> list[int]:
    """Page faults of the first, a second and another thread's time of taking so much memory."""
    program = PROGRAM.format(kept=kept, megabytes=megabytes)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    return [int(word) for word in done.stdout.split()]


def test_freed_memory_is_there_again() -> None:
    pages = 100 * 256
    _, again, elsewhere = faults(kept=True, megabytes=100)
    assert again < pages / 20
    assert elsewhere < pages / 20
    # Or this would prove nothing.
    assert faults(kept=False, megabytes=100)[1] > pages / 2


def test_some_is_written_to_ahead() -> None:
    assert faults(kept=True, megabytes=50)[0] < 50 * 256 / 20
