"""Links: an anonymous id becomes a known one, and its row goes to that one's.

The home of the anonymous id sends a `Merge` to the home of the known one: the raw set of its row,
and the path of links that it goes along. Where the known id has itself become another, the merge
goes on along that link. Sets are united, so it does not matter in which order merges arrive, or
how often.

Two links at once can close a cycle that neither home could see. The merge that goes round it
finds itself in its own path; then the link of the cycle with the greatest (time, event hash, id)
is refused, whichever home notices, and the id that it belonged to is the one that all become.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec

from governor.gate import Gate

__all__ = ["Merge", "MergeError", "Step", "next_hop"]


class MergeError(Exception):
    """The bytes are not a merge of this format."""


class Step(NamedTuple):
    """A link on a merge's path."""

    ts: int
    event: int
    id: bytes
    """Row key of the id that became another."""


@dataclass(frozen=True, slots=True)
class Merge:
    """A row on its way to the id that its own has become."""

    path: tuple[Step, ...]
    """The links gone along so far, the first one's id being the row's own."""
    origins: tuple[bytes, ...]
    """Ids that had become the row's id before."""
    entries: bytes
    """What `Ledger.raw` gave; empty where there was no row."""

    def encode(self) -> bytes:
        """One line of JSON, and the entries behind it."""
        head = {
            "path": [[step.ts, step.event, b64encode(step.id).decode()] for step in self.path],
            "origins": [b64encode(each).decode() for each in self.origins],
        }
        return msgspec.json.encode(head) + b"\n" + self.entries

    @classmethod
    def decode(cls, value: bytes) -> Merge:
        """Read what `encode` wrote; raises MergeError."""
        line, newline, entries = value.partition(b"\n")
        try:
            head = msgspec.json.decode(line)
            path = tuple(Step(ts, event, b64decode(each)) for ts, event, each in head["path"])
            origins = tuple(map(b64decode, head["origins"]))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise MergeError(f"not a merge: {error}") from error
        if not newline or not path:
            raise MergeError("not a merge: no path")
        return cls(path, origins, entries)


def next_hop(gate: Gate, key: bytes, merge: Merge) -> tuple[bytes, Merge] | None:
    """Where a merge that came to an id goes on to, or None when it has arrived.

    Breaks the cycle that the id closes, by forgetting its redirect if it is the one refused.
    """
    link = gate.redirects.get(key)
    if link is None:
        return None
    mine = Step(link.ts, link.event, key)
    ids = [step.id for step in merge.path]
    if key not in ids:
        return link.to, replace(merge, path=(*merge.path, mine))
    if mine not in merge.path:
        # It has been linked otherwise since the merge came by.
        return link.to, replace(merge, path=(mine,), origins=(*merge.origins, *ids))
    refused = max(merge.path[ids.index(key) :])
    if refused.id != key:
        return refused.id, merge
    gate.redirects.forget(key)
    return None
