"""Trying events where they can do no harm: in a child that dies in the worker's place.

An event that makes our code raise is found by bisection. One that ends the process (a crash in
compiled code, memory without end, a loop without end) leaves nobody to bisect, and would take down
worker after worker. So where several workers in a row began at an offset and did not get on
(`streams.bookmarks`), each batch is first applied by a forked child, which has the same rows and
whose changes go with it; what ends the child every time, alone, is quarantined.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

from governor.events import Limits, Reason, Rejected
from governor.records import Records
from streams.home import Home
from streams.pipeline import Ingested, ingest

__all__ = ["ingest_warily", "survives"]

TRIES = 2
"""A child can also fall to chance, such as a lock that another thread held when it was forked."""

TRY_SECONDS = 30.0


async def ingest_warily(kind: str, home: Home, records: Records, limits: Limits) -> Ingested:
    """As `pipeline.ingest`, without what ends a process that ingests it."""

    def rehearse() -> None:
        ingest(kind, home, records, limits)
        home.ledger.take(0)

    if not len(records) or await survives(rehearse):
        return ingest(kind, home, records, limits)
    if len(records) == 1:
        detail = f"it ended {TRIES} processes that applied it"
        return Ingested(Counter(), [Rejected(0, Reason.QUARANTINED, detail)])
    half = len(records) // 2
    first = await ingest_warily(kind, home, records.select(slice(None, half)), limits)
    second = await ingest_warily(kind, home, records.select(slice(half, None)), limits)
    later = [Rejected(one.index + half, one.reason, one.detail) for one in second.rejected]
    return Ingested(first.outcomes + second.outcomes, first.rejected + later)


async def survives(work: Callable[[], object], seconds: float = TRY_SECONDS) -> bool:
    """Whether a child of this process does some work without dying of it."""
    for _ in range(TRIES):
        if await asyncio.to_thread(_waited, _fork(work), seconds):
            return True
    return False


def _fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    status = 0
    try:
        work()
    except MemoryError:
        status = 1
    except Exception:  # noqa: BLE001 - the worker meets it too, and knows what to do
        status = 0
    except BaseException:  # noqa: BLE001
        status = 1
    finally:
        os._exit(status)  # neither the loop nor anything at exit is the child's


def _waited(child: int, seconds: float) -> bool:
    """Wait for the child to end; whether it did so by itself, in time."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
