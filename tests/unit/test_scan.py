"""The scanner of plain impressions against the decoder that it stands in for."""

import json
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor import events
from governor.events import Columns, Limits, Rejected
from governor.labels import Labels
from governor.records import Records

NOW = 1_700_000_000
FIELDS = [
    "event_id", "user_id", "ts", "campaign_id", "impression_id", "creative_id", "advertiser_id",
    "category", "channel", "surface", "segment", "kind", "retargeting", "labels", "other", "tz",
]  # fmt: skip

texts = st.one_of(
    st.sampled_from(["", "C7", "user", "impression", "viewable", "loaded", "a" * 512, "a" * 513]),
    st.text(max_size=6),
    st.text(alphabet='ab"\\/ \t\0é', max_size=6),
)
times = st.one_of(
    st.integers(NOW - 400_000_000, NOW + 400),
    st.decimals(NOW - 10, NOW + 310, places=6).map(float),
    st.sampled_from([0, -1, 1e11, NOW * 1000, NOW + 300, NOW + 300.000001, 1.5e9, 12345678901234]),
)
values = st.one_of(
    texts, times, st.none(), st.booleans(), st.lists(st.integers(), max_size=2),
    st.dictionaries(texts, texts, max_size=2), st.floats(allow_nan=False),
)  # fmt: skip
plain = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["e1", "e2", "evt-000000000003"]),
        "user_id": st.sampled_from(["u", "user-00000001"]),
        "ts": times,
        "campaign_id": st.sampled_from(["C1", "C2", "campaign with spaces"]),
    },
    optional=dict.fromkeys(FIELDS[4:], values),
)
impressions = st.one_of(plain, st.dictionaries(st.sampled_from(FIELDS), values))


def decoded(records: Records, *, scanning: bool) -> tuple[list[tuple[object, ...]], list[Rejected]]:
    """What came of the records, as plain values, in an order of their own."""
    labels = Labels()
    with pytest.MonkeyPatch.context() as patch:
        if not scanning:
            nothing = events._NOTHING
            patch.setattr(events, "_plain", lambda r, *_: (nothing, np.arange(len(r))))
        columns, rejected = events.decode_impressions(records, labels, Limits())
    return rows(columns, labels), rejected


def rows(columns: Columns, labels: Labels) -> list[tuple[object, ...]]:
    """Every event as a tuple; the ad by its name."""
    return sorted(
        (
            columns.text[start : start + size].tobytes(),
            *numbers,
            labels.ad_names[ad],
        )
        for start, size, *numbers, ad in zip(
            columns.user_start.tolist(),
            columns.user_size.tolist(),
            columns.ts.tolist(),
            columns.what.tolist(),
            columns.event.tolist(),
            columns.exposure.tolist(),
            columns.ad.tolist(),
            strict=True,
        )
    )


def records_of(messages: list[bytes]) -> Records:
    return Records.of([(b"k", message, NOW * 1000) for message in messages])


def assert_alike(messages: list[bytes]) -> None:
    records = records_of(messages)
    assert decoded(records, scanning=True) == decoded(records, scanning=False)


@given(st.lists(impressions, min_size=1, max_size=8), st.sampled_from([None, 1]), st.booleans())
def test_events_of_all_kinds_come_out_alike(
    batch: list[dict[str, object]], indent: int | None, ascii_only: bool
) -> None:
    assert_alike(
        [
            json.dumps(one, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
            for one in batch
        ]
    )


@given(plain, st.randoms(use_true_random=False))
def test_damaged_messages_come_out_alike(event: dict[str, object], chance: random.Random) -> None:
    good = json.dumps(event).encode()
    messages = [good]
    for _ in range(8):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(damaged))
            change = chance.randrange(3)
            if change == 0:
                damaged[at] = chance.choice(b'{}[]",:\\ 0123456789.eE-+tfn\x00\x1f\x7f\x80\xff')
            elif change == 1:
                del damaged[at]
            else:
                damaged.insert(at, chance.choice(b'{}",:\\ 0.'))
        messages.append(bytes(damaged))
    assert_alike(messages)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b" ",
        b"{",
        b"{}",
        b'{"event_id"',
        b'{"event_id":',
        b'{"event_id":"',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":-',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000}x',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000,}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":01700000000}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000.}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1.7e9}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000.1234567}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000,"ts":1700000001}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","campaign_id":"d","ts":1700000000}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000,"other":tru}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000,"kind":null}',
        b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000,"retargeting":null}',
        b' \n{ "event_id" : "e" ,\t"user_id":"u","campaign_id":"c","ts":1700000000 } \r\n',
    ],
)
def test_edges_come_out_alike(message: bytes) -> None:
    assert_alike([message])
    good = b'{"event_id":"e","user_id":"u","campaign_id":"c","ts":1700000000}'
    assert_alike([good, message, good])


def test_the_scanner_reads_what_the_benchmark_and_most_senders_write() -> None:
    message = (
        b'{"event_id":"e","user_id":"u","ts":1700000000.25,"campaign_id":"c","impression_id":"i",'
        b'"creative_id":"cr","channel":"display","kind":"viewable","retargeting":true,"x":null}'
    )
    columns, others = events._plain(records_of([message]), Labels(), Limits())
    assert len(columns) == 1
    assert not len(others)


@given(
    st.integers(NOW - 10, NOW + 10),
    st.text("0123456789", min_size=7, max_size=15)
    | st.from_regex(r"[0-9]{6}(49{0,8}|50{0,7}[01]?)", fullmatch=True),
)
def test_of_many_decimals_the_scanner_takes_the_nearest_tick(whole: int, decimals: str) -> None:
    said = f"{whole}.{decimals}"
    message = b'{"event_id":"e","user_id":"u","ts":%b,"campaign_id":"c"}' % said.encode()
    columns, others = events._plain(records_of([message]), Labels(), Limits())
    assert not len(others)
    assert columns.ts.tolist() == [round(Fraction(said) * 1_000_000)]
    assert_alike([message])


def test_more_ads_than_the_table_began_with_are_all_found_again() -> None:
    labels = Labels()
    messages = [
        b'{"event_id":"e%d","user_id":"u","ts":1700000000,"campaign_id":"c%d"}' % (i, i % 700)
        for i in range(2000)
    ]
    columns, rejected = events.decode_impressions(records_of(messages), labels, Limits())
    assert not rejected
    assert len(labels) == 1 + 700  # and the one without labels
    names = [labels.ad_names[ad] for ad in columns.ad.tolist()]
    assert names == [b'{"campaign":"c%d"}' % (i % 700) for i in range(2000)]
