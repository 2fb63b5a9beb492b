"""Bad input at the decoders: each bad message costs itself, with a reason, and nothing else.

Every case is decoded alone against a ledger that must not change, and between two good messages
that must count.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.events import Columns, Limits, Rejected
from governor.records import Records
from tests import oracle
from tests.invariants import DECODERS, HOUR, T0, Engine
from tests.oracle import SECOND, Rule
from tests.unit.test_exactness import MANY

NOW = T0 * 1000
"""The broker's timestamp of every record here, in milliseconds."""

LIMITS = Limits(max_future=300 * SECOND, max_age=30 * 86400 * SECOND, max_bytes=65536)
TOPICS = tuple(DECODERS)

GOOD = {"event_id": "e", "user_id": "u1", "ts": T0, "campaign_id": "C7", "type": "opt_in"}
"""An event on every topic: an impression ignores the type."""


def raw(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name not in names}).encode()


def spliced(text: bytes) -> bytes:
    """A good message with something at the end of its object."""
    return raw()[:-1] + text + b"}"


def ts(text: str) -> bytes:
    """A good message with a number that Python would not write."""
    return raw(ts=0).replace(b'"ts": 0', f'"ts": {text}'.encode())


def campaign(text: bytes) -> bytes:
    """A good message with these bytes between the quotes of its campaign."""
    return raw().replace(b'"C7"', b'"' + text + b'"')


