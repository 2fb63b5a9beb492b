"""Snapshots: copies of the rows on disk, so that a restart reads only the end of the changelog.

One file a partition: a head in JSON (what it is a copy of, and up to which changelog offset), then
the arrays. A copy is made between two events, right after a flush took what had changed, and is
written by a thread once Kafka has acknowledged the rows of that flush, and none of a later one; the
file takes its place in one step.

A snapshot is a short cut and never the truth. One that is damaged, foreign, of another topic,
beyond its range, or so old that the changelog may have dropped a tombstone that it has not seen, is
left aside and the changelog read from its beginning.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from governor.gate import Gate
from governor.image import Image, Part, layout
from governor.ledger import Ledger
from governor.memory import zeros
from governor.records import Records

__all__ = ["Copy", "SnapshotError", "Snapshots", "read", "write"]

log = logging.getLogger(__name__)

_MAGIC = b"governor snapshot 1\n"
_MAX_HEAD = 1 << 20
OLDEST_SECONDS = 43_200.0
"""Half of the changelog's delete.retention.ms: see `streams.topics`."""


class SnapshotError(Exception):
    """A file cannot be used as a snapshot; says why."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The rows of a partition at one moment."""

    partition: int
    image: Image
    gate: Sequence[tuple[bytes, bytes | None]]
    """Its changelog records."""
    horizon: int
    row_limit: int
    policy: str
    """Version of the policy that said what is kept."""


def write(path: Path, copy: Copy, *, topic: str, offset: int, now: float) -> int:
    """Write a snapshot and put it in the place of an older one; its bytes.

    Args:
        path: of the snapshot.
        copy: of the rows.
        topic: id of the changelog topic.
        offset: the newest whose row is in the copy.
        now: epoch seconds.

    Raises:
        OSError: the disk is full, or not to be written to; an older snapshot is still there.
    """
    arrays = []
    parts = {**copy.image, **_gate_parts(copy.gate)}
    for name, part in parts.items():
        used = np.ascontiguousarray(part.used)
        crc = zlib.crc32(_bytes(used))
        arrays.append([name, str(used.dtype), list(used.shape), part.length, crc])
    head = json.dumps(
        {
            "layout": layout(),
            "horizon": copy.horizon,
            "row_limit": copy.row_limit,
            "policy": copy.policy,
            "topic": topic,
            "offset": offset,
            "written_at": now,
            "arrays": arrays,
        }
    ).encode()
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC + len(head).to_bytes(4, "little"))
            file.write(zlib.crc32(head).to_bytes(4, "little") + head)
            for part in parts.values():
                file.write(_bytes(np.ascontiguousarray(part.used)))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return size


def read(
    path: Path, ledger: Ledger, gate: Gate, *, topic: str, begin: int, end: int, now: float
) -> int | None:
    """Put a snapshot into an empty ledger and gate; the changelog offset up to which it goes.

    None where there is no file. The arguments are those of `write`; ``begin`` and ``end`` are the
    changelog partition's.

    Raises:
        SnapshotError: the file is not to be used; ledger and gate are not to be used either.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotError(error.strerror or str(error)) from error
    with file:
        try:
            head = _head(file)
            _check(head, ledger, topic=topic, begin=begin, end=end, now=now)
            arrays = {each[0]: _array(file, *each[1:]) for each in head["arrays"]}
            gate.load(_gate_records(arrays))
            ledger.restore(arrays)
        except SnapshotError:
            raise
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise SnapshotError(f"it is damaged ({error!r})") from error
    return int(head["offset"])


_GATE = ("gate_text", "gate_keys", "gate_values")


def _gate_parts(records: Sequence[tuple[bytes, bytes | None]]) -> dict[str, Part]:
    text = b"".join(key + (value or b"") for key, value in records)
    arrays: tuple[NDArray, ...] = (  # type: ignore[type-arg]
        np.frombuffer(text, np.uint8),
        np.array([len(key) for key, _ in records], np.int64),
        np.array([-1 if value is None else len(value) for _, value in records], np.int64),
    )
    return {name: Part(each, len(each)) for name, each in zip(_GATE, arrays, strict=True)}


def _gate_records(arrays: Mapping[str, NDArray]) -> Records:  # type: ignore[type-arg]
    text, keys, values = (arrays[name] for name in _GATE)
    data, at = text.tobytes(), 0
    found: list[tuple[bytes | None, bytes | None, int]] = []
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        middle, end = at + key, at + key + max(value, 0)
        found.append((data[at:middle], None if value < 0 else data[middle:end], 0))
        at = end
    return Records.of(found)


def _head(file: BufferedReader) -> dict[str, Any]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise SnapshotError("it is no snapshot, or another version's")
    size = int.from_bytes(_exactly(file, 4), "little")
    checksum = int.from_bytes(_exactly(file, 4), "little")
    text = _exactly(file, min(size, _MAX_HEAD))
    if zlib.crc32(text) != checksum:
        raise SnapshotError("its head is damaged")
    head: dict[str, Any] = json.loads(text)
    return head


def _check(
    head: Mapping[str, Any], ledger: Ledger, *, topic: str, begin: int, end: int, now: float
) -> None:
    age = now - head["written_at"]
    if head["layout"] != layout():
        raise SnapshotError("another version of the governor wrote it")
    if (head["horizon"], head["row_limit"]) != (ledger.horizon, ledger.row_limit):
        raise SnapshotError("GOVERNOR_HISTORY or GOVERNOR_ROW_LIMIT was another")
    if head["policy"] != ledger.policy.version:
        raise SnapshotError("another policy said what is kept")
    if head["topic"] != topic:
        raise SnapshotError("the changelog topic is not the one it was taken from")
    if not begin - 1 <= head["offset"] < end:
        raise SnapshotError(f"offset {head['offset']} is not in the changelog, {begin} to {end}")
    if not 0 <= age <= OLDEST_SECONDS:
        raise SnapshotError(f"it is {age:.0f} s old by this machine's clock")


def _array(
    file: BufferedReader, dtype: str, shape: list[int], length: int, checksum: int
) -> NDArray:  # type: ignore[type-arg]
    array = zeros((max(length, shape[0]), *shape[1:]), dtype)
    used = _bytes(array[: shape[0]])
    if file.readinto(used) != len(used):
        raise SnapshotError("it is cut off")
    if zlib.crc32(used) != checksum:
        raise SnapshotError("it is damaged")
    return array


def _bytes(array: NDArray) -> memoryview:  # type: ignore[type-arg]
    """What an array without gaps holds, uncopied."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _exactly(file: BufferedReader, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise SnapshotError("it is cut off")
    return data


