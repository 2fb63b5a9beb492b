"""The look at all rows, against the decisions and a count in plain Python."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from governor.events import Limits, decode_impressions
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.rows import CAPACITIES
from governor.ticks import SECOND

HORIZON = 32 * 86400
POLICY = """
rules:
  - {name: a, cap: 3, per: campaign, window: 1h}
  - {name: b, cap: 6, per: user, window: 2h}
  - {name: c, cap: 2, per: campaign, calendar: day, match: {channel: nowhere}}
  - {name: d, cap: 1, per: user, window: 1m, shadow: true}
"""
START = 1_790_000_000


def filled(seed: int, users: int) -> tuple[Ledger, dict[str, list[tuple[int, str]]]]:
    random_ = random.Random(seed)
    ledger = Ledger(load(POLICY, horizon=HORIZON * SECOND), horizon=HORIZON * SECOND)
    shown: dict[str, list[tuple[int, str]]] = {}
    records = []
    for n in range(6 * users):
        user, campaign = f"u{random_.randrange(users)}", random_.choice("CDE")
        ts = START + random_.randrange(4 * 3600)
        shown.setdefault(user, []).append((ts, campaign))
        event = {"event_id": f"e{n}", "user_id": user, "ts": ts, "campaign_id": campaign}
        records.append((None, json.dumps(event).encode(), ts * 1000))
    columns, _ = decode_impressions(Records.of(records), ledger.labels, Limits())
    ledger.apply(columns)
    return ledger, shown


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_is_counted_one_by_one(seed: int) -> None:
    ledger, shown = filled(seed, 150)
    ledger.take(0)
    now = max(ts for each in shown.values() for ts, _ in each)
    held = {
        user
        for user in shown
        for one in (ledger.decide(user) or {"throttles": []})["throttles"]
        if one["until"] > now and one["state"] == "throttled"
    }
    near = set()
    for user, each in shown.items():
        of_hour = Counter(campaign for ts, campaign in each if ts > now - 3600)
        if 2 in of_hour.values() or sum(ts > now - 7200 for ts, _ in each) == 5:
            near.add(user)
    assert held
    assert near
    found = ledger.survey(1000)
    assert found.held_back == len(held)
    assert found.held_back_entries == sum(len(shown[user]) for user in held)
    assert found.near == len(near)
    assert found.examined == len(shown)
    rooms = CAPACITIES.tolist()
    by_room = Counter(min(room for room in rooms if room >= len(each)) for each in shown.values())
    assert {room: n for room, n in zip(rooms, found.rows.tolist(), strict=True) if n} == by_room


def test_it_looks_at_the_entries_of_so_many_rows_only() -> None:
    ledger, shown = filled(9, 400)
    found = ledger.survey(40)
    assert 30 <= found.examined <= 40
    assert found.rows.sum() == len(shown)


def test_it_changes_nothing() -> None:
    ledger, _ = filled(3, 50)
    ledger.take(0)
    before = {name: part.used.tobytes() for name, part in ledger.image().items()}
    ledger.survey(1000)
    assert {name: part.used.tobytes() for name, part in ledger.image().items()} == before
    assert len(ledger.take(0).decisions) == 0


def test_of_nobody() -> None:
    ledger = Ledger(load(POLICY, horizon=HORIZON * SECOND), horizon=HORIZON * SECOND)
    found = ledger.survey(10)
    assert (found.held_back, found.near, found.examined, found.rows.sum()) == (0, 0, 0, 0)
