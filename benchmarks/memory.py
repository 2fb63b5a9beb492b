"""`make bench-memory`: what a user costs in memory, at ten exposures each.

Two fresh processes with sixteen ledgers each fill them through the real path, one with more users
than the other. The slope of the resident memory between the two is what a user costs; the base is
what the process has before the first event. Where the bytes of a user lie is printed beside it.
"""

from __future__ import annotations

import gc
import json
import sys

import psutil

from benchmarks.history import Record
from benchmarks.population import BATCH, Population
from benchmarks.running import fresh
from governor.entries import WORDS
from governor.ledger import Ledger
from governor.rows import State

__all__ = ["measure"]

LEDGERS = 16
EXPOSURES = 10
SIZES = (1_000_000, 2_000_000)
PARTS = ("entries", "runs left by rows that grew", "headers", "index", "ids", "dirty list")


def measure(record: Record, *, quick: bool) -> None:
    """Bytes a user and the base."""
    few, many = _sizes(8 if quick else 1)
    record.add("memory/user", "bytes", _slope(few, many))
    record.add("memory/user, arrays only", "bytes", many["arrays"] / many["users"])
    record.add("memory/base", "MB", many["base"] / 1e6)
    record.facts["memory"] = {"sizes": [few, many], "exposures": EXPOSURES, "ledgers": LEDGERS}


def _sizes(divisor: int = 1) -> list[dict[str, int]]:
    return [fresh("benchmarks.memory", users // divisor) for users in SIZES]


def _slope(few: dict[str, int], many: dict[str, int]) -> float:
    return (many["resident"] - few["resident"]) / (many["users"] - few["users"])


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _parts(ledger: Ledger) -> dict[str, int]:
    """Bytes of a ledger by what they are for, as far as anything was ever written there."""
    rows, state = ledger._rows, ledger._rows.state  # noqa: SLF001 - what is measured
    word = 8 * WORDS
    used = int(state[State.ARENA])
    return {
        "entries": word * int(state[State.ENTRIES]),
        "runs left by rows that grew": word * int(used - state[State.ENTRIES]),
        "headers": rows.header.strides[0] * int(state[State.ROWS]),
        "index": rows.slots.nbytes,
        "ids": int(state[State.IDS]),
        "dirty list": rows.dirty.nbytes,
    }


def _filled(users: int) -> dict[str, int]:
    Population(BATCH, 200, EXPOSURES).run(2 * BATCH)  # compiles
    base = _resident()
    populations = [Population(users // LEDGERS, 200, EXPOSURES) for _ in range(LEDGERS)]
    for _round in range(EXPOSURES):
        for population in populations:
            population.run(population.users)
            population.rest()
    ledgers = [population.ledger for population in populations]
    for ledger in ledgers:
        assert ledger.entries == EXPOSURES * len(ledger)
    parts = [_parts(ledger) for ledger in ledgers]
    return {
        "users": sum(map(len, ledgers)),
        "base": base,
        "resident": _resident(),
        "arrays": sum(ledger.nbytes for ledger in ledgers),
        **{name: sum(one[name] for one in parts) for name in PARTS},
    }


def main() -> None:
    """Measure, and say so in one line of JSON."""
    fresh("benchmarks.memory", LEDGERS * BATCH)  # which compiles, and is larger for it
    few, many = _sizes()
    users = many["users"] - few["users"]
    slope = _slope(few, many)
    told = {name: (many[name] - few[name]) / users for name in PARTS}
    told["pages begun, and the rest of the process"] = slope - sum(told.values())
    for name, size in told.items():
        print(f"{name:>40}  {size:6.1f} bytes a user", flush=True)
    figures = {
        "bytes_per_user": round(slope),
        "base_mb": round(many["base"] / 1e6),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        json.dump(_filled(int(sys.argv[1])), sys.stdout)
    else:
        main()
