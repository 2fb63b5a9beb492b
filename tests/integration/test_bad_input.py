"""Bad messages through a real Kafka: each costs itself, and says why."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections import Counter
from typing import Any

import pytest

from streams.deadletters import MAX_KEPT
from tests.integration.conftest import Deploy
from tests.integration.deployment import HOUR, Deployment, Event, Worker
from tests.integration.scenario import T0, scenario
from tests.oracle import Rule

NOW = time.time()


def made(**fields: Any) -> bytes:
    """An event of whatever topic, with these fields changed; None leaves one out."""
    event = {
        "event_id": "bad",
        "user_id": "victim",
        "ts": NOW,
        "campaign_id": "C1",
        "type": "click",
    }
    event |= fields
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


BAD: dict[str, tuple[str, str, bytes | None]] = {
    "not JSON": ("impressions", "malformed", b'{"event_id": "bad", "user_id": "vic'),
    "empty": ("impressions", "malformed", b""),
    "not an object": ("impressions", "malformed", b'["victim"]'),
    "not UTF-8": ("impressions", "malformed", made().replace(b"victim", b"victim\xff\xfe")),
    "a lone surrogate": ("impressions", "malformed", made().replace(b"victim", b"\\ud800")),
    "two objects": ("impressions", "malformed", made() * 2),
    "deeply nested": ("impressions", "malformed", b"[" * 30_000),
    "NaN": ("impressions", "malformed", made(ts=float("nan"))),
    "a number too large": (
        "impressions",
        "wrong_type",
        made().replace(str(NOW).encode(), b"1e999"),
    ),
    "user id a number": ("impressions", "wrong_type", made(user_id=7)),
    "time a text": ("impressions", "wrong_type", made(ts=str(NOW))),
    "time a bool": ("impressions", "wrong_type", made(ts=True)),
    "label a list": ("impressions", "wrong_type", made(creative_id=["C"])),
    "labels a list": ("impressions", "wrong_type", made(labels=["C"])),
    "a custom label a number": ("impressions", "wrong_type", made(labels={"site": 1})),
    "kind unknown": ("impressions", "wrong_type", made(kind="dreamt")),
    "no event id": ("impressions", "missing_field", made(event_id=None)),
    "no user id": ("impressions", "missing_field", made(user_id=None)),
    "no time": ("impressions", "missing_field", made(ts=None)),
    "no campaign": ("impressions", "missing_field", made(campaign_id=None)),
    "empty user id": ("impressions", "empty_id", made(user_id="")),
    "empty event id": ("impressions", "empty_id", made(event_id="")),
    "empty campaign": ("impressions", "empty_id", made(campaign_id="")),
    "user id of 10 kB": ("impressions", "id_too_long", made(user_id="v" * 10_000)),
    "user id of 513 bytes": ("impressions", "id_too_long", made(user_id="é" * 256 + "v")),
    "label of 10 kB": ("impressions", "id_too_long", made(campaign_id="C" * 10_000)),
    "NUL in user id": ("impressions", "nul_byte", made(user_id="vic\0tim")),
    "NUL in a label": ("impressions", "nul_byte", made(campaign_id="C\0")),
    "NUL bytes": ("impressions", "malformed", bytes(1000)),
    "milliseconds": ("impressions", "milliseconds", made(ts=int(NOW * 1e3))),
    "microseconds": ("impressions", "milliseconds", made(ts=int(NOW * 1e6))),
    "nanoseconds": ("impressions", "milliseconds", made(ts=int(NOW * 1e9))),
    "an hour ahead": ("impressions", "future", made(ts=NOW + 3600)),
    "the year 2100": ("impressions", "future", made(ts=4_102_444_800)),
    "long ago": ("impressions", "past", made(ts=NOW - 4000 * 86400)),
    "the epoch": ("impressions", "past", made(ts=0)),
    "before the epoch": ("impressions", "past", made(ts=-5)),
    "2 MB": ("impressions", "too_large", made(extra="x" * 2_000_000)),
    "2 MB of NULs": ("impressions", "too_large", bytes(2_000_000)),
    "2 MB of é cut in the middle": ("impressions", "too_large", b"x" + "é".encode() * 1_000_000),
    "no value": ("impressions", "no_value", None),
    "engagement with nothing": ("engagements", "missing_field", made(campaign_id=None)),
    "engagement without type": ("engagements", "missing_field", made(type=None)),
    "engagement not JSON": ("engagements", "malformed", b"click"),
    "engagement in ms": ("engagements", "milliseconds", made(ts=int(NOW * 1e3))),
    "control unknown": ("controls", "wrong_type", made(type="shout")),
    "control without type": ("controls", "missing_field", made(type=None)),
    "control of no value": ("controls", "no_value", None),
}
"""Name -> topic, reason, message."""


def feed(deployment: Deployment) -> list[Event]:
    """Send every bad message among good ones of the same partition; the good events."""
    good = scenario(20, users=40, events=1200)
    shift = NOW - max(event["ts"] for _, event in good) - 60
    good = [(topic, event | {"ts": round(event["ts"] + shift, 6)}) for topic, event in good]
    messages: list[tuple[str, bytes | None, bytes | None]] = [
        (topic, b"key", json.dumps(event).encode()) for topic, event in good
    ]
    every = len(messages) // len(BAD)
    for n, (topic, _, value) in enumerate(BAD.values()):
        messages.insert(n * (every + 1), (topic, b"key", value))
    # One key, so that all of a topic are in one partition and in few batches.
    deployment.send_raw(messages)
    return good


def settled(deployment: Deployment) -> Worker:
    worker = deployment.worker()
    deployment.wait_until_committed()
    return worker


def test_each_bad_message_costs_only_itself(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    good = feed(deployment)
    worker = settled(deployment)

    letters = deployment.dead_letters()
    sent = {
        (topic, one.partition, one.offset): one.value
        for topic in ("impressions", "engagements", "controls")
        for one in deployment.read(topic)
    }
    reasons: dict[tuple[str, bytes | None], list[str]] = {}
    for letter in letters:
        topic = letter["topic"].removeprefix(deployment.topic(""))
        value = sent[topic, letter["partition"], letter["offset"]]
        reasons.setdefault((topic, value), []).append(letter["reason"])
        assert letter["detail"]
        assert letter["bytes"] == (None if value is None else len(value))
        assert abs(letter["timestamp"] - NOW) < 3600
        kept = _kept(letter)
        assert kept == (None if value is None else value[:MAX_KEPT]) or (
            letter["truncated"] and value is not None and kept and value.startswith(kept)
        )
    told = {name: reasons.get((topic, value)) for name, (topic, _, value) in BAD.items()}
    assert told == {name: [reason] for name, (_, reason, _) in BAD.items()}
    assert reasons.keys() == {(topic, value) for topic, _, value in BAD.values()}

    deployment.assert_decides(good)
    assert "victim" not in deployment.decisions()
    metrics = worker.metrics()
    expected = deployment.oracle(good)
    assert metrics("governor_exposures_held") == expected.held()
    assert metrics("governor_users") == len(expected.rows)
    for topic in ("impressions", "engagements", "controls"):
        wanted = Counter(reason for name, reason, _ in BAD.values() if name == topic)
        assert metrics.by("governor_dead_letters_total", "reason", topic=topic) == wanted
        rejected = metrics("governor_events_total", topic=topic, outcome="rejected")
        assert rejected == wanted.total()
        assert metrics("governor_decode_errors_total", topic=topic) == wanted.total()
    assert worker.stop() == 0


def _kept(letter: dict[str, Any]) -> bytes | None:
    if "message_base64" in letter:
        return b64decode(letter["message_base64"])
    return letter["message"].encode() if "message" in letter else None


def test_unknown_fields_are_ignored(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    good = feed_odd(deployment)
    settled(deployment)
    assert deployment.dead_letters() == []
    deployment.assert_decides(good)


def feed_odd(deployment: Deployment) -> list[Event]:
    """Send good events that look odd."""
    odd: list[dict[str, Any]] = [
        {"unknown": {"deeply": [{"nested": None}]}},
        {"user_id": "u" * 512},
        {"user_id": "日本語 \u202e 🙂"},
        {"user_id": " "},
        {"user_id": '"}\\'},
        {"user_id": "\x01\x1f\x7f"},
        {"user_id": "says", "consent": {"retargeting": True, "x": 1}, "tz": "Europe/Oslo"},
        {"campaign_id": "é" * 256},
        {"campaign_id": "\x01" * 512},
        {"campaign_id": 'C"\\/\n'},
        {"labels": {}},
        {"labels": {"site": "", "": "x"}},
        {"creative_id": ""},
        {"impression_id": ""},
        {"ts": int(NOW)},
    ]
    base = {"user_id": "odd", "ts": round(NOW, 3), "campaign_id": "C1", "creative_id": "C1-1"}
    events: list[Event] = [
        (
            "impressions",
            {"event_id": f"odd {n} {time}"} | base | fields | {"ts": int(NOW) - 9 * time},
        )
        for n, fields in enumerate(odd)
        for time in range(3)
    ]
    deployment.send(events)
    return events


HUGE: dict[str, tuple[bytes | None, bytes | None]] = {
    "a message of NULs": (b"k", bytes(3_000_000)),
    "a message of control characters": (b"k", b"\x01" * 3_000_000),
    "a message of quotes": (b"k", b'"' * 3_000_000),
    "a key of 2 MB": (b"k" * 2_000_000, b"{}"),
    "a key of 2 MB and no value": (b"k" * 2_000_000, None),
    "a key that is not UTF-8": (b"\xff\xfe", b"{}"),
}


@pytest.mark.parametrize(
    "name",
    [
        "a message of NULs",
        *(pytest.param(name, marks=pytest.mark.slow) for name in list(HUGE)[1:]),
    ],
)
def test_a_message_too_large_for_its_dead_letter_stops_nothing(deploy: Deploy, name: str) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    good = scenario(21, users=10, events=100)
    deployment.send_raw([("impressions", *HUGE[name])])
    deployment.send(good)
    worker = settled(deployment)
    (letter,) = deployment.dead_letters()
    assert letter["offset"] == 0
    deployment.assert_decides(good)
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_user_with_the_largest_decision_stops_nothing(deploy: Deploy) -> None:
    rules = [
        Rule(f"a-spacing-{per}", "spacing", 1, HOUR, per)
        for per in ("campaign", "creative", "placement")
    ]
    deployment = deploy(partitions=1, rules=rules)
    deployment.create_event_topics()
    greedy: list[Event] = [
        (
            "impressions",
            {
                "event_id": f"e{n}",
                "user_id": "greedy",
                "ts": T0 + n,
                "campaign_id": f"{n:03}" + "\x01" * 509,
                "creative_id": f"{n:03}" + "\x02" * 509,
                "labels": {"placement": f"{n:03}" + "\x03" * 509},
            },
        )
        for n in range(128)
    ]
    good = scenario(22, users=10, events=100)
    deployment.send([*greedy, *good])
    worker = settled(deployment)
    deployment.assert_decides([*greedy, *good])
    assert worker.stop() == 0
