"""The command line, run against a deployment as an operator would."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.client import Client
from tests.integration.deployment import ROOT, Deployment

__all__ = ["governor", "seen_by"]


def governor(
    deployment: Deployment, *arguments: str | Path, status: int = 0, **settings: str
) -> str:
    """Run `governor ARGUMENTS`; what it printed, errors behind the rest."""
    environment = {**deployment.environment(**settings), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *map(str, arguments)],
        env=environment,
        cwd=deployment.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def seen_by(
    deployment: Deployment,
    condition: Callable[[Client], bool],
    what: str,
    act: Callable[[], object] = lambda: None,
    seconds: float = 30.0,
) -> None:
    """Wait until a reader that was there before ``act`` sees this."""

    async def follow() -> None:
        async with Client(topic_prefix=deployment.topic(""), **deployment.kafka) as client:
            await asyncio.to_thread(act)
            deadline = time.monotonic() + seconds
            while not condition(client):
                if time.monotonic() > deadline:
                    pytest.fail(f"no reader sees {what}")
                await asyncio.sleep(0.02)

    asyncio.run(follow())