BAD: dict[str, tuple[bytes | None, str]] = {
    "no value": (None, "no_value"),
    # not JSON
    "nothing": (b"", "malformed"),
    "blank": (b" \n", "malformed"),
    "prose": (b"hello", "malformed"),
    "cut off": (raw()[:-1], "malformed"),
    "cut off in a string": (raw()[:-4], "malformed"),
    "cut off in an escape": (raw()[:-3] + b"\\u00", "malformed"),
    "two objects": (raw() + raw(), "malformed"),
    "something behind": (raw() + b" x", "malformed"),
    "a NUL behind": (raw() + b"\0", "malformed"),
    "comma at the end": (spliced(b","), "malformed"),
    "single quotes": (raw().replace(b'"', b"'"), "malformed"),
    "a comment": (b"/* */" + raw(), "malformed"),
    "control character": (campaign(b"a\x01b"), "malformed"),
    "raw NUL byte": (campaign(b"a\0b"), "malformed"),
    "raw NUL byte where nobody looks": (spliced(b',"x":"\0"'), "malformed"),
    "NaN": (ts("NaN"), "malformed"),
    "Infinity": (ts("Infinity"), "malformed"),
    "-Infinity": (ts("-Infinity"), "malformed"),
    "NaN where nobody looks": (spliced(b',"x":NaN'), "malformed"),
    "leading zero": (ts(f"0{T0}"), "malformed"),
    "plus sign": (ts(f"+{T0}"), "malformed"),
    "hexadecimal": (ts("0x65"), "malformed"),
    "Python's numbers": (ts("1_700_000_000"), "malformed"),
    "unknown escape": (campaign(b"\\x41"), "malformed"),
    "lone high surrogate": (campaign(b"\\ud800"), "malformed"),
    "high surrogate before text": (campaign(b"\\ud800xxxxxx"), "malformed"),
    "two high surrogates": (campaign(b"\\ud800\\ud800"), "malformed"),
    "lone low surrogate": (campaign(b"\\udc00"), "malformed"),
    "lone surrogate in the user": (raw(user_id="@").replace(b"@", b"\\udfff"), "malformed"),
    "lone surrogate in a label": (spliced(b',"labels":{"a":"\\ud800"}'), "malformed"),
    "nested without end": (spliced(b',"x":' + b"[" * 30_000 + b"]" * 30_000), "malformed"),
    "objects without end": (
        spliced(b',"x":' + b'{"x":' * 8_000 + b"1" + b"}" * 8_000),
        "malformed",
    ),
    # not UTF-8
    "not UTF-8": (campaign(b"\xff"), "malformed"),
    "Latin-1": (campaign("Schön".encode("latin-1")), "malformed"),
    "overlong UTF-8": (campaign(b"\xc0\xaf"), "malformed"),
    "surrogate in UTF-8": (campaign(b"\xed\xa0\x80"), "malformed"),
    "UTF-16": (raw().decode().encode("utf-16"), "malformed"),
    "byte order mark": (b"\xef\xbb\xbf" + raw(), "malformed"),
    "not UTF-8 in an unknown field": (spliced(b',"x":"\xff"'), "malformed"),
    "not UTF-8 in the name of a field": (spliced(b',"\xff":1'), "malformed"),
    # not an object
    "null": (b"null", "malformed"),
    "number": (b"17", "malformed"),
    "string": (b'"event"', "malformed"),
    "array": (b"[]", "malformed"),
    "array of events": (b"[" + raw() + b"]", "malformed"),
    # missing
    "empty object": (b"{}", "missing_field"),
    "no event_id": (without("event_id"), "missing_field"),
    "no user_id": (without("user_id"), "missing_field"),
    "no ts": (without("ts"), "missing_field"),
    "names in capitals": (raw().upper(), "missing_field"),
    # wrong types
    "event_id is a number": (raw(event_id=17), "wrong_type"),
    "event_id is null": (raw(event_id=None), "wrong_type"),
    "user_id is a number": (raw(user_id=17), "wrong_type"),
    "user_id is null": (raw(user_id=None), "wrong_type"),
    "user_id is an array": (raw(user_id=["u1"]), "wrong_type"),
    "user_id is an object": (raw(user_id={"id": "u1"}), "wrong_type"),
    "ts is text": (raw(ts=str(T0)), "wrong_type"),
    "ts is a date": (raw(ts="2023-11-14T22:13:20Z"), "wrong_type"),
    "ts is true": (raw(ts=True), "wrong_type"),
    "ts is null": (raw(ts=None), "wrong_type"),
    "ts is an array": (raw(ts=[T0]), "wrong_type"),
    "ts is beyond any float": (ts("1e400"), "wrong_type"),
    "ts is below any float": (ts("-1e400"), "wrong_type"),
    "ts has 400 digits": (ts("1" * 400), "wrong_type"),
    "campaign_id is a number": (raw(campaign_id=7), "wrong_type"),
    "campaign_id is true": (raw(campaign_id=True), "wrong_type"),
    "creative_id is a number": (raw(creative_id=7), "wrong_type"),
    "advertiser_id is an array": (raw(advertiser_id=[]), "wrong_type"),
    "category is an array": (raw(category=["shoes"]), "wrong_type"),
    "channel is an object": (raw(channel={}), "wrong_type"),
    "surface is false": (raw(surface=False), "wrong_type"),
    "segment is a number": (raw(segment=1.5), "wrong_type"),
    "labels is an array": (raw(labels=["promo"]), "wrong_type"),
    "labels is text": (raw(labels="promo"), "wrong_type"),
    "a label is a number": (raw(labels={"promo": 1}), "wrong_type"),
    "a label is null": (raw(labels={"promo": None}), "wrong_type"),
    "a label is an object": (raw(labels={"promo": {}}), "wrong_type"),
    "labels nested without end": (
        spliced(b',"labels":' + b"[" * 30_000 + b"]" * 30_000),
        "wrong_type",
    ),
    # ids
    "empty event_id": (raw(event_id=""), "empty_id"),
    "empty user_id": (raw(user_id=""), "empty_id"),
    "user_id of 10 kB": (raw(user_id="u" * 10_000), "id_too_long"),
    "user_id of 513 bytes": (raw(user_id="u" * 513), "id_too_long"),
    "user_id of 257 characters in 514 bytes": (raw(user_id="é" * 257), "id_too_long"),
    "event_id of 513 bytes": (raw(event_id="e" * 513), "id_too_long"),
    "campaign_id of 10 kB": (raw(campaign_id="c" * 10_000), "id_too_long"),
    "creative_id of 513 bytes": (raw(creative_id="c" * 513), "id_too_long"),
    "category of 513 bytes": (raw(category="c" * 513), "id_too_long"),
    "label of 513 bytes": (raw(labels={"promo": "p" * 513}), "id_too_long"),
    "NUL in event_id": (raw(event_id="a\0b"), "nul_byte"),
    "NUL in user_id": (raw(user_id="\0"), "nul_byte"),
    "NUL at the end of user_id": (raw(user_id="u1\0"), "nul_byte"),
    "NUL in campaign_id": (raw(campaign_id="a\0b"), "nul_byte"),
    "NUL in creative_id": (raw(creative_id="\0"), "nul_byte"),
    "NUL in surface": (raw(surface="a\0"), "nul_byte"),
    "NUL in a label": (raw(labels={"promo": "a\0b"}), "nul_byte"),
    "NUL in the name of a label": (raw(labels={"pro\0mo": "a"}), "nul_byte"),
    # times
    "milliseconds": (raw(ts=T0 * 1000), "milliseconds"),
    "milliseconds with decimals": (raw(ts=T0 * 1000 + 0.25), "milliseconds"),
    "microseconds": (raw(ts=T0 * 10**6), "milliseconds"),
    "nanoseconds": (raw(ts=T0 * 10**9), "milliseconds"),
    "milliseconds before the epoch": (raw(ts=-T0 * 1000), "milliseconds"),
    "the least that cannot be seconds": (raw(ts=10**11), "milliseconds"),
    "a number of 31 digits": (ts("1" + "0" * 30), "milliseconds"),
    "1e300": (ts("1e300"), "milliseconds"),
    "the most that can be seconds": (raw(ts=10**11 - 1), "future"),
    "a year ahead": (raw(ts=T0 + 366 * 86400), "future"),
    "a moment past what is allowed ahead": (raw(ts=T0 + 300.001), "future"),
    "a year ago": (raw(ts=T0 - 366 * 86400), "past"),
    "a moment past what is allowed back": (raw(ts=T0 - 30 * 86400 - 0.001), "past"),
    "the epoch": (raw(ts=0), "past"),
    "before the epoch": (raw(ts=-1), "past"),
    "next to nothing": (ts("1e-400"), "past"),
    # size
    "2 MB": (raw(x="y" * 2_000_000), "too_large"),
    "2 MB that is not JSON": (b"x" * 2_000_000, "too_large"),
    "one byte too many": (raw(x="").ljust(65537), "too_large"),
    # the last of two counts
    "a good field, then a bad one of that name": (spliced(b',"user_id":17'), "wrong_type"),
    "a good id, then an empty one": (spliced(b',"event_id":""'), "empty_id"),
}

