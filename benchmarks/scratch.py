"""What a machine is made to be like for systems and their broker while delays are measured."""

from __future__ import annotations

import mmap
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
import psutil

__all__ = ["COMPACTION", "WrittenMemory", "in_memory"]

MEMORY = Path("/dev/shm")
WANTED = 12 << 30
"""Bytes: logs of some gigabytes, and what deleted and compacted ones leave for a while."""

CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
CHUNK = 128 << 20
PAGE = 4096
READY = 1 << 30
"""Bytes that are free at any time, as long as there are chunks to let go of."""
LOOK_SECONDS = 0.1

COMPACTION = {"log.cleaner.io.max.bytes.per.second": str(32 << 20)}
"""What a broker may spend on compaction. By default it is all of a core, once there is something to
compact, and on the only core of the broker that is time in which it answers nobody. Bytes read and
written both count; what is written faster is compacted later."""


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


class WrittenMemory:
    """Has all free memory written to once, and lets go of it as others need it.

    The memory of a virtual machine is the host's until it is first written to, and again some
    seconds after it was freed: a megabyte took 2.7 ms to write to for the first time where it took
    0.3 ms again, and a broker that takes in 160 MB a second half its core for that. That is the
    machine's delay as well. Nothing is taken where a limit is set, which would be met.
    """

    def __init__(self) -> None:
        self._chunks: list[mmap.mmap] = []
        self._taking = threading.Lock()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._keeper.join()
        while self._chunks:
            self._chunks.pop().close()

    def take(self) -> str:
        """Write to all that is free but `READY`; says what was done. At worst 3 s for 1 GiB."""
        if any(limit < psutil.virtual_memory().total for limit in _limits()):
            return "memory is not written to ahead: this process has a limit, which would be met"
        began = time.perf_counter()
        with self._taking:
            before = len(self._chunks)
            while psutil.virtual_memory().free >= READY + CHUNK:
                try:
                    self._chunks.append(_written())
                except OSError:  # the system promises no more than it has
                    break
            taken = (len(self._chunks) - before) * CHUNK / (1 << 30)
        return f"{taken:.1f} GiB of memory written to ahead in {time.perf_counter() - began:.0f} s"

    def _keep(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with self._taking:
                while self._chunks and psutil.virtual_memory().free < READY:
                    self._chunks.pop().close()


def _written() -> mmap.mmap:
    chunk = mmap.mmap(-1, CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without large pages
        chunk.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(chunk, np.uint8)[::PAGE] = 1
    return chunk


def _limits() -> Iterator[int]:
    """Bytes of memory that this process' control groups may have, of either version."""
    for line in CGROUP.read_text().splitlines() if CGROUP.exists() else ():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            base, name = CGROUPS / "memory", "memory.limit_in_bytes"
        elif not controllers:
            base, name = CGROUPS, "memory.max"
        else:
            continue
        own = base / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(base) and (folder / name).exists():
                text = (folder / name).read_text().strip()
                if text != "max":
                    yield int(text)
