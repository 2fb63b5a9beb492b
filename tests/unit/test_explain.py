"""What each rule says of each label and why, against a plain definition on random streams."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from governor.oracle import seconds
from governor.oracle.calendars import period
from governor.oracle.rows import Row, label_of, matches
from governor.oracle.rules import acts, arm_of, by_rule, counting, during_lifecycle, eased, items
from governor.policy import Cap, Ignored, Policy, Reaction, Spacing
from tests.fuzz.cases import Features, case
from tests.fuzz.running import Pair
from tests.unit.test_rules import CAP, T0, governed, said, shown

Told = dict[tuple[str, str], dict[str, Any]]
"""By rule and label."""


def explained(pair: Pair, key: str) -> Told | None:
    told = pair.ledger.explain(key)
    return None if told is None else {(one["rule"], one["label"]): one for one in told["rules"]}


def expected(row: Row, policy: Policy, cut: int) -> Told:
    """What must be told of a row; ``cut`` is the newest time of what it had no room for, or -1."""
    told: Told = {}
    for rule in policy.rules:
        if rule.id != row.id_type:
            continue
        in_force = {}
        if acts(rule, arm_of(row, policy.holdout)):
            rests = during_lifecycle(rule, row, policy, by_rule(rule, row, policy))
            in_force = {rest.label: rest for rest in rests}
        kept = kept_by_label(rule, row, policy)
        for label in {*kept, *in_force}:
            rest = in_force.get(label)
            shadow = rule.shadow or policy.shadow
            one: dict[str, Any] = {"rule": rule.name, "label": label, "state": "free"}
            one["until"] = rest and rest.until and seconds(rest.until)
            if rest:
                one["state"] = "shadow" if shadow else "throttled"
            if isinstance(rule, Cap | Spacing):
                one |= used_up(rule, row, policy, label, rest and dict(rest.evidence))
            back = row.now - rule.window if isinstance(rule, Cap | Spacing) else -1
            if cut > back and kept.get(label, 0) < need(rule, policy):
                one["history_since"] = seconds(cut)
            told[rule.name, label] = one
    return told


def kept_by_label(rule: Any, row: Row, policy: Policy) -> dict[str, int]:
    """By label of a rule, the exposures that the row holds."""
    found: dict[str, int] = {}
    for e in row.exposures:
        label = label_of(rule.per, e.labels)
        always = any(ad.priority == "always" for ad in items(e, policy))
        exempt = always and not isinstance(rule, Reaction)
        if label and matches(rule.match, e.labels) and not exempt:
            found[label] = found.get(label, 0) + 1
    return found


def used_up(
    rule: Cap | Spacing, row: Row, policy: Policy, label: str, evidence: dict[str, Any] | None
) -> dict[str, Any]:
    shown_of_label = counting(rule, row, policy).get(label, [])
    limit, window = 1, rule.window
    if isinstance(rule, Cap):
        asked = [
            e.ts + policy.controls.less_often > row.now
            for e in row.said
            if e.type == "less_often" and e.label == label
        ]
        limit, window = eased(rule, row, sum(asked))
    elif evidence:
        window = round(evidence["window"] * 1_000_000)
    if isinstance(rule, Cap) and rule.calendar:
        since = period(row.zone, rule.calendar, row.now)[0]
        looks: dict[str, Any] = {"calendar": rule.calendar}
    else:
        since, looks = row.now - window + 1, {"window": seconds(window)}
    return {"limit": limit, "count": sum(e.ts >= since for e in shown_of_label), **looks}


def need(rule: Any, policy: Policy) -> int:
    """How many exposures of a label an answer can depend on."""
    if isinstance(rule, Cap):
        lightest = min((ad.weight for ad in policy.ads), default=100)
        return -(-100 * rule.limit // min(lightest, 100))
    return rule.ignored * rule.levels if isinstance(rule, Ignored) else 1


def cut_of(pair: Pair, key: str, row: Row) -> int:
    """The newest time of what was taken in and is inside the horizon, and is not in the row."""
    held = {*row.exposures, *row.engagements, *row.controls}
    gone = [
        e.ts
        for e in pair.oracle.entries(key) - held
        if e.ts > row.now - row.horizon and e.type not in ("consent", "erase", "link")
    ]
    return max(gone, default=-1)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**32),
    st.builds(
        Features,
        modifiers=st.booleans(),
        calendar=st.booleans(),
        reactions=st.booleans(),
        controls=st.booleans(),
        ids=st.booleans(),
        crowded=st.booleans(),
    ),
)
def test_every_rule_tells_of_every_label_what_its_definition_says(
    seed: int, features: Features
) -> None:
    drawn = case(seed, features, users=3, most=24)
    pair = Pair(drawn.policy, horizon=drawn.horizon, row_limit=drawn.row_limit)
    for batch in drawn.batches:
        pair.feed(batch)
    for key in pair.oracle.rows:
        times = [e.ts for e in pair.oracle.entries(key)]
        assume(len(times) == len(set(times)))  # who wins a tie is the ledger's own business
        row = pair.oracle.row(key)
        told = explained(pair, key)
        if row is None:
            assert told is None
            continue
        assert told == expected(row, pair.ledger.policy, cut_of(pair, key, row)), key


def test_a_row_says_since_when_it_cannot_answer_a_wider_rule() -> None:
    """Four exposures of which two had room: a cap of four asks about two that are gone."""
    row_limit = 2
    events = [shown(at) for at in range(4)]
    pair = governed(CAP, *events, row_limit=row_limit)
    told = explained(pair, "u1")
    assert told is not None
    assert "history_since" not in told["cap", "campaign:C7"]
    pair.ledger.set_policy(Policy.model_validate(_wider(4)))
    told = explained(pair, "u1")
    assert told is not None
    assert told["cap", "campaign:C7"] == {
        "rule": "cap", "label": "campaign:C7", "state": "free", "until": None,
        "limit": 4, "window": 3600, "count": 2, "history_since": T0 + 1,
    }  # fmt: skip
    # New exposures fill it: as soon as the row holds all that the rule asks about, it knows.
    pair.ledger.set_policy(Policy.model_validate(_wider(4)))
    pair.feed([shown(at) for at in (10, 11)])
    told = explained(pair, "u1")
    assert told is not None
    assert "history_since" not in told["cap", "campaign:C7"]
    assert told["cap", "campaign:C7"]["state"] == "throttled"


@pytest.mark.parametrize("requests", [0, 1, 2, 3])
def test_a_label_that_is_free_tells_the_cap_that_the_person_asked_for(requests: int) -> None:
    pair = governed(
        "{name: cap, cap: 4, per: campaign, window: 1h}",
        *(said(at, "less_often") for at in range(requests)),
        shown(10),
    )
    told = explained(pair, "u1")
    assert told is not None
    one = told["cap", "campaign:C7"]
    expected_limit, hours = ((4, 1), (2, 1), (1, 1), (1, 2))[requests]
    assert (one["limit"], one["window"]) == (expected_limit, 3600 * hours)


def _wider(limit: int) -> dict[str, Any]:
    rule = {"name": "cap", "cap": limit, "per": "campaign", "window": "1h"}
    return {"version": "wider", "rules": [rule]}
