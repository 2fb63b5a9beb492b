"""The governor against what people would use instead.

    make bench-peers

Each system reads the same topic of eight partitions through one process on one core, all its
threads included; the broker and this program have the other. Runs are interleaved: each round
measures every system once. The table and the plot also go to build/bench-peers/. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.history import PEERS as OUTPUT
from benchmarks.peers import report
from benchmarks.peers.harness import Harness, Pace, PeerError, Subject
from benchmarks.peers.load import HotLoad
from benchmarks.peers.registry import JOBS, cache, peers
from benchmarks.peers.report import Results
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
    options = parser.parse_args()
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
    with Cluster(heap_mb=1024, progress=print) as cluster, Harness(cluster.bootstrap) as harness:
        for of in results:
            _check(harness, of, checked)
        for number in range(options.runs):
            for of in results:
                _measure(harness, of, load, number, options.quick)
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


def _check(harness: Harness, of: Results, load: HotLoad) -> None:
    def check(job: str) -> str:
        of.verdicts[job] = harness.check(of.subject, job, load, CHECK_PACE)
        return str(of.verdicts[job])

    for job in JOBS:
        if job in of.subject.peer.jobs:
            _try(of, f"check, {job}", lambda job=job: check(job))  # type: ignore[misc]


def _measure(harness: Harness, of: Results, load: HotLoad, number: int, quick: bool) -> None:
    """Every measurement of one system once."""
    subject, peer = of.subject, of.subject.peer
    given = replace(load, events=int(load.events * peer.share))

    def rolling() -> str:
        of.rolling.append(run := harness.throughput(subject, "rolling", given))
        return f"{run.events_per_s:,.0f} events/s, {run.verdict}"

    def tumbling() -> str:
        of.tumbling.append(run := harness.throughput(subject, "tumbling", given))
        return f"{run.events_per_s:,.0f} events/s, {run.verdict}"

    def recovery() -> str:
        answers = int(0.6 * of.rolling[-1].answers)
        of.recovery.append(each := harness.recovery(subject, given, answers))
        return f"{each.seconds:.1f} s, {each.verdict}"

    def delay() -> str:
        rate = of.rolling[-1].events_per_s / 2
        backlog = min(200_000, int(2 * rate))
        pace = Pace(rate, backlog, *((5.0, 5.0) if quick else (10.0, 20.0)))
        of.delay.append(each := harness.delay(subject, load, pace))
        return (
            f"p50 {each.p50:,.0f} ms, p99 {each.p99:,.0f} ms of {each.decisions:,} decisions "
            f"at {each.rate:,.0f} events/s (producer late by {each.producer_late_seconds:.2f} s)"
        )

    run = f"run {number + 1}"
    _try(of, f"{run}, rolling", rolling)
    if "tumbling" in peer.jobs:
        _try(of, f"{run}, tumbling", tumbling)
    if len(of.rolling) == number + 1:
        _try(of, f"{run}, recovery", recovery)
        _try(of, f"{run}, delay", delay)


def _try(of: Results, what: str, measure: Callable[[], str]) -> None:
    """Measure and tell; a system that fails is told of, and the others go on."""
    if "set-up" in of.failed:
        return
    try:
        told = measure()
    except PeerError as error:
        of.failed[what] = told = str(error)
    print(f"{what:<18} {of.subject.name:<24} {told}", flush=True)


def _save(results: Sequence[Results]) -> None:
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "table.md").write_text(report.table(results) + "\n")
    (OUTPUT / "plot.svg").write_text(report.plot(results))
    (OUTPUT / "figures.json").write_text(json.dumps(report.figures(results), indent=1) + "\n")


if __name__ == "__main__":
    main()
