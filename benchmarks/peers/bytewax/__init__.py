"""Bytewax: a dataflow in Python on an engine in Rust."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.registry import Peer, cache
from benchmarks.peers.setup import venv, venv_python

__all__ = ["PEERS"]

FOLDER = Path(__file__).parent


class Bytewax(Peer):
    """Its Kafka connector, stateful operators and recovery store."""

    name = "bytewax"
    share = 0.6
    version = "0.21.1"
    settings = (
        "one worker, epoch and snapshot each second into one recovery partition, which keeps the "
        "offsets too (not the consumer group), acks=all and a flush at each batch (the sink's "
        "way), 2,500 records a batch and partition, stateful_batch as the fastest of its "
        "operators; nothing is forgotten after its hour"
    )
    deviations: ClassVar[Mapping[str, str]] = {
        "tumbling": "counts in a stateful operator, the user's newest minute only: Bytewax's own "
        "windows, which snapshot a clock and the windows for each user, took over twice the CPU",
    }

    def setup(self, cache: Path) -> str | None:
        """A virtual environment with what `requirements.txt` pins."""
        return venv(cache, self.name, FOLDER / "requirements.txt")

    def command(self, job: str, state: str) -> list[str]:  # noqa: ARG002 - the program reads them
        """The program, in that environment."""
        return [str(venv_python(cache(), self.name)), str(FOLDER / "program.py")]


PEERS: Sequence[Peer] = (Bytewax(),)
