"""What readers were told, against a few lines of plain Python that say what overshoot is."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from governor.events import Limits, decode_impressions
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND, from_seconds
from governor.told import Told

POLICY = """
rules:
  - {name: user-hourly, cap: 6, per: user, window: 1h}
  - {name: campaign, cap: 2, per: campaign, window: 10m}
  - {name: both, cap: 2, per: campaign x creative, window: 20m}
  - {name: ctv, cap: 1, per: campaign, window: 10m, match: {channel: ctv}}
  - {name: not-yet, cap: 1, per: campaign, window: 1h, shadow: true}
"""
START = 1_790_000_000
GRACE = 5.0

Event = dict[str, Any]


@dataclass
class Stop:
    since: float
    until: float


@dataclass
class Oracle:
    """By person and label (with its match), the stops of the person's last record."""

    stops: dict[str, dict[str, Stop]] = field(default_factory=dict)

    def publish(self, key: str, decision: dict[str, Any] | None, appended: float) -> None:
        before, now = self.stops.get(key, {}), {}
        for one in decision["throttles"] if decision else ():
            if one["state"] != "throttled":
                continue
            label = json.dumps([one["label"], one.get("match")])
            until = float("inf") if one["until"] is None else one["until"]
            if until <= appended:
                continue  # it was never in force while readers had it
            old = before.get(label)
            goes_on = old is not None and old.until >= max(one["from"], appended)
            since = old.since if old and goes_on else max(one["from"], appended)
            now[label] = Stop(since, until)
        self.stops[key] = now

    def stops_of(self, key: str) -> list[tuple[tuple[str, Any], Stop]]:
        return [
            ((label, match), stop)
            for name, stop in self.stops.get(key, {}).items()
            for label, match in [json.loads(name)]
        ]

    def late(self, event: Event) -> float | None:
        found = [
            stop.since
            for (label, match), stop in self.stops_of(event["user_id"])
            if stop.until > event["ts"] and _speaks_of(label, match, event)
        ]
        late = event["ts"] - min(found, default=float("inf"))
        return late if late > GRACE else None


def _speaks_of(label: str, match: dict[str, list[str]] | None, event: Event) -> bool:
    has = {"campaign": event["campaign_id"]} | {
        name: event[key]
        for name, key in (("creative", "creative_id"), ("channel", "channel"))
        if key in event
    }
    if any(has.get(name) not in values for name, values in (match or {}).items()):
        return False
    parts = dict(part.split(":") for part in label.split(" x ") if part != "user")
    return parts.items() <= has.items()


class Flow:
    """Events through a ledger, its decisions published at a broker's times."""

    def __init__(self, policy: str = POLICY) -> None:
        self.ledger = Ledger(load(policy, horizon=32 * 86400 * SECOND), horizon=32 * 86400 * SECOND)
        self.told, self.oracle = Told(from_seconds(GRACE)), Oracle()

    def show(self, events: list[Event]) -> list[float]:
        """Apply one batch; what the compiled code finds late, in seconds."""
        records = Records.of([(None, json.dumps(one).encode(), START * 1000) for one in events])
        columns, rejected = decode_impressions(
            records, self.ledger.labels, Limits(max_future=1 << 50)
        )
        assert not rejected
        applied = self.ledger.apply(columns)
        late = self.told.against(columns, applied.outcome, self.ledger.labels)
        return sorted((late / SECOND).tolist())

    def flush(self, appended: float) -> None:
        decisions = self.ledger.take(0).decisions
        self.publish(decisions, appended)

    def publish(self, decisions: Records, appended: float) -> None:
        self.told.publish(decisions, from_seconds(appended))
        for i in range(len(decisions)):
            key, value = decisions.key(i), decisions.value(i)
            assert key is not None
            self.oracle.publish(key.decode(), json.loads(value) if value else None, appended)


