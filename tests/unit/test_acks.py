"""Which offsets may be committed, when one message stands for many."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import faust
from faust.auth import SASLCredentials
from faust.transport import drivers
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from governor.records import Records
from streams.transport import Batch, Consumer, Deliveries, Fetched, Transport

EVENTS = TP("events", 0)
OTHERS = TP("events", 1)
CHANGELOG = TP("changelog", 0)


def new_app(broker: str = "governor://127.0.0.1:1", **settings: object) -> faust.App:
    return faust.App("acks", broker=broker, web_enabled=False, **settings)


def with_consumer(test: Callable[[Consumer], Awaitable[None]]) -> Callable[[], None]:
    """Run `test` with the consumer of an app that is not started."""

    async def run() -> None:
        app = new_app()
        app.topics._acking_topics.add("events")
        await test(app.consumer)

    def in_loop() -> None:
        asyncio.run(run())

    in_loop.__name__ = test.__name__  # not functools.wraps: pytest would ask for its argument
    return in_loop


def fetched(consumer: Consumer, tp: TP, first: int, behind: int) -> Fetched:
    records = Records.of([(None, b"", 0)] * (behind - first), first_offset=first)
    return Fetched(records, first, behind, consumer.seeks[tp])


async def hand_out(consumer: Consumer, *fetches: tuple[TP, Fetched]) -> list[Batch]:
    """The messages of `fetches` on the way that they take to a stream, which tracks them."""
    by_tp: dict[TP, list[Fetched]] = {}
    for tp, fetch in fetches:
        by_tp.setdefault(tp, []).append(fetch)

    async def getmany(*_: object) -> dict[TP, list[Fetched]]:
        return by_tp

    consumer._active_partitions = set(by_tp)
    consumer._thread.getmany = getmany
    consumer._thread.highwater = lambda tp: 0
    messages = [message async for _, message in consumer.getmany(1.0)]
    for message in messages:
        message.tracked = True
    return messages


async def events(consumer: Consumer, *bounds: int) -> list[Batch]:
    """Messages for EVENTS between each bound and the next."""
    return await hand_out(
        consumer,
        *(
            (EVENTS, fetched(consumer, EVENTS, first, behind))
            for first, behind in itertools.pairwise(bounds)
        ),
    )


def committable(consumer: Consumer) -> dict[TP, int]:
    found: dict[TP, int] = consumer._filter_committable_offsets(
        list(consumer._filter_tps_with_pending_acks())
    )
    return found


@with_consumer
async def test_nothing_is_committed_before_an_ack(consumer: Consumer) -> None:
    await events(consumer, 0, 10)
    assert committable(consumer) == {}


@with_consumer
async def test_an_acked_message_commits_all_its_offsets(consumer: Consumer) -> None:
    (message,) = await events(consumer, 5, 10)
    assert (message.first_offset, message.offset, len(message.value)) == (5, 9, 5)
    assert message.ack(consumer)
    assert committable(consumer) == {EVENTS: 10}


@with_consumer
async def test_consecutive_acked_messages_commit_in_one_go(consumer: Consumer) -> None:
    for message in await events(consumer, 0, 10, 30, 31):
        message.ack(consumer)
    assert committable(consumer) == {EVENTS: 31}


@with_consumer
async def test_no_commit_passes_a_message_that_is_not_acked(consumer: Consumer) -> None:
    first, second, third = await events(consumer, 0, 10, 20, 30)
    third.ack(consumer)
    assert committable(consumer) == {}
    first.ack(consumer)
    assert committable(consumer) == {EVENTS: 10}
    second.ack(consumer)
    assert committable(consumer) == {EVENTS: 30}


@with_consumer
async def test_what_is_committed_is_not_committed_again(consumer: Consumer) -> None:
    (message,) = await events(consumer, 0, 10)
    message.ack(consumer)
    consumer._committed_offset[EVENTS] = 10
    assert committable(consumer) == {}


@with_consumer
async def test_a_message_without_records_moves_the_commit(consumer: Consumer) -> None:
    empty = Fetched(Records.of([]), 10, 12, consumer.seeks[EVENTS])
    (message,) = await hand_out(consumer, (EVENTS, empty))
    message.ack(consumer)
    assert committable(consumer) == {EVENTS: 12}


@with_consumer
async def test_partitions_are_kept_apart(consumer: Consumer) -> None:
    one, other = await hand_out(
        consumer,
        (EVENTS, fetched(consumer, EVENTS, 0, 10)),
        (OTHERS, fetched(consumer, OTHERS, 50, 60)),
    )
    other.ack(consumer)
    assert committable(consumer) == {OTHERS: 60}
    one.ack(consumer)
    assert committable(consumer) == {EVENTS: 10, OTHERS: 60}


@with_consumer
async def test_commits_can_be_asked_for_by_topic(consumer: Consumer) -> None:
    await events(consumer, 0, 10)
    assert list(consumer._filter_tps_with_pending_acks({"events"})) == [EVENTS]
    assert list(consumer._filter_tps_with_pending_acks({EVENTS})) == [EVENTS]
    assert list(consumer._filter_tps_with_pending_acks({"changelog"})) == []


@with_consumer
async def test_topics_without_acks_leave_nothing_behind(consumer: Consumer) -> None:
    await hand_out(consumer, (CHANGELOG, fetched(consumer, CHANGELOG, 0, 10)))
    assert list(consumer._filter_tps_with_pending_acks()) == []


@with_consumer
async def test_acked_messages_are_let_go_at_the_ack(consumer: Consumer) -> None:
    first, second, third = await events(consumer, 0, 10, 20, 30)
    first.ack(consumer)
    third.ack(consumer)
    assert list(consumer._deliveries[EVENTS]._pending) == [second, third]


@with_consumer
async def test_an_ack_from_before_a_seek_commits_nothing(consumer: Consumer) -> None:
    (before,) = await events(consumer, 10, 20)
    consumer.seeks[EVENTS] += 1
    before.ack(consumer)
    assert committable(consumer) == {}


@with_consumer
async def test_an_ack_from_before_a_seek_is_not_taken_for_the_same_offset_after_it(
    consumer: Consumer,
) -> None:
    (before,) = await events(consumer, 10, 20)
    consumer.seeks[EVENTS] += 1
    (after,) = await events(consumer, 10, 20)
    before.ack(consumer)
    assert committable(consumer) == {}
    after.ack(consumer)
    assert committable(consumer) == {EVENTS: 20}


@with_consumer
async def test_a_fetch_that_a_seek_overtook_is_dropped(consumer: Consumer) -> None:
    fetch = fetched(consumer, EVENTS, 10, 20)
    consumer.seeks[EVENTS] += 1
    assert await hand_out(consumer, (EVENTS, fetch)) == []


@with_consumer
async def test_an_ack_after_the_partition_was_revoked_commits_nothing(consumer: Consumer) -> None:
    (before,) = await events(consumer, 10, 20)
    at_revocation: list[dict[TP, int]] = []

    async def streams_finish(revoked: set[TP]) -> None:
        at_revocation.append(committable(consumer))

    consumer._on_partitions_revoked = streams_finish
    await consumer.on_partitions_revoked({EVENTS})
    before.ack(consumer)
    assert at_revocation == [{}]
    assert committable(consumer) == {}


@with_consumer
async def test_acks_while_streams_finish_a_revoked_partition_are_committed(
    consumer: Consumer,
) -> None:
    (message,) = await events(consumer, 10, 20)
    at_revocation: list[dict[TP, int]] = []

    async def streams_finish(revoked: set[TP]) -> None:
        message.ack(consumer)
        at_revocation.append(committable(consumer))

    consumer._on_partitions_revoked = streams_finish
    await consumer.on_partitions_revoked({EVENTS})
    assert at_revocation == [{EVENTS: 20}]


@with_consumer
async def test_what_a_stream_skips_without_tracking_it_is_not_committed(
    consumer: Consumer,
) -> None:
    (message,) = await events(consumer, 0, 10)
    message.tracked = False
    message.ack(consumer)
    assert committable(consumer) == {}


@with_consumer
async def test_acks_of_fausts_compiled_streams_count_too(consumer: Consumer) -> None:
    """They note the offset themselves, without a call of `ack`."""
    (message,) = await events(consumer, 0, 10)
    message.acked = True
    consumer._acked_index[EVENTS].add(message.offset)
    consumer._acked[EVENTS].append(message.offset)
    assert committable(consumer) == {EVENTS: 10}
    assert not consumer._acked
    assert not consumer._acked_index


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.randoms())
def test_the_end_is_that_of_the_leading_acked_run(sizes: list[int], rng: object) -> None:
    async def run() -> None:
        app = new_app()
        deliveries = Deliveries(0)
        messages = []
        first = 0
        for size in sizes:
            fetch = Fetched(Records.of([]), first, first + size, 0)
            messages.append(app.consumer._to_message(EVENTS, fetch))
            deliveries.add(messages[-1])
            first += size
        order = list(range(len(sizes)))
        rng.shuffle(order)  # type: ignore[attr-defined]
        for i, which in enumerate(order):
            messages[which].tracked = messages[which].acked = True
            acked = set(order[: i + 1])
            leading = next((n for n in range(len(sizes)) if n not in acked), len(sizes))
            assert deliveries.end() == (sum(sizes[:leading]) or None)

    asyncio.run(run())


def test_the_url_scheme_finds_the_transport() -> None:
    assert drivers.by_url("governor://a:9092") is Transport


def test_hosts_and_credentials_reach_kafka() -> None:
    async def run() -> None:
        app = new_app(
            "governor://a;b:9093",
            broker_credentials=SASLCredentials(username="u", password="p", mechanism="PLAIN"),
        )
        assert isinstance(app.transport, Transport)
        thread = app.consumer._thread
        kafka = thread._create_consumer(asyncio.get_running_loop())
        try:
            assert kafka._client._bootstrap_servers == ["a:9092", "b:9093"]
            assert kafka._client._sasl_plain_username == "u"
            assert kafka._isolation_level == "read_committed"
            settings = app.producer._settings_default() | app.producer._settings_auth()
            assert settings["bootstrap_servers"] == ["a:9092", "b:9093"]
            assert settings["sasl_plain_password"] == "p"
        finally:
            kafka._closed = True

    asyncio.run(run())
