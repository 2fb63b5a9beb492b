"""Who is observed, what the aggregator holds of it, and the clocks of partitions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from governor.events import Limits, decode_controls, decode_engagements, decode_impressions
from governor.fatigue.buckets import BUCKET, observed, settled_before
from governor.fatigue.curves import ALL, CurveSet, unknown
from governor.fatigue.histories import History
from governor.fatigue.samples import (
    LATENESS,
    Samples,
    SamplesError,
    clock_record,
    history_record,
    mark_key,
)
from governor.fatigue.sampling import Marks, Shares
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND

DAY = 86_400 * SECOND
T0 = 1_750_000_000 * SECOND
MARKS = Marks(b"secret")
DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}


def ledger() -> Ledger:
    policy = load("rules: [{name: cap, cap: 3, per: campaign, window: 1h}]")
    return Ledger(policy, horizon=32 * DAY)


def feed(one: Ledger, *events: tuple[str, dict[str, Any]]) -> None:
    for n, (topic, event) in enumerate(events):
        whole = {"event_id": f"{topic}-{n}-{event}", **event}
        records = Records.of([(None, json.dumps(whole).encode(), int(whole["ts"] * 1000))])
        columns, rejected = DECODERS[topic](records, one.labels, Limits())
        assert not rejected
        one.apply(columns)


def shown(user: str, campaign: str = "C1", at: float = 0.0) -> tuple[str, dict[str, Any]]:
    return "impression", {"user_id": user, "campaign_id": campaign, "ts": T0 / SECOND + at}


def history(
    campaign: str = "C1", times: tuple[int, ...] = (0,), answered: tuple[int, ...] = ()
) -> History:
    ts = np.array([T0 + each * SECOND for each in times], np.int64)
    answer = np.array([T0 + each * SECOND if each in answered else -1 for each in times], np.int64)
    return History(
        int(ts[-1]), [{"campaign": campaign, "creative": "A"}], ts, np.zeros(len(ts), np.int64),
        answer, ts + DAY, np.ones(len(ts), np.bool_),
    )  # fmt: skip


# ---- Who is observed ---------------------------------------------------------------------------


def observed_of(one: Ledger, shares: Shares) -> set[bytes]:
    one.observe(shares, MARKS)
    found: set[bytes] = set()
    first = 0
    while True:
        keys, first = one.observed(first, 7)
        found |= set(keys)
        if not first:
            return found


def test_a_larger_share_lets_in_everybody_that_a_smaller_one_does() -> None:
    one = ledger()
    feed(one, *(shown(f"u{n}") for n in range(200)))
    sizes = []
    before = observed_of(one, Shares(6))
    for halvings in range(5, -1, -1):
        now = observed_of(one, Shares(halvings))
        assert before <= now
        sizes.append(len(now))
        before = now
    assert sizes[-1] == 200
    assert 60 < sizes[-2] < 140


def test_a_campaign_has_a_share_of_its_own() -> None:
    one = ledger()
    feed(one, *(shown(f"u{n}", "C1" if n % 10 else "rare") for n in range(200)))
    found = observed_of(one, Shares(30, {"rare": 0}))
    assert found == {f"u{n}".encode() for n in range(0, 200, 10)}


def test_only_rows_of_users_are_observed() -> None:
    one = ledger()
    topic, event = shown("u1")
    feed(one, (topic, event | {"ids": {"household": "h1"}}))
    assert observed_of(one, Shares(0)) == {b"u1"}


def test_a_flush_tells_of_the_observed_who_changed_and_of_those_who_are_gone() -> None:
    one = ledger()
    one.observe(Shares(0), MARKS)
    feed(one, shown("u1"), shown("u2"))
    sampled = one.take(0).sampled
    assert (set(sampled.changed), sampled.gone) == ({b"u1", b"u2"}, [])
    assert one.take(0).sampled.changed == []
    erasing = {"user_id": "u1", "ts": T0 / SECOND + 9, "type": "erase"}
    feed(one, ("control", erasing))
    sampled = one.take(0).sampled
    assert (sampled.changed, sampled.gone) == ([], [MARKS.of(b"u1")])
    one.forget("u2")
    assert one.take(0).sampled.gone == [MARKS.of(b"u2")]


def test_marks_tell_nothing_without_the_secret() -> None:
    assert Marks(b"a").of(b"u1") != Marks(b"b").of(b"u1")
    assert MARKS.of(b"u1") == Marks(b"secret").of(b"u1")


def test_shares_survive_their_record() -> None:
    shares = Shares(5, {"C1": 2})
    assert Shares.from_fields(json.loads(json.dumps(shares.to_fields()))) == shares


# ---- What is held ------------------------------------------------------------------------------


def samples(*records: tuple[bytes, bytes | None]) -> Samples:
    made = Samples()
    for key, value in records:
        made.take(key, value)
    return made


def test_reading_again_changes_nothing() -> None:
    records = [history_record(mark, 0, history(times=(0, 60))) for mark in (7, 3)]
    records += [clock_record(0, T0, drained=False)]
    once, twice = samples(*records), samples(*records, *records[::-1])
    for column in ("person", "ts", "campaign", "engaged", "settled"):
        assert np.array_equal(getattr(once.exposures(), column), getattr(twice.exposures(), column))
    assert once.exposures().person.tolist() == [3, 3, 7, 7]


def test_a_newer_history_takes_the_place_of_the_older_and_the_gone_are_gone() -> None:
    made = samples(
        history_record(3, 0, history(times=(0,))),
        history_record(3, 0, history(times=(0, 60), answered=(60,))),
        history_record(4, 0, history()),
        (mark_key(4), None),
    )
    exposures = made.exposures()
    assert exposures.person.tolist() == [3, 3]
    assert exposures.engaged.tolist() == [False, True]
    assert exposures.engaged_at.tolist() == [-1, T0 + 60 * SECOND]


def test_names_are_those_that_are_held() -> None:
    made = samples(
        history_record(1, 0, history("C2")),
        history_record(2, 0, history("C1")),
        history_record(1, 0, history("C3")),
    )
    exposures = made.exposures()
    assert exposures.campaigns == ("C1", "C3")
    assert [exposures.campaigns[code] for code in exposures.campaign] == ["C3", "C1"]
    assert exposures.categories == ()


def test_a_partition_goes_by_its_own_clock_while_it_has_something_to_read() -> None:
    made = samples(
        history_record(1, 0, history()),
        clock_record(0, T0 + 60, drained=False),
        clock_record(1, T0 + 9 * DAY, drained=False),
    )
    assert made.clock(0) == T0 + 60
    assert made.now == T0 + 9 * DAY
    assert made.settled_until == T0 + 60
    assert not made.exposures().settled.any()


def test_an_idle_partition_goes_by_the_clocks_of_the_others() -> None:
    made = samples(
        history_record(1, 0, history()),
        clock_record(0, T0 + 60, drained=True),
        clock_record(1, T0 + 9 * DAY, drained=False),
    )
    assert made.clock(0) == T0 + 9 * DAY - LATENESS
    assert made.exposures().settled.all()
    made.take(*clock_record(0, T0 + 120, drained=False))
    assert made.clock(0) == T0 + 120, "something was written: its own clock holds again"


@pytest.mark.parametrize(
    ("key", "value"),
    [(None, b""), (b"x", b""), (b"p", b""), (mark_key(1), b"\0\0\x90"), (b"w\0\0", b"\0")],
)
def test_a_record_that_is_none_of_ours_changes_nothing(key: bytes | None, value: bytes) -> None:
    made = samples(history_record(1, 0, history()))
    with pytest.raises(SamplesError):
        made.take(key, value)
    assert len(made) == 1


def test_shares_keep_within_what_can_be_held() -> None:
    chance = np.random.default_rng(1)
    marks = chance.integers(0, 2**64, 400, np.uint64)
    made = samples(*(history_record(int(mark), 0, history()) for mark in marks))
    shares = made.adapted(Shares(0), 100)
    assert shares.halvings >= 2
    outside = made.outside(shares)
    assert 300 <= len(outside) < 400
    for mark in outside:
        made.take(mark_key(mark), None)
    assert len(made) <= 100
    assert made.adapted(Shares(3), 10_000).halvings == 0, "there is room"
    assert made.adapted(Shares(3), 8 * len(made)).halvings == 2, "there is some room"
    assert Samples().adapted(Shares(), 100).halvings > 0, "nobody, of whom half as many are wanted"
    few = made.adapted(Shares(6, {"C1": 6}), 4 * len(made))
    assert few.of("C1") < few.halvings, "few people see this campaign"


def test_shares_go_by_how_many_people_there_are_before_any_of_them_is_held() -> None:
    nobody, few = samples(), samples(history_record(1, 0, history()))
    for made in (nobody, few):
        for shares in (Shares(), Shares(0), Shares(12)):
            adapted = made.adapted(shares, 100, there=10_000)
            assert 10_000 >> adapted.halvings <= 100
    assert few.adapted(Shares(9), 100, there=10_000).halvings == 7, "as many as there is room for"
    assert few.adapted(Shares(3), 100, there=50).halvings == 0


def test_a_share_is_within_another_when_it_lets_nobody_else_in() -> None:
    assert Shares(3).within(Shares(3))
    assert Shares(4).within(Shares(3))
    assert not Shares(2).within(Shares(3))
    assert Shares(5, {"C1": 3}).within(Shares(4, {"C1": 2}))
    assert Shares(5, {"C1": 3}).within(Shares(3))
    assert not Shares(5, {"C1": 3}).within(Shares(4))
    assert Shares(4).within(Shares(4, {"C1": 2}))


# ---- Buckets -----------------------------------------------------------------------------------


def known(rate: float) -> CurveSet:
    import dataclasses

    base = unknown(T0)
    curve = base.curves[ALL]
    return CurveSet(T0, DAY, {ALL: dataclasses.replace(curve, base=(rate,) * len(curve.base))})


def test_buckets_hold_what_was_shown_answered_and_expected() -> None:
    minute = 60
    made = samples(
        history_record(1, 0, history(times=(0, minute, 20 * minute), answered=(minute,))),
        history_record(2, 0, history(times=(2 * minute,))),
        clock_record(0, T0 + 9 * DAY, drained=False),
    )
    exposures = made.exposures()
    first = T0 // BUCKET * BUCKET
    found = observed(exposures, known(0.1), "campaign", made.since, first, T0 + DAY)
    (buckets,) = found.values()
    assert list(found) == ["campaign:C1"]
    assert [(one.exposures, one.engagements) for one in buckets] == [(3, 1), (1, 0)]
    # Nothing has been learned of either before their first: .1 each. The second of the one who
    # had not answered is expected to give .1 / 1.1, the third, after an answer, .2 / (1 + ...).
    second = 0.1 * 1 / 1.1
    assert buckets[0].expected == pytest.approx(0.1 + second + 0.1)
    assert buckets[1].expected == pytest.approx(0.1 * 2 / 1.2)


def test_a_bucket_counts_when_all_in_it_is_settled() -> None:
    made = samples(history_record(1, 0, history()), clock_record(0, T0 + DAY // 2, drained=False))
    open_at = settled_before(made.exposures(), made.settled_until, DAY)
    assert open_at <= T0 - DAY // 2
    made.take(*clock_record(0, T0 + 2 * DAY, drained=False))
    assert (
        settled_before(made.exposures(), made.settled_until, DAY) == (T0 + DAY) // BUCKET * BUCKET
    )
