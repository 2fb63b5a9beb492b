"""``governor worker``: the app in a loop of its own, stopped by signals, within ten seconds."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import NoReturn

from streams.app import Governor, create
from streams.guards import remedy
from streams.settings import Settings

__all__ = ["run"]

log = logging.getLogger(__name__)

QUIET_SECONDS = 10.0
STOP_SECONDS = 10.0
"""How long a stop may take. What is not acked by then is read again at the next start."""


def run(settings: Settings) -> NoReturn:
    """Run a worker until SIGTERM or SIGINT, then end the process: 0, or 1 when it failed."""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("faust", "mode", "aiokafka"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.root.level))
    for handler in logging.root.handlers:
        handler.addFilter(_Sparse())
    asyncio.run(_main(create(settings)))


class _Sparse(logging.Filter):
    """Lets a client library say the same at most every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is new, or not a client library's."""
        if not record.name.startswith("aiokafka"):
            return True
        what = record.name, str(record.msg)
        if record.created - self._said.get(what, 0.0) < QUIET_SECONDS:
            return False
        self._said[what] = record.created
        return True


async def _main(app: Governor) -> NoReturn:
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
        log.critical("stopping: %s", remedy(failed.result())[1])
    else:
        log.info("stopping: flushing what is pending")
        failed.cancel()
    signalled.cancel()
    running.cancel()
    # Not wait_for: it would wait for a cancelled stop, and Faust swallows the cancellation.
    done, _ = await asyncio.wait((asyncio.ensure_future(app.stop()),), timeout=STOP_SECONDS)
    if not done:
        log.error("not stopped within %.0f s: what was not acked is read again", STOP_SECONDS)
        _end(1)
    log.info("stopped")
    _end(status)


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
