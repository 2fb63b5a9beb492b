"""What a flush publishes of linked ids: their records, and what the gate has for the changelog."""

from __future__ import annotations

from dataclasses import replace

import msgspec

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
        decisions=Records.joined([Records.of(withdrawn), taken.decisions, Records.of(redirected)]),
        changelog=Records.joined(
            [taken.changelog, Records.of((key, value, 0) for key, value in changed)]
        ),
        withdrawn=taken.withdrawn + len(withdrawn),
    )


def _record(key: bytes, to: bytes) -> bytes:
    return msgspec.json.encode({"id": key.decode(), "redirect": to.decode()})