def impression(n: int, user: str, ts: float, **labels: str) -> Event:
    return {"event_id": f"e{n}", "user_id": user, "ts": ts, "campaign_id": "C1", **labels}


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_the_definition_says(seed: int) -> None:
    random_ = random.Random(seed)
    flow = Flow()
    now, n, found = float(START), 0, 0
    for _ in range(150):
        batch = []
        for _ in range(random_.randint(0, 12)):
            n += 1
            labels = {"campaign_id": random_.choice(["C1", 'C"2', "C3"])}
            if random_.random() < 0.6:
                labels["creative_id"] = random_.choice(["B1", "B2"])
            if random_.random() < 0.5:
                labels["channel"] = random_.choice(["ctv", "web"])
            ts = round(now + random_.choice([-400.5, -3, 0, 0.25, 3, 7, 40]), 3)
            batch.append(impression(n, f"u{random_.randint(0, 5)}", ts, **labels))
        expected = sorted(late for one in batch if (late := flow.oracle.late(one)) is not None)
        assert flow.show(batch) == pytest.approx(expected, abs=1e-6)
        found += len(expected)
        now += random_.choice([0.1, 1, 8, 90, 700])
        flow.flush(now - random_.choice([0.0, 0.05]))
    assert found > 50, "too tame"


def test_within_the_grace_nobody_can_know() -> None:
    flow = Flow()
    flow.show([impression(1, "u", START), impression(2, "u", START + 1)])
    flow.flush(START + 2)
    assert flow.show([impression(3, "u", START + 2 + GRACE)]) == []
    assert flow.show([impression(4, "u", START + 2.5 + GRACE)]) == [GRACE + 0.5]


def test_the_grace_is_not_renewed_by_showing_on() -> None:
    flow = Flow()
    flow.show([impression(1, "u", START), impression(2, "u", START + 1)])
    flow.flush(START + 1)
    found = []
    for second in range(2, 60):
        found += flow.show([impression(second + 1, "u", START + second)])
        flow.flush(START + second)
    assert found == [float(late) for late in range(6, 59)]


def test_a_repeated_event_is_not_shown_again() -> None:
    flow = Flow()
    flow.show([impression(1, "u", START), impression(2, "u", START + 1)])
    flow.flush(START + 1)
    late = impression(3, "u", START + 20)
    assert flow.show([late]) == [19]
    assert flow.show([late]) == []


def test_what_was_taken_back_holds_nobody() -> None:
    flow = Flow()
    flow.show([impression(1, "u", START), impression(2, "u", START + 1)])
    flow.flush(START + 1)
    flow.publish(Records.of([(b"u", None, 0)]), START + 5)
    assert flow.show([impression(3, "u", START + 20)]) == []


def test_another_policy_speaks_of_other_labels() -> None:
    flow = Flow()
    flow.show([impression(1, "u", START), impression(2, "u", START + 1)])
    flow.flush(START + 1)
    flow.ledger.set_policy(
        load("rules: [{name: all, cap: 3, per: user, window: 1h}]", horizon=32 * 86400 * SECOND)
    )
    assert flow.show([impression(3, "u", START + 20)]) == [19], (
        "the old stop stands until taken back"
    )
    flow.ledger.reevaluate(10)
    flow.flush(START + 21)
    assert flow.show([impression(4, "u", START + 22)]) == []
    assert flow.show([impression(5, "u", START + 40, campaign_id="other")]) == [19]


def test_what_has_ended_is_let_go() -> None:
    flow = Flow("rules: [{name: once, cap: 1, per: campaign, window: 1m}]")
    largest = 0
    for minute in range(40):
        now = START + 120 * minute
        flow.show([impression(500 * minute + n, f"u{minute}-{n}", now) for n in range(500)])
        flow.flush(now)
        largest = max(largest, flow.told.nbytes)
    kept = np.count_nonzero(flow.told._stops.entry[:, 0])
    assert kept < 12_000, "of 40,000, those of the last ten minutes and what came since"
    assert largest < 40_000 * 40
