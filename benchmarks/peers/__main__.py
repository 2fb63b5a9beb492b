"""The governor against what people would use instead.

    make bench-peers

Each system reads the same topic of eight partitions through one process on one core, all its
threads included; the broker and this program have the other, and all data lie in memory. Runs are
interleaved: each round makes each measurement of every system once. The table and the plot also go
to build/bench-peers/. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from benchmarks.history import PEERS as OUTPUT
from benchmarks.peers import report
from benchmarks.peers.harness import Harness, Pace, PeerError, Subject
from benchmarks.peers.load import HotLoad
from benchmarks.peers.registry import JOBS, cache, peers
from benchmarks.peers.report import Results
from benchmarks.scratch import COMPACTION, WrittenMemory, in_memory
from benchmarks.throughput import cores
from streams.broker import Cluster

__all__ = ["main"]

CHECK_PACE = Pace(4_000.0, backlog=4_000, warm_seconds=0.0, measured_seconds=9.0)
USERS, CAMPAIGNS, PARTITIONS = 500_000, 200, 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--peers", help="names with commas, as in the table; all by default")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short run: does it work at all?")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(MEASUREMENTS),
        metavar="NAME,...",
        help=f"some of {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument(
        "--minutes", type=float, help="begin nothing after so long; what is left out is told"
    )
    parser.add_argument(
        "--rate",
        type=float,
        help="events a second of delay, the same for all; by default half of what each can do",
    )
    options = parser.parse_args()
    measurements = dict(MEASUREMENTS)
    measurements["delay"] = partial(_delay, rate=options.rate)
    if unknown := set(options.only) - set(MEASUREMENTS):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    ends = time.monotonic() + 60 * (options.minutes or 1e6)
    if options.quick:
        options.events, options.runs = min(options.events, 200_000), 1
    signal.signal(signal.SIGTERM, _terminated)
    results = _chosen(options.peers.split(",") if options.peers else None)
    os.sched_setaffinity(0, {cores()[1]})
    now = int(time.time())
    load = HotLoad(
        options.events, USERS, CAMPAIGNS, PARTITIONS, now, hot_pairs=options.events // 100
    )
    # 0.15 s of event time between two events: here the hour rolls.
    checked = HotLoad(
        CHECK_PACE.events,
        20_000,
        CAMPAIGNS,
        PARTITIONS,
        now,
        hot_share=0.5,
        hot_pairs=4_000,
        step=150,
    )
    # Its clients find topics missing that were deleted on purpose.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    print(f"{in_memory()}; all that is free is written to first: up to a minute", flush=True)
    with (
        WrittenMemory() as memory,
        Cluster(heap_mb=2048, overrides=COMPACTION, progress=print) as cluster,
        Harness(cluster.bootstrap) as harness,
    ):
        print(memory.take(), flush=True)
        for number in range(options.runs):
            for name in (each for each in MEASUREMENTS if each in options.only):
                if name == "check" and number:
                    continue
                for of in results:
                    load_ = checked if name == "check" else load
                    if time.monotonic() > ends:
                        if not number:  # later runs are missing for all alike
                            of.failed[f"run 1, {name}"] = "no time was left (--minutes)"
                        continue
                    for what, measure in measurements[name](harness, of, load_, options.quick):
                        memory.take()
                        _try(of, f"run {number + 1}, {what}", measure)
                _save(results)
    print(f"\n{report.table(results)}\n\nwritten to {os.path.relpath(OUTPUT)}/\n")
    print(json.dumps(report.figures(results)))


def _terminated(*_: object) -> None:
    """Unwind, so that what was started is ended; a second SIGTERM must not cut that short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def _chosen(names: Sequence[str] | None) -> list[Results]:
    """The subjects wanted, set up, the governor first; without those that cannot be."""
    known = [
        Subject(peer, state)
        for peer in sorted(peers().values(), key=lambda peer: peer.name != "governor")
        for state in peer.states
    ]
    if unknown := [
        name
        for name in names or ()
        if not any(name in (each.name, each.peer.name) for each in known)
    ]:
        listed = ", ".join(each.name for each in known)
        raise SystemExit(f"no such peer: {', '.join(unknown)}; there are {listed}")
    results = []
    for subject in known:
        if names is None or subject.name in names or subject.peer.name in names:
            results.append(of := Results(subject))
            if (reason := subject.peer.setup(cache())) is not None:
                of.failed["set-up"] = reason
    return results


