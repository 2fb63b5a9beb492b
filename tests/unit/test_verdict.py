"""What `governor verify` calls different, and what not."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest

from governor.decisions import GRACE
from governor.events import Limits
from governor.gate import Gate
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND
from streams.home import Home
from streams.pipeline import ingest
from streams.verdict import Event, Found, Judge, Place, Skipped, Verdict
from tests.integration.deployment import policy_text
from tests.integration.scenario import RULES, scenario

HORIZON = 2 * GRACE
POLICY = "rules:\n  - {name: spacing, spacing: 1m, per: campaign}\n"
T0 = 1_790_000_000
HERE = Place("topic", 0, 1)


def shown(user: str, n: int, ts: float, **more: Any) -> Event:
    return "impressions", {
        "event_id": f"{user}-{n}", "user_id": user, "ts": ts, "campaign_id": f"C{n}", **more
    }  # fmt: skip


def held(events: Sequence[Event], policy: str = POLICY) -> Ledger:
    """A ledger with these events."""
    ledger = Ledger(load(policy, horizon=HORIZON), horizon=HORIZON)
    home = Home(0, 1, ledger, Gate(secret=b"", retention=0))
    for kind, event in events:
        value = json.dumps(event).encode()
        records = Records.of([(b"", value, int(event["ts"] * 1000))])
        assert not ingest(kind, home, records, Limits()).rejected
    return ledger


def judged(
    told: Sequence[Event],
    ledger: Ledger,
    *,
    decision: Any = "of the row",
    watermark: float = 0,
    policy: str = POLICY,
) -> Verdict:
    """The verdict on one user, whose row and decision are the ledger's unless said otherwise."""
    user = told[0][1]["user_id"] if told else "u"
    row = ledger.decide(user)
    found = Found(row if decision == "of the row" else decision, HERE, row, ledger.live(user), HERE)
    verdict = Verdict()
    newest = max([watermark, *(event["ts"] for _, event in told)])
    judge = Judge(load(policy), HORIZON, 128, round(newest * SECOND))
    judge.judge(user, told, None, found, verdict)
    return verdict


def kinds(verdict: Verdict) -> list[tuple[str, str | None]]:
    return [(one.what, one.label) for one in verdict.differences]


def test_what_the_engine_makes_of_any_events_is_not_different() -> None:
    policy = policy_text(RULES)
    events = scenario(70)
    ledger = held(events, policy)
    told: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        told[event[1]["user_id"]].append(event)
    total = Verdict()
    for mine in told.values():
        total.add(judged(mine, ledger, policy=policy))
    assert not total.differences
    assert total.judged == len(told)
    assert total.status == 0


def test_a_decision_that_is_missing_or_not_due_is_different() -> None:
    events = [shown("u", 1, T0)]
    assert kinds(judged(events, held(events), decision=None)) == [("decision", "campaign:C1")]
    other = held([shown("u", 2, T0)]).decide("u")
    wrong = judged(events, held(events), decision=other)
    assert kinds(wrong) == [("decision", "campaign:C1"), ("decision", "campaign:C2")]
    assert wrong.status == 1


def test_a_decision_may_be_gone_once_it_has_run_out_for_everybody() -> None:
    events = [shown("u", 1, T0)]
    ends = T0 + 60 + GRACE / SECOND
    assert not judged(events, held(events), decision=None, watermark=ends).differences
    assert judged(events, held(events), decision=None, watermark=ends - 1).differences
    assert judged(events, held(events), watermark=ends).overdue == 1


@pytest.mark.parametrize("kept", [0, 1])
def test_a_row_that_lacks_events_is_different(kept: int) -> None:
    events = [shown("u", 1, T0), shown("u", 2, T0 + 1)]
    right = held(events).decide("u")
    wrong = judged(events, held(events[:kept]), decision=right)
    assert ("row", None) in kinds(wrong)
    assert all(what == "row" for what, _ in kinds(wrong))


def test_engagements_count_as_well() -> None:
    click: Event = (
        "engagements",
        {"event_id": "c", "user_id": "u", "ts": T0, "type": "click", "campaign_id": "C1"},
    )
    events = [shown("u", 1, T0 + 1), click]
    lacks = judged(events, held(events[:1]))
    assert kinds(lacks) == [("row", None)]
    assert lacks.differences[0].expected["engagements"] == 1


def test_whoever_had_no_events_may_have_neither_row_nor_decision() -> None:
    ledger = held([shown("u", 1, T0)])
    assert len(kinds(judged([], ledger, watermark=T0 + 10 * HORIZON / SECOND))) == 3


def test_either_of_two_contents_at_one_instant_may_count() -> None:
    one = shown("u", 1, T0, event_id="same")
    other = shown("u", 2, T0, event_id="same")
    for only in (one, other):
        decision = held([only]).decide("u")
        found = judged([one, other], held([one, other]), decision=decision)
        assert not found.differences
    both = held([one, shown("u", 2, T0)]).decide("u")
    assert judged([one, other], held([one, other]), decision=both).differences


def test_a_forgotten_row_that_began_anew_is_not_judged() -> None:
    begun = shown("u", 1, T0)
    late = shown("u", 2, T0 + 30)
    watermark = T0 + 31 + HORIZON / SECOND
    verdict = judged([begun, late], held([late]), watermark=watermark)
    assert not verdict.differences
    assert verdict.skipped == {Skipped.LATE: 1}
    assert judged([begun, late], held([late]), watermark=watermark - 60).differences


BOUGHT = "rules:\n  - {name: bought, reaction: conversion, per: campaign, rest: 1h}\n"


def said(user: str, n: int, granted: bool) -> Event:
    event = {"event_id": f"{user}-said-{n}", "user_id": user, "ts": T0 + n, "type": "consent"}
    return "controls", event | {"consent": {"retargeting": granted}}


def bought(user: str, n: int) -> Event:
    event = {"event_id": f"{user}-bought-{n}", "user_id": user, "ts": T0 + n}
    return "engagements", event | {"type": "conversion", "campaign_id": "C1"}


def test_words_on_consent_may_have_come_in_another_order() -> None:
    """Of an engagement it decides whether it is kept, and no topic tells of another's order."""
    came = [said("u", 1, False), said("u", 2, True), bought("u", 3)]
    for told in itertools.permutations(came):
        verdict = judged(told, held(came, BOUGHT), policy=BOUGHT)
        assert verdict.judged == 1
        assert not verdict.differences


def test_where_the_order_decides_and_none_explains_it_nothing_is_called_different() -> None:
    came = [said("u", 1, False), said("u", 2, True), bought("u", 3)]
    other = held([*came, bought("u", 9)], BOUGHT)
    verdict = judged(came, other, policy=BOUGHT)
    assert not verdict.differences
    assert verdict.skipped == {Skipped.ORDER: 1}
    certain = [said("u", 1, True), bought("u", 3)]
    assert judged(certain, other, policy=BOUGHT).differences
