"""The measurements: the same for the governor and each of its peers, all from outside.

Rates are slopes: of the events read (as the decisions name them, summed over partitions) against
the broker's append times, from a tenth of the load to its end.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.load import preload
from benchmarks.peers import oracle, topics
from benchmarks.peers.load import HotLoad
from benchmarks.peers.oracle import Verdict
from benchmarks.peers.process import Process, Sample
from benchmarks.peers.registry import Peer
from benchmarks.peers.topics import Answer

__all__ = ["Delay", "Harness", "Pace", "PeerError", "Recovery", "Subject", "Throughput"]

FIRST_SECONDS = 180.0
"""How long the first answer may take."""
QUIET_SECONDS = 4.0
"""After how long without a new answer the output is looked at."""
DEAD_SECONDS = 0.5
"""For how long a broker may still append what a killed process had sent: none starts sooner."""
STALLED_SECONDS = 60.0
"""After how long it is taken as all that will come."""


class PeerError(Exception):
    """A peer that cannot be measured; says why."""


@dataclass(frozen=True)
class Subject:
    """A peer with one of its kinds of state."""

    peer: Peer
    state: str

    @property
    def name(self) -> str:
        """With the state where there is a choice."""
        several = len(self.peer.states) > 1
        return f"{self.peer.name}-{self.state}" if several else self.peer.name


@dataclass(frozen=True)
class Throughput:
    """One run over a load; bytes, and CPU seconds a million events."""

    events_per_s: float
    cpu_per_million: float
    peak_bytes: int
    state_bytes_per_user: float
    answers: int
    verdict: Verdict


@dataclass(frozen=True)
class Recovery:
    """From SIGKILL and restart to the first decision that was not there `DEAD_SECONDS` later."""

    seconds: float
    verdict: Verdict


@dataclass(frozen=True)
class Delay:
    """Event to decision, in milliseconds, at a rate of events a second."""

    p50: float
    p99: float
    rate: float
    decisions: int
    producer_late_seconds: float


@dataclass(frozen=True)
class Pace:
    """Production of `rate` events a second: what lies there first, warm-up, what is measured."""

    rate: float
    backlog: int
    warm_seconds: float
    measured_seconds: float

    @property
    def measured_from(self) -> int:
        """The first event that is measured."""
        return self.backlog + int(self.rate * self.warm_seconds)

    @property
    def events(self) -> int:
        """In all."""
        return self.measured_from + int(self.rate * self.measured_seconds)


@dataclass(frozen=True)
class _Run:
    """A process at work."""

    subject: Subject
    job: str
    output: str
    partitions: int
    folder: Path
    process: Process


@dataclass(frozen=True)
class _Progress:
    """Events read by the times at which answers were appended, in seconds."""

    at: NDArray[np.float64]
    events: NDArray[np.int64]

    def between(self, events: int) -> tuple[float, int, float, int]:
        """From a tenth of `events` to the end: time and events, twice."""
        first = int(np.searchsorted(self.events, events // 10))
        if first >= len(self.at) - 1 or self.at[first] == self.at[-1]:
            raise PeerError("it answered in one burst: give it more events")
        return (
            float(self.at[first]),
            int(self.events[first]),
            float(self.at[-1]),
            int(self.events[-1]),
        )


class Harness:
    """Measures subjects against a broker; what they leave behind is cleared each time."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._runner = asyncio.Runner()
        self._watcher = self._runner.run(topics.watcher(bootstrap))
        self._inputs: dict[HotLoad, str] = {}
        self._numbers = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._watcher.stop())
        self._runner.close()

    def check(self, subject: Subject, job: str, load: HotLoad, pace: Pace) -> Verdict:
        """Only whether it is right, when the events of `load` arrive at that pace."""
        with self._paced(subject, job, load, pace) as (run, _sent, _late):
            return self._finished(run, load)[1]

    def throughput(self, subject: Subject, job: str, load: HotLoad) -> Throughput:
        """One run over the load."""
        with self._running(subject, job, self._filled(load), load.partitions) as run:
            answers, verdict = self._finished(run, load)
            stored = _folder_bytes(run.folder)
        begin, begun, end, done = _progress(subject, load, job, answers).between(len(load.times))
        samples = [sample for sample in run.process.samples if sample.at <= end]
        first = min(answer.at for answer in answers) / 1000
        before = max((sample for sample in samples if sample.at <= first), key=lambda s: s.at)
        state = samples[-1].rss - before.rss if subject.state == "heap" else stored
        cpu = _cpu_at(samples, end) - _cpu_at(samples, begin)
        return Throughput(
            (done - begun) / (end - begin),
            cpu / (done - begun) * 1e6,
            max(sample.rss for sample in samples),
            state / len(np.unique(load.pairs[0])),
            len(answers),
            verdict,
        )

    def recovery(self, subject: Subject, load: HotLoad, answers: int) -> Recovery:
        """SIGKILL after so many answers, and a restart at once."""
        with self._running(subject, "rolling", self._filled(load), load.partitions) as run:
            self._await_answers(run, answers)
            run.process.kill()
            killed = time.time()
            run.process.start()
            found, verdict = self._finished(run, load)
        decided: dict[int, int] = {}
        for at, event, _until in _decisions(subject, load, found):
            decided[event] = min(decided.get(event, at), at)
        fresh = [at for at in decided.values() if at > (killed + DEAD_SECONDS) * 1000]
        if not fresh:
            raise PeerError("it had finished before it was killed: give it more events")
        return Recovery(min(fresh) / 1000 - killed, verdict)

    def delay(self, subject: Subject, load: HotLoad, pace: Pace) -> Delay:
        """Event to decision, for events like those of `load` that arrive at that pace."""
        live = replace(load, events=pace.events, until=int(time.time()))
        with self._paced(subject, "rolling", live, pace) as (run, sent, late):
            self._await_quiet(run)
            answers = self._answers(run)
        delays = _delays(subject, live, answers, sent, pace.measured_from)
        if not len(delays):
            raise PeerError("no decision on what was sent in the measured time")
        p50, p99 = np.percentile(delays, [50, 99]).tolist()
        return Delay(p50, p99, pace.rate, len(delays), late)

    @contextmanager
    def _paced(
        self, subject: Subject, job: str, load: HotLoad, pace: Pace
    ) -> Iterator[tuple[_Run, list[tuple[int, float]], float]]:
        """The subject, after the load arrived; when each tick of it did, and how late at worst."""
        topic = f"live{next(self._numbers)}.impressions"
        self._runner.run(topics.create(self._bootstrap, topic, load.partitions, output=False))
        backlog = topics.prepare(load, 0, pace.backlog, 1e6)
        ticks = topics.prepare(load, pace.backlog, len(load.times), pace.rate)
        self._runner.run(topics.pace(self._bootstrap, topic, 0, backlog))
        with self._running(subject, job, topic, load.partitions) as run:
            self._await_answers(run, 1)
            paced = topics.pace(self._bootstrap, topic, pace.backlog, ticks)
            sent, late = self._runner.run(paced)
            yield run, sent, late

    def _filled(self, load: HotLoad) -> str:
        """The topic with this load, written the first time."""
        if load not in self._inputs:
            topic = f"load{next(self._numbers)}.impressions"
            self._runner.run(topics.create(self._bootstrap, topic, load.partitions, output=False))
            self._runner.run(preload(self._bootstrap, topic, load))
            self._inputs[load] = topic
        return self._inputs[load]

    @contextmanager
    def _running(self, subject: Subject, job: str, topic: str, partitions: int) -> Iterator[_Run]:
        """The subject at work on a topic, in a scratch folder; in a broker with no other topics."""
        output = topic.removesuffix("impressions") + "decisions"
        # What the one before left, and any system's changelogs with it.
        self._runner.run(topics.clear(self._bootstrap, [*self._inputs.values(), topic]))
        self._runner.run(topics.create(self._bootstrap, output, partitions, output=True))
        with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as name:
            folder = Path(name) / "scratch"
            folder.mkdir()
            environment = {
                "PEER_BOOTSTRAP": self._bootstrap,
                "PEER_INPUT": topic,
                "PEER_OUTPUT": output,
                "PEER_JOB": job,
                "PEER_STATE": subject.state,
                "PEER_PARTITIONS": str(partitions),
                "PEER_FOLDER": str(folder),
                "PEER_GROUP": f"peer-{next(self._numbers)}",
            }
            command = subject.peer.command(job, subject.state)
            with Process(command, environment, Path(name) / "log") as process:
                yield _Run(subject, job, output, partitions, folder, process)

    def _finished(self, run: _Run, load: HotLoad) -> tuple[list[Answer], Verdict]:
        """The answers when all are there, or when no more come."""
        self._await_answers(run, 1)
        quiet = QUIET_SECONDS
        looked_at = 0
        while True:
            total = self._await_quiet(run, quiet)
            if total != looked_at:
                answers = self._answers(run)
                verdict = _verdict(run.subject, run.job, load, answers)
                if verdict.agrees(run.subject.peer.coalesces):
                    return answers, verdict
                looked_at, quiet = total, QUIET_SECONDS
            elif quiet >= STALLED_SECONDS:
                return answers, verdict
            else:
                quiet = STALLED_SECONDS

    def _await_answers(self, run: _Run, wanted: int) -> None:
        """Return when so many are there."""
        deadline = time.monotonic() + FIRST_SECONDS
        before = 0
        while (total := self._total(run)) < wanted:
            if total > before:
                before, deadline = total, time.monotonic() + FIRST_SECONDS
            if time.monotonic() > deadline:
                raise PeerError(f"{total} answers, and no more in {FIRST_SECONDS:.0f} s")
            time.sleep(0.1)

    def _await_quiet(self, run: _Run, seconds: float = QUIET_SECONDS) -> int:
        """How many answers there are when no more have come for so long."""
        total, since = -1, time.monotonic()
        while time.monotonic() - since < seconds:
            if (now := self._total(run)) != total:
                total, since = now, time.monotonic()
            time.sleep(0.25)
        return total

    def _total(self, run: _Run) -> int:
        if (failure := run.process.failure()) is not None:
            raise PeerError(failure)
        return self._runner.run(topics.size(self._watcher, run.output, run.partitions))

    def _answers(self, run: _Run) -> list[Answer]:
        return self._runner.run(topics.read(self._bootstrap, run.output, run.partitions))


