"""What is left when everything fails, again and again: nothing wrong.

    make chaos                                              # about half an hour
    python -m benchmarks.chaos --faults 20 --events 100000  # some minutes

Two million events at a pace, and two hundred faults of a seeded schedule meanwhile: workers killed,
held still past their session and woken, made to fail, evicted from the group, added and removed;
the broker killed and started again; events sent twice and in disorder. More than half of the
faults happen at a failpoint inside a flush. Then everything is stopped, snapshots are wiped, the
changelog is compacted, a worker recovers from it alone and goes on, and `governor verify` compares
every decision and every row with the events.

The last line is one JSON object; exit status 1 if anything differs. Then the logs, the schedule and
what `governor verify` said stay in the folder that is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from benchmarks.crowd import POLICY, Crowd
from benchmarks.evidence import history
from benchmarks.faults import IN_A_FLUSH, Fault, schedule
from benchmarks.fleet import Fleet, StuckError, Worker
from benchmarks.producers import Producers
from streams.broker import Cluster
from streams.reader import Reader, committed
from streams.settings import Settings, load_settings
from streams.topics import EVENT_TOPICS, connection, ensure

__all__ = ["main"]

PARTITIONS = 8
WORKERS = 3
"""That have faults; a fourth is added and removed."""
SESSION_SECONDS = 6.0
SLEEP_SECONDS = 8.5
"""How long a stopped worker stays so: past its session."""
AWAKE_SECONDS = 2.0
"""In which it may do what it was about to do."""
SECONDS_A_FAULT = 6.5
EVENT_SECONDS = 6 * 3600.0
"""Of event time, from the first event to the last."""
SETTLE_SECONDS = 300.0
HISTORIES = 20
"""Users with differences of whom everything in Kafka is kept."""


@dataclass
class Run:
    """What happened."""

    done: Counter[str] = field(default_factory=Counter)
    """Faults seen to happen, by kind."""
    at: Counter[str] = field(default_factory=Counter)
    """Those in a flush, by failpoint."""
    stuck: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def count(self, fault: Fault) -> None:
        """It has happened."""
        self.done[fault.kind] += 1
        if fault.failpoints:
            self.at[fault.failpoints.partition("=")[0]] += 1

    def tell(self, what: str) -> None:
        """A line with the time."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        print(f"{minutes:3d}:{seconds:02d}  {what}", flush=True)


