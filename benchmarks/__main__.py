"""All of the governor's own figures, one after the other.

    make bench                                    # about twelve minutes on a quiet machine
    python -m benchmarks --only latency,stages    # some of them
    python -m benchmarks --runs 1                 # once, where others take the median of three
    python -m benchmarks --quick                  # small loads: does it all work?

One worker process on one core, all its threads; the broker and this program on another. What was
found goes to benchmarks/results/, one JSON file a run. `make bench-compare` holds the last run
against the one before; `python -m benchmarks.report` writes docs/performance.md. The last line is
one JSON object with the main figures, medians throughout.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

from benchmarks import growth, latency, memory, rates, recovery, stages
from benchmarks.history import Record
from benchmarks.throughput import cores

__all__ = ["SECTIONS", "main"]

SECTIONS: dict[str, Callable[..., None]] = {
    "throughput": rates.measure,
    "latency": latency.measure,
    "memory": memory.measure,
    "recovery": recovery.measure,
    "growth": growth.domain,
    "growth-broker": growth.broker,
    "stages": stages.measure,
}


def main() -> None:
    """Measure, save, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(SECTIONS),
        metavar="NAME,...",
        help=f"some of {', '.join(SECTIONS)}",
    )
    parser.add_argument("--quick", action="store_true", help="small loads, rough figures")
    parser.add_argument("--runs", type=int, help="of what runs through Kafka, at most (2 or 3)")
    options = parser.parse_args()
    if unknown := set(options.only) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    # Unwinds the stack, so that workers and brokers end as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    # Of topics just made aiokafka warns until every partition has its leader.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    record = Record.begin(quick=options.quick, most=options.runs)
    os.sched_setaffinity(0, {cores()[1]})
    for name in options.only:
        began = time.monotonic()
        print(f"{name}: {(SECTIONS[name].__module__).partition('.')[2]}.py", flush=True)
        SECTIONS[name](record, quick=options.quick)
        path = record.save()
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"written to {os.path.relpath(path)}")
    print(json.dumps(_main_figures(record)))


def _main_figures(record: Record) -> dict[str, float | None]:
    def median(name: str, digits: int = 0) -> float | None:
        value = record.median(name)
        return value if value is None else round(value, digits)

    def ratio(one: str, other: str) -> float | None:
        a, b = record.median(one), record.median(other)
        return round(a / b, 2) if a and b else None

    sizes = [f"growth/users/{users}" for users in growth.USERS]
    grown = [name for name in sizes if name in record.figures]
    return {
        "events_per_s": median("throughput/4 rules/uniform"),
        "zipf_events_per_s": median("throughput/4 rules/zipf"),
        "one_rule_events_per_s": median("throughput/1 rule/uniform"),
        "twenty_rules_events_per_s": median("throughput/20 rules/uniform"),
        "ratio_to_bare_consumer": ratio("throughput/4 rules/uniform", "throughput/bare consumer"),
        "capacity_with_decisions_events_per_s": median("latency/capacity"),
        "p50_at_half_ms": median("latency/50%/p50", 1),
        "p99_at_half_ms": median("latency/50%/p99", 1),
        "p99_at_ninety_ms": median("latency/90%/p99", 1),
        "bytes_per_user": median("memory/user"),
        "recovery_rows_per_s": median("recovery/domain"),
        "recovery_seconds": median("recovery/start with rows", 1),
        "users_growth_ratio": ratio(grown[-1], grown[0]) if grown else None,
        "campaigns_growth_ratio": ratio("growth/campaigns/10000", "growth/campaigns/10"),
        "partitions_growth_ratio": ratio(
            "growth-broker/partitions/64", "growth-broker/partitions/1"
        ),
        "cpu_us_per_event": median("stages/four caps/all", 2),
    }


if __name__ == "__main__":
    main()