BAD_HERE: dict[str, tuple[str, bytes, str]] = {
    "no campaign_id": ("impression", without("campaign_id"), "missing_field"),
    "campaign_id is null": ("impression", raw(campaign_id=None), "wrong_type"),
    "empty campaign_id": ("impression", raw(campaign_id=""), "empty_id"),
    "impression_id is a number": ("impression", raw(impression_id=5), "wrong_type"),
    "impression_id of 513 bytes": ("impression", raw(impression_id="i" * 513), "id_too_long"),
    "NUL in impression_id": ("impression", raw(impression_id="i\0"), "nul_byte"),
    "unknown kind": ("impression", raw(kind="seen"), "wrong_type"),
    "kind is a number": ("impression", raw(kind=4), "wrong_type"),
    "retargeting is text": ("impression", raw(retargeting="yes"), "wrong_type"),
    "retargeting is a number": ("impression", raw(retargeting=1), "wrong_type"),
    "no type of engagement": ("engagement", without("type"), "missing_field"),
    "type of engagement is null": ("engagement", raw(type=None), "wrong_type"),
    "type of engagement is a number": ("engagement", raw(type=1), "wrong_type"),
    "an engagement with nothing": ("engagement", without("campaign_id"), "missing_field"),
    "an engagement with null": ("engagement", raw(campaign_id=None), "missing_field"),
    "an engagement's impression_id is a number": (
        "engagement",
        raw(impression_id=5),
        "wrong_type",
    ),
    "an engagement's impression_id of 10 kB": (
        "engagement",
        raw(impression_id="i" * 10_000),
        "id_too_long",
    ),
    "NUL in a type of one's own": ("engagement", raw(type="a\0b"), "nul_byte"),
    "no type of control": ("control", without("type"), "missing_field"),
    "type of control is null": ("control", raw(type=None), "wrong_type"),
    "unknown type of control": ("control", raw(type="opt_sideways"), "wrong_type"),
    "a control's label is a number": ("control", raw(label=7), "wrong_type"),
    "a control's label is an object": ("control", raw(label={"campaign": "C7"}), "wrong_type"),
    "a control's label of 513 bytes": (
        "control",
        raw(label="campaign:" + "c" * 513),
        "id_too_long",
    ),
    "a control's label that is no label": ("control", raw(label="C7"), "wrong_type"),
    "NUL in a control's label": ("control", raw(label="campaign:\0"), "nul_byte"),
}

