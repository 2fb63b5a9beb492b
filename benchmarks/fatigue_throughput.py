"""What fatigue costs a worker: impressions a second with it and without it, in the same run.

    python -m benchmarks.fatigue_throughput [--rounds 3] [--events 1000000]

The same impressions lie in two topics of a real broker: twenty of each person, of five campaigns. A
worker pinned to one core reads them under four caps, observing nobody; another one under these
and a rule of fatigue per campaign, by curves that decline, while it observes people as it does by
default, and estimates curves anew as far as its core has time. They take turns. The rate is that
of acknowledged events between a tenth and three quarters of the load; a run in which nobody was
given a rest for fatigue is none.

Beside it the ledger alone, without Kafka: CPU an event of decoding, applying and deciding, eight
exposures a row, each time in a fresh process.

The last line is JSON: ``{"throughput_ratio": ..., "ledger_alone": ...}``, medians of events a
second with fatigue over those without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import time

from aiokafka import AIOKafkaProducer

from benchmarks.load import Load, preload
from benchmarks.population import POLICY, START, Population
from benchmarks.running import Worker, fresh
from benchmarks.throughput import cores, rate_of
from governor.fatigue.curves import ALL, KNOTS, STRATA, Curve, CurveSet
from governor.fatigue.versions import Version
from governor.ticks import SECOND
from streams.broker import Cluster
from streams.curves_topic import TOPIC, Held

__all__ = ["main", "throughput_ratio"]

TIRING = POLICY + "  - {name: tired, fatigue: {floor: 0.4, probability: 0.9}, per: campaign}\n"
EXPOSURES, CAMPAIGNS, SEGMENT, SEGMENTS = 8, 200, 100_000, 5
PER_USER, FEW_CAMPAIGNS, PARTITIONS = 20, 5, 8
DAY = 86_400_000_000


def curves(at: int) -> Version:
    """Every campaign's: two thirds are left after each exposure, and wear halves in three days."""
    curve = Curve(
        label=ALL, base=(0.05,) * STRATA, edges=tuple(0.5 * k for k in range(1, STRATA - 1)),
        shape=1.0, recovery=3 * DAY, level=tuple(knot * math.log(2 / 3) for knot in KNOTS),
        spread=tuple(0.05 * min(knot, 1.0) for knot in KNOTS), exposures=1e6, engagements=3e4,
        people=100_000, coverage=1.0, identified=True,
    )  # fmt: skip
    return Version(CurveSet(at, 60 * DAY, {ALL: curve}), at - 30 * DAY)


def _per_event(tiring: bool, users: int) -> float:
    """Microseconds of CPU an event."""
    population = Population(users, CAMPAIGNS, EXPOSURES, TIRING if tiring else POLICY)
    if tiring:
        population.ledger.learn(curves(START))
    for _changelog in population.fill():
        pass
    population.run(SEGMENT)
    return statistics.median(population.run(SEGMENT).per_event()["all"] for _ in range(SEGMENTS))


def ledger_alone(rounds: int, users: int) -> float:
    """Events a second with fatigue over those without, of the ledger by itself."""
    ratios = []
    for _ in range(rounds):
        without, tiring = (
            float(fresh("benchmarks.fatigue_throughput", "--alone", kind, "--users", users))
            for kind in ("caps", "fatigue")
        )
        ratios.append(without / tiring)
        print(f"ledger alone: {without:.2f} us an event without, {tiring:.2f} with", flush=True)
    return statistics.median(ratios)


def _rate(bootstrap: str, load: Load, tiring: bool, number: int) -> float:
    """Acknowledged events a second of one worker that starts from nothing."""
    name = f"tiring{number}"
    with Worker(bootstrap, name, TIRING if tiring else POLICY, load.partitions) as worker:
        asyncio.run(preload(bootstrap, f"{name}.impressions", load))
        if tiring:
            version = curves(load.until * SECOND)
            asyncio.run(_publish(bootstrap, f"{name}.{TOPIC}", version))
        else:
            worker.environment["GOVERNOR_SAMPLE_PEOPLE"] = "0"
        worker.start(wait=False)
        rate = rate_of(worker.acknowledged, load.events)
        rests = worker.metric("governor_fatigue_rests_total")
        if tiring and not rests:
            raise SystemExit("nobody was given a rest for fatigue: there was nothing to measure")
        kind = f"with fatigue, {rests:,.0f} rests" if tiring else "without"
        print(f"{rate:,.0f} events/s {kind}", flush=True)
        return rate


async def _publish(bootstrap: str, topic: str, version: Version) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for key, value, _ in Held().published(version, time.time()):
            await producer.send_and_wait(topic, value, key, partition=0)
    finally:
        await producer.stop()


def throughput_ratio(rounds: int = 3, events: int = 1_000_000) -> float:
    """Events a second with fatigue over those without, the median of rounds, through a broker."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores()[1]})
    try:
        ratios = []
        with Cluster(heap_mb=1024, progress=lambda text: print(text, file=sys.stderr)) as cluster:
            for turn in range(rounds):
                users = events // PER_USER
                load = Load(events, users, FEW_CAMPAIGNS, PARTITIONS, int(time.time()))
                without, tiring = (
                    _rate(cluster.bootstrap, load, on, 2 * turn + on) for on in (False, True)
                )
                ratios.append(tiring / without)
        return statistics.median(ratios)
    finally:
        os.sched_setaffinity(0, usable)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=1_000_000, help="through Kafka (1,000,000)")
    parser.add_argument("--users", type=int, default=100_000, help="of the ledger alone (100,000)")
    parser.add_argument("--alone", choices=("caps", "fatigue"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(_per_event(options.alone == "fatigue", options.users)))
        return
    through = throughput_ratio(options.rounds, options.events)
    alone = ledger_alone(options.rounds, options.users)
    print(json.dumps({"throughput_ratio": round(through, 3), "ledger_alone": round(alone, 3)}))


if __name__ == "__main__":
    main()
