"""One batch of messages through the domain: decode, apply, and what went wrong.

Only our own code runs in here. What it raises is a fault of an event or of ours, never of the
infrastructure: the batch is bisected until the events that raise stand alone, and those are
quarantined as dead letters. Applying an event again changes nothing, so the halves may repeat
what was already applied.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from governor import events
from governor.changes import as_one
from governor.events import Limits, Reason, Rejected
from governor.fatigue.buckets import observed
from governor.fatigue.curves import unknown
from governor.fatigue.exposures import from_columns
from governor.gate import Gate
from governor.ledger import Ledger
from governor.links import Merge, MergeError
from governor.records import Records
from governor.redirects import Link
from streams.home import Home, forwarded_columns
from streams.repartition import KINDS, MERGE, TOPIC, by_kind
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


def ingest(kind: str, home: Home, records: Records, limits: Limits) -> Ingested:
    """Decode and take in one batch of ``impressions``, ``engagements``, ``controls`` or
    ``repartition``."""
    if not len(records):
        return Ingested(Counter(), [])
    try:
        if kind == TOPIC:
            return _forwarded(home, records, limits)
        columns, rejected = DECODERS[kind](records, home.ledger.labels, limits)
        return Ingested(home.take_in(kind, records, columns), rejected)
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
    first = ingest(kind, home, records.select(slice(None, half)), limits)
    second = ingest(kind, home, records.select(slice(half, None)), limits)
    later = [Rejected(one.index + half, one.reason, one.detail) for one in second.rejected]
    return Ingested(first.outcomes + second.outcomes, first.rejected + later)


def _forwarded(home: Home, records: Records, limits: Limits) -> Ingested:
    """What other partitions, or this one, sent on."""
    outcomes: Counter[str] = Counter()
    rejected: list[Rejected] = []
    for byte, rows in by_kind(records):
        some = records.select(rows)
        if byte == MERGE:
            refused = [(i, _merge(home, some, i)) for i in range(len(some))]
            bad = [Rejected(i, Reason.MALFORMED, why) for i, why in refused if why]
            outcomes["applied"] += len(some) - len(bad)
        elif byte not in _EVENTS:
            bad = [Rejected(i, Reason.MALFORMED, _FOREIGN) for i in range(len(some))]
        else:
            kind = _EVENTS[byte]
            if some.key_size.min() <= 0:
                nobodys = rows[some.key_size <= 0].tolist()
                rejected += [Rejected(i, Reason.MALFORMED, _FOREIGN) for i in nobodys]
                rows = rows[some.key_size > 0]
                some = records.select(rows)
            some = replace(some, value_start=some.value_start + 1, value_size=some.value_size - 1)
            columns, bad = DECODERS[kind](some, home.ledger.labels, limits)
            columns = forwarded_columns(some, columns)
            outcomes.update(home.take_in(kind, some, columns))
        rejected += [Rejected(int(rows[one.index]), one.reason, one.detail) for one in bad]
    return Ingested(outcomes, sorted(rejected, key=lambda one: one.index))


def _merge(home: Home, records: Records, i: int) -> str:
    """Take a linked id's row in; what is wrong with the record, or nothing."""
    key, value = records.key(i), records.value(i) or b""
    try:
        merge = Merge.decode(value[1:])
    except MergeError as error:
        return str(error)
    if not key:
        return _FOREIGN
    home.merge(key, merge, int(records.timestamp[i]))
    return ""


_EVENTS = {byte: kind for kind, byte in KINDS.items()}
_FOREIGN = "not the governor's: only workers write to this topic"


_STOP = b'{"label":"user","state":"throttled","factor":0,"from":1,"until":null}'


def warm_up(ledger: Ledger, gate: Gate) -> None:
    """Compile all that the path of an event runs, before anyone waits for it."""
    home = Home(0, 2, ledger, gate)
    home.told.publish(Records.of([(b"u", _STOP, 0)]), 0)
    event = b'{"event_id":"e","user_id":"u","ts":1,"campaign_id":"c","type":"click"'
    plain, several = event + b"}", event + b',"ids":{"device":"d","household":"h"}}'
    records = Records.of([(b"u", plain, 1000), (b"u", several, 1000)])
    for kind in DECODERS:
        for where in (0, 1):
            ingest(kind, replace(home, partition=where), records, Limits())
    gate.erasures.erase(b"erased", 0)
    gate.redirects.follow(b"linked", Link(0, 0, b"other"))
    for each in home.forwards.take().values():
        for forwarded in each:
            ingest(TOPIC, home, forwarded, Limits())
    ledger.decide("u")
    ledger.history("u")
    ledger.observed(0, 1)
    ledger.survey(1)
    shown = from_columns([1], [1], campaign=[0], engaged=[False], campaigns=["c"])
    observed(shown, unknown(1), "campaign", 0, 0, 2)
    ledger.sweep(1)
    taken = ledger.take(0)
    rows = taken.changelog.select(np.arange(len(taken.changelog)))
    # As a fetch brings them: in bytes that cannot be written, which is another type to compile for.
    ledger.load(replace(rows, buffer=np.frombuffer(rows.buffer.tobytes(), np.uint8)))
    ledger.merge("v", ledger.raw("u"), 0)
    ledger.forget("v")
    ledger.take(0)
    ledger.compact()
    ledger.reevaluate(1)
    for outgoing in (taken.decisions, taken.changelog, records):
        list(build(outgoing, max_bytes=1_000_000))
    as_one([taken.changelog, taken.changelog])
    wire_parse(b"", 0, None, check_crcs=False, committed_only=True)
