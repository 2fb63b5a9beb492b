"""A worker that writes down where its CPU time goes; run by `benchmarks.stages`.

It is `governor worker` with clocks around the functions of each stage. They read the CPU time of
their thread, so waiting counts for nothing, and what a stage calls of another stage counts for
that one only. Every callback of the event loop is clocked too, which tells aiokafka's producer
from the rest. Totals go to the file named by BENCH_STAGES, a JSON line each tenth of a second.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import selectors
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from governor import rowcodec, taking
from governor.ledger import Ledger
from streams import outbox, pipeline, producer, transport, worker
from streams.settings import load_settings

__all__ = ["main"]

spent: defaultdict[str, float] = defaultdict(float)
"""CPU seconds by stage."""

events = 0
_sending: ContextVar[str] = ContextVar("sending", default="produce")


class _Nested(threading.local):
    """CPU seconds that clocks inside the one that runs have taken, a number a level."""

    def __init__(self) -> None:
        self.levels: list[float] = [0.0]


_nested = _Nested()


def clocked(stage: str | Callable[[], str], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its thread's CPU time added to its stage."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        _nested.levels.append(0.0)
        began = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            took = time.thread_time() - began
            inner = _nested.levels.pop()
            _nested.levels[-1] += took
            spent[stage if isinstance(stage, str) else stage()] += took - inner

    return run


def clock_everything() -> None:
    """Put the clocks in."""
    _replace(transport, "parse", functools.partial(clocked, "decode"))
    for kind, decode in pipeline.DECODERS.items():
        pipeline.DECODERS[kind] = clocked("decode", decode)
    _replace(Ledger, "apply", lambda apply: clocked("apply", _counted(apply)))
    _replace(taking, "take", functools.partial(clocked, "decide"))
    for name in ("ad_records", "settle", "sweep"):
        _replace(rowcodec, name, functools.partial(clocked, "changelog"))
    _replace(producer, "build", _framed)
    _replace(outbox, "as_one", functools.partial(clocked, "changelog"))
    _replace(outbox.Outbox, "_send", _marked)
    _replace(asyncio.events.Handle, "_run", _by_callback)
    _replace(selectors.DefaultSelector, "select", functools.partial(clocked, _waiting))


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    """An attribute by what is made of it; an error where it has gone."""
    setattr(owner, name, wrap(getattr(owner, name)))


def _waiting() -> str:
    """A loop that asks what has arrived: the consumer's, or the worker's own."""
    return "rest" if threading.current_thread() is threading.main_thread() else "fetch"


def _counted(apply: Callable[..., Any]) -> Callable[..., Any]:
    def run(ledger: Ledger, columns: Any) -> Any:
        global events
        events += len(columns)
        return apply(ledger, columns)

    return run


def _framed(build: Callable[..., Any]) -> Callable[..., Any]:
    """Frames are made one by one, as they are asked for."""

    def run(*parts: Any, **options: Any) -> Any:
        ask = clocked(_sending.get, functools.partial(next, build(*parts, **options), None))
        return iter(ask, None)

    return run


def _marked(send: Callable[..., Any]) -> Callable[..., Any]:
    """Framing rows is the changelog's, framing decisions and dead letters is producing."""

    async def run(self: Any, outgoing: Any, **options: Any) -> Any:
        rows = any(tp.topic.endswith("ledger") for tp in outgoing)
        _sending.set("changelog" if rows else "produce")
        return await send(self, outgoing, **options)

    return run


def _by_callback(run: Callable[[Any], None]) -> Callable[[Any], None]:
    """Clock each callback of a loop, by thread and by whose it is."""
    main = threading.main_thread()

    def stage_of(handle: Any) -> str:
        if threading.current_thread() is not main:
            return "fetch"
        callback = handle._callback  # noqa: SLF001
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            code = getattr(owner.get_coro(), "cr_code", None)
            where = code.co_filename if code is not None else ""
            return "produce" if "aiokafka" in where else "rest"
        # On the main loop sockets are the producer's, but for a scrape of /metrics now and then.
        return "produce" if "Transport" in type(owner).__name__ else "rest"

    def clocked_run(handle: Any) -> None:
        clocked(stage_of(handle), run)(handle)

    return clocked_run


def _write_regularly() -> None:
    with open(os.environ["BENCH_STAGES"], "w", buffering=1) as file:
        while True:
            now = {"events": events, "at": time.perf_counter(), "cpu": time.process_time()}
            file.write(json.dumps({**now, "stages": dict(spent)}) + "\n")
            time.sleep(0.1)


def main() -> None:
    """Run a worker."""
    clock_everything()
    threading.Thread(target=_write_regularly, daemon=True).start()
    environment = {k: v for k, v in os.environ.items() if k.startswith("GOVERNOR_")}
    sys.exit(worker.run(load_settings(environment)))


if __name__ == "__main__":
    main()
