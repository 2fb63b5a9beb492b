"""``governor worker``: the app in a loop of its own, stopped by signals, within ten seconds.

One that a guard stops can be scraped once more (GOVERNOR_LAST_SCRAPE): it would take what it
counted with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from importlib.metadata import version
from typing import Any, NoReturn

from streams import logs
from streams.app import Governor, create
from streams.settings import Settings

__all__ = ["run"]

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""How long a stop may take. What is not acked by then is read again at the next start."""


def run(settings: Settings) -> NoReturn:
    """Run a worker until SIGTERM or SIGINT, then end the process: 0, or 1 when it failed."""
    logs.configure(settings)
    asyncio.run(_main(create(settings)))


async def _main(app: Governor) -> NoReturn:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    settings = app.settings
    log.info(
        "starting",
        extra={
            "version": version("retargeting-governor"),
            "broker": settings.broker,
            "group": settings.group,
            "topics": f"{settings.topic_prefix}*",
            "policy": app.policy.version,
        },
    )
    app.finalize()
    running = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(asked.wait())
    failed = asyncio.ensure_future(_failure(app, running))
    await asyncio.wait((signalled, failed), return_when=asyncio.FIRST_COMPLETED)
    status, last = 0, b""
    if failed.done():
        status = 1
        guard, why = app.ended_by(failed.result())
        log.critical("stopping: %s", why, extra={"guard": guard} if guard else {})
        last = app.server.page() if guard else b""
    else:
        log.info("stopping", extra={"pending_events": app.outbox.events})
        failed.cancel()
    running.cancel()
    # Not wait_for: it would wait for a cancelled stop, and Faust swallows the cancellation.
    done, _ = await asyncio.wait((asyncio.ensure_future(app.stop()),), timeout=STOP_SECONDS)
    if not done:
        log.error("not stopped within %.0f s: what was not acked is read again", STOP_SECONDS)
        _end(1)
    log.info("stopped")
    if last:
        await _be_scraped(app, last, signalled)
    _end(status)


async def _be_scraped(app: Governor, page: bytes, signalled: asyncio.Future[Any]) -> None:
    """Let Prometheus read the last metrics, which say which guard stopped the worker."""
    look = asyncio.ensure_future(app.server.last_look(page))
    await asyncio.wait(
        (look, signalled),
        timeout=app.settings.last_scrape.total_seconds(),
        return_when=asyncio.FIRST_COMPLETED,
    )
    if look.done() and (error := look.exception()) is not None:
        log.warning("the last metrics cannot be read: %s", error)


def _end(status: int) -> NoReturn:
    """End the process. The loop would wait for tasks of Faust's that swallow cancellation."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


async def _failure(app: Governor, running: asyncio.Future[None]) -> BaseException:
    """Wait until the app fails to start or crashes; return why."""
    await asyncio.wait((running,))
    if (error := running.exception()) is not None:
        return error
    await app.crashed_or_stopped()
    return app.crash_reason or RuntimeError("the app stopped by itself")
