"""Where a broker and the systems at it keep their files while they are measured."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import psutil

__all__ = ["in_memory"]

MEMORY = Path("/dev/shm")
WANTED = 12 << 30
"""Bytes: logs of some gigabytes, and those just deleted, which Kafka keeps for a minute."""


def in_memory() -> str:
    """Have temporary folders lie in memory from now on, if there is room; says what was done.

    A broker that is written to faster than the disk takes it is held still by the kernel, for
    seconds, and what the kernel writes meanwhile takes the broker's core. That is the machine's
    delay, not that of the systems.
    """
    if not MEMORY.is_dir():
        return f"data lie in {tempfile.gettempdir()}: there is no {MEMORY}"
    room = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available)
    if room < WANTED:
        return f"data lie in {tempfile.gettempdir()}: {MEMORY} has no {WANTED >> 30} GiB free"
    tempfile.tempdir = str(MEMORY)
    return f"data lie in memory ({MEMORY})"