CASES = [
    *(
        pytest.param(topic, *case, id=f"{topic}-{name}")
        for name, case in BAD.items()
        for topic in TOPICS
    ),
    *(pytest.param(*case, id=f"{case[0]}-{name}") for name, case in BAD_HERE.items()),
]


def decoded(
    engine: Engine, topic: str, *values: bytes | None, limits: Limits = LIMITS
) -> tuple[Columns, list[Rejected]]:
    records = Records.of([(b"key", value, NOW) for value in values])
    return DECODERS[topic](records, engine.ledger.labels, limits)


def watched() -> Engine:
    """A ledger with a user that has one exposure to go."""
    engine = Engine([Rule("hourly", "cap", 2, HOUR, "user")])
    columns, rejected = decoded(engine, "impression", raw(event_id="first", ts=T0 - 9))
    assert rejected == []
    engine.ledger.apply(columns)
    engine.publish()
    return engine


def state(engine: Engine) -> tuple[object, ...]:
    return (engine.decide(), engine.ledger.describe(), engine.ledger.dirty, engine.ledger.newest)


@pytest.mark.parametrize(("topic", "value", "reason"), CASES)
def test_a_bad_message_has_its_reason_and_changes_nothing(
    topic: str, value: bytes | None, reason: str
) -> None:
    engine = watched()
    before = state(engine)
    columns, rejected = decoded(engine, topic, value)
    assert [(one.index, str(one.reason)) for one in rejected] == [(0, reason)]
    assert rejected[0].detail
    assert len(columns) == 0
    assert engine.ledger.apply(columns).counts()["applied"] == 0
    assert state(engine) == before
    assert len(engine.publish().changelog) == 0


@pytest.mark.parametrize(("topic", "value", "reason"), CASES)
def test_the_neighbours_of_a_bad_message_count(
    topic: str, value: bytes | None, reason: str
) -> None:
    engine = watched()
    good = [raw(event_id=f"good-{i}", ts=T0 - 8 + i, user_id=f"u{i}") for i in (1, 2)]
    columns, rejected = decoded(engine, topic, good[0], value, good[1])
    assert [(one.index, str(one.reason)) for one in rejected] == [(1, reason)]
    assert columns.ts.tolist() == [(T0 - 7) * SECOND, (T0 - 6) * SECOND]
    assert engine.ledger.apply(columns).counts()["applied"] == 2
    throttled = engine.decide("u1") is not None
    assert throttled == (topic == "impression")
    assert len(engine.ledger) == 2


