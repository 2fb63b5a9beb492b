"""What a reader answers from the records that it has."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from governor.ticks import from_seconds
from streams.client import Answer, Reader
from tests.fuzz.running import Pair

NOW = 1_790_000_000.0
FREE = Answer(True, 1.0, (), None)


def throttle(label: str, *reasons: str, **fields: Any) -> dict[str, Any]:
    return {
        "label": label,
        "state": "throttled",
        "factor": 0,
        "from": NOW - 10,
        "until": NOW + 100,
        "remaining": 0,
        "reasons": reasons or ["cap"],
        "evidence": {},
        **fields,
    }


def reader(**decisions: list[dict[str, Any]]) -> Reader:
    made = Reader()
    for user, throttles in decisions.items():
        decide(made, user, throttles=throttles)
    return made


def decide(made: Reader, key: str, **record: Any) -> None:
    made.decision(key.encode(), json.dumps({"id": key, **record}).encode())


def tell(made: Reader, key: str, **value: Any) -> None:
    made.policy(key.encode(), json.dumps(value).encode())


def asked(made: Reader, at: float = NOW, *, zone: str | None = None, **labels: Any) -> Answer:
    return made.allowed({"user": "u"}, labels or {"campaign": "C"}, at, zone)


def test_nobody_knows_of_nothing() -> None:
    assert asked(Reader()) == FREE
    assert asked(reader(v=[throttle("user")])) == FREE


def test_a_throttle_holds_from_its_beginning_until_just_before_its_end() -> None:
    made = reader(u=[throttle("campaign:C")])
    assert asked(made) == Answer(False, 0.0, ("cap",), NOW + 100)
    assert asked(made, NOW - 10).allowed is False
    assert asked(made, NOW - 10.000001) == FREE
    assert asked(made, NOW + 99.999999).allowed is False
    assert asked(made, NOW + 100) == FREE


@pytest.mark.parametrize(
    ("label", "ad", "held"),
    [
        ("user", {}, True),
        ("campaign:C", {"campaign": "C"}, True),
        ("campaign:C", {"campaign": "D"}, False),
        ("campaign:C x channel:web", {"campaign": "C", "channel": "web"}, True),
        ("campaign:C x channel:web", {"campaign": "C"}, False),
        ("placement:top", {"placement": "top"}, True),
        ("campaign:a x b x channel:web", {"campaign": "a x b", "channel": "web"}, True),
        ("campaign:a x channel:b x c", {"campaign": "a", "channel": "b x c"}, True),
        ("retargeting", {"retargeting": True}, True),
        ("retargeting", {"retargeting": False}, False),
        ("retargeting:yes", {"retargeting": "yes"}, True),
    ],
)
def test_labels(label: str, ad: dict[str, Any], held: bool) -> None:
    made = reader(u=[throttle(label)])
    assert asked(made, **{"other": "x", **ad}).allowed is not held


def test_match_must_hold_of_the_ad() -> None:
    made = reader(u=[throttle("campaign:C", match={"channel": ["ctv", "radio"]})])
    assert asked(made, campaign="C", channel="ctv").allowed is False
    assert asked(made, campaign="C", channel="web") == FREE
    assert asked(made, campaign="C") == FREE


def test_shadow_is_only_reported() -> None:
    assert asked(reader(u=[throttle("user", state="shadow")])) == FREE


def test_the_strictest_of_all_ids_wins() -> None:
    made = reader(u=[throttle("user", "soft", factor=0.5)])
    decide(made, "household\0h", throttles=[throttle("user", "hard", until=NOW + 50)])
    decide(made, "device\0d", throttles=[throttle("user", "softer", factor=0.8)])
    ids = {"user": "u", "device": "d"}
    assert made.allowed(ids, {}, NOW) == Answer(True, 0.5, ("soft", "softer"), NOW + 100)
    answer = made.allowed(ids | {"household": "h"}, {}, NOW)
    assert answer == Answer(False, 0.0, ("hard", "soft", "softer"), NOW + 50)
    assert made.allowed({"device": "h"}, {}, NOW) == FREE


def test_without_an_end_there_is_none() -> None:
    made = reader(u=[throttle("user", "opt_out", until=None)])
    assert asked(made, NOW * 2) == Answer(False, 0.0, ("opt_out",), math.inf)


def test_a_tombstone_withdraws() -> None:
    made = reader(u=[throttle("user")])
    made.decision(b"u", None)
    made.decision(b"", None)
    assert asked(made) == FREE
    assert len(made) == 0


def test_redirects_are_followed_and_cycles_end() -> None:
    made = reader(known=[throttle("user")])
    decide(made, "u", redirect="middle")
    decide(made, "middle", redirect="known")
    assert asked(made).allowed is False
    decide(made, "known", redirect="u")
    assert asked(made) == FREE


def test_always_goes_before_everything() -> None:
    made = reader(u=[throttle("user", "opt_out")])
    tell(made, "readers", always=[{"campaign": ["service"]}])
    assert asked(made, campaign="service") == FREE
    assert asked(made, campaign="other").allowed is False


def test_the_kill_switch_releases_rules_and_not_peoples_words() -> None:
    made = reader(u=[throttle("campaign:C", "cap"), throttle("campaign:D", "hide", "cap")])
    tell(made, "readers", quiet_hours=[{"name": "night", "from": "00:00", "to": "23:59"}])
    tell(made, "switch", released=True)
    assert made.released
    assert asked(made, campaign="C") == FREE
    assert asked(made, campaign="D").allowed is False
    tell(made, "switch", released=True, everything=True)
    assert asked(made, campaign="D") == FREE
    tell(made, "switch", released=False)
    assert asked(made, campaign="C").allowed is False
    made.policy(b"switch", None)
    assert asked(made, campaign="C").allowed is False


def test_the_kill_switch_leaves_a_hiding_until_its_own_end() -> None:
    why = {"opt_out": {"at": 1}, "hide": {"at": 1, "until": NOW + 7}, "cap": {"until": NOW + 100}}
    hidden = throttle("campaign:C", "hide", "cap", evidence=why)
    out = throttle("campaign:D", "opt_out", "hide", "cap", until=None, evidence=why)
    made = reader(u=[hidden, out])
    assert asked(made, campaign="C") == Answer(False, 0.0, ("hide", "cap"), NOW + 100)
    tell(made, "switch", released=True)
    assert asked(made, campaign="C") == Answer(False, 0.0, ("hide",), NOW + 7)
    assert asked(made, NOW + 7 - 1e-6, campaign="C").allowed is False
    assert asked(made, NOW + 7, campaign="C") == FREE
    assert asked(made, NOW + 99, campaign="D") == Answer(False, 0.0, ("opt_out", "hide"), math.inf)


def test_under_the_kill_switch_a_hide_without_an_end_of_its_own_ends_with_the_throttle() -> None:
    """As earlier versions wrote it."""
    why = {"hide": {"at": 1}, "cap": {"until": NOW + 100}}
    made = reader(u=[throttle("campaign:C", "hide", "cap", evidence=why)])
    tell(made, "switch", released=True)
    assert asked(made, campaign="C") == Answer(False, 0.0, ("hide",), NOW + 100)
    assert asked(made, NOW + 100, campaign="C") == FREE


def test_the_kill_switch_finds_in_real_decisions_what_people_said() -> None:
    rules = [
        {"name": "cap", "cap": 1, "per": "campaign", "window": "1d"},
        {"name": "annoyed", "reaction": "complaint", "per": "campaign", "rest": "10d"},
    ]
    policy = {"rules": rules, "controls": {"hide": "2h"}}
    pair = Pair(policy, horizon=from_seconds(32 * 86_400), row_limit=128)
    at = {"user_id": "u", "campaign_id": "C"}
    pair.feed(
        [
            ("impression", {"event_id": "1", "ts": NOW, **at, "retargeting": True}),
            ("engagement", {"event_id": "2", "ts": NOW + 1, **at, "type": "complaint"}),
            ("control", word("3", NOW + 2, "hide", label="campaign:C")),
            ("impression", {"event_id": "4", "ts": NOW + 3, **at, "campaign_id": "D"}),
            ("control", word("5", NOW + 4, "opt_out", label="channel:ctv")),
        ]
    )
    pair.compare()
    made = Reader()
    made.decision(b"u", json.dumps(pair.ledger.decide("u")).encode())
    ads = ({"campaign": "C"}, {"campaign": "D"}, {"channel": "ctv"})

    def held(after: float) -> list[bool]:
        return [not asked(made, NOW + after, **ad).allowed for ad in ads]

    assert [held(10), held(7202), held(10 * 86_400)] == [
        [True, True, True],
        [True, True, True],
        [True, False, True],
    ]
    tell(made, "switch", released=True)
    assert [held(10), held(7201.999999), held(7202), held(10 * 86_400)] == [
        [True, False, True],
        [True, False, True],
        [False, False, True],
        [False, False, True],
    ]
    pair.feed([("control", word("6", NOW + 5, "consent", consent={"retargeting": False}))])
    pair.compare()
    made.decision(b"u", json.dumps(pair.ledger.decide("u")).encode())
    assert held(7202) == [True, False, True]
    assert asked(made, NOW + 10, campaign="E", retargeting=True).reasons == ("consent",)
    tell(made, "switch", released=True, everything=True)
    assert held(10) == [False, False, False]


def word(event_id: str, ts: float, kind: str, **fields: Any) -> dict[str, Any]:
    """A control."""
    return {"event_id": event_id, "user_id": "u", "ts": ts, "type": kind, **fields}


@pytest.mark.parametrize("value", [b"{", b"[]", b'{"released": "yes", "quiet_hours": 7}', b"\xff"])
def test_what_the_governor_did_not_write_changes_nothing(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    made = reader(u=[throttle("campaign:C", "cap")])
    tell(made, "readers", always=[{"campaign": ["service"]}])
    tell(made, "switch", released=True)
    for key in (b"readers", b"switch"):
        made.policy(key, value)
    assert made.released
    assert asked(made, campaign="C") == FREE
    assert len(caplog.records) == 2
    tell(made, "switch", released=False)
    assert asked(made, campaign="C").allowed is False


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_quiet_hours_are_those_where_the_person_is() -> None:
    made = Reader()
    tell(
        made,
        "readers",
        timezone="Europe/Berlin",
        quiet_hours=[
            {"name": "night", "from": "22:00", "to": "07:00", "match": {"channel": ["push"]}}
        ],
    )
    push = {"channel": "push"}
    for local, quiet in (
        ("2026-11-20T21:59:59", False),
        ("2026-11-20T22:00:00", True),
        ("2026-11-21T06:59:59", True),
        ("2026-11-21T07:00:00", False),
    ):
        for zone in ("Europe/Berlin", "Asia/Tokyo"):
            answer = made.allowed({}, push, at(local, zone), zone)
            assert answer.allowed is not quiet
            if quiet:
                assert answer.reasons == ("night",)
                assert answer.until == at("2026-11-21T07:00:00", zone)
            assert made.allowed({}, {"channel": "web"}, at(local, zone), zone) == FREE
    berlin = at("2026-11-20T22:00:00", "Europe/Berlin")
    assert made.allowed({}, push, berlin).allowed is False
    assert made.allowed({}, push, berlin, "Mars/Base").allowed is False
    assert made.allowed({}, push, berlin, "Asia/Tokyo").allowed is False
    assert made.allowed({}, push, berlin, "America/New_York") == FREE


def test_quiet_hours_that_end_in_a_skipped_hour_end_with_it() -> None:
    made = Reader()
    tell(made, "readers", quiet_hours=[{"name": "night", "from": "22:00", "to": "02:30"}])
    zone = "Europe/Berlin"
    answer = made.allowed({}, {}, at("2026-03-29T01:00:00", zone), zone)
    assert answer.until == at("2026-03-29T03:00:00", zone)


def test_quiet_hours_that_end_in_a_repeated_hour_end_the_first_time() -> None:
    made = Reader()
    tell(made, "readers", quiet_hours=[{"name": "night", "from": "22:00", "to": "02:30"}])
    zone = "Europe/Berlin"
    answer = made.allowed({}, {}, at("2026-10-25T01:00:00", zone), zone)
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo(zone), fold=0).timestamp()
    assert answer.until == first


CLOCK_CHANGES = (
    ("Europe/Berlin", 1_743_296_400),
    ("Europe/Berlin", 1_761_440_400),
    ("America/Havana", 1_741_496_400),
    ("America/Havana", 1_762_059_600),
    ("Africa/Cairo", 1_761_858_000),
    ("Australia/Lord_Howe", 1_759_588_200),
    ("Antarctica/Troll", 1_761_440_400),
    ("Pacific/Apia", 1_325_239_200),
    ("Asia/Kathmandu", 1_761_440_400),
)


@pytest.mark.parametrize(("zone", "change"), CLOCK_CHANGES)
@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("22:00", "07:00"),
        ("22:00", "02:30"),
        ("02:30", "03:00"),
        ("23:30", "00:30"),
        ("00:30", "01:45"),
        ("01:00", "00:15"),
    ],
)
def test_it_is_quiet_while_the_clock_says_so_and_until_says_how_long(
    zone: str, change: int, begin: str, end: str
) -> None:
    """Where clocks are set, asked every quarter of an hour for two days."""
    made = Reader()
    tell(made, "readers", quiet_hours=[{"name": "night", "from": begin, "to": end}])
    first = change // 900 * 900 - 86_400
    answers = {}
    for moment in range(first, first + 2 * 86_400, 900):
        clock = datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%H:%M")
        quiet = begin <= clock < end if begin < end else clock >= begin or clock < end
        answer = made.allowed({}, {}, moment, zone)
        assert answer.allowed is not quiet
        answers[moment] = answer.until
    for moment, until in answers.items():
        if until is not None:
            left = [other for other in answers if other > moment and answers[other] != until]
            assert not left or until == min(left)


def test_what_the_policy_says_to_readers_is_understood() -> None:
    from governor.policy import load

    policy = load(
        """
        timezone: Europe/Berlin
        rules: [{name: day, cap: 3, per: user, window: 1d}]
        ads: [{match: {campaign: [service]}, priority: always}]
        quiet_hours: [{name: night, from: "22:00", to: "07:00", match: {channel: push}}]
        """
    )
    made = reader(u=[throttle("user")])
    tell(made, "readers", **policy.for_readers())
    assert asked(made, campaign="service") == FREE
    assert asked(made, at("2026-11-20T23:00", "UTC"), channel="push").reasons == ("night",)
