"""The worker's web server: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for a keeper.

``/healthz`` answers 503 when the worker should be restarted, ``/readyz`` while it does not serve
its partitions; both say why, as JSON. A counter that is advanced as the worker ends would be seen
by nobody: `Web.last_look` serves it until somebody has.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from mode import Service
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams.health import Health
from streams.metrics import Metrics

__all__ = ["Web"]

log = logging.getLogger(__name__)


class Web(Service):
    """Serves on the worker's own loop: an answer means that the loop turns."""

    mundane_level = "debug"

    def __init__(
        self, host: str, port: int, metrics: Metrics, health: Health, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._host = host
        self._port = port
        self._metrics = metrics
        self._health = health
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """Where it listens, once it has started."""
        assert self._runner is not None
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def on_start(self) -> None:
        """Listen."""
        await self._listen(self._serve)
        log.info("serving", extra={"metrics": f"{self.address}/metrics"})

    async def on_stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def page(self) -> bytes:
        """The metrics as they are."""
        return generate_latest(self._metrics.registry)

    async def last_look(self, page: bytes) -> None:
        """Listen once more, after the stop, until ``page`` has been read as the metrics.

        Raises:
            OSError: somebody else listens there by now.
        """
        read = asyncio.Event()

        async def serve(request: web.Request) -> web.Response:
            response = _text(page)
            await response.prepare(request)
            await response.write_eof()
            read.set()
            return response

        await self._listen(serve)
        log.info("serving the last metrics", extra={"metrics": f"{self.address}/metrics"})
        await read.wait()

    async def _listen(self, serve: Callable[[web.Request], Awaitable[web.Response]]) -> None:
        app = web.Application()
        app.router.add_get("/metrics", serve)
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/readyz", self._ready)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            where = f"{self._host}:{self._port} (GOVERNOR_METRICS_HOST, GOVERNOR_METRICS_PORT)"
            why = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(
                error.errno,
                f"metrics cannot be served at {where}: {why}. Choose another address or port, or "
                "port 0 for any that is free",
            ) from error
        self._port = self._runner.addresses[0][1]

    async def _serve(self, _request: web.Request) -> web.Response:
        return _text(self.page())

    async def _alive(self, _request: web.Request) -> web.Response:
        return _answer(*self._health.health())

    async def _ready(self, _request: web.Request) -> web.Response:
        return _answer(*self._health.readiness())


def _text(page: bytes) -> web.Response:
    return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(well: bool, body: Mapping[str, object]) -> web.Response:
    return web.json_response(body, status=200 if well else 503)