@cache
def _caps(load: HotLoad, limit: int, window: int, per_campaign: bool) -> NDArray[np.int64]:
    return oracle.caps(load, limit, window, per_campaign)


@cache
def _counts(load: HotLoad) -> dict[tuple[int, int], int]:
    return oracle.counts(load)


def _decisions(
    subject: Subject, load: HotLoad, answers: Sequence[Answer]
) -> Iterator[tuple[int, int, int]]:
    """When, on which event and until when; times in milliseconds."""
    for answer in answers:
        for event, until in subject.peer.decisions(answer.value):
            yield answer.at, load.index(event), round(until * 1000)


def _verdict(subject: Subject, job: str, load: HotLoad, answers: Sequence[Answer]) -> Verdict:
    if job == "rolling" or subject.peer.rolls:
        per_campaign = job == "rolling"
        rule = (3, oracle.HOUR) if per_campaign else (1, oracle.MINUTE)
        decided = ((event, until) for _at, event, until in _decisions(subject, load, answers))
        return oracle.check_caps(load, _caps(load, *rule, per_campaign), decided, per_campaign)
    last: dict[tuple[int, int], int] = {}
    for answer in answers:
        if (user := int(answer.value["id"][5:])) < load.users:
            last[user, int(answer.value["window"])] = int(answer.value["count"])
    return oracle.check_counts(_counts(load), last)