class Snapshots:
    """The snapshots of one worker's partitions.

    Args:
        folder: where they are; None for none.
        name: begins the files' names.
        interval: seconds between two of one partition.
        count: is told ``written``, ``failed``, ``loaded`` or ``discarded``.
        tripped: is told the guard and the text of what is wrong.
        wall: epoch seconds.
    """

    def __init__(
        self,
        folder: Path | None,
        name: str,
        interval: float,
        count: Callable[[str], None],
        tripped: Callable[[str, str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._name = name
        self._interval = interval
        self._count = count
        self._tripped = tripped
        self._wall = wall
        self._topic = ""
        self._due: dict[int, float] = {}
        self._writing: asyncio.Task[None] | None = None
        self._offsets: dict[int, int] = {}

    def know(self, topic: str) -> None:
        """Note the id of the changelog topic, and make the folder."""
        self._topic = topic
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._failed(error)

    def load(self, partition: int, ledger: Ledger, gate: Gate, begin: int, end: int) -> int | None:
        """Put a partition's snapshot into an empty ledger and gate; its offset, or None for none.

        Where it returns None the two must not be used.
        """
        if self._folder is None:
            return None
        path = self._path(partition)
        now = self._wall()
        try:
            offset = read(path, ledger, gate, topic=self._topic, begin=begin, end=end, now=now)
        except SnapshotError as error:
            self._count("discarded")
            self._tripped(
                "snapshot_discarded",
                f"the snapshot {path} is not used: {error}. Reading the changelog from its "
                "beginning; nothing is lost",
            )
            return None
        if offset is not None:
            self._count("loaded")
            self._offsets[partition] = offset
        return offset

    def take(self, partition: int, ledger: Ledger, gate: Gate) -> Copy | None:
        """A copy of a partition's rows if it is time and none is being written; else None.

        The rows must have nothing to be flushed that is not in the flush that this is part of.
        """
        if self._folder is None or (self._writing is not None and not self._writing.done()):
            return None
        now = time.monotonic()
        # The first one after an interval, and not those of all partitions at once.
        due = self._due.setdefault(partition, now + self._interval * (1 + partition % 8 / 8))
        return self._copy(partition, ledger, gate) if now >= due else None

    def keep(self, copy: Copy, offset: int | None) -> None:
        """Write a copy, in a thread: all that it holds is in the changelog up to ``offset``."""
        self._due[copy.partition] = time.monotonic() + self._interval
        if offset is not None and offset != self._offsets.get(copy.partition):
            self._writing = asyncio.ensure_future(self._write(copy, offset))

    async def finish(
        self,
        ledgers: Mapping[int, Ledger],
        gate: Callable[[int], Gate],
        written: Callable[[int], int | None],
    ) -> None:
        """Write a last one of each partition that has nothing to be flushed."""
        if self._writing is not None:
            await self._writing
        if self._folder is None:
            return
        for partition, ledger in ledgers.items():
            offset = written(partition)
            if offset is not None and not ledger.dirty and offset != self._offsets.get(partition):
                await self._write(self._copy(partition, ledger, gate(partition)), offset)

    def _copy(self, partition: int, ledger: Ledger, gate: Gate) -> Copy:
        return Copy(
            partition,
            ledger.image(),
            gate.everything(),
            ledger.horizon,
            ledger.row_limit,
            ledger.policy.version,
        )

    async def _write(self, copy: Copy, offset: int) -> None:
        path = self._path(copy.partition)
        now = self._wall()
        began = time.perf_counter()
        try:
            size = await asyncio.to_thread(
                write, path, copy, topic=self._topic, offset=offset, now=now
            )
        except OSError as error:
            self._failed(error)
            return
        self._offsets[copy.partition] = offset
        self._count("written")
        log.debug("%s: %d bytes in %.1f s", path, size, time.perf_counter() - began)

    def _failed(self, error: OSError) -> None:
        self._count("failed")
        self._tripped(
            "snapshot_failed",
            f"no snapshot in {self._folder} (GOVERNOR_SNAPSHOTS): {error.strerror or error}: make "
            "room there or name another folder. Going on without; a restart then reads more of "
            "the changelog",
        )

    def _path(self, partition: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._name}-{partition}.snapshot"
