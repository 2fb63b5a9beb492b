"""Dashboards and alerts against a real Prometheus that scrapes a real worker.

While the demo's stream plays: every panel shows what follows from the stream, nothing fires, and
what the runbooks say to type works. Then ad servers disobey, a producer sends what is no event and
another a bot's, a policy lets everybody go, and a worker is killed, another falls silent and one
recovers nothing: the right alert fires, and ends.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import yaml
from aiokafka import AIOKafkaProducer

from deploy.dashboards.questions import filled, questions
from governor.oracle import Oracle
from governor.partitioning import partition_of
from governor.policy import Policy, duration, load
from governor.ticks import SECOND, from_seconds
from streams.demo import HISTORY, ROW_LIMIT, policy_text
from streams.demo_sample import events_of, read_pages
from tests.integration.commands import governor
from tests.integration.deployment import (
    READY_SECONDS,
    ROOT,
    Deployment,
    Event,
    Metrics,
    Worker,
    run,
    wait_for,
)
from tests.integration.prometheus import (
    RULES,
    Server,
    Values,
    by,
    needed,
    pictured,
    scraped,
    values,
    world,
)

pytestmark = pytest.mark.slow

CHUNKS = 8
"""Between which the worker is scraped, so that rates have something to go by."""


@dataclass
class Played:
    """A worker that has been given the demo's stream, and the Prometheus that saw it."""

    deployment: Deployment
    worker: Worker
    server: Server
    began: float
    events: list[Event]
    at: float
    """The last scrape, by which everything was acknowledged."""
    before: Metrics
    """What the worker said in its first scrape, before there was an event."""
    scrape: Metrics
    """And in the last one."""

    @property
    def window(self) -> float:
        return round(self.at - self.began, 3)

    def answer(self, expression: str) -> Values:
        return values(self.server.now(filled(expression, window=self.window), self.at))

    @cached_property
    def policy(self) -> Policy:
        return load(policy_text(), horizon=duration(HISTORY), row_limit=ROW_LIMIT)

    @cached_property
    def by_user(self) -> dict[str, list[Event]]:
        found = defaultdict(list)
        for topic, event in self.events:
            found[event["user_id"]].append((topic, event))
        return found

    @cached_property
    def newest(self) -> dict[str, int]:
        """By user, the newest event of the user's partition, in ticks."""
        of_partition: Counter[int] = Counter()
        place = {user: self._partition(user) for user in self.by_user}
        for user, each in self.by_user.items():
            ts = max(from_seconds(event["ts"]) for _, event in each)
            of_partition[place[user]] = max(of_partition[place[user]], ts)
        return {user: of_partition[place[user]] for user in self.by_user}

    def _partition(self, user: str) -> int:
        return partition_of(user.encode(), self.deployment.partitions)

    @cached_property
    def held_back(self) -> set[str]:
        """Users whom a decision holds back at their partition's newest event."""
        found = set()
        for user, each in self.by_user.items():
            oracle = Oracle(self.policy, horizon=duration(HISTORY), row_limit=ROW_LIMIT)
            for kind, event in each:
                assert oracle.add(kind.removesuffix("s"), event) is None
            due = oracle.decide(user) or {"throttles": []}
            ends = [from_seconds(one["until"]) for one in due["throttles"]]
            if max(ends, default=0) > self.newest[user]:
                found.add(user)
        return found

    @cached_property
    def held(self) -> dict[str, int]:
        """By user, events that the row holds."""
        return {
            user: sum(
                from_seconds(event["ts"])
                > max(from_seconds(other["ts"]) for _, other in each) - duration(HISTORY)
                for _, event in each
            )
            for user, each in self.by_user.items()
        }

    @cached_property
    def near(self) -> set[str]:
        """Users of whom one more exposure reaches a cap."""
        caps = [rule for rule in self.policy.rules if rule.kind == "cap"]
        found = set()
        for user, each in self.by_user.items():
            for cap in caps:
                seen: Counter[str] = Counter(
                    event["campaign_id"] if cap.per == ("campaign",) else "user"
                    for topic, event in each
                    if topic == "impressions"
                    and from_seconds(event["ts"]) > self.newest[user] - cap.window
                )
                if cap.limit - 1 in seen.values():
                    found.add(user)
        return found

    @cached_property
    def published(self) -> list[Any]:
        return [one for one in self.deployment.read("decisions") if one.key]

    @cached_property
    def throttles(self) -> dict[str, int]:
        """By rule, throttles in all records on the decisions topic."""
        counted = Counter(
            reason
            for one in self.published
            if one.value is not None
            for throttle in one.json()["throttles"]
            for reason in throttle["reasons"]
        )
        names = [rule.name for rule in self.policy.rules]
        return {name: counted[name] for name in (*names, "opt_out", "hide", "consent")}

    @cached_property
    def records(self) -> dict[str, int]:
        withdrawn = sum(one.value is None for one in self.published)
        return {"published": len(self.published) - withdrawn, "withdrawn": withdrawn}

    @cached_property
    def topics(self) -> dict[str, int]:
        counted = Counter(topic for topic, _ in self.events)
        return {name: counted[name] for name in TOPICS}

    def sums(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """What the worker itself said at its last scrape, by one label, zeros included."""
        found: dict[str, float] = defaultdict(float)
        for (each, has), value in self.scrape.samples.items():
            if each == name and labels.items() <= set(has):
                found[dict(has)[label]] += value
        return found

    def quantile(self, share: float, name: str) -> float:
        """Of what a histogram's buckets got meanwhile, as Prometheus defines it."""
        buckets = sorted(
            (float(edge), count - self.before(f"{name}_bucket", le=edge))
            for edge, count in self.sums(f"{name}_bucket", "le").items()
        )
        total = buckets[-1][1]
        if total == 0:
            return math.nan
        below, before = 0.0, 0.0
        for edge, count in buckets:
            if count >= share * total:
                if math.isinf(edge):
                    return below
                return below + (edge - below) * (share * total - before) / (count - before)
            below, before = edge, count
        raise AssertionError(buckets)


TOPICS = ("impressions", "engagements", "controls", "repartition")


@pytest.fixture(scope="module")
def played(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("played")
    settings = {"history": HISTORY, "row_limit": str(ROW_LIMIT), "standbys": "0"}
    settings["sample_people"] = "0"  # how ads wear is test_prometheus_fatigue.py's
    events = [event for page in read_pages() for event in events_of(page)]
    with world(folder, broker, "played", policy_text(), **settings) as (deployment, server):
        worker = deployment.worker()
        ready = "governor_ready == 1"
        wait_for(lambda: values(server.now(ready)), "ready worker that is scraped", READY_SECONDS)
        # A scrape in which nothing has been counted, so that rates miss nothing.
        first_scrape = server.now("timestamp(governor_ready)")[0][1]
        began = first_scrape - 0.001
        size = -(-len(events) // CHUNKS)
        for first in range(0, len(events), size):
            deployment.send(events[first : first + size])
            server.scraped_since(time.time())
        deployment.wait_until_committed()
        server.scraped_since(time.time())
        at = server.now("timestamp(governor_ready)")[0][1]
        pictured(server, began, "policy")
        # A moment later, as times of queries are rounded.
        before, last = scraped(server, first_scrape + 0.01), scraped(server, at)
        yield Played(deployment, worker, server, began, events, at, before, last)


Expected = Callable[[Played], Values]


def _share(part: Callable[[Played], float], of: Callable[[Played], float]) -> Expected:
    return lambda world: {(): part(world) / of(world)}


def _number(number: float) -> Expected:
    return lambda world: {(): number}


def _rate(label: str, counts: Callable[[Played], Mapping[str, float]]) -> Expected:
    return lambda world: by(
        label, {name: count / world.window for name, count in counts(world).items()}
    )


def _quantile(share: float, name: str) -> Expected:
    return lambda world: {(): world.quantile(share, f"governor_{name}_seconds")}


def _same(name: str, label: str, *, least: float = -math.inf, **labels: str) -> Expected:
    """What only the worker itself can know."""

    def expected(world: Played) -> Values:
        found = world.sums(f"governor_{name}", label, **labels)
        return by(label, {key: value for key, value in found.items() if value > least})

    return expected


def _instance(number: float) -> Expected:
    return lambda world: {
        (("instance", world.worker.address.split("/")[2]),): number,
    }


def _batches(world: Played) -> Values:
    counts = world.sums("governor_batch_events_count", "topic")
    return by("topic", {name: world.topics[name] / n for name, n in counts.items() if n})


def _rows(world: Played) -> float:
    return sum(one.key[:1] == b"u" for one in world.deployment.read("ledger") if one.key)


def _outcomes(world: Played) -> dict[str, float]:
    names = world.sums("governor_events_total", "outcome")
    return dict.fromkeys(names, 0.0) | {"applied": float(len(world.events))}


NOTHING: Expected = lambda world: {}  # noqa: E731
USERS: Callable[[Played], float] = lambda world: len(world.by_user)  # noqa: E731

EXPECTED: dict[tuple[str, str, str], Expected] = {
    ("overview", "Workers ready", "ready"): _number(1),
    ("overview", "Standing still", "seconds"): _number(0),
    ("overview", "Alerts that fire", "alerts"): _number(0),
    ("overview", "Policy", "{{policy}}"): lambda _: by("policy", {"demo": 1}),
    ("overview", "Events", "{{topic}}"): _rate("topic", lambda world: world.topics),
    ("overview", "How far behind", "{{topic}}"): lambda _: by("topic", dict.fromkeys(TOPICS, 0)),
    ("overview", "From event to decision", "half"): _quantile(0.5, "event_to_decision"),
    ("overview", "From event to decision", "99%"): _quantile(0.99, "event_to_decision"),
    ("overview", "People held back", "held back"): _share(lambda w: len(w.held_back), USERS),
    ("overview", "Share of traffic held back", "held back"): _share(
        lambda w: sum(w.held[user] for user in w.held_back), lambda w: sum(w.held.values())
    ),
    ("overview", "People near a limit", "near"): lambda world: {(): len(world.near)},
    # The stream is of 2023, and obeying takes a decision that still holds.
    ("overview", "Shown against a decision", "overshoot"): _number(0),
    ("overview", "How long after it", "half"): _number(math.nan),
    ("overview", "How long after it", "95%"): _number(math.nan),
    ("overview", "Exposures against a decision", "exposures"): _number(0),
    ("pipeline", "Lag", "{{topic}}"): lambda _: by("topic", dict.fromkeys(TOPICS, 0)),
    ("pipeline", "What became of events", "{{outcome}}"): _rate("outcome", _outcomes),
    ("pipeline", "Apply and flush", "apply"): _quantile(0.99, "apply"),
    ("pipeline", "Apply and flush", "flush"): _quantile(0.99, "flush"),
    ("pipeline", "Events a batch", "{{topic}}"): _batches,
    ("pipeline", "On the way to Kafka", "events"): _number(0),
    ("pipeline", "On the way to Kafka", "rows"): _number(0),
    ("pipeline", "Written", "rows"): lambda world: {(): _rows(world) / world.window},
    ("pipeline", "Written", "{{kind}}"): _rate("kind", lambda world: world.records),
    ("pipeline", "Written", "retries"): _number(0),
    ("pipeline", "Recovery", "{{instance}}"): _instance(1),
    ("pipeline", "Rows to read", "to read"): _number(0),
    # There were no rows when it began.
    ("pipeline", "Rows to read", "read a second"): _number(0),
    ("pipeline", "People in memory", "live"): lambda world: {(): USERS(world)},
    ("pipeline", "People in memory", "copies"): _number(0),
    ("pipeline", "Entries in memory", "live"): lambda world: {(): sum(world.held.values())},
    ("pipeline", "Entries in memory", "copies"): _number(0),
    ("pipeline", "Workers that reach Kafka", "workers"): _number(1),
    ("pipeline", "Guards", "{{guard}}"): NOTHING,
    ("pipeline", "Memory", "ledgers"): lambda world: {(): world.scrape("governor_ledger_bytes")},
    ("pipeline", "Memory", "stops"): lambda world: {(): world.scrape("governor_told_bytes")},
    ("pipeline", "Rows by size", "{{room}}"): _same("rows", "room", least=0),
    ("pipeline", "Overflow", "overflow"): _number(0),
    ("pipeline", "Dead letters", "{{topic}}: {{reason}}"): NOTHING,
    ("pipeline", "Topics held back", "topics"): _number(0),
    ("pipeline", "Sent on inside", "{{reason}}"): _rate(
        "reason", lambda world: dict.fromkeys(world.sums("governor_forwarded_total", "reason"), 0)
    ),
    ("policy", "Version", "{{policy}}"): lambda _: by("policy", {"demo": 1}),
    ("policy", "Rows still to evaluate", "rows"): _number(0),
    ("policy", "Versions refused", "refused"): _number(0),
    ("policy", "Kill switch", "pulled"): _number(0),
    ("policy", "Throttles, by rule", "{{rule}}"): _rate("rule", lambda world: world.throttles),
    ("policy", "What shadows would do", "{{rule}}"): NOTHING,
    ("policy", "Throttles since the workers started", "{{rule}}, {{state}}"): lambda world: {
        (("rule", rule), ("state", "throttled")): count for rule, count in world.throttles.items()
    },
    ("policy", "Shadow against live", "{{state}}"): _rate(
        "state", lambda world: {"throttled": sum(world.throttles.values())}
    ),
    ("policy", "Decisions", "{{kind}}"): _rate("kind", lambda world: world.records),
    ("policy", "Throttles that people asked for", "{{rule}}"): _rate(
        "rule", lambda _: dict.fromkeys(("opt_out", "hide", "consent"), 0)
    ),
    ("policy", "Controls", "{{outcome}}"): _rate(
        "outcome", lambda world: dict.fromkeys(_outcomes(world), 0)
    ),
}
MEASURED = {("pipeline", "Memory", "resident")}
"""What the kernel says, and nothing can predict."""

QUESTIONS = {
    (one.dashboard, one.panel, one.legend): one
    for one in questions()
    if one.dashboard != "fatigue"  # test_prometheus_fatigue.py
}


def test_something_is_expected_of_every_panel() -> None:
    assert EXPECTED.keys() | MEASURED == QUESTIONS.keys()


@pytest.mark.parametrize("key", EXPECTED, ids=": ".join)
def test_a_panel_shows_what_follows_from_the_stream(
    played: Played, key: tuple[str, str, str]
) -> None:
    expected = EXPECTED[key](played)
    found = played.answer(QUESTIONS[key].expression)
    # Prometheus extrapolates the buckets of a histogram apart from each other.
    exact = 1e-2 if key[1] in ("From event to decision", "Apply and flush") else 1e-6
    assert found == pytest.approx(expected, rel=exact, abs=1e-9, nan_ok=True)


def test_resident_memory_is_the_process(played: Played) -> None:
    found = played.answer(QUESTIONS["pipeline", "Memory", "resident"].expression)
    assert found[()] == pytest.approx(
        psutil.Process(played.worker.process.pid).memory_info().rss, rel=0.3
    )


def test_the_stream_is_not_tame(played: Played) -> None:
    assert len(played.events) > 10_000
    assert 0 < len(played.held_back) < len(played.by_user)
    assert played.near
    assert all(played.throttles[rule.name] for rule in played.policy.rules)
    counted = played.scrape("governor_event_to_decision_seconds_count")
    assert counted == len(played.events)


def _rules(kind: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


@pytest.mark.parametrize("rule", _rules("alert"), ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_nothing_to_say_of_a_healthy_run(played: Played, rule: dict[str, Any]) -> None:
    assert played.answer(rule["expr"]) == {}


def test_nothing_fired_all_the_while(played: Played) -> None:
    assert played.server.fired(played.began) == set()


@pytest.mark.parametrize(
    ("name", "panel"),
    [
        ("governor:throttled_users:ratio", "People held back"),
        ("governor:held_back_exposures:ratio", "Share of traffic held back"),
    ],
)
def test_what_is_recorded_is_what_panels_show(played: Played, name: str, panel: str) -> None:
    expected = EXPECTED["overview", panel, "held back"](played)[()]
    shown = {(("job", "governor"),): pytest.approx(expected)}
    wait_for(lambda: values(played.server.now(name)) == shown, f"{name} of {expected}")


@pytest.mark.parametrize("rule", _rules("record"), ids=lambda rule: str(rule["record"]))
def test_what_is_recorded_can_be_asked(played: Played, rule: dict[str, Any]) -> None:
    answered = played.answer(rule["expr"])
    # Nobody is observed here, so there is no coverage.
    assert bool(answered) == (rule["record"] != "governor:fatigue_coverage:ratio")


def _commands() -> list[tuple[str, str]]:
    """What runbooks say to type, each once, with the first runbook that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "docs" / "runbooks").glob("*.md")):
        blocks = re.findall(r"```console\n(.*?)```", path.read_text(), re.DOTALL)
        for block in blocks:
            for line in block.splitlines():
                assert line.startswith("$ "), line
                found.setdefault(line[2:], path.stem)
    return [(runbook, command) for command, runbook in found.items()]


@pytest.mark.parametrize(("runbook", "command"), _commands())
def test_what_a_runbook_says_to_type_works(played: Played, runbook: str, command: str) -> None:
    needed("promtool")
    environment = played.deployment.environment() | {
        "WORKER": played.worker.address.removesuffix("/metrics"),
        "PROMETHEUS": played.server.url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment,
        cwd=played.deployment.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


# ---- Broken ------------------------------------------------------------------------------------

BROKEN_POLICY = """
version: test
rules:
  - {name: once, cap: 1, per: campaign, window: 1h, match: {channel: ctv}}
"""
WITHOUT_RULE = """
version: without
rules:
  - {name: never, cap: 1, per: campaign, window: 1h, match: {channel: radio}}
"""
GRACE = 2.0
DISOBEYED = 40
"""People to whom the ad is shown again and again: less than a tenth, more than a hundredth."""


class Traffic:
    """Impressions of now, one kind of them as ordinary as the other is not.

    Everybody is shown an ad now and then, that no rule speaks of. ``disobeying``: some are shown,
    again and again, the one that may be shown once. ``poisoning``: every tenth message is none.
    ``flooding``: every tenth is of the same one, a bot.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.disobeying = self.poisoning = self.flooding = False
        self.against: list[tuple[str, float]] = []
        """User and time of what was shown of the ad that may be shown once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        run(self._send(), 600)

    async def _send(self) -> None:
        n = 0
        async with AIOKafkaProducer(**self._deployment.kafka, acks="all") as producer:
            while not self._stop.wait(0.1):
                for _ in range(20):
                    n += 1
                    user, channel = f"u{n % 500}", "web"
                    if self.disobeying and n % 10 == 1:
                        user, channel = f"bad{n // 10 % DISOBEYED}", "ctv"
                    if self.flooding and n % 10 == 2:
                        user = "bot"
                    ts = round(time.time(), 3)
                    event = {
                        "event_id": f"e{n}",
                        "user_id": user,
                        "ts": ts,
                        "campaign_id": "C",
                        "channel": channel,
                    }
                    value = json.dumps(event).encode()
                    if self.poisoning and n % 10 == 0:
                        value = value[:-1]
                    elif channel == "ctv":
                        self.against.append((user, ts))
                    await producer.send_and_wait(
                        self._deployment.topic("impressions"), value, user.encode()
                    )


def _overshot(deployment: Deployment, shown: list[tuple[str, float]]) -> int:
    """What the definition counts: shown later than Kafka took the first decision, and a grace.

    Each exposure renews the decision before it ends, so that it holds from the first on.
    """
    told: dict[str, float] = {}
    for one in deployment.read("decisions"):
        if one.key and one.value:
            told.setdefault(one.key.decode(), one.timestamp / 1000)
    assert told.keys() == {user for user, _ in shown}
    return sum(
        from_seconds(ts) > from_seconds(told[user]) + int(GRACE * SECOND) for user, ts in shown
    )


def test_what_is_broken_is_told_and_what_is_mended_is_not(broker: str, tmp_path: Path) -> None:
    settings = {"overshoot_grace": f"{GRACE:.0f}s", "standbys": "0", "stall_timeout": "4s"}
    began = time.time()
    with (
        world(tmp_path, broker, "broken", BROKEN_POLICY, **settings) as (deployment, server),
        Traffic(deployment) as traffic,
    ):
        worker = deployment.worker()
        busy = "sum(rate(governor_events_total[5s])) > 50"
        wait_for(lambda: values(server.now(busy)), "traffic", READY_SECONDS)
        assert server.firing() <= {"GovernorNotProgressing"}, "it may have been waited for"
        server.wait_until_quiet()
        healthy = time.time()

        traffic.disobeying = traffic.poisoning = traffic.flooding = True
        misbehaving = "GovernorOvershootRising", "GovernorDeadLetters", "GovernorLedgerOverflow"
        server.wait_until_firing(*misbehaving)
        traffic.disobeying = traffic.poisoning = traffic.flooding = False
        server.wait_until_quiet("GovernorDeadLetters")
        shown = traffic.against.copy()
        wait_for(
            lambda: (
                worker.metrics()("governor_overshoot_seconds_count") == _overshot(deployment, shown)
            ),
            "overshoot that the definition counts",
        )
        server.wait_until_quiet(*misbehaving)
        assert server.fired(healthy) == set(misbehaving)

        (tmp_path / "without.yaml").write_text(WITHOUT_RULE)
        governor(deployment, "policy", "push", tmp_path / "without.yaml")
        server.wait_until_firing("GovernorThrottledShareAbnormal")
        governor(deployment, "policy", "rollback")
        server.wait_until_quiet()

        worker.kill()
        server.wait_until_firing("GovernorNotProgressing")
        silent = deployment.worker(fault="fall_silent")
        server.wait_until_firing("GovernorNotProgressing", "GovernorDecisionsLate")
        silent.kill()
        stuck = deployment.worker(fault="recover_nothing")
        server.wait_until_firing("GovernorRecoveryStuck")
        stuck.kill()
        deployment.worker()
        server.wait_until_quiet()
        pictured(server, began, "overview", "pipeline")
        assert server.fired(began) == {
            *misbehaving,
            "GovernorThrottledShareAbnormal",
            "GovernorNotProgressing",
            "GovernorDecisionsLate",
            "GovernorRecoveryStuck",
        }
