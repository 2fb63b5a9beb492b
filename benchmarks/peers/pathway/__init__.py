"""Pathway: a Python interface to an engine in Rust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.registry import Peer, cache
from benchmarks.peers.setup import venv, venv_python

__all__ = ["PEERS"]

FOLDER = Path(__file__).parent


class Pathway(Peer):
    """Its Kafka connector, a stateful reducer, its windows, and persistence."""

    name = "pathway"
    version = "0.33.0"
    settings = (
        "one worker, input committed to the engine each 25 ms, at most 50,000 entries in process "
        "(its advice for a backlog), snapshot each second to the file system, acks=all; the "
        "snapshot is of the input, from which a restart computes the state again: snapshots of "
        "operators need a licence; nothing is forgotten after its hour"
    )
    deviations: ClassVar[Mapping[str, str]] = {
        "tumbling": "of the counts of a window within a batch of 25 ms only the last is emitted",
    }

    def setup(self, cache: Path) -> str | None:
        """A virtual environment with what `requirements.txt` pins."""
        return venv(cache, self.name, FOLDER / "requirements.txt")

    def command(self, job: str, state: str) -> list[str]:  # noqa: ARG002 - the program reads them
        """The program, in that environment."""
        return [str(venv_python(cache(), self.name)), str(FOLDER / "program.py")]


PEERS: Sequence[Peer] = (Pathway(),)
