"""The worker through a real Kafka: events in, decisions out, whatever happens in between."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from streams.broker import Cluster
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, Event, Worker, free_port, wait_for
from tests.integration.scenario import T0, scenario
from tests.oracle import SECOND, Rule

FAUST = (str(Path(sys.executable).with_name("faust")), "-A", "streams.app", "worker")

EVENTS = {"impressions", "engagements", "controls"}
FENCE = b""
"""The key under which an owner of a partition shuts the former one out."""
TOPICS = EVENTS | {"repartition", "decisions", "ledger", "deadletters"}
SINGLE = dict.fromkeys(("policy", "samples", "curves", "fatigue"), 1)
"""Topics with one partition."""


def held(deployment: Deployment, events: list[Event]) -> int:
    """Entries that the rows of all users hold after these events."""
    return deployment.oracle(events).held()


def test_decisions_are_those_of_the_oracle(deploy: Deploy) -> None:
    deployment = deploy()
    events = scenario(1)
    worker = deployment.worker()
    deployment.send(events)
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    metrics = worker.metrics()
    assert metrics("governor_exposures_held") == held(deployment, events)
    assert metrics("governor_users") == len(deployment.oracle(events).rows)
    assert metrics.total("governor_dead_letters_total") == 0
    assert worker.stop() == 0
    assert worker.errors() == []
    assert "Traceback" not in worker.log()


@pytest.mark.slow
def test_a_decision_lies_in_the_partition_of_its_events(deploy: Deploy) -> None:
    deployment = deploy()
    events = scenario(2, users=50, events=600)
    deployment.worker()
    deployment.send(events)
    deployment.wait_until_committed()
    home: dict[str, int] = {}
    for topic in ("impressions", "engagements", "controls"):
        for message in deployment.read(topic):
            home.setdefault(message.json()["user_id"], message.partition)
    decided = [message for message in deployment.read("decisions") if message.key != FENCE]
    assert decided
    for message in decided:
        assert message.key is not None
        assert message.partition == home[message.key.decode()]


def test_a_decision_that_has_run_out_is_withdrawn(deploy: Deploy) -> None:
    deployment = deploy(
        rules=[Rule("spacing", "spacing", 1, 60 * SECOND, "campaign")], partitions=1
    )
    deployment.worker()
    deployment.send([impression("early", "e1", T0)])
    deployment.wait_until_committed()
    assert deployment.decisions().keys() == {"early"}
    deployment.send([impression("late", "e2", T0 + 7200)])
    deployment.wait_until_committed()
    assert deployment.decisions().keys() == {"late"}


def test_missing_topics_are_created_alike(deploy: Deploy) -> None:
    deployment = deploy(partitions=3)
    deployment.worker()
    assert deployment.partition_counts() == dict.fromkeys(TOPICS, 3) | SINGLE
    for compacted in ("decisions", "ledger"):
        configuration = deployment.topic_configuration(compacted)
        assert configuration["cleanup.policy"] == "compact"
    for topic in ("impressions", "engagements", "controls"):
        configuration = deployment.topic_configuration(topic)
        assert configuration["cleanup.policy"] == "delete"
        assert int(configuration["max.message.bytes"]) >= 4 * 1024 * 1024
    assert deployment.topic_configuration("deadletters")["cleanup.policy"] == "compact,delete"


def test_existing_topics_of_one_count_are_used_and_the_rest_made_to_fit(deploy: Deploy) -> None:
    deployment = deploy(partitions=4)
    deployment.create_topics({"impressions": 2, "decisions": 2})
    events = scenario(3, users=40, events=400)
    deployment.send([event for event in events if event[0] == "impressions"])
    deployment.worker()
    deployment.send([event for event in events if event[0] != "impressions"])
    deployment.wait_until_committed()
    assert deployment.partition_counts() == dict.fromkeys(TOPICS, 2) | SINGLE
    deployment.assert_decides(events)


def test_existing_topics_that_differ_are_refused(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_topics({"impressions": 2, "engagements": 3})
    worker = deployment.worker(wait=False)
    assert worker.wait(120) == 1
    log = worker.log()
    assert f"{deployment.topic('impressions')} has 2" in log
    assert f"{deployment.topic('engagements')} has 3" in log
    assert "GOVERNOR_TOPIC_PREFIX" in log
    assert "Traceback" not in log
    assert deployment.partition_counts() == {"impressions": 2, "engagements": 3}


def test_sigterm_loses_nothing_and_counts_nothing_twice(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(4, users=200, events=6000)
    deployment.send(events[:2000])
    worker = deployment.worker()
    with deployment.stream(events[2000:]):
        wait_for(lambda: worker.metrics().total("governor_events_total") > 2500, "events applied")
        status = worker.stop()
    assert status == 0, worker.log()
    assert "not stopped within" not in worker.log()
    again = deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    wait_for(
        lambda: again.metrics()("governor_exposures_held") == held(deployment, events),
        "row entries of all events, each once",
    )


def test_sigterm_commits_what_was_applied(deploy: Deploy) -> None:
    deployment = deploy()
    events = scenario(5, users=100, events=1000)
    worker = deployment.worker(flush_interval="20s")
    count = deployment.send(events)
    wait_for(lambda: worker.metrics().total("governor_events_total") == count, "events applied")
    assert worker.stop() == 0
    assert deployment.committed() == (count, count)
    deployment.assert_decides(events)


def test_sigkill_in_mid_stream_loses_nothing(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(6, users=200, events=8000)
    worker = deployment.worker()
    for part in (events[:4000], events[4000:]):
        with deployment.stream(part):
            wait_until_applied(worker, 500)
            worker.kill()
            worker = deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert worker.metrics()("governor_exposures_held") == held(deployment, events)


@pytest.mark.parametrize(
    "fault",
    [
        "die_before:ledger",
        pytest.param("die_before:decisions", marks=pytest.mark.slow),
        pytest.param("die_after:ledger", marks=pytest.mark.slow),
    ],
)
def test_sigkill_within_a_flush_loses_nothing(deploy: Deploy, fault: str) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(7, users=50, events=800)
    deployment.send(events)
    faulty = deployment.worker(wait=False, fault=fault)
    assert faulty.wait(120) == -signal.SIGKILL
    assert deployment.committed()[0] == 0
    worker = deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert worker.metrics()("governor_exposures_held") == held(deployment, events)


def test_an_absent_broker_is_one_line_a_try(deploy: Deploy) -> None:
    port = free_port()
    deployment = deploy(f"127.0.0.1:{port}")
    worker = deployment.worker(wait=False)
    wait_for(lambda: worker.log().count("trying again in") >= 2, "two tries")
    with Cluster(port=port) as cluster:
        assert cluster.bootstrap == deployment.bootstrap
        worker.wait_until_ready()
        lines = [line for line in worker.log().splitlines() if '"streams.topics"' in line]
        lines = lines[: next(n for n, line in enumerate(lines) if "created topics" in line)]
        told = [json.loads(line)["event"] for line in lines]
        pauses = [line.rsplit("trying again in ", 1)[-1] for line in told]
        assert pauses[:3] == ["1 s", "2 s", "4 s"][: len(pauses)]
        assert all(f"127.0.0.1:{port} (GOVERNOR_BROKER)" in line for line in told)
        events = scenario(8, users=30, events=300)
        deployment.send(events)
        deployment.wait_until_committed()
        deployment.assert_decides(events)
        assert worker.stop() == 0


def test_sigterm_ends_the_wait_for_a_broker(deploy: Deploy) -> None:
    deployment = deploy(f"127.0.0.1:{free_port()}")
    worker = deployment.worker(wait=False)
    worker.wait_for_log("trying again in")
    assert worker.stop() == 0
    assert "Traceback" not in worker.log()


@pytest.mark.slow
def test_the_worker_rides_out_a_broker_that_is_killed_and_comes_back(
    deploy: Deploy, tmp_path: Path
) -> None:
    with Cluster(data_dir=tmp_path / "kafka") as cluster:
        deployment = deploy(cluster.bootstrap)
        events = scenario(9, users=100, events=2000)
        worker = deployment.worker()
        deployment.send(events[:1000])
        deployment.wait_until_committed()
        deployment.send(events[1000:1500])
        cluster.kill()
        cluster.restart()
        deployment.send(events[1500:])
        deployment.wait_until_committed(150)
        deployment.assert_decides(events)
        assert worker.metrics()("governor_exposures_held") == held(deployment, events)
        assert worker.stop() == 0


@pytest.mark.slow
def test_a_stop_while_the_broker_is_away_acks_nothing_and_loses_nothing(
    deploy: Deploy, tmp_path: Path
) -> None:
    with Cluster(data_dir=tmp_path / "kafka") as cluster:
        deployment = deploy(cluster.bootstrap)
        events = scenario(10, users=100, events=2000)
        worker = deployment.worker(flush_interval="3s")
        deployment.send(events[:500])
        deployment.wait_until_committed()
        before = deployment.committed()
        deployment.send(events[500:1500])
        wait_until_applied(worker, 501)
        cluster.kill()
        assert worker.stop() == 1
        assert "not stopped within" in worker.log()
        cluster.restart()
        assert deployment.committed()[0] == before[0]
        again = deployment.worker()
        deployment.send(events[1500:])
        deployment.wait_until_committed()
        deployment.assert_decides(events)
        assert again.metrics()("governor_exposures_held") == held(deployment, events)
        assert again.stop() == 0


@pytest.mark.slow
def test_a_worker_that_slept_past_its_session_overwrites_nothing(deploy: Deploy) -> None:
    """What it holds and what it was about to flush is older than what its successor has written."""
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(16, users=100, events=3000)
    sleeper, heir = deployment.two_workers()
    with deployment.stream(events):
        wait_until_applied(sleeper, 200)
        wait_until_applied(heir, 200)
        sleeper.expected_to_end = True
        sleeper.process.send_signal(signal.SIGSTOP)
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    sleeper.process.send_signal(signal.SIGCONT)
    more = scenario(17, users=100, events=300)
    deployment.send(more)
    deployment.wait_until_committed()
    if sleeper.process.poll() is None:
        sleeper.stop()
    assert heir.stop() == 0
    again = deployment.worker()
    deployment.assert_decides(events + more)
    wait_for(
        lambda: again.metrics()("governor_exposures_held") == held(deployment, events + more),
        "row entries of all events, each once",
    )


def test_mistakes_in_settings_and_policy_are_all_told(deploy: Deploy) -> None:
    deployment = deploy("127.0.0.1:1")
    policy = Path(deployment.settings["policy"])
    policy.write_text("rules:\n  - {name: a, cap: 0, per: user, window: 1d}\n  - {nmae: b}\n")
    worker = deployment.worker(wait=False, partitions="none", flush_interval="fast", colour="red")
    assert worker.wait() == 2
    log = worker.log()
    for mistake in (
        "GOVERNOR_PARTITIONS",
        "GOVERNOR_FLUSH_INTERVAL",
        "GOVERNOR_COLOUR",
        "line 2",
        "line 3",
    ):
        assert mistake in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_fausts_own_command_works_too(deploy: Deploy, number: int) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(11, users=50, events=500)
    worker = deployment.worker(FAUST, wait=False)
    deployment.send(events)
    wait_for(lambda: deployment.partition_counts().keys() >= TOPICS, "topics", 120)
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert worker.stop(number) == 0, worker.log()
    assert not list(worker.folder.iterdir())


def test_two_workers_share_and_hand_over(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(12, users=200, events=4000)
    one, two = deployment.two_workers()
    with deployment.stream(events):
        wait_until_applied(one, 100)
        wait_until_applied(two, 100)
        assert one.stop() == 0
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert two.metrics()("governor_exposures_held") == held(deployment, events)
    assert two.stop() == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_by_the_other(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(13, users=200, events=4000)
    one, two = deployment.two_workers()
    with deployment.stream(events):
        wait_until_applied(one, 100)
        wait_until_applied(two, 100)
        one.kill()
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert two.metrics()("governor_exposures_held") == held(deployment, events)
    three = deployment.worker()
    more = scenario(14, users=200, events=1000)
    deployment.send(more)
    deployment.wait_until_committed()
    deployment.assert_decides(events + more)
    assert three.stop() == 0
    assert two.stop() == 0


def impression(user: str, event_id: str, ts: float, campaign: str = "C1") -> Event:
    return (
        "impressions",
        {"event_id": event_id, "user_id": user, "ts": ts, "campaign_id": campaign},
    )


def wait_until_applied(worker: Worker, count: int) -> None:
    wait_for(lambda: worker.metrics().total("governor_events_total") > count, f"{count} events")
