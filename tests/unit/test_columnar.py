"""Tables decoded column-wise: the same events as their JSON gives, and the same refusals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from governor.columnar import NO_TIME, Decoder, Table, texts_of
from governor.entries import ENGAGEMENT, EXPOSURE
from governor.events import Columns, Limits, Reason, decode_engagements, decode_impressions
from governor.labels import Labels
from governor.policy import load
from governor.records import Records
from governor.rules import compile_rules
from governor.scopes import Scopes
from governor.ticks import SECOND
from tests.unit.test_consent import tc_string

T0 = 1_790_000_000
LABELS = {"campaign_id": "campaign", "creative_id": "creative", "category": "category"}


def labels() -> Labels:
    policy = load("rules: [{name: any, cap: 1, per: user, window: 1h}]")
    return Labels(Scopes(compile_rules(policy, horizon=1 << 50)))


def table(kind: int, rows: list[dict[str, Any]]) -> Table:
    def column(name: str) -> Any:
        return texts_of([row.get(name) for row in rows])

    names = {name for row in rows for name in row}
    texts = {"event_id", "impression_id", "kind", "type", "tz", "consent"} & names
    flags = {"retargeting": False, "measurable": True} if kind == EXPOSURE else {}
    return Table(
        kind,
        column("user_id"),
        np.array([round(row["ts"] * SECOND) for row in rows], np.int64),
        np.arange(len(rows), dtype=np.uint64),
        {name: column(name) for name in texts},
        {dimension: column(name) for name, dimension in LABELS.items() if name in names},
        {name: np.array([row.get(name, usual) for row in rows]) for name, usual in flags.items()},
        {},
    )


def read(columns: Columns, known: Labels) -> list[tuple[object, ...]]:
    """The events as they do not depend on how ads are numbered or where texts lie."""
    told = []
    for i in range(len(columns)):
        start, size = int(columns.user_start[i]), int(columns.user_size[i])
        user = columns.text[start : start + size].tobytes()
        others = [
            getattr(columns, field.name)[i].item()
            for field in fields(Columns)
            if field.name not in ("text", "user_start", "user_size", "ad", "zone", "timestamp")
        ]
        zone = int(columns.zone[i])
        named = None if zone < 0 else known.labels_of(zone)
        told.append((user, known.labels_of(int(columns.ad[i])), str(named), *others))
    return told


TEXT = st.sampled_from(["a", "b", "Ünï", "x" * 20, "0"])
SHOWN = st.fixed_dictionaries(
    {
        "event_id": TEXT,
        "user_id": TEXT,
        "ts": st.floats(T0, T0 + 1e6).map(lambda ts: round(ts, 6)),
        "campaign_id": TEXT,
    },
    optional={
        "creative_id": TEXT,
        "category": TEXT,
        "impression_id": TEXT,
        "kind": st.sampled_from(["loaded", "impression", "viewable"]),
        "tz": st.sampled_from(["Europe/Berlin", "Nowhere/Else"]),
        "retargeting": st.booleans(),
        "measurable": st.booleans(),
    },
)
ENGAGED = st.fixed_dictionaries(
    {
        "event_id": TEXT,
        "user_id": TEXT,
        "ts": st.just(float(T0)),
        "type": st.sampled_from(["click", "conversion", "swiped", "hide"]),
        "campaign_id": TEXT,
    },
    optional={"impression_id": TEXT, "category": TEXT},
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SHOWN, min_size=1, max_size=12), st.lists(ENGAGED, min_size=1, max_size=12))
def test_a_table_gives_the_events_that_its_json_gives(
    shown: list[dict[str, Any]], engaged: list[dict[str, Any]]
) -> None:
    for kind, rows, decode in (
        (EXPOSURE, shown, decode_impressions),
        (ENGAGEMENT, engaged, decode_engagements),
    ):
        one, other = labels(), labels()
        records = Records.of((b"", json.dumps(row).encode(), -1) for row in rows)
        expected, rejected = decode(records, one, Limits())
        assert not rejected
        columns, refused = Decoder(other).decode(table(kind, rows))
        assert not refused
        in_order = expected.select(np.argsort(expected.source, kind="stable"))
        assert read(columns, other) == read(in_order, one)


GOOD: Mapping[str, Any] = {"event_id": "e", "user_id": "u", "ts": T0, "campaign_id": "C"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": None}, Reason.MISSING_FIELD),
        ({"user_id": ""}, Reason.MISSING_FIELD),
        ({"event_id": ""}, Reason.MISSING_FIELD),
        ({"campaign_id": None}, Reason.MISSING_FIELD),
        ({"user_id": "u" * 513}, Reason.ID_TOO_LONG),
        ({"campaign_id": "C" * 513}, Reason.ID_TOO_LONG),
        ({"user_id": "a\0b"}, Reason.NUL_BYTE),
        ({"ts": NO_TIME / SECOND}, Reason.WRONG_TYPE),
        ({"ts": T0 * 1000}, Reason.MILLISECONDS),
        ({"ts": -5}, Reason.PAST),
        ({"kind": "shown"}, Reason.MISSING_FIELD),
        ({"consent": "perhaps"}, Reason.WRONG_TYPE),
        ({"consent": '{"retargeting": '}, Reason.WRONG_TYPE),
    ],
)
def test_what_is_no_event_is_refused_and_costs_only_itself(
    change: dict[str, Any], reason: Reason
) -> None:
    rows = [dict(GOOD), {**GOOD, **change}, {**GOOD, "user_id": "v"}]
    columns, refused = Decoder(labels()).decode(table(EXPOSURE, rows))
    assert [(one.reason, one.rows.tolist()) for one in refused] == [(reason, [1])]
    assert columns.source.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, None),
        ("", None),
        ("true", {"retargeting": True}),
        ("False", {"retargeting": False}),
        ("0", {"retargeting": False}),
        (tc_string({1, 3, 4}), {"tcf": tc_string({1, 3, 4})}),
        (tc_string({1}), {"tcf": tc_string({1})}),
        (f"DBABMA~{tc_string({1, 3, 4})}", {"gpp": f"DBABMA~{tc_string({1, 3, 4})}"}),
        ('{"retargeting": true}', {"retargeting": True}),
        ('{"measurement": true}', {"measurement": True}),
    ],
)
def test_consent_in_a_column_says_what_it_says_in_json(text: str | None, said: object) -> None:
    columns, refused = Decoder(labels()).decode(table(EXPOSURE, [{**GOOD, "consent": text}]))
    assert not refused
    records = Records.of([(b"", json.dumps({**GOOD, "consent": said}).encode(), -1)])
    expected, _ = decode_impressions(records, labels(), Limits())
    assert columns.consent.tolist() == expected.consent.tolist()


def test_an_engagement_must_say_what_it_answers() -> None:
    rows = [
        {"event_id": "k", "user_id": "u", "ts": T0, "type": "click", "impression_id": "i"},
        {"event_id": "l", "user_id": "u", "ts": T0, "type": "click"},
    ]
    columns, refused = Decoder(labels()).decode(table(ENGAGEMENT, rows))
    assert columns.source.tolist() == [0]
    assert [one.rows.tolist() for one in refused] == [[1]]


def test_without_ids_each_row_is_an_event_and_an_exposure_of_its_own() -> None:
    rows = [{"user_id": "u", "ts": T0, "campaign_id": "C"}] * 3
    columns, _ = Decoder(labels()).decode(table(EXPOSURE, rows))
    assert len(set(columns.event.tolist())) == 3
    assert len(set(columns.exposure.tolist())) == 3


def test_texts_that_repeat_are_read_by_their_codes() -> None:
    plain = texts_of(["a", None, "b", "a"])
    coded = texts_of(["b", "a"])
    coded = type(coded)(coded.text, coded.start, coded.size, np.array([1, -1, 0, 1]))
    assert (plain.hashes() == coded.hashes()).all()
    assert [plain.at(i) for i in range(4)] == [coded.at(i) for i in range(4)]
    assert coded.spread().size.tolist() == [1, -1, 1, 1]
    assert coded.select(np.array([2, 1])).hashes().tolist() == plain.hashes()[[2, 1]].tolist()
