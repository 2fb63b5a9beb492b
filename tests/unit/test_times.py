"""An event's time is the tick nearest to what its message says, however many decimals it writes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from governor.events import Limits, decode_controls, decode_engagements, decode_impressions
from governor.labels import Labels
from governor.ledger import Ledger
from governor.oracle.events import decode
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND

BEGIN = 1_796_029_424
DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}
TYPES = {"impression": {}, "engagement": {"type": "click"}, "control": {"type": "opt_out"}}


def labels() -> Labels:
    policy = load("rules: [{name: c, cap: 3, per: campaign, window: 1w}]")
    return Ledger(policy, horizon=32 * 86_400 * SECOND).labels


def texts() -> Iterator[str]:
    """As clocks are read, the middle between two ticks and all about it, and with exponents."""
    chance = random.Random(5)
    for _ in range(2_000):
        yield repr(BEGIN + chance.random() * 1000)
    for digits in range(14):
        for _ in range(100):
            yield f"{BEGIN}.{chance.randrange(10**digits):0{digits}}".rstrip(".")
    for n in range(300):
        tick = chance.randrange(10**6)
        for rest in (
            "5",
            "50",
            "49",
            "51",
            "4999",
            "5001",
            "4999999999",
            "5000000001",
            "499999999999",
        ):
            yield f"{BEGIN + n}.{tick:06}{rest}"
    for _ in range(100):
        yield f"1.7960294{chance.randrange(10**12):012}e9"


@pytest.mark.parametrize("topic", DECODERS)
def test_the_tick_is_the_nearest_to_what_is_written(topic: str) -> None:
    event = {"event_id": "e", "user_id": "u", "campaign_id": "C", **TYPES[topic]}
    values = [
        json.dumps(event | {"ts": 0}).replace('"ts": 0', f'"ts": {text}').encode()
        for text in texts()
    ]
    records = Records.of([(b"u", value, -1) for value in values])
    columns, rejected = DECODERS[topic](records, labels(), Limits())
    assert not rejected
    expected = [decode(topic, value)[0].ts for value in values]
    found = dict(zip(columns.source.tolist(), columns.ts.tolist(), strict=True))
    assert [found[i] for i in range(len(values))] == expected