@pytest.mark.parametrize("topic", TOPICS)
def test_a_batch_of_everything_bad_with_good_between(topic: str) -> None:
    engine = watched()
    bad = [value for value, _ in BAD.values()]
    bad += [value for where, value, _ in BAD_HERE.values() if where == topic]
    values = [one for i, value in enumerate(bad) for one in (raw(event_id=f"good-{i}"), value)]
    columns, rejected = decoded(engine, topic, *values)
    assert [one.index for one in rejected] == [2 * i + 1 for i in range(len(bad))]
    assert len(columns) == len(bad)
    expected = [reason for _, reason in BAD.values()]
    expected += [reason for where, _, reason in BAD_HERE.values() if where == topic]
    assert [str(one.reason) for one in rejected] == expected


@pytest.mark.parametrize("topic", TOPICS)
def test_no_records_are_no_events(topic: str) -> None:
    columns, rejected = decoded(watched(), topic)
    assert (len(columns), rejected) == (0, [])


@pytest.mark.parametrize(
    ("value", "setting"),
    [
        pytest.param(raw(x="y" * 2_000_000), "GOVERNOR_MAX_EVENT_BYTES", id="size"),
        pytest.param(raw(ts=T0 + 301), "GOVERNOR_MAX_FUTURE", id="future"),
        pytest.param(raw(ts=T0 - 31 * 86400), "GOVERNOR_MAX_AGE", id="past"),
    ],
)
def test_what_a_setting_refused_names_the_setting(value: bytes, setting: str) -> None:
    _, rejected = decoded(watched(), "impression", value)
    assert setting in rejected[0].detail


ODD_BUT_GOOD: dict[str, bytes] = {
    "unknown fields": raw(x=1, y={"z": [None, True, {"event_id": 5}]}, EVENT_ID=7),
    "white space": b" \n\t" + raw().replace(b" ", b"\r\n ") + b" \n",
    "escapes": raw().replace(b"user_id", b"user\\u005fid").replace(b"u1", b"\\u0075\\u0031"),
    "a pair of surrogates": campaign(b"\\ud83e\\udde6"),
    "ts with an exponent": ts("1.7e9"),
    "ts with a fraction": ts(f"{T0}.000000"),
    "optional fields that are null": raw(
        impression_id=None, creative_id=None, category=None, kind=None, labels=None, label=None
    ),
    "no labels": raw(labels={}),
    "empty optional ids": raw(impression_id="", creative_id=""),
    "ids of 512 bytes": raw(impression_id="é" * 256, creative_id="c" * 512),
    "a label that looks like JSON": raw(labels={'"}': '{"a":"b"}'}),
    "as large as allowed": raw(x="").ljust(65536),
    "a label of 512 bytes": raw(label="campaign:" + "c" * 512),
    "consent to something else": raw(consent={"analytics": True}),
    "the last of two fields of a name": b'{"ts":1,' + raw()[1:],
    "nested, but not too much": spliced(b',"x":' + b"[" * 50 + b"]" * 50),
    "a large number where nobody looks": spliced(b',"x":1e400'),
}


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("value", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD)
def test_odd_but_good_messages_count(topic: str, value: bytes) -> None:
    engine = watched()
    columns, rejected = decoded(engine, topic, value)
    assert rejected == []
    assert columns.ts.tolist() == [T0 * SECOND]
    engine.ledger.apply(columns)
    columns, rejected = decoded(engine, topic, b"not JSON", value)
    assert [one.index for one in rejected] == [0]
    assert engine.ledger.apply(columns).counts()["duplicate"] == 1
    assert (len(engine.ledger), engine.ledger.entries) == (1, 2)
    assert (engine.decide("u1") is not None) == (topic == "impression")


@pytest.mark.parametrize("topic", TOPICS)
def test_time_limits_hold_to_the_edge(topic: str) -> None:
    edges = [T0 + 300, T0 - 30 * 86400]
    columns, rejected = decoded(watched(), topic, *(raw(ts=edge) for edge in edges))
    assert rejected == []
    assert columns.ts.tolist() == [edge * SECOND for edge in edges]


