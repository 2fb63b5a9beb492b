"""One batch of messages through the domain: decode, apply, and what went wrong.

Only our own code runs in here. What it raises is a fault of an event or of ours, never of the
infrastructure: the batch is bisected until the events that raise stand alone, and those are
quarantined as dead letters. Applying an event again changes nothing, so the halves may repeat
what was already applied.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np

from governor import events
from governor.events import Limits, Reason, Rejected
from governor.ledger import Ledger
from governor.records import Records
from streams.wire import build
from streams.wire import parse as wire_parse

__all__ = ["Ingested", "ingest"]

log = logging.getLogger(__name__)

DECODERS = {
    "impressions": events.decode_impressions,
    "engagements": events.decode_engagements,
    "controls": events.decode_controls,
}


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch."""

    outcomes: Counter[str]
    rejected: list[Rejected]


def ingest(kind: str, ledger: Ledger, records: Records, limits: Limits) -> Ingested:
    """Decode and apply one batch of ``impressions``, ``engagements`` or ``controls``."""
    if not len(records):
        return Ingested(Counter(), [])
    try:
        columns, rejected = DECODERS[kind](records, ledger.labels, limits)
        return Ingested(Counter(ledger.apply(columns).counts()), rejected)
    except MemoryError:
        raise  # the machine's fault, not the event's
    except Exception as error:
        if len(records) == 1:
            log.exception(
                "an event at offset %d of %s makes the governor fail and is quarantined",
                records.offset[0],
                kind,
            )
            return Ingested(Counter(), [Rejected(0, Reason.QUARANTINED, repr(error))])
    half = len(records) // 2
    first = ingest(kind, ledger, records.select(slice(None, half)), limits)
    second = ingest(kind, ledger, records.select(slice(half, None)), limits)
    later = [Rejected(one.index + half, one.reason, one.detail) for one in second.rejected]
    return Ingested(first.outcomes + second.outcomes, first.rejected + later)


def warm_up(ledger: Ledger) -> None:
    """Compile all that the path of an event runs, before anyone waits for it."""
    event = b'{"event_id":"e","user_id":"u","ts":1,"campaign_id":"c","type":"click"}'
    records = Records.of([(b"u", event, 1000)])
    for kind in DECODERS:
        ingest(kind, ledger, records, Limits())
    ledger.decide("u")
    ledger.sweep(1)
    taken = ledger.take(0)
    ledger.load(taken.changelog.select(np.arange(len(taken.changelog))))
    for outgoing in (taken.decisions, taken.changelog, records):
        build(outgoing, max_bytes=1_000_000)
    wire_parse(b"", 0, None, check_crcs=False, committed_only=True)
