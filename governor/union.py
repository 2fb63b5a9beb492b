"""A row's raw set by itself, to be added to another row: what joining two ids takes.

The bytes name ads by their labels, so that they mean the same in every partition.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from governor.entries import (
    FACT,
    GRANT,
    REFUSAL,
    TYPE_SHIFT,
    WORDS,
    fact_of,
    facts_from,
    time_word,
)
from governor.labels import Labels
from governor.situation import refused_at

__all__ = ["packed", "united", "unpacked"]

_AD_BITS, _AD = np.uint64(24), np.uint64((1 << 24) - 1)
_LAST = np.uint64(2**64 - 1)
_FORMAT = 1


def packed(entries: NDArray[np.uint64], labels: Labels) -> bytes:
    """The entries and the names of their ads."""
    numbers, place = np.unique(entries[:, 2] & _AD, return_inverse=True)
    out = entries.copy()
    out[:, 2] = (entries[:, 2] >> _AD_BITS << _AD_BITS) | place.astype(np.uint64).reshape(-1)
    names = [labels.ad_names[int(number)] or b"{}" for number in numbers]
    return msgspec.msgpack.encode((_FORMAT, names, out.astype("<u8").tobytes()))


def unpacked(data: bytes, labels: Labels) -> NDArray[np.uint64]:
    """What `packed` was given, under this partition's numbers of ads."""
    form, names, words = msgspec.msgpack.decode(data, type=tuple[int, list[bytes], bytes])
    if form != _FORMAT:
        raise ValueError(
            f"a row's entries are of format {form}, not {_FORMAT}: "
            "upgrade this worker before it takes part in links"
        )
    numbers = np.array([labels.adopt(name) for name in names], np.uint64)
    entries = np.frombuffer(words, "<u8").astype(np.uint64).reshape(-1, WORDS)
    entries[:, 2] = (entries[:, 2] >> _AD_BITS << _AD_BITS) | numbers[entries[:, 2] & _AD]
    return entries


def united(own: NDArray[np.uint64], incoming: NDArray[np.uint64], at: int) -> NDArray[np.uint64]:
    """The incoming entries in the order in which they enter the row that has ``own``.

    Facts stand first, as engagements are let in by what is known of consent. Where one of the two
    rows refuses consent and the other grants it, a refusal as of ``at``, the time of their link in
    ticks, is among them: what was granted before it holds no longer, what is granted later does.
    """
    facts = facts_from(incoming, len(incoming))
    parts = [incoming[facts:], incoming[:facts]]
    refused = [refused_at(one, len(one), 0) >= 0 for one in (own, incoming)]
    if refused[0] != refused[1] and _grants(incoming if refused[0] else own):
        refusal = np.zeros((1, WORDS), np.uint64)
        refusal[0, 0] = time_word(at, FACT | REFUSAL << TYPE_SHIFT)
        refusal[0, 1] = _LAST
        parts.insert(1, refusal)
    return np.concatenate(parts)


def _grants(entries: NDArray[np.uint64]) -> bool:
    """Whether consent was ever granted."""
    return bool(fact_of(entries, len(entries), GRANT) >= 0)
