"""The worker's web server: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for a keeper.

``/healthz`` answers 503 when the worker should be restarted, ``/readyz`` while it does not serve
its partitions; both say why, as JSON.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
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
        app = web.Application()
        app.router.add_get("/metrics", self._serve)
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
        log.info("serving", extra={"metrics": f"{self.address}/metrics"})

    async def on_stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _alive(self, _request: web.Request) -> web.Response:
        return _answer(*self._health.health())

    async def _ready(self, _request: web.Request) -> web.Response:
        return _answer(*self._health.readiness())


def _answer(well: bool, body: Mapping[str, object]) -> web.Response:
    return web.json_response(body, status=200 if well else 503)
