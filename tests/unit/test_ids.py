"""Events that name several ids, as columns: a row for each id, and what is no id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from governor.events import (
    Columns,
    Limits,
    Reason,
    Rejected,
    decode_controls,
    decode_engagements,
    decode_impressions,
)
from governor.labels import Labels
from governor.records import Records

T0 = 1_700_000_000
DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}


def decoded(topic: str, *events: dict[str, Any]) -> tuple[Columns, list[Rejected]]:
    records = Records.of([(None, json.dumps(event).encode(), T0 * 1000) for event in events])
    return DECODERS[topic](records, Labels(), Limits())


def event(**fields: Any) -> dict[str, Any]:
    return {
        "event_id": "e",
        "user_id": "u",
        "ts": T0,
        "campaign_id": "C",
        "type": "opt_out",
        **fields,
    }


def keys(columns: Columns) -> list[tuple[str, int]]:
    """Row keys, each with the record that it came in."""
    return [
        (columns.text[start : start + size].tobytes().decode(), source)
        for start, size, source in zip(
            columns.user_start.tolist(),
            columns.user_size.tolist(),
            columns.source.tolist(),
            strict=True,
        )
    ]


@pytest.mark.parametrize("topic", DECODERS)
def test_an_event_is_there_once_for_each_id(topic: str) -> None:
    columns, rejected = decoded(
        topic,
        event(user_id="a"),
        event(user_id="é", ids={"device2": "d1", "house_hold": "hé"}),
        event(user_id="b", ids={}),
        event(user_id="c", ids=None),
    )
    assert rejected == []
    assert sorted(keys(columns)) == [
        ("a", 0),
        ("b", 2),
        ("c", 3),
        ("device2\0d1", 1),
        ("house_hold\0hé", 1),
        ("é", 1),
    ]
    same = [i for i, source in enumerate(columns.source.tolist()) if source == 1]
    for column in (columns.ts, columns.what, columns.event, columns.exposure, columns.ad):
        assert len({int(column[i]) for i in same}) == 1


@pytest.mark.parametrize("topic", DECODERS)
def test_sources_are_right_among_bad_messages(topic: str) -> None:
    columns, rejected = decoded(
        topic,
        event(user_id=""),
        event(user_id="a", ids={"device": "d"}),
        event(user_id="b", ts=T0 * 1000),
        event(user_id="c"),
    )
    assert [one.index for one in rejected] == [0, 2]
    assert sorted(keys(columns)) == [("a", 1), ("c", 3), ("device\0d", 1)]


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ({"user": "u2"}, Reason.WRONG_TYPE),
        ({"Device": "d"}, Reason.WRONG_TYPE),
        ({"": "d"}, Reason.WRONG_TYPE),
        ({"_device": "d"}, Reason.WRONG_TYPE),
        ({"2nd_device": "d"}, Reason.WRONG_TYPE),
        ({"device-2": "d"}, Reason.WRONG_TYPE),
        ({"d" * 33: "d"}, Reason.WRONG_TYPE),
        ({"device": ""}, Reason.EMPTY_ID),
        ({"device": "a\0b"}, Reason.NUL_BYTE),
        ({"device": "d" * 513}, Reason.ID_TOO_LONG),
        ({"device": 7}, Reason.WRONG_TYPE),
        (["device"], Reason.WRONG_TYPE),
        ({"t" * n: "x" for n in range(1, 18)}, Reason.TOO_LARGE),
    ],
)
@pytest.mark.parametrize("topic", DECODERS)
def test_what_is_no_id_is_a_dead_letter(topic: str, ids: Any, reason: Reason) -> None:
    columns, rejected = decoded(topic, event(user_id="good"), event(ids=ids))
    assert [(one.index, one.reason) for one in rejected] == [(1, reason)]
    assert keys(columns) == [("good", 0)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, Reason.MISSING_FIELD),
        ({"to": ""}, Reason.EMPTY_ID),
        ({"to": "a\0"}, Reason.NUL_BYTE),
        ({"to": "v", "ids": {"device": "d"}}, Reason.WRONG_TYPE),
    ],
)
def test_a_link_says_what_the_id_becomes(fields: dict[str, Any], reason: Reason) -> None:
    columns, rejected = decoded("control", event(type="link", **fields))
    assert [one.reason for one in rejected] == [reason]
    assert len(columns) == 0
