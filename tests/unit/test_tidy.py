"""Moving rows together changes where they lie, and nothing else."""

from __future__ import annotations

import json

import numpy as np

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


def listed(records: Records) -> list[tuple[bytes | None, bytes | None]]:
    """Keys and values."""
    return [(records.key(i), records.value(i)) for i in range(len(records))]


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


def test_moved_together_at_any_time_a_ledger_stays_the_one_that_never_was() -> None:
    """With rows that grow, go, and come again, and holes of all sizes between them."""
    rng = np.random.default_rng(5)
    policy = load("rules: [{name: a, cap: 2, per: campaign, window: 1d}]", horizon=HORIZON)
    one, other = (Ledger(policy, horizon=HORIZON) for _ in range(2))
    names = [f"{'long-' * (user % 7)}u{user}" for user in range(300)]
    for turn in range(60):
        for name in rng.choice(names, 20).tolist():
            one.forget(name)
            other.forget(name)
        taken = [ledger.take(0) for ledger in (one, other)]
        assert listed(taken[0].changelog) == listed(taken[1].changelog)
        records = []
        for k, user in enumerate(rng.integers(0, len(names), 400).tolist()):
            ts = START + turn * 400 + k
            event = {"event_id": f"e{ts}", "user_id": names[user], "ts": ts, "campaign_id": "c"}
            records.append((None, json.dumps(event).encode(), ts * 1000))
        for ledger in (one, other):
            columns, _ = decode_impressions(Records.of(records), ledger.labels, Limits())
            ledger.apply(columns)
        one.compact()
        assert one.nbytes <= other.nbytes
        assert {**one.describe(), "bytes": 0} == {**other.describe(), "bytes": 0}
        for name in names:
            assert one.raw(name) == other.raw(name)
            assert one.decide(name) == other.decide(name)
