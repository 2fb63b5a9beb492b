"""``governor worker`` with one fault, named by the variable FAULT.

Run as a module by tests. FAULT is one of the functions below, with an argument after a colon.
Each counts what it does to itself only, so that a restart without FAULT is a sound worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any, cast

from aiokafka.errors import KafkaTimeoutError

from streams import pipeline
from streams.cli import main
from streams.outbox import Outbox


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
    return any(tp.topic.endswith(f".{topic}") and len(outgoing[tp]) for tp in outgoing)


def _before_sending(topic: str, act: Callable[[], None]) -> None:
    send = Outbox._send

    async def faulty(self: Outbox, outgoing: Any) -> Any:
        if _sends(outgoing, topic):
            act()
        return await send(self, outgoing)

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

    async def faulty(self: Outbox, outgoing: Any) -> Any:
        ends = await send(self, outgoing)
        if _sends(outgoing, topic):
            os.kill(os.getpid(), signal.SIGKILL)
        return ends

    cast(Any, Outbox)._send = faulty


def never_acknowledge(topic: str) -> None:
    """Records sent to this topic are never acknowledged."""
    send = Outbox._send

    async def faulty(self: Outbox, outgoing: Any) -> Any:
        if _sends(outgoing, topic):
            await asyncio.Event().wait()
        return await send(self, outgoing)

    cast(Any, Outbox)._send = faulty


FAULTS = {
    each.__name__: each
    for each in (
        raise_on_user,
        raise_in_apply,
        fail_before,
        die_before,
        die_after,
        never_acknowledge,
    )
}

if __name__ == "__main__":
    name, _, argument = os.environ["FAULT"].partition(":")
    FAULTS[name](argument)
    main(["worker"])
