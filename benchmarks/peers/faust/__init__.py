"""x."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.registry import Peer, cache
from benchmarks.peers.setup import venv, venv_python

__all__ = ["PEERS"]

FOLDER = Path(__file__).parent


class Faust(Peer):
    """x."""

    name = "faust"
    version = "0"
    states = ("heap",)
    settings = ""

    def setup(self, cache: Path) -> str | None:
        """A virtual environment."""
        requirements = (FOLDER / "requirements.txt").read_text().split()
        return venv(cache, self.name, requirements)

    def command(self, job: str, state: str) -> list[str]:
        """The program."""
        return [str(venv_python(cache(), self.name)), str(FOLDER / "program.py"), "worker", "--loglevel=warn"]


PEERS = (Faust(),)
