"""A policy pushed to a worker that is busy, and the kill switch, both through a real broker.

`python -m benchmarks.live_policy` has one worker catch up on a backlog, pushes a policy under which
every user gets a decision, and says how long it takes until all rows have been evaluated again, and
what share of the speed that it has under that policy the stream keeps meanwhile. Then it pulls the
kill switch and takes it back, twenty times, and says after how many seconds a reader that follows
the topics knows.

The last line is JSON: ``{"rows", "reevaluated_s", "rate_during_ratio", "longest_pause_s",
"kill_switch_s", "kill_switch_most_s", "command_s"}``. ``longest_pause_s`` is the longest time in
which no event was acknowledged while rows were evaluated; ``kill_switch_s`` is a median, from
before the record is written; ``command_s`` is the whole of `governor release`, its start included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.impressions import Traffic
from benchmarks.load import preload
from benchmarks.running import WAIT_SECONDS, Worker
from governor.policy import load
from streams import policy_topic
from streams.broker import Cluster
from streams.client import Client
from streams.settings import Settings, load_settings

NAME = "live-policy"
USERS, CAMPAIGNS, PARTITIONS = 200_000, 200, 8
EVENTS_A_USER = 40
"""Enough that the backlog outlasts the evaluation; if it does not, nothing is reported."""
BEFORE = "rules:\n  - {name: daily, cap: 100, per: campaign, window: 1d}\n"
AFTER = "rules:\n  - {name: daily, cap: 1, per: user, window: 1d}\n"
PULLS = 20
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Course:
    """Acknowledged events while something went on."""

    seconds: float
    events: int
    longest_pause: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


def main() -> None:
    """Measure, and print."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.live_policy", description=__doc__)
    asked.add_argument("--users", type=int, default=USERS, help=f"rows ({USERS})")
    users = asked.parse_args().users
    events = users * EVENTS_A_USER
    with Cluster(heap_mb=1024) as cluster:
        traffic = Traffic(events, users, CAMPAIGNS, PARTITIONS, int(time.time()))
        with Worker(cluster.bootstrap, NAME, BEFORE, PARTITIONS) as worker:
            print(f"writing {events:,} events", flush=True)
            asyncio.run(preload(cluster.bootstrap, f"{NAME}.impressions", traffic))
            worker.start(wait=False)
            settings = load_settings(worker.environment)
            # By then nearly every user has a row, and most of the backlog is left.
            worker.until_acknowledged(events // 5)
            before = _follow(worker, lambda elapsed: elapsed > 5)
            rows = int(worker.metric("governor_users"))
            during = _push(worker, settings)
            after = _follow(worker, lambda elapsed: elapsed > 5)
            if worker.acknowledged() >= events:
                raise SystemExit("the backlog ran out before all was measured: no figure")
            found = {
                "rows": rows,
                "reevaluated_s": round(during.seconds, 1),
                "rate_during_ratio": round(during.rate / after.rate, 2),
                "longest_pause_s": round(during.longest_pause, 2),
            }
            for when, course in (("before", before), ("meanwhile", during), ("after", after)):
                print(
                    f"{when:>9}  {course.rate:,.0f} events/s, longest pause "
                    f"{course.longest_pause:.2f} s",
                    flush=True,
                )
            delays = asyncio.run(_pull(settings))
            command = _command(worker.environment)
    found |= {
        "kill_switch_s": round(statistics.median(delays), 3),
        "kill_switch_most_s": round(max(delays), 3),
        "command_s": round(command, 2),
    }
    print(json.dumps(found))


def _push(worker: Worker, settings: Settings) -> Course:
    """Let the other policy govern, and follow the worker until no row is left."""
    held, _ = asyncio.run(policy_topic.fetch(settings))
    asyncio.run(policy_topic.write(settings, policy_topic.written(load(AFTER), held)))
    begun = False

    def done(_elapsed: float) -> bool:
        nonlocal begun
        left = worker.metric("governor_policy_rows_left")
        begun = begun or left > 0
        return begun and left == 0

    return _follow(worker, done)


def _follow(worker: Worker, done: Callable[[float], bool]) -> Course:
    """Look at what is acknowledged until it is done."""
    began = moved = time.perf_counter()
    first = last = worker.acknowledged()
    pause = 0.0
    while not done(time.perf_counter() - began):
        if time.perf_counter() - began > WAIT_SECONDS:
            raise SystemExit(f"not done after {WAIT_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
        count, now = worker.acknowledged(), time.perf_counter()
        pause = max(pause, now - moved)
        if count > last:
            last, moved = count, now
        if now - began > 300:
            raise SystemExit("rows are left after five minutes")
    return Course(time.perf_counter() - began, last - first, pause)


async def _pull(settings: Settings) -> list[float]:
    """Seconds until a reader knows, for each pull of the switch and each time it is taken back."""
    delays = []
    async with Client(
        bootstrap_servers=settings.broker, topic_prefix=settings.topic_prefix
    ) as client:
        for n in range(PULLS):
            released = n % 2 == 0
            said = {"released": released, "everything": False, "at": round(time.time(), 3)}
            began = time.perf_counter()
            writing = asyncio.create_task(
                policy_topic.write(settings, [(policy_topic.SWITCH, said)])
            )
            while client.released is not released:  # noqa: ASYNC110 - a reader looks, too
                await asyncio.sleep(0.001)
            delays.append(time.perf_counter() - began)
            await writing
    return delays


def _command(environment: dict[str, str]) -> float:
    """Seconds that the command takes, from the shell."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "streams.cli", "release"],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