Measure = Callable[[], str]
"""Measures something, keeps it, and says it in words."""


def _check(
    harness: Harness, of: Results, load: HotLoad, quick: bool
) -> Iterator[tuple[str, Measure]]:
    """Whether it is right, where windows roll, at a pace that all can follow."""
    del quick

    def check(job: str) -> str:
        of.verdicts[job] = harness.check(of.subject, job, load, CHECK_PACE)
        return str(of.verdicts[job])

    for job in JOBS:
        if job in of.subject.peer.jobs:
            yield f"check of {job}", partial(check, job)


def _throughput(
    job: str, harness: Harness, of: Results, load: HotLoad, quick: bool
) -> Iterator[tuple[str, Measure]]:
    """How fast it reads the load, which lies there already."""
    del quick

    def measure() -> str:
        runs = of.rolling if job == "rolling" else of.tumbling
        runs.append(run := harness.throughput(of.subject, job, _given(of, load)))
        return f"{run.events_per_s:,.0f} events/s, {run.verdict}"

    if job in of.subject.peer.jobs:
        yield job, measure


def _delay(
    harness: Harness, of: Results, load: HotLoad, quick: bool, *, rate: float | None = None
) -> Iterator[tuple[str, Measure]]:
    """Event to decision at a rate, or at half of what it can do."""

    def measure() -> str:
        events_per_s = rate or of.rolling[-1].events_per_s / 2
        # Enough that some of it is decided on, also by the slowest.
        backlog = min(200_000, max(40_000, int(2 * events_per_s)))
        pace = Pace(events_per_s, backlog, *((5.0, 5.0) if quick else (10.0, 20.0)))
        of.delay.append(each := harness.delay(of.subject, load, pace))
        return (
            f"p50 {each.p50:,.0f} ms, p99 {each.p99:,.0f} ms of {each.decisions:,} decisions "
            f"at {each.rate:,.0f} events/s (producer late by {each.producer_late_seconds:.2f} s)"
        )

    if rate or of.rolling:
        yield "delay", measure


def _recovery(
    harness: Harness, of: Results, load: HotLoad, quick: bool
) -> Iterator[tuple[str, Measure]]:
    """From SIGKILL in the middle of the load to the next decision."""
    del quick

    def measure() -> str:
        answers = int(0.6 * of.rolling[-1].answers)
        of.recovery.append(each := harness.recovery(of.subject, _given(of, load), answers))
        return f"{each.seconds:.1f} s, {each.verdict}"

    if of.rolling:
        yield "recovery", measure


def _given(of: Results, load: HotLoad) -> HotLoad:
    """The part of the load that it is given."""
    return replace(load, events=int(load.events * of.subject.peer.share))


MEASUREMENTS: Mapping[str, Callable[..., Iterator[tuple[str, Measure]]]] = {
    "check": _check,
    "rolling": partial(_throughput, "rolling"),
    "tumbling": partial(_throughput, "tumbling"),
    "delay": _delay,
    "recovery": _recovery,
}
"""In order: each is made of all systems before the next."""


def _try(of: Results, what: str, measure: Measure) -> None:
    """Measure and tell; a system that fails is told of, and the others go on."""
    if "set-up" in of.failed:
        return
    try:
        told = measure()
    except PeerError as error:
        of.failed[what] = told = str(error)
    print(f"{what:<24} {of.subject.name:<24} {told}", flush=True)


def _save(results: Sequence[Results]) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "table.md").write_text(report.table(results) + "\n")
    (OUTPUT / "plot.svg").write_text(report.plot(results))
    (OUTPUT / "figures.json").write_text(json.dumps(report.figures(results), indent=1) + "\n")


if __name__ == "__main__":
    main()
