"""A deployment of the governor for one test: topics, a group and workers of its own.

One broker serves the whole session, so each `Deployment` has its own prefix of topics and its own
consumer group. Everything is asked of Kafka and of the workers' `/metrics`; nothing is read
behind their backs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from prometheus_client.parser import text_string_to_metric_families

from streams.logs import said
from tests import oracle
from tests.oracle import SECOND, Decision, Oracle, Rule

ROOT = Path(__file__).parents[2]
WORKER = (sys.executable, "-m", "streams.cli", "worker")
FAULTY = (sys.executable, "-m", "tests.integration.faulty_worker")

EVENT_TOPICS = {"impressions": "impression", "engagements": "engagement", "controls": "control"}
"""Topics of events, and what the oracle calls their kind."""
READ_TOPICS = (*EVENT_TOPICS, "repartition")
"""What the group commits."""

READY_SECONDS = 120.0
"""A worker compiles what is not cached yet, on a machine that may be busy."""
STOP_SECONDS = 30.0
"""The worker gives itself ten."""

MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86400 * SECOND
HISTORY = 32 * DAY
ROW_LIMIT = 128

Event = tuple[str, dict[str, Any]]
"""Topic without prefix, and the JSON object."""

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """The first true answer of ``condition``; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"no {what} after {seconds:.0f} s")
        time.sleep(0.05)
    return answer


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def run(work: Coroutine[Any, Any, T], seconds: float = 120.0) -> T:
    """Run a short exchange with Kafka to its end."""
    return asyncio.run(asyncio.wait_for(work, seconds))


