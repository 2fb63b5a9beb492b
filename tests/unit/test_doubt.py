"""How long a partition's new owner publishes what it need not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from aiokafka.errors import KafkaConnectionError

from governor.events import Limits
from governor.gate import Gate
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from governor.ticks import SECOND
from streams.doubt import Doubt, Offsets
from streams.home import Home
from streams.pipeline import ingest

ENDS = {("a", 0): 10, ("b", 0): 5, ("a", 1): 7, ("b", 1): 0}
COMMITTED = {("a", 0): 4, ("b", 0): 5, ("a", 1): 7}


def doubt(decided: int = 3, most: int = 100) -> Doubt:
    async def ends(partitions: Iterable[int]) -> Offsets:
        return {where: end for where, end in ENDS.items() if where[1] in set(partitions)}

    async def committed(_: Iterable[int]) -> Offsets:
        return COMMITTED

    async def decisions(partitions: Iterable[int]) -> Offsets:
        return {("decisions", partition): decided for partition in partitions}

    made = Doubt(ends, committed, decisions, most)
    made.begin([0, 1])
    return made


def test_it_lasts_until_all_is_applied_that_the_former_owner_can_have_read() -> None:
    one = doubt()
    asyncio.run(one.measure([0]))
    one.applied("a", 0, 9)
    one.taken(0)
    assert one.holds(0)
    one.applied("a", 0, 10)
    assert one.holds(0), "what was applied now is still to be taken"
    one.taken(0)
    assert not one.holds(0)


def test_it_ends_with_the_first_flush_where_nothing_was_left() -> None:
    one = doubt()
    one.applied("a", 1, 8)
    asyncio.run(one.measure([1]))
    assert one.holds(1)
    one.taken(1)
    assert not one.holds(1)
    assert one.holds(0)


def test_what_was_applied_before_it_asked_counts() -> None:
    one = doubt()
    one.applied("a", 0, 12)
    asyncio.run(one.measure([0]))
    one.taken(0)
    assert not one.holds(0)


def test_it_is_none_where_nobody_has_decided_anything() -> None:
    one = doubt(decided=1)
    asyncio.run(one.measure([0]))
    assert not one.holds(0)
    one.applied("a", 0, 6)
    one.taken(0)


def test_it_goes_no_further_than_a_worker_can_have_got() -> None:
    one = doubt(most=2)
    asyncio.run(one.measure([0]))
    one.applied("a", 0, 6)
    one.taken(0)
    assert not one.holds(0)


def test_each_take_over_begins_it_anew() -> None:
    one = doubt()
    one.applied("a", 0, 12)
    asyncio.run(one.measure([0]))
    one.taken(0)
    one.begin([0])
    assert one.holds(0)
    assert not one.holds(1)
    asyncio.run(one.measure([0]))
    one.taken(0)
    assert one.holds(0)


def test_a_kafka_that_does_not_say_leaves_it_standing() -> None:
    async def fail(_: Iterable[int]) -> Offsets:
        raise KafkaConnectionError("away")

    one = Doubt(fail, fail, fail, 100)
    one.begin([0])
    asyncio.run(one.measure([0]))
    one.taken(0)
    assert one.holds(0)


@pytest.mark.parametrize("again", [False, True])
def test_a_ledger_in_doubt_publishes_changed_rows_the_same_or_not(again: bool) -> None:
    day = 86400 * SECOND
    policy = load("rules: [{name: twice, cap: 2, per: user, window: 1d}]", horizon=day)
    ledger = Ledger(policy, horizon=day)
    event = b'{"event_id":"e","user_id":"u","ts":1,"campaign_id":"c"}'
    home = Home(0, 1, ledger, Gate(secret=b"", retention=0))
    ingest("impressions", home, Records.of([(b"u", event, 1000)]), Limits())
    decisions = ledger.take(0, again=again).decisions
    assert len(decisions) == again
    if again:
        assert (decisions.key(0), decisions.value(0)) == (b"u", None)
    assert len(ledger.take(0, again=again).decisions) == 0
