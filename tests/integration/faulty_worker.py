"""``governor worker`` with one fault, named by the variable FAULT.

Run as a module by tests. FAULT is one of the functions below, with an argument after a colon.
Each counts what it does to itself only, so that a restart without FAULT is a sound worker.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from aiokafka.errors import KafkaTimeoutError

from streams import pipeline
from streams.cli import main
from streams.identities import Identity
from streams.lease import Lease
from streams.outbox import Outbox
from streams.producer import Producer, _Owned


def raise_on_user(user: str) -> None:
    """Our own code raises in any batch that has an event of this user."""
    decode = pipeline.DECODERS["impressions"]

    def faulty(records: Any, *rest: Any) -> Any:
        for i in range(len(records)):
            if user.encode() in (records.value(i) or b""):
                raise ZeroDivisionError(f"injected for {user}")
        return decode(records, *rest)

    pipeline.DECODERS["impressions"] = cast(Any, faulty)


def raise_in_apply(user: str) -> None:
    """The ledger raises after it has applied a batch that has an event of this user."""
    from governor.ledger import Ledger

    apply = Ledger.apply

    def faulty(self: Ledger, columns: Any) -> Any:
        applied = apply(self, columns)
        if user.encode() in columns.text.tobytes():
            raise IndexError(f"injected for {user}")
        return applied

    cast(Any, Ledger).apply = faulty


def _sends(outgoing: Any, topic: str) -> bool:
    return any(tp.topic.endswith(f".{topic}") and any(map(len, outgoing[tp])) for tp in outgoing)


def _before_sending(topic: str, act: Callable[[], None]) -> None:
    send = Outbox._send

    async def faulty(self: Outbox, outgoing: Any, **options: Any) -> Any:
        if _sends(outgoing, topic):
            act()
        return await send(self, outgoing, **options)

    cast(Any, Outbox)._send = faulty


def fail_before(topic: str) -> None:
    """Kafka's client raises when records are to be sent to this topic."""

    def fail() -> None:
        raise KafkaTimeoutError(f"injected before {topic}")

    _before_sending(topic, fail)


def die_before(topic: str) -> None:
    """SIGKILL when records are to be sent to this topic."""
    _before_sending(topic, lambda: os.kill(os.getpid(), signal.SIGKILL))


def die_after(topic: str) -> None:
    """SIGKILL when records sent to this topic have been acknowledged."""
    send = Outbox._send

    async def faulty(self: Outbox, outgoing: Any, **options: Any) -> Any:
        ends = await send(self, outgoing, **options)
        if _sends(outgoing, topic):
            os.kill(os.getpid(), signal.SIGKILL)
        return ends

    cast(Any, Outbox)._send = faulty


def never_acknowledge(topic: str) -> None:
    """Records sent to this topic are never acknowledged."""
    send = Outbox._send

    async def faulty(self: Outbox, outgoing: Any, **options: Any) -> Any:
        if _sends(outgoing, topic):
            await asyncio.Event().wait()
        return await send(self, outgoing, **options)

    cast(Any, Outbox)._send = faulty


def rows_before_decisions(_: str) -> None:
    """The order of a flush reversed, and SIGKILL between its halves."""
    rows = Outbox._publish_rows

    async def faulty(self: Outbox, pending: Any, taken: Any) -> None:
        await rows(self, {partition: [one.changelog] for partition, one in taken.items()})
        if any(len(one.decisions) for one in taken.values()):
            os.kill(os.getpid(), signal.SIGKILL)

    cast(Any, Outbox)._publish_decisions = faulty


def ack_too_early(_: str) -> None:
    """Messages acked and committed, and SIGKILL before what they led to is published."""
    ack = Outbox._ack

    async def faulty(self: Outbox, pending: Any, taken: Any) -> None:
        for events in pending.events.values():
            await ack(self, events)
        await self._store().app.consumer.commit()
        os.kill(os.getpid(), signal.SIGKILL)

    cast(Any, Outbox)._publish_decisions = faulty


def never_look_again(_: str) -> None:
    """Rows of a partition that has come are not evaluated anew."""
    from governor.ledger import Ledger

    cast(Any, Ledger).reevaluate = lambda _self, _limit: 0


def drop_row(user: str) -> None:
    """The changelog rows of this user are not written."""
    send = Outbox._send

    async def faulty(self: Outbox, outgoing: Any, **options: Any) -> Any:
        kept = {
            tp: [
                records.select(
                    np.array(
                        [i for i in range(len(records)) if records.key(i) != b"u" + user.encode()],
                        np.int64,
                    )
                )
                for records in parts
            ]
            for tp, parts in outgoing.items()
        }
        return await send(self, kept, **options)

    cast(Any, Outbox)._send = faulty


def unfenced(_: str) -> None:
    """Any worker may write any partition, however long it was held still."""

    async def fence(self: Producer, partitions: Any) -> None:
        nobody = Identity(-1, -1)
        self._owned.update({each: _Owned(nobody, time.monotonic()) for each in partitions})

    cast(Any, Producer)._fence = fence
    cast(Any, Lease).check = lambda _self: None


def without_lease(_: str) -> None:
    """Only Kafka tells a worker that it was held still past its session."""
    cast(Any, Lease).check = lambda _self: None


def fall_silent(_: str) -> None:
    """The consumer gets nothing more of topics of events, and raises nothing."""
    from streams.transport import Consumer

    getmany = Consumer.getmany

    async def faulty(self: Consumer, timeout: float) -> Any:  # noqa: ASYNC109
        async for tp, message in getmany(self, timeout):
            if not self.app.topics.acks_enabled_for(tp.topic):
                yield tp, message

    cast(Any, Consumer).getmany = faulty


def recover_nothing(_: str) -> None:
    """No row of the changelog ever comes, and nothing is raised."""
    from streams.changelog import ChangelogReader

    async def fetch(self: ChangelogReader) -> Any:
        await asyncio.sleep(0.5)
        return []

    cast(Any, ChangelogReader).fetch = fetch


def die_on_user(user: str) -> None:
    """The process crashes, as compiled code can, when it decodes an event of this user."""
    decode = pipeline.DECODERS["impressions"]

    def faulty(records: Any, *rest: Any) -> Any:
        for i in range(len(records)):
            if user.encode() in (records.value(i) or b""):
                os.kill(os.getpid(), signal.SIGSEGV)
        return decode(records, *rest)

    pipeline.DECODERS["impressions"] = cast(Any, faulty)


def jump_clock(seconds: str) -> None:
    """The wall clock is set on by so much six seconds after the start, and an hour back later."""
    clock, began = time.time, time.monotonic()

    def faulty() -> float:
        age = time.monotonic() - began
        return clock() + (0 if age < 6 else float(seconds) if age < 12 else -3600)

    time.time = faulty
    for each in (Outbox, Producer):  # whose default was taken when they were imported
        init = cast(Any, each).__init__
        init.__defaults__ = tuple(faulty if one is clock else one for one in init.__defaults__)


def limit_files(size: str) -> None:
    """No file can be longer than this; the kernel refuses to write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))


FAULTS = {
    each.__name__: each
    for each in (
        raise_on_user,
        raise_in_apply,
        fail_before,
        die_before,
        die_after,
        never_acknowledge,
        rows_before_decisions,
        ack_too_early,
        never_look_again,
        drop_row,
        unfenced,
        without_lease,
        fall_silent,
        recover_nothing,
        die_on_user,
        jump_clock,
        limit_files,
    )
}

if __name__ == "__main__":
    name, _, argument = os.environ["FAULT"].partition(":")
    FAULTS[name](argument)
    main(["worker"])
