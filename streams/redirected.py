"""What a flush publishes of linked ids: their records, and what the gate has for the changelog."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from governor import redirects
from governor.gate import Gate
from governor.ledger import Taken
from governor.records import Records

__all__ = ["with_gate"]


def with_gate(taken: Taken, gate: Gate) -> Taken:
    """What the ledger hands over, with what the gate adds.

    A linked id's record, ``{"id", "redirect"}``, goes behind the tombstone of its own decision; the
    tombstone of one whose link was taken back before the decision that it has again.
    """
    changed = gate.take()
    if not changed:
        return taken
    withdrawn: list[tuple[bytes | None, bytes | None, int]] = []
    redirected: list[tuple[bytes | None, bytes | None, int]] = []
    for key, value in changed:
        if key[:1] == redirects.KEY:
            link = gate.redirects.get(key[1:])
            if value is None or link is None:
                withdrawn.append((key[1:], None, 0))
            else:
                redirected.append((key[1:], _record(key[1:], link.to), 0))
    return replace(
        taken,
        decisions=_joined(Records.of(withdrawn), taken.decisions, Records.of(redirected)),
        changelog=_joined(taken.changelog, Records.of((key, value, 0) for key, value in changed)),
        withdrawn=taken.withdrawn + len(withdrawn),
    )


def _record(key: bytes, to: bytes) -> bytes:
    return msgspec.json.encode({"id": key.decode(), "redirect": to.decode()})


def _joined(*parts: Records) -> Records:
    """The records of all parts, in this order."""
    parts = tuple(part for part in parts if len(part)) or parts[:1]
    shift = np.cumsum([0, *(len(part.buffer) for part in parts)])
    return Records(
        np.concatenate([part.buffer for part in parts]),
        np.concatenate([part.offset for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        np.concatenate([part.key_start + by for part, by in zip(parts, shift, strict=False)]),
        np.concatenate([part.key_size for part in parts]),
        np.concatenate([part.value_start + by for part, by in zip(parts, shift, strict=False)]),
        np.concatenate([part.value_size for part in parts]),
    )
