"""Quix Streams: a StreamingDataFrame in Python over librdkafka."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.registry import Peer, cache
from benchmarks.peers.setup import venv, venv_python

__all__ = ["PEERS"]

FOLDER = Path(__file__).parent


class Quix(Peer):
    """Its State and its windows, which are in RocksDB with changelog topics."""

    name = "quix"
    version = "3.28.1"
    states = ("rocksdb",)
    share = 0.4
    settings = (
        "at least once, commit each second, changelog topics, acks=all with idempotence (its "
        "default), linger 20 ms, RocksDB as it sets it up; nothing is forgotten after its hour"
    )

    def setup(self, cache: Path) -> str | None:
        """A virtual environment with what `requirements.txt` pins."""
        return venv(cache, self.name, FOLDER / "requirements.txt")

    def command(self, job: str, state: str) -> list[str]:  # noqa: ARG002 - the program reads them
        """The program, in that environment."""
        return [str(venv_python(cache(), self.name)), str(FOLDER / "program.py")]


PEERS: Sequence[Peer] = (Quix(),)
