"""Moving rows together changes where they lie, and nothing else."""

from __future__ import annotations

import json

from governor.events import Limits, decode_impressions
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND

HORIZON = 32 * 86400 * SECOND
USERS = 4_000
START = 1_790_000_000


def enter(ledger: Ledger, turn: int) -> None:
    """One exposure more of everybody."""
    records = []
    for user in range(USERS):
        ts = START + turn * USERS + user
        event = {"event_id": f"e{turn}-{user}", "user_id": f"u{user}", "ts": ts}
        value = json.dumps({**event, "campaign_id": f"c{turn % 3}"}).encode()
        records.append((None, value, ts * 1000))
    columns, _ = decode_impressions(Records.of(records), ledger.labels, Limits())
    ledger.apply(columns)


def test_rows_are_the_same_in_less_memory() -> None:
    policy = "rules: [{name: a, cap: 2, per: campaign, window: 1d}]"
    ledger = Ledger(load(policy, horizon=HORIZON), horizon=HORIZON)
    names = [f"u{user}" for user in range(USERS)]
    tidied = 0
    for turn in range(9):
        enter(ledger, turn)
        before = [(ledger.raw(name), ledger.decide(name)) for name in names]
        size = ledger.nbytes
        if ledger.tidy():
            tidied += 1
            assert ledger.nbytes < size
            assert not ledger.tidy()
        assert [(ledger.raw(name), ledger.decide(name)) for name in names] == before
    assert tidied >= 1
