"""Faust without the governor: an agent with a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.registry import Peer, cache
from benchmarks.peers.setup import venv, venv_python

__all__ = ["PEERS"]

FOLDER = Path(__file__).parent


class Faust(Peer):
    """The table is in memory, with its changelog topic."""

    name = "faust"
    version = "0.15.3"
    settings = (
        "table in memory with its changelog, commit each second, acks=all, linger 20 ms and "
        "batches of 128 KiB, 1,000 records a poll, JSON by orjson; no pair is forgotten, a window "
        "after an hour"
    )
    deviations: ClassVar[Mapping[str, str]] = {
        "rolling": "after a kill it reads again events whose table rows are in the changelog "
        "already, and counts them twice",
        "tumbling": "after a kill as well: counts may be too high",
    }
    share = 0.05

    def setup(self, cache: Path) -> str | None:
        """A virtual environment with what `requirements.txt` pins."""
        return venv(cache, self.name, FOLDER / "requirements.txt")

    def command(self, job: str, state: str) -> list[str]:  # noqa: ARG002 - the program reads them
        """The program, in that environment."""
        return [
            str(venv_python(cache(), self.name)),
            str(FOLDER / "program.py"),
            "worker",
            "--loglevel=warn",
        ]


PEERS: Sequence[Peer] = (Faust(),)