class Chaos:
    """One run.

    Args:
        cluster: the broker, which will be killed as well.
        folder: for logs.
        seed: of schedule and events.
        events: to be sent at least.
        faults: to happen.
    """

    def __init__(self, cluster: Cluster, folder: Path, seed: int, events: int, faults: int) -> None:
        self._cluster = cluster
        self._folder = folder
        self._events = events
        self.faults = faults
        self._random = random.Random(seed)
        self._to_workers, self._others = schedule(faults, seed)
        policy = folder / "policy.yaml"
        policy.write_text(POLICY)
        self._snapshots = folder / "snapshots"
        self.environment = {
            "GOVERNOR_BROKER": cluster.bootstrap,
            "GOVERNOR_GROUP": "chaos",
            "GOVERNOR_TOPIC_PREFIX": "chaos.",
            "GOVERNOR_PARTITIONS": str(PARTITIONS),
            "GOVERNOR_POLICY": str(policy),
            "GOVERNOR_HISTORY": "2h",
            "GOVERNOR_SESSION_TIMEOUT": f"{SESSION_SECONDS:.0f}s",
            "GOVERNOR_METRICS_HOST": "127.0.0.1",
            "GOVERNOR_METRICS_PORT": "0",
            "GOVERNOR_LAST_SCRAPE": "0s",
            **_snapshot_setting(self._snapshots),
        }
        self.settings: Settings = load_settings(self.environment)
        self.fleet = Fleet(folder, self.environment)
        self._crowd = Crowd(
            seed,
            about=max(500, events // 400),
            start=int(time.time() - EVENT_SECONDS),  # within the topics' retention
            step=EVENT_SECONDS / events,
        )
        self.run = Run()
        self._visitor: Worker | None = None
        self._ending = asyncio.Event()

    async def everything(self) -> dict[str, Any]:
        """The whole run; what `governor verify` found in the end."""
        await ensure(self.settings)
        expected = self.faults * SECONDS_A_FAULT
        rate = self._events / expected
        async with self._producers(rate) as producers:
            producing = asyncio.create_task(producers.run(self._ending))
            telling = asyncio.create_task(self._tell(producers))
            await asyncio.gather(
                *(self._afflict() for _ in range(WORKERS)), self._conduct(producers)
            )
            self._ending.set()
            await producing
            telling.cancel()
            self.run.tell("all faults done; the rest of the events, and two sound workers")
            await producers.fill(self._events * 49 // 50)
            await self._settle(2)
            found = await self._verify("before")
            if found["differences"]:
                self.run.tell("different already, so the changelog is left as it is")
                return found
            await self._compact()
            self.run.tell("a worker recovers from the changelog alone, and goes on")
            shutil.rmtree(self._snapshots, ignore_errors=True)
            await producers.fill(max(self._events, producers.sent + self._events // 50))
            await self._settle(1)
        return await self._verify("after")

    def _producers(self, rate: float) -> Producers:
        return Producers(self._cluster.bootstrap, "chaos.", PARTITIONS, self._crowd, rate)

    async def _tell(self, producers: Producers) -> None:
        while True:
            await asyncio.sleep(10)
            self.run.tell(
                f"{producers.sent:,} of {self._events:,} events, "
                f"{self.run.done.total()} of {self.faults} faults"
            )

    # -- Faults of workers

    async def _afflict(self) -> None:
        """One worker after the other, a fault each, until no fault is left."""
        worker: Worker | None = None
        while self._to_workers:
            fault = self._to_workers.pop()
            if worker is None or worker.ended or fault.failpoints:
                if worker is not None:
                    await self._retire(worker)
                worker = self.fleet.start(failpoints=fault.failpoints)
            try:
                if await self._happen(fault, worker):
                    self.run.count(fault)
                else:
                    self._to_workers.insert(0, fault)  # it died of something else before
            except StuckError as error:
                self._note(worker, f"{fault.kind} {fault.failpoints}: {error}")
                worker.send(signal.SIGKILL)
                await worker.until("ended")
        if worker is not None:
            await self._retire(worker)

    async def _happen(self, fault: Fault, worker: Worker) -> bool:
        """Let a fault happen; whether it did."""
        if fault.kind in IN_A_FLUSH:
            await worker.until("stopped")
        else:
            await worker.until("ready")
            await asyncio.sleep(fault.after)
            if worker.ended:
                return False
            worker.send(signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
        if fault.kind.startswith("kill"):
            await worker.until("ended")
            return worker.process.poll() == -signal.SIGKILL
        if fault.kind.startswith("error"):
            await worker.until("ended")
            return "InjectedError" in worker.log
        if worker.ended:
            return False
        await asyncio.sleep(SLEEP_SECONDS)
        worker.send(signal.SIGCONT)
        await asyncio.sleep(AWAKE_SECONDS)
        return True

    async def _retire(self, worker: Worker) -> None:
        """Let a worker stop, or end by itself after what happened to it."""
        try:
            await worker.end()
        except StuckError as error:
            self._note(worker, f"SIGTERM: {error}")
            await worker.end(signal.SIGKILL)

    def _note(self, worker: Worker, what: str) -> None:
        """A worker did not get on, which is a fault of ours."""
        self.run.stuck.append(f"{worker.log_file.name}: {what}")
        self.run.tell(f"STUCK {self.run.stuck[-1]}")

    # -- The other faults

    async def _conduct(self, producers: Producers) -> None:
        """The others, spread over the time that the workers' faults take."""
        total = len(self._others)
        started = len(self._to_workers)
        for number, fault in enumerate(self._others):
            await self._down_to(started * (1 - (number + 1) / (total + 1)))
            if await self._other(fault, producers):
                self.run.count(fault)
            else:
                self.run.tell(f"{fault.kind}: it did not happen")
        if self._visitor is not None:
            await self._retire(self._visitor)

    async def _down_to(self, left: float) -> None:
        """Wait until so few faults are left for workers."""
        while self._to_workers and len(self._to_workers) > left:  # noqa: ASYNC110 - it is no event
            await asyncio.sleep(0.2)

    async def _other(self, fault: Fault, producers: Producers) -> bool:
        if fault.kind == "duplicated":
            await producers.duplicate()
        elif fault.kind == "reordered":
            await producers.reorder()
        elif fault.kind == "broker kill":
            await asyncio.to_thread(self._restart_broker)
        elif fault.kind == "eviction":
            return await self._evict()
        elif fault.kind == "worker added":
            await self._visit()
        elif self._visitor is not None:
            await self._retire(self._visitor)
            self._visitor = None
        return True

    async def _visit(self) -> None:
        """Have one worker more, that nothing happens to."""
        if self._visitor is not None:
            await self._retire(self._visitor)
        self._visitor = self.fleet.start()
        try:
            await self._visitor.until("ready")
        except StuckError as error:
            self._note(self._visitor, str(error))

    def _restart_broker(self) -> None:
        self._cluster.kill()
        self._cluster.restart()

    async def _evict(self) -> bool:
        """Have some member leave the group without knowing."""
        if not self._to_workers and self._visitor is None:
            await self._visit()  # the others may have had their last fault: somebody must be there
        for _ in range(50):
            with suppress(KafkaError, OSError):
                if await _leave_for_another(self.settings, self._random):
                    return True
            await asyncio.sleep(0.5)
        return False

    # -- The end

    async def _settle(self, workers: int) -> None:
        """Let sound workers catch up, and stop them."""
        sound = [self.fleet.start() for _ in range(workers)]
        deadline = time.monotonic() + SETTLE_SECONDS
        while await self._behind():
            if time.monotonic() > deadline:
                for worker in sound:
                    self._note(worker, f"not caught up after {SETTLE_SECONDS:.0f} s")
                break
            for worker in [each for each in sound if each.ended]:
                self._note(worker, f"ended with status {worker.process.poll()}")
                sound.remove(worker)
                sound.append(self.fleet.start())
            await asyncio.sleep(1)
        for worker in sound:
            await self._retire(worker)

    async def _behind(self) -> int:
        """Records that the group has not committed."""
        done = await committed(self.settings, map(self.settings.topic, EVENT_TOPICS))
        total = 0
        async with Reader(self.settings, PARTITIONS) as reader:
            for kind in EVENT_TOPICS:
                for partition in range(PARTITIONS):
                    topic = self.settings.topic(kind)
                    end = await reader.end(topic, partition)
                    total += end - done.get((topic, partition), 0)
        return total

    async def _compact(self) -> None:
        """Have the broker compact the changelog down to one record a key."""
        topic = self.settings.topic("ledger")
        admin = AIOKafkaAdminClient(**connection(self.settings))
        await admin.start()
        try:
            await admin.alter_configs(
                [
                    ConfigResource(
                        ConfigResourceType.TOPIC,
                        topic,
                        {
                            "cleanup.policy": "compact",
                            "min.cleanable.dirty.ratio": "0.0",
                            "max.message.bytes": str(4 * 1024 * 1024),
                            "segment.ms": "1000",
                            "max.compaction.lag.ms": "1000",
                        },
                    )
                ]
            )
        finally:
            await admin.close()
        # A segment is closed by the next record only: one of nobody.
        before = await self._changelog()
        async with self._producers(1.0) as producers:
            await asyncio.sleep(2)
            for _ in range(2):
                await producers.forget_nobody("chaos.ledger")
                await asyncio.sleep(2)
        deadline = time.monotonic() + 120
        while True:
            records, keys = await self._changelog()
            if records <= keys + 4 * PARTITIONS:
                break
            if time.monotonic() > deadline:
                raise SystemExit(f"the changelog is not compacted: {records} records, {keys} keys")
            await asyncio.sleep(1)
        self.run.tell(f"changelog compacted from {before[0]:,} to {records:,} records")

    async def _changelog(self) -> tuple[int, int]:
        """Records of the changelog, and distinct keys."""
        topic = self.settings.topic("ledger")
        records, keys = 0, 0
        async with Reader(self.settings, PARTITIONS) as reader:
            for partition in range(PARTITIONS):
                seen: set[bytes | None] = set()
                begin = await reader.begin(topic, partition)
                end = await reader.end(topic, partition)
                async for some in reader.read(topic, partition, begin, end):
                    records += len(some)
                    seen.update(some.key(i) for i in range(len(some)))
                keys += len(seen)
        return records, keys

    async def _verify(self, when: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "streams.cli", "verify", "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **self.environment}, stdout=subprocess.PIPE
        )
        printed, _ = await process.communicate()
        (self._folder / f"verify-{when}.json").write_bytes(printed)
        if process.returncode not in (0, 1):
            raise SystemExit(f"governor verify ended with status {process.returncode}")
        found: dict[str, Any] = json.loads(printed)
        if found["differences"]:
            users = sorted({(one["user"], one["place"]["partition"]) for one in found["found"]})
            histories = await history(self.settings, PARTITIONS, users[:HISTORIES])
            (self._folder / "histories.json").write_text(json.dumps(histories, indent=1))
        return found


def _snapshot_setting(folder: Path) -> dict[str, str]:
    """The setting that keeps snapshots in a folder, if there is one."""
    names = [name for name in Settings.model_fields if name.startswith("snapshot")]
    folders = [name for name in names if name.endswith(("folder", "dir", "path", "snapshots"))]
    return {f"GOVERNOR_{name.upper()}": str(folder) for name in folders[:1]}


async def _leave_for_another(settings: Settings, rng: random.Random) -> bool:
    admin = AIOKafkaAdminClient(**connection(settings))
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([settings.group])
        members = [member[0] for group in answer.groups for member in group[5]]
        if not members:
            return False
        coordinator = await admin.find_coordinator(settings.group)
        request = LeaveGroupRequest(settings.group, rng.choice(sorted(members)))
        response = await admin._send_request(request, coordinator)  # noqa: SLF001 - no other way
        return bool(response.error_code == 0)
    finally:
        await admin.close()


def _report(chaos: Chaos, found: Mapping[str, Any]) -> int:
    """Print what came of it; the number of things that are wrong."""
    run = chaos.run
    print("\nfaults")
    for kind, count in sorted(run.done.items()):
        print(f"  {kind:<20}{count:>6}")
    for name, count in sorted(run.at.items()):
        print(f"    at {name:<24}{count:>6}")
    inside = sum(run.at.values())
    print(f"  {inside} of {run.done.total()} placed inside a flush")
    missing = max(0, chaos.faults - run.done.total()) + (2 * inside < run.done.total())
    if missing:
        print(f"  TOO FEW: {chaos.faults} were to happen, at least half of them inside a flush")
    print(
        f"verify: {found['events']:,} events, {found['judged']:,} of {found['users']:,} users, "
        f"{found['throttles']:,} throttles, {found['rows']:,} rows, {found['seconds']} s"
    )
    for reason, users in found["not_judged"].items():
        print(f"  not judged: {users:,} users: {reason}")
    for one in found["found"][:10]:
        print(f"  DIFFERENT {json.dumps(one)}")
    for one in run.stuck:
        print(f"  STUCK {one}")
    unjudged: int = sum(found["not_judged"].values())
    return int(found["differences"]) + len(run.stuck) + unjudged + missing


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the logs in any case")
    parser.add_argument("--folder", type=Path, default=Path("build/chaos"))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    folder = (options.folder / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")).resolve()
    folder.mkdir(parents=True)
    overrides = {"log.cleaner.backoff.ms": "500"}
    wrong = 1
    with Cluster(heap_mb=1024, progress=print, overrides=overrides) as cluster:
        print(f"seed {options.seed}, logs in {folder}")
        chaos = Chaos(cluster, folder, options.seed, options.events, options.faults)
        try:
            found = asyncio.run(chaos.everything())
            wrong = _report(chaos, found)
        finally:
            chaos.fleet.end()
            shutil.copy(cluster.log(), folder / "kafka.log")
            if wrong:
                print(f"evidence in {folder}")
    if not wrong and not options.keep:
        shutil.rmtree(folder)
    figures = {
        "events": found["events"],
        "faults": chaos.run.done.total(),
        "by_class": dict(sorted(chaos.run.done.items())),
        "differences": found["differences"],
    }
    print(json.dumps(figures))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