def _progress(subject: Subject, load: HotLoad, job: str, answers: Sequence[Answer]) -> _Progress:
    """By partition the furthest event that an answer names; over partitions their sum."""
    if job == "rolling" or subject.peer.rolls:
        named = [(at, event) for at, event, _until in _decisions(subject, load, answers)]
    else:
        named = [(answer.at, load.index(answer.value["event_id"])) for answer in answers]
    at, events = np.array(named, np.int64).T
    order = np.argsort(at, kind="stable")
    at, events = at[order], events[order]
    grown = np.zeros(len(at), np.int64)
    for partition in range(load.partitions):
        here = load.partition[events] == partition
        furthest = np.maximum.accumulate(load.position[events[here]] + 1)
        grown[here] = np.diff(furthest, prepend=0)
    return _Progress(at / 1000, np.cumsum(grown))


def _delays(
    subject: Subject,
    load: HotLoad,
    answers: Sequence[Answer],
    sent: Sequence[tuple[int, float]],
    measured_from: int,
) -> NDArray[np.float64]:
    """Milliseconds from sending an event to the first record that names it as decided."""
    first: dict[int, int] = {}
    for at, event, _until in _decisions(subject, load, answers):
        if event >= measured_from:
            first[event] = min(first.get(event, at), at)
    events = np.array(list(first), np.int64)
    starts, times = np.array(sent).T
    produced = times[np.searchsorted(starts, events, side="right") - 1]
    delays: NDArray[np.float64] = np.array(list(first.values()), np.float64) - produced
    return delays


def _cpu_at(samples: Sequence[Sample], at: float) -> float:
    times = [sample.at for sample in samples]
    return float(np.interp(at, times, [sample.cpu_seconds for sample in samples]))


def _folder_bytes(folder: Path) -> int:
    """On disk; a file with two names counts once."""
    sizes: dict[int, int] = {}
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a system at work tidies up
            status = file.lstat()
            sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