def test_time_is_judged_by_the_record_and_not_by_its_neighbours() -> None:
    year = 366 * 86400
    engine = watched()
    records = Records.of(
        [
            (None, raw(event_id="a", ts=T0 + year), NOW + year * 1000),
            (None, raw(event_id="b", ts=T0 + year), NOW),
            (None, raw(event_id="c", ts=T0), NOW + year * 1000),
        ]
    )
    columns, rejected = DECODERS["impression"](records, engine.ledger.labels, LIMITS)
    assert [(one.index, str(one.reason)) for one in rejected] == [(1, "future"), (2, "past")]
    assert columns.ts.tolist() == [(T0 + year) * SECOND]


@MANY
@given(st.sampled_from(TOPICS), st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_noise_is_never_an_event(topic: str, noise: list[bytes]) -> None:
    columns, rejected = decoded(watched(), topic, raw(), *noise)
    assert len(columns) == 1
    assert [one.index for one in rejected] == [i + 1 for i in range(len(noise))]


@MANY
@given(st.sampled_from(TOPICS), st.data())
def test_a_damaged_message_is_an_event_only_if_it_reads_as_one(
    topic: str, data: st.DataObject
) -> None:
    """Bytes of a good message are cut out, put in or replaced; the oracle reads it too."""
    value = bytearray(raw(impression_id="i1", labels={"promo": "é"}, creative_id="K", kind=None))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(value) - 1))
        some = data.draw(st.sampled_from((b"", b'"', b"\\", b"}", b",", b"\xff", b"0", b"\xc3")))
        value[at : at + data.draw(st.integers(0, 2))] = some
    columns, rejected = decoded(watched(), topic, bytes(value), raw(event_id="neighbour"))
    accepted = oracle_accepts(topic, bytes(value))
    assert len(columns) == 1 + accepted
    assert [one.index for one in rejected] == ([] if accepted else [0])


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.sampled_from(("e", "e", "", 5, None, "a\0", "e" * 513)),
        "user_id": st.sampled_from(("u1", "u1", "", 5, None, "a\0", "é" * 257)),
        "ts": st.sampled_from((T0, T0 + 0.5, T0 * 1000, "now", True, None, T0 + 301, 0, -5)),
        "campaign_id": st.sampled_from(("C7", "", 7, None, "c" * 513)),
        "creative_id": st.sampled_from(("K", "", 7, None, "\0")),
        "impression_id": st.sampled_from(("i", "", 7, None, "i" * 513)),
        "kind": st.sampled_from(("loaded", "impression", "viewable", None, "seen", 5)),
        "retargeting": st.sampled_from((True, False, "yes", 1)),
        "type": st.sampled_from(("opt_out", "link", "click", 5, None)),
        "to": st.sampled_from(("u2", "", None, 5, "a\0", "u" * 513)),
        "labels": st.sampled_from(({}, {"a": "b"}, {"a": 1}, [], None, {"a": None}, {"a": "\0"})),
        "x": st.sampled_from((1, {}, None, "y")),
    },
)


@MANY
@given(st.sampled_from(TOPICS), FIELDS, st.sets(st.sampled_from(sorted(GOOD)), max_size=1))
def test_acceptance_equals_the_oracles(
    topic: str, fields: dict[str, Any], missing: set[str]
) -> None:
    event = {name: value for name, value in (GOOD | fields).items() if name not in missing}
    value = json.dumps(event).encode()
    accepted = oracle_accepts(topic, value)
    for neighbour, fine in ((raw(event_id="neighbour"), True), (b"not JSON", False)):
        columns, rejected = decoded(watched(), topic, value, neighbour)
        assert len(columns) == accepted + fine
        assert [one.index for one in rejected] == [0] * (not accepted) + [1] * (not fine)


def oracle_accepts(topic: str, value: bytes) -> bool:
    """Whether a message is an event by the definitions, the limits of time among them."""
    try:
        entry = oracle.decode(topic, value)[0]
    except oracle.RejectedError:
        return False
    now = T0 * SECOND
    return max(0, now - LIMITS.max_age) <= entry.ts <= now + LIMITS.max_future
