"""`make bench-scrape`: how long Prometheus waits for a worker with a million users.

The worker's own app, with ledgers made by the real path, all that was decided published, and curves
of all campaigns, serves `/metrics` over HTTP on this machine; nothing else runs in its loop. Beside
it the same app before it has anybody: what asking costs by itself. The CPU's time of each scrape
tells a slow one of ours from one that the machine let wait.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
import urllib.request

from benchmarks.population import Population
from governor.told import Told
from streams.app import Governor, create, spare_collector
from streams.metrics import DEPTHS, Wear
from streams.settings import load_settings
from streams.web import Web

USERS, CAMPAIGNS, PARTITIONS, EXPOSURES, SCRAPES = 1_000_000, 500, 8, 4, 30
PUBLISHED = 1_700_000_000_000_000
"""Before any of what is decided ends, in ticks: all of it is remembered."""


def _populate(app: Governor, users: int) -> None:
    """Partitions full of users, as if they had been read from the changelog."""
    store = app.store()
    for partition in range(PARTITIONS):
        population = Population(users // PARTITIONS, CAMPAIGNS, EXPOSURES)
        for _ in population.fill():
            pass
        ledger = population.ledger
        while ledger.reevaluate(100_000):
            pass
        told = Told(app.settings.overshoot_grace.seconds)
        told.publish(ledger.take(0, again=True).decisions, PUBLISHED)
        store.ledgers[partition], store.tolds[partition] = ledger, told
        store._live.add(partition)  # noqa: SLF001 - recovery does so
        print(f"  {sum(map(len, store.ledgers.values())):,} users", file=sys.stderr, flush=True)
    curve = dict.fromkeys(DEPTHS, (0.8, 0.7, 0.9))
    wear = {f"campaign-{n:05}": Wear(n, curve, 0.9, True, False) for n in range(CAMPAIGNS)}
    app.metrics.fatigue.curves(Wear(0, curve, 0.9, True, False), wear)


def _get(address: str) -> tuple[float, float, bytes]:
    began, worked = time.perf_counter(), time.process_time()
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        body = answer.read()
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - worked), body


async def _scrapes(address: str) -> tuple[list[float], list[float], int]:
    """Milliseconds of each scrape, those of the CPU, and how many series."""
    found = [await asyncio.to_thread(_get, address) for _ in range(SCRAPES + 2)][2:]
    series = sum(not line.startswith(b"#") for line in found[-1][2].splitlines())
    return [each[0] for each in found], [each[1] for each in found], series


def _told_bytes(app: Governor) -> float:
    """Of those who are held back."""
    state = app.snapshot()
    return state.told_bytes / max(1, state.held_back)


async def _run(users: int) -> dict[str, float]:
    app = create(load_settings({"GOVERNOR_METRICS_HOST": "127.0.0.1"}))
    web = Web("127.0.0.1", 0, app.metrics, app.health)
    await web.start()
    app._warm_up()  # noqa: SLF001 - as a worker does before it is ready
    spare_collector()
    try:
        nobody, _, _ = await _scrapes(web.address)
        await asyncio.to_thread(_populate, app, users)
        full, worked, series = await _scrapes(web.address)
    finally:
        await web.stop()
    return {
        "scrape_ms": round(statistics.median(full), 1),
        "scrape_most_ms": round(max(full), 1),
        "cpu_ms": round(statistics.median(worked), 1),
        "cpu_most_ms": round(max(worked), 1),
        "nobody_ms": round(statistics.median(nobody), 1),
        "ratio": round(statistics.median(full) / statistics.median(nobody), 2),
        "series": series,
        "users": len(app.store()),
        "told_bytes_per_person": round(_told_bytes(app)),
        "campaigns": CAMPAIGNS,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_run(int(sys.argv[1]) if len(sys.argv) > 1 else USERS))))
