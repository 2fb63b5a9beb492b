"""Files of history, as batches for topics; and what their beginning leaves unknown."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from governor.policy import load
from governor.ticks import SECOND
from streams.backfill import unknown
from streams.history import HistoryError, batches

DAY = 86400.0
HORIZON = 32 * 86_400 * SECOND
NOW = 1_790_000_000.0


def read(path: Path) -> list[tuple[str, bytes | None, Any]]:
    return [
        (topic, records.key(i), json.loads(records.value(i) or b"null"))
        for topic, records in batches(path)
        for i in range(len(records))
    ]


def test_each_event_goes_to_the_topic_that_it_is_of(tmp_path: Path) -> None:
    events = [
        {"user_id": "a", "campaign_id": "C"},
        {"user_id": "b", "type": "click"},
        {"user_id": "c", "type": "opt_out"},
        {"user_id": "d", "topic": "engagements", "type": "link"},
    ]
    text = "\n".join(map(json.dumps, events)) + "\n\n"
    plain, packed = tmp_path / "events.jsonl", tmp_path / "events.jsonl.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    for path in (plain, packed):
        assert sorted(read(path), key=lambda one: str(one[1])) == [
            ("impressions", b"a", events[0]),
            ("engagements", b"b", events[1]),
            ("controls", b"c", events[2]),
            ("engagements", b"d", events[3]),
        ]


def test_what_is_no_event_is_given_on_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("hello\n[1]\n")
    found = [
        (topic, records.value(i)) for topic, records in batches(path) for i in range(len(records))
    ]
    assert found == [("impressions", b"hello"), ("impressions", b"[1]")]


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(b"hello")
    with pytest.raises(HistoryError, match=r"events\.jsonl\.gz"):
        list(batches(path))


def test_how_far_a_rule_looks_back_is_with_all_that_modifies_it() -> None:
    policy = load(
        """
        rules:
          - {name: ignored, reaction: {ignored: 2, within: 1d, levels: 4}, per: campaign, rest: 1d}
          - {name: month, cap: 9, per: user, calendar: month}
          - {name: pause, spacing: 5d, per: campaign}
          - {name: buyers, cap: 9, per: user, window: 1h, match: {lifecycle: customer}}
          - {name: tired, fatigue: {}, per: campaign}
        sensitive: {categories: [Alcoholic Beverages], multiplier: 2}
        lifecycle: {engaged: 1d, customer: 30d}
        """
    )
    for name, days in (
        ("ignored", 17),
        ("month", 32),
        ("pause", 10),
        ("buyers", 30),
        ("tired", 60),
    ):
        named = [
            {
                text.split()[0]
                for text in unknown(policy, NOW - back * DAY, NOW, 60 * 86_400 * SECOND)
            }
            for back in (days - 1, days)
        ]
        assert name in named[0] - named[1]


def test_a_rule_that_looks_behind_the_history_is_named() -> None:
    policy = load(
        """
        rules:
          - {name: hour, cap: 3, per: user, window: 1h}
          - {name: month, cap: 9, per: user, window: 30d}
          - {name: bought, reaction: conversion, per: campaign, rest: 20d}
        """
    )
    assert unknown(policy, NOW - 31 * DAY, NOW, HORIZON) == []
    told = unknown(policy, NOW - 10 * DAY, NOW, HORIZON)
    assert [text.split()[0] for text in told] == ["month", "bought"]
    assert "2026-10-11" in told[0]
