"""The image of a ledger: all that it holds, as arrays to be kept and put back.

An image depends on how rows lie in memory (`layout`), and on the policy, the horizon and the row
limit that said what is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governor import rows
from governor.labels import Labels
from governor.rowcodec import VERSION
from governor.rows import Rows, State

__all__ = ["Image", "Part", "image_of", "layout", "put_back"]

_USED = {"header": State.ROWS, "arena": State.ARENA, "ids": State.IDS, "dirty": State.DIRTY}
"""Arrays that are longer than what they hold, and where `Rows.state` says how much that is."""

_ADS = ("ad_hash", "ad_size", "ad_text", "ad_unwritten")


@dataclass(frozen=True, slots=True)
class Part:
    """One array: what is used of it, and its length with room to grow."""

    used: NDArray  # type: ignore[type-arg]
    length: int


Image = Mapping[str, Part]
"""The arrays of `Rows` and of the ads, by name."""


def layout() -> list[object]:
    """What an image must have been made under to be put back."""
    empty = rows.empty()
    arrays = [[name, str(each.dtype), *each.shape[1:]] for name, each in empty._asdict().items()]
    return [VERSION, State.SIZE, rows.CAPACITIES.tolist(), arrays]


def image_of(table: Rows, labels: Labels) -> Image:
    """A copy; takes as long as copying the arrays does."""
    parts = {}
    for name, array in table._asdict().items():
        used = int(table.state[_USED[name]]) if name in _USED else len(array)
        parts[name] = Part(array[:used].copy(), len(array))
    names = labels.ad_names
    sizes = [-1 if name is None else len(name) for name in names]
    ads: tuple[NDArray, ...] = (  # type: ignore[type-arg]
        labels.ad_hash[: len(labels)].copy(),
        np.array(sizes, np.int64),
        np.frombuffer(b"".join(name or b"" for name in names), np.uint8),
        np.array(labels.waiting, np.int64),
    )
    return parts | {name: Part(each, len(each)) for name, each in zip(_ADS, ads, strict=True)}


def put_back(arrays: Mapping[str, NDArray], labels: Labels) -> Rows:  # type: ignore[type-arg]
    """The rows of an image; its ads go to ``labels``, which must be empty.

    Args:
        arrays: by name, each of its full length with what was used in front and zeros behind.
        labels: of an empty ledger.
    """
    hashes, sizes, text, waiting = (arrays[name] for name in _ADS)
    at = 0
    names = text.tobytes()
    for hashed, size in zip(hashes.tolist(), sizes.tolist(), strict=True):
        if size < 0:
            labels.reserve(hashed)
        else:
            labels.load(names[at : at + size])
            at += size
    labels.waiting = waiting.tolist()
    return Rows(*(arrays[name] for name in Rows._fields))
