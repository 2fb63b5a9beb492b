"""Changelog records as earlier versions wrote them, byte for byte: an upgrade reads them all."""

from __future__ import annotations

import pytest

from governor.events import Limits, decode_impressions
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.rowcodec import RowError

HORIZON = 32 * 86_400_000_000
RULES = "rules:\n  - {name: day, cap: 2, per: campaign, window: 1d}\n"

VERSION_1 = [
    (
        "61493b5c3ca741f189",
        b'{"campaign":"C7"}'.hex(),
    ),
    (
        "61c51bdc1c9835868a",
        b'{"campaign":"C7","creative":"B2"}'.hex(),
    ),
    (
        "6101e7b720ff566d53",
        b"{}".hex(),
    ),
    (
        b"uann".hex(),
        (
            "e7010300f1214a0ecd430f2b00a0f535380a06000500507c4a4fa260dcb5cda245add310a1fd06e7b5000000"
            "01e7b720ff566d5300005298eb4ea2607b1fc1fa52bbc67711f98de652000000c51bdc1c9835868a000000e4"
            "8141a260efca7d057f661998a1fd06e7b5000000493b5c3ca741f189a95b4321"
        ),
    ),
]
"""Three ads, and the row of a user with two exposures an hour apart and a click."""


def test_rows_of_version_1_are_read() -> None:
    ledger = Ledger(load(RULES, horizon=None), horizon=HORIZON)
    records = [(bytes.fromhex(key), bytes.fromhex(value), 0) for key, value in VERSION_1]
    ledger.load(Records.of(records))
    assert (len(ledger), ledger.entries) == (1, 3)
    decision = ledger.decide("ann")
    assert decision is not None
    (throttle,) = decision["throttles"]
    assert throttle["label"] == "campaign:C7"
    assert (throttle["from"], throttle["until"]) == (1700003600.5, 1700086400)
    assert throttle["evidence"]["day"]["exposures"] == 2


def test_a_row_of_version_1_that_was_published_is_not_published_again() -> None:
    """Its digest is that of the decision that its writer published under the same rules."""
    ledger = Ledger(load(RULES, horizon=None), horizon=HORIZON)
    records = [(bytes.fromhex(key), bytes.fromhex(value), 0) for key, value in VERSION_1]
    ledger.load(Records.of(records))
    taken = ledger.take(0)
    assert len(taken.decisions) == len(taken.changelog) == 0


def test_rows_before_one_that_cannot_be_read_are_held_soundly() -> None:
    """Also where the arrays had to grow for them before it was met."""
    source, ledger = (Ledger(load(RULES, horizon=None), horizon=HORIZON) for _ in range(2))
    events = [
        b'{"event_id":"e%d","user_id":"u%d","ts":1700000000,"campaign_id":"C7"}' % (n, n)
        for n in range(1_000)
    ]
    records = Records.of([(b"u", event, 1_700_000_000_000) for event in events])
    source.apply(decode_impressions(records, source.labels, Limits())[0])
    rows = source.take(0).changelog
    good = [(rows.key(i), rows.value(i), 0) for i in range(len(rows))]
    with pytest.raises(RowError) as failure:
        ledger.load(Records.of([*good, (b"uann", b"\xe7 no row", 0)]))
    assert failure.value.record == len(good)
    assert len(ledger) == 1_000
    applied = ledger.apply(decode_impressions(records, ledger.labels, Limits())[0])
    assert applied.counts()["duplicate"] == 1_000