def policy_text(rules: Iterable[Rule]) -> str:
    """The policy file of these rules."""
    lines = ["version: test", "rules:"]
    for rule in rules:
        what = f"spacing: {rule.window // SECOND}s"
        if rule.kind == "cap":
            what = f"cap: {rule.limit}, window: {rule.window // SECOND}s"
        lines.append(f"  - {{name: {rule.name}, {what}, per: {rule.per}}}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Message:
    """A record as Kafka holds it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    """In milliseconds."""

    def json(self) -> Any:
        assert self.value is not None
        return json.loads(self.value)


class Deployment:
    """Topics, policy and settings that the workers of one test share."""

    def __init__(
        self,
        bootstrap: str,
        name: str,
        folder: Path,
        rules: Sequence[Rule],
        *,
        partitions: int = 4,
        policy: str | None = None,
        **settings: str,
    ) -> None:
        self.bootstrap = bootstrap
        self.name = name
        self.folder = folder
        self.rules = rules
        self.partitions = partitions
        self.kafka: dict[str, Any] = {"bootstrap_servers": bootstrap}
        """How the test itself connects, as aiokafka's clients take it."""
        self.policy_file = folder / "policy.yaml"
        self.policy_file.write_text(policy or policy_text(rules))
        self.settings = {
            "broker": bootstrap,
            "group": name,
            "topic_prefix": f"{name}.",
            "partitions": str(partitions),
            "policy": str(self.policy_file),
            "metrics_host": "127.0.0.1",
            "metrics_port": "0",
            "session_timeout": "6s",
            "last_scrape": "0s",
            **settings,
        }
        self.workers: list[Worker] = []
        self._counts: dict[str, int] = {}

    def topic(self, name: str) -> str:
        return self.settings["topic_prefix"] + name

    def environment(self, **settings: str) -> dict[str, str]:
        """The environment of a process of this deployment, without settings of the caller's."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("GOVERNOR_")
        }
        chosen = {**self.settings, **settings}
        return inherited | {f"GOVERNOR_{name.upper()}": value for name, value in chosen.items()}

    def worker(
        self,
        command: Sequence[str] = WORKER,
        *,
        wait: bool = True,
        fault: str | None = None,
        **settings: str,
    ) -> Worker:
        """Start a worker; with ``wait`` return when it serves its metrics.

        With ``fault`` it is a `faulty_worker`.
        """
        environment = self.environment(**settings)
        if fault is not None:
            command, environment["FAULT"] = FAULTY, fault
        worker = Worker(self, command, environment)
        self.workers.append(worker)
        if wait:
            worker.wait_until_ready()
        return worker

    def two_workers(self) -> tuple[Worker, Worker]:
        """Two, once each has its half of the partitions."""
        one, two = self.worker(wait=False), self.worker(wait=False)
        half = self.partitions // 2
        wait_for(lambda: one.partitions == two.partitions == half, "two halves", READY_SECONDS)
        return one, two

    def end(self) -> None:
        """Kill what still runs; what a worker wrote shows with a test that failed."""
        for worker in self.workers:
            worker.kill()
            print(f"---- {worker.log_file.name}\n{worker.log()[-20_000:]}")

    # -- What Kafka holds

    def create_topics(self, counts: Mapping[str, int]) -> None:
        """Create topics with so many partitions each, as somebody else may have."""
        large = {"max.message.bytes": str(4 * 1024 * 1024)}

        async def create() -> None:
            async with self._admin() as admin:
                await admin.create_topics(
                    [
                        NewTopic(self.topic(name), count, 1, topic_configs=large)
                        for name, count in counts.items()
                    ]
                )

        run(create())
        wait_for(lambda: counts.items() <= self.partition_counts().items(), "topics")

    def create_event_topics(self) -> None:
        """Create the topics of events, so that producers can go first."""
        self.create_topics(dict.fromkeys(EVENT_TOPICS, self.partitions))

    def partition_counts(self) -> dict[str, int]:
        """Partitions of each topic of this deployment."""

        async def ask() -> dict[str, int]:
            async with self._admin() as admin:
                mine = [
                    name for name in await admin.list_topics() if name.startswith(self.topic(""))
                ]
                described = await admin.describe_topics(mine) if mine else []
            return {
                one["topic"].removeprefix(self.topic("")): len(one["partitions"])
                for one in described
            }

        return run(ask())

    def topic_configuration(self, name: str) -> dict[str, str]:
        """The configuration of a topic."""

        async def ask() -> dict[str, str]:
            async with self._admin() as admin:
                resource = ConfigResource(ConfigResourceType.TOPIC, self.topic(name))
                (response,) = await admin.describe_configs([resource])
            return {entry[0]: entry[1] for entry in response.resources[0][4]}

        return run(ask())

    def send(self, events: Iterable[Event]) -> int:
        """Send events keyed by their users, acknowledged by all; how many."""

        def messages() -> Iterator[tuple[str, bytes | None, bytes | None]]:
            for topic, event in events:
                yield topic, str(event["user_id"]).encode(), json.dumps(event).encode()

        return self.send_raw(messages())

    def send_raw(
        self,
        messages: Iterable[tuple[str, bytes | None, bytes | None]],
        *,
        partition: int | None = None,
        timestamp: int | None = None,
    ) -> int:
        """Send ``(topic, key, value)``, whatever they are; how many."""

        async def send() -> int:
            producer = AIOKafkaProducer(
                **self.kafka, acks="all", linger_ms=5, max_request_size=3 * 1024 * 1024
            )
            async with producer:
                sent = [
                    await producer.send(
                        self.topic(topic),
                        value,
                        key,
                        partition=partition,
                        timestamp_ms=timestamp,
                    )
                    for topic, key, value in messages
                ]
                await asyncio.gather(*sent)
            return len(sent)

        return run(send())

    @contextlib.contextmanager
    def stream(self, events: Iterable[Event]) -> Iterator[None]:
        """Send events little by little while the block runs, and all of them before it ends."""

        async def send() -> None:
            producer = AIOKafkaProducer(**self.kafka, acks="all")
            async with producer:
                for n, (topic, event) in enumerate(events):
                    value = json.dumps(event).encode()
                    user = str(event["user_id"]).encode()
                    sent = await producer.send(self.topic(topic), value, user)
                    if n % 5 == 0:
                        await sent
                await producer.flush()

        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(run, send())
            yield
            sending.result()

    def read(self, name: str) -> list[Message]:
        """All that a topic holds by now, in the order of each partition."""

        parts = self._parts([name])

        async def read() -> list[Message]:
            consumer = AIOKafkaConsumer(
                **self.kafka, enable_auto_commit=False, isolation_level="read_committed"
            )
            async with consumer:
                consumer.assign(parts)
                await consumer.seek_to_beginning(*parts)
                ends = await consumer.end_offsets(parts)
                found = []
                while [part for part in parts if await consumer.position(part) < ends[part]]:
                    fetched = await consumer.getmany(timeout_ms=200)
                    found += [
                        Message(one.partition, one.offset, one.key, one.value, one.timestamp)
                        for records in fetched.values()
                        for one in records
                    ]
            return found

        return run(read())

    def committed(self) -> tuple[int, int]:
        """Offsets that the group has committed in the topics that it reads, and their ends."""

        parts = self._parts(set(READ_TOPICS) & self.partition_counts().keys())

        async def ask() -> tuple[int, int]:
            consumer = AIOKafkaConsumer(
                **self.kafka, group_id=self.settings["group"], enable_auto_commit=False
            )
            async with consumer:
                # In this order: what is sent on is there before what brought it is committed.
                done = [await consumer.committed(part) or 0 for part in parts]
                ends = await consumer.end_offsets(parts)
            return sum(done), sum(ends.values())

        return run(ask())

    def wait_until_committed(self, seconds: float = 90.0) -> None:
        """Return when all that was sent is applied, published, logged and committed.

        Fails at once when a worker has ended by itself.
        """

        def settled() -> bool:
            for worker in self.workers:
                assert worker.expected_to_end or worker.process.poll() is None, worker.log()[-5000:]
            done, end = self.committed()
            return done == end

        wait_for(settled, "commit of all that was sent", seconds)

    def _parts(self, names: Iterable[str]) -> list[TopicPartition]:
        """The partitions of these topics, which are there."""
        if not self._counts.keys() >= set(names):
            self._counts = self.partition_counts()
        return [
            TopicPartition(self.topic(name), n) for name in names for n in range(self._counts[name])
        ]

    # -- What came of it

    def decisions(self) -> dict[str, Decision]:
        """The decisions topic as a reader holds it: the newest record by id."""
        found: dict[str, Decision] = {}
        for message in self.read("decisions"):
            assert message.key is not None
            user = message.key.decode()
            if message.value is None:
                found.pop(user, None)
            else:
                found[user] = message.json()
                assert found[user]["id"] == user
                assert found[user]["policy"] == "test"
                assert found[user]["curves"] is None
        return found

    def published(self) -> dict[str, dict[str, Any]]:
        """The decisions topic as a reader holds it, redirects and other ids' records included."""
        newest = {message.key: message for message in self.read("decisions")}
        return {
            key.decode(): message.json()
            for key, message in newest.items()
            if key is not None and message.value is not None
        }

    def dead_letters(self) -> list[dict[str, Any]]:
        """All dead letters, as the JSON that they are."""
        found = {message.key: message for message in self.read("deadletters")}
        return [message.json() for message in found.values() if message.value is not None]

    def oracle(self, events: Iterable[Event]) -> Oracle:
        """What the definitions say after these events."""
        expected = Oracle(self.rules, horizon=HISTORY, row_limit=ROW_LIMIT)
        for topic, event in events:
            assert expected.add(EVENT_TOPICS[topic], event) is None
        return expected

    def assert_decides(self, events: Iterable[Event]) -> None:
        """The decisions topic says of every user what the oracle says after these events."""
        expected, found = self.oracle(events), self.decisions()
        wrong = {}
        for user in expected.rows:
            differences = [
                oracle.compare(_uncounted(answer), _uncounted(found.get(user)))
                for answer in expected.admissible(user)
            ]
            if [] not in differences:
                wrong[user] = min(differences, key=len)
        assert not wrong, f"{len(wrong)} of {len(expected.rows)} users: {wrong}"
        assert found.keys() <= expected.rows.keys()
        assert found, "nothing decided: the events of this test are too tame"

    def verify(self, *options: str, **settings: str) -> tuple[int, dict[str, Any]]:
        """``governor verify --json``: its exit status, and what it printed."""
        finished = subprocess.run(
            [sys.executable, "-m", "streams.cli", "verify", "--json", *options],
            cwd=self.folder,
            env=self.environment(**settings) | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=120,
            check=False,
        )
        print(finished.stderr.decode())
        return finished.returncode, json.loads(finished.stdout or "{}")

    @contextlib.asynccontextmanager
    async def _admin(self) -> Any:
        admin = AIOKafkaAdminClient(**self.kafka)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


def _uncounted(decision: Decision | None) -> Decision | None:
    """Without the counts of exposures: a record is not written anew when only they change."""
    if decision is None:
        return None
    decision = json.loads(json.dumps(decision))
    for throttle in decision["throttles"]:
        for evidence in throttle["evidence"].values():
            evidence.pop("exposures", None)  # only what counts them has them
    return {"id": decision["id"], "throttles": decision["throttles"]}


class Worker:
    """A worker's process, its log, and what it says of itself."""

    _numbers = itertools.count(1)

    def __init__(
        self, deployment: Deployment, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        number = next(self._numbers)
        self.folder = deployment.folder / f"worker-{number}"
        self.folder.mkdir()
        self.log_file = deployment.folder / f"worker-{number}.log"
        self.expected_to_end = False
        path = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**environment, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Signals of the terminal are the test's business.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            assert self.stop() == 0, self.log()[-5000:]
        else:
            self.kill()

    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")

    def errors(self) -> list[str]:
        """Lines in which our own code tells of an error."""
        told = '"level": "error", "logger": "streams.', '"level": "critical", "logger": "streams.'
        return [line for line in self.log().splitlines() if any(one in line for one in told)]

    def wait_for_log(self, text: str) -> None:
        """Wait until it has written this."""

        def written() -> bool:
            if text in self.log():
                return True
            status = self.process.poll()
            assert status is None, f"ended with status {status} before {text!r}:\n{self.log()}"
            return False

        wait_for(written, f"{text!r} in {self.log_file}", READY_SECONDS)

    def wait_for_either(self, *texts: str) -> None:
        """Wait until it has written one of these, while it runs or as it ends."""
        wait_for(lambda: any(text in self.log() for text in texts), " or ".join(texts))

    def wait_until_ready(self) -> None:
        """Wait until it has seen to the topics and compiled, which is before it joins the group."""
        self.wait_for_log('"compiled"')
        self.metrics()

    @property
    def partitions(self) -> int:
        """How many it was ready with when it last said so; 0 before."""
        ready = said(self.log(), "ready")
        return len(ready[-1]["partitions"]) if ready else 0

    @property
    def address(self) -> str:
        """Where its metrics are."""
        (serving,) = said(self.log(), "serving")
        return str(serving["metrics"])

    def scrape(self) -> str:
        """Its metrics, as Prometheus gets them."""
        return scraped(self.address)

    def metrics(self) -> Metrics:
        """Its metrics by name and labels."""
        return Metrics(self.scrape())

    def wait_for_metric(self, name: str, at_least: float = 1) -> None:
        """Wait until a series without labels has this value or a higher one."""
        wait_for(lambda: self.metrics()(name) >= at_least, f"{name} of {at_least}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop and wait until it has; the exit status."""
        self.expected_to_end = True
        self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait until it ends by itself; the exit status."""
        self.expected_to_end = True
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            pytest.fail(f"not ended after {seconds:.0f} s:\n{self.log()[-5000:]}")

    def stopped_by(self, guard: str) -> None:
        """Wait until it ends because of a guard, which its last metrics must have counted."""
        self.expected_to_end = True
        last = "serving the last metrics"

        def serving() -> list[dict[str, Any]]:
            found = said(self.log(), last)
            assert found or self.process.poll() is None, self.log()[-5000:]
            return found

        (told,) = wait_for(serving, f"{last} in {self.log_file}", READY_SECONDS)
        metrics = Metrics(scraped(told["metrics"]))
        (stopping,) = [line for line in map(json.loads, self.errors()) if "guard" in line]
        assert stopping["guard"] == guard
        assert metrics("governor_guard_total", guard=guard) == 1
        assert metrics("governor_ready") == 0
        assert self.wait() == 1

    def kill(self) -> None:
        """End it without a chance to do anything about it."""
        self.expected_to_end = True
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def scraped(address: str) -> str:
    """The metrics that lie there, as Prometheus gets them."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


class Metrics:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one series."""
        return self.samples[name, frozenset(labels.items())]

    def total(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels among theirs."""
        return sum(
            value
            for (found, has), value in self.samples.items()
            if found == name and labels.items() <= set(has)
        )

    def by(self, name: str, label: str, **labels: str) -> Counter[str]:
        """Values that are not zero by one label, of the series that have ``labels``."""
        found: Counter[str] = Counter()
        for (each, has), value in self.samples.items():
            if each == name and labels.items() <= set(has) and value:
                found[dict(has)[label]] += int(value)
        return found
