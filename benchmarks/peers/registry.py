"""What the harness knows of a peer, and which peers there are.

Each package in this folder is a peer or several: its `PEERS` is a sequence of `Peer`. It is
imported by the harness, so it imports nothing that only the peer's own environment has.

A peer is one process, perhaps with children of its own, that does a job from PEER_INPUT to
PEER_OUTPUT until SIGTERM. It is told by environment, the same for all:

    PEER_BOOTSTRAP   host:port of the broker
    PEER_INPUT       topic of impressions (JSON, key = user id, PEER_PARTITIONS partitions)
    PEER_OUTPUT      topic of decisions or counts, made by the harness with as many partitions
    PEER_JOB         rolling | tumbling
    PEER_STATE       one of the peer's `states`
    PEER_PARTITIONS  partitions of both topics
    PEER_FOLDER      scratch folder, kept over a kill and restart
    PEER_GROUP       consumer group or application id, new for each measurement

`rolling`: at the third or later impression of (user_id, campaign_id) in (ts - 3600, ts], a record
with key user_id and JSON value with at least "id" (user), "event_id" (of the impression that
caused it), "until" (ts of the third most recent plus 3600).

`tumbling`: counts per user_id in one-minute windows of event time: key user_id, JSON value with
at least "id", "event_id" (newest that was counted), "window" (start, epoch seconds), "count".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

from streams.broker import cache_folder

__all__ = ["JOBS", "Peer", "cache", "peers"]

JOBS = ("rolling", "tumbling")


class Peer(ABC):
    """A system that can do the jobs."""

    name: ClassVar[str]
    """As --peers and the table name it: `flink`."""

    version: ClassVar[str]
    """What is pinned: `2.0.1`."""

    jobs: ClassVar[tuple[str, ...]] = JOBS
    """Those of `JOBS` that it can do."""

    states: ClassVar[tuple[str, ...]] = ("heap",)
    """Where it can keep state, of `heap` and `rocksdb`; each is measured as a peer of its own."""

    settings: ClassVar[str]
    """Commit, checkpoint or flush interval, acks and other tuning, and whose advice that is."""

    deviations: ClassVar[Mapping[str, str]] = {}
    """By job: how its answer differs from the job's definition, where it does."""

    coalesces: ClassVar[bool] = False
    """Whether a decision may be left out when a newer one of the same user and campaign takes
    its place at once (a compacted topic would drop it as well)."""

    rolls: ClassVar[bool] = False
    """Whether it does the tumbling job with a rolling window, and is checked for that."""

    share: ClassVar[float] = 1.0
    """The part of the load that it is given, where the whole would take too long; stated."""

    @abstractmethod
    def setup(self, cache: Path) -> str | None:
        """Install into the folder ``cache / ...``; None when it is ready, or why it cannot be.

        Fast when it is installed already: the harness calls it before every series of runs.
        """

    @abstractmethod
    def command(self, job: str, state: str) -> list[str]:
        """The process to start, in the environment above and in PEER_FOLDER."""

    def decisions(self, answer: Mapping[str, Any]) -> Iterable[tuple[str | float, float]]:
        """What a record of the output says: event (its id, or its ts) and `until`, each."""
        yield answer["event_id"], answer["until"]


def cache() -> Path:
    """The folder that set-up fills: outside the repository, kept between runs."""
    return cache_folder() / "peers"


def peers() -> dict[str, Peer]:
    """Every peer by name."""
    packages = [
        import_module(f"benchmarks.peers.{module.name}")
        for module in iter_modules([str(Path(__file__).parent)])
        if module.ispkg
    ]
    return {peer.name: peer for package in packages for peer in package.PEERS}
