"""The governor itself, run and checked like its peers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers.registry import Peer

__all__ = ["PEERS"]


class Governor(Peer):
    """One worker with one rule."""

    name = "governor"
    version = "this"
    settings = (
        "one worker, its default settings (flush each 25 ms, acks=all, changelog on); "
        "rolling: cap 3 per campaign in 1h; tumbling: cap 1 per user in 1m"
    )
    deviations: ClassVar[Mapping[str, str]] = {
        "rolling": "one record per user and flush: of decisions on the same user and campaign "
        "within a flush only the newest is sent",
        "tumbling": "has no tumbling windows: a rolling cap of one per minute and user instead, "
        "which decides at every impression",
    }
    coalesces = True
    rolls = True

    def setup(self, cache: Path) -> str | None:  # noqa: ARG002 - it is installed with this
        return None

    def command(self, job: str, state: str) -> list[str]:  # noqa: ARG002 - the worker reads them
        return [sys.executable, "-m", "benchmarks.peers.governor.worker"]

    def decisions(self, answer: Mapping[str, Any]) -> Iterable[tuple[float | str, float]]:
        for throttle in answer["throttles"]:
            yield throttle["from"], throttle["until"]


PEERS: Sequence[Peer] = (Governor(),)
