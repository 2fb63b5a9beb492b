"""``governor worker``: the app in a loop of its own, stopped by signals, within ten seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from streams.app import Governor, create
from streams.settings import Settings
from streams.topics import TopicError

__all__ = ["run"]

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""How long a stop may take. What is not acked by then is read again at the next start."""


def run(settings: Settings) -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit status."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))
    status = asyncio.run(_main(create(settings)))
    logging.shutdown()
    if status is None:
        # A thread that hangs in Kafka's client would keep the interpreter from ending.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    return status


async def _main(app: Governor) -> int | None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    app.finalize()
    running = asyncio.ensure_future(app.start())
    signalled = asyncio.ensure_future(asked.wait())
    failed = asyncio.ensure_future(_failure(app, running))
    await asyncio.wait((signalled, failed), return_when=asyncio.FIRST_COMPLETED)
    status = 0
    if failed.done():
        status = 1
        log.critical("stopping: %s", _told(failed.result()))
    else:
        log.info("stopping: flushing what is pending")
        failed.cancel()
    signalled.cancel()
    running.cancel()
    try:
        await asyncio.wait_for(app.stop(), STOP_SECONDS)
    except TimeoutError:
        log.error("not stopped within %.0f s: what was not acked is read again", STOP_SECONDS)
        return None
    log.info("stopped")
    return status


async def _failure(app: Governor, running: asyncio.Future[None]) -> BaseException:
    """Wait until the app fails to start or crashes; return why."""
    await asyncio.wait((running,))
    if (error := running.exception()) is not None:
        return error
    await app.crashed_or_stopped()
    return app.crash_reason or RuntimeError("the app stopped by itself")


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, TopicError) else f"{type(error).__name__}: {error}"
