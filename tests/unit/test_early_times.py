"""Events so near to 1970 that the history horizon reaches behind all time."""

from __future__ import annotations

import json

from governor.events import Limits, decode_engagements, decode_impressions
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND

DAY = 86_400


def test_an_engagement_in_the_first_days_of_the_epoch_cuts_no_row() -> None:
    policy = load("rules: [{name: c, cap: 3, per: campaign, window: 1w}]")
    ledger = Ledger(policy, horizon=32 * DAY * SECOND)
    click = {"event_id": "k", "user_id": "u", "ts": DAY + 1, "type": "click", "impression_id": "i1"}
    for n in (1, 2, 3):
        shown = {
            "event_id": f"e{n}",
            "user_id": "u",
            "ts": n * DAY,
            "campaign_id": "C",
            "impression_id": f"i{n}",
        }
        records = Records.of([(b"u", json.dumps(shown).encode(), -1)])
        columns, _ = decode_impressions(records, ledger.labels, Limits())
        assert ledger.apply(columns).counts()["applied"] == 1
        if n == 1:
            records = Records.of([(b"u", json.dumps(click).encode(), -1)])
            columns, _ = decode_engagements(records, ledger.labels, Limits())
            ledger.apply(columns)
    decided = ledger.decide("u")
    assert decided is not None
    assert decided["throttles"][0]["until"] == 8 * DAY
    held = ledger.export("u")
    assert held is not None
    assert held["facts"] == []
