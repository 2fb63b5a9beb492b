"""What a worker does when the ground under it is not what it was, through a real Kafka."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from streams.broker import Cluster
from tests.integration.conftest import Deploy
from tests.integration.deployment import EVENT_TOPICS, Deployment, Event, Worker, run, wait_for
from tests.integration.scenario import T0, scenario


def administer(deployment: Deployment, work: Callable[[Any], Awaitable[object]]) -> None:
    """Do something with an admin client."""

    async def do() -> None:
        admin = AIOKafkaAdminClient(**deployment.kafka)
        await admin.start()
        try:
            await work(admin)
        finally:
            await admin.close()

    run(do())


def delete_topic(deployment: Deployment, name: str) -> None:
    topic = deployment.topic(name)
    administer(deployment, lambda admin: admin.delete_topics([topic]))
    wait_for(lambda: name not in deployment.partition_counts(), f"end of {name}")


def rewind(deployment: Deployment) -> None:
    """As kafka-consumer-groups.sh --reset-offsets --to-earliest does."""

    async def do() -> None:
        tps = [
            TopicPartition(deployment.topic(name), n)
            for name in EVENT_TOPICS
            for n in range(deployment.partitions)
        ]
        consumer = AIOKafkaConsumer(
            **deployment.kafka, group_id=deployment.settings["group"], enable_auto_commit=False
        )
        async with consumer:
            consumer.assign(tps)
            await consumer.commit(dict.fromkeys(tps, 0))

    run(do())


def commit_of(deployment: Deployment, name: str) -> Any:
    """What the group has committed of partition 0, the metadata too."""
    found = []

    async def ask(admin: Any) -> None:
        found.append(await admin.list_consumer_group_offsets(deployment.settings["group"]))

    administer(deployment, ask)
    return found[0][TopicPartition(deployment.topic(name), 0)]


def commit(deployment: Deployment, name: str, offset: Any) -> None:
    async def do() -> None:
        tp = TopicPartition(deployment.topic(name), 0)
        consumer = AIOKafkaConsumer(
            **deployment.kafka, group_id=deployment.settings["group"], enable_auto_commit=False
        )
        async with consumer:
            consumer.assign([tp])
            await consumer.commit({tp: offset})

    run(do())


def counted(worker: Worker, guard: str) -> float:
    return worker.metrics()("governor_guard_total", guard=guard)


def test_a_topic_made_anew_is_read_from_its_beginning(deploy: Deploy) -> None:
    """Also where it has grown past the committed offset, which alone would tell nothing.

    Kafka forgets the offsets of a deleted topic, unless they are committed, or mirrored, later.
    """
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    first = [each for each in scenario(70, users=40, events=300) if each[0] == "impressions"]
    deployment.send(first)
    with deployment.worker():
        deployment.wait_until_committed()
    before = commit_of(deployment, "impressions")
    delete_topic(deployment, "impressions")
    deployment.create_topics({"impressions": 1})
    commit(deployment, "impressions", before)
    second = [each for each in scenario(71, users=40, events=600) if each[0] == "impressions"]
    deployment.send(second)
    with deployment.worker() as worker:
        deployment.wait_until_committed()
        deployment.assert_decides(first + second)
        assert counted(worker, "input_recreated") == 1
        assert "deleted and created anew: reading it from its beginning" in worker.log()


def test_a_topic_made_anew_under_a_worker_stops_it(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    worker = deployment.worker(stall_timeout="4s", last_scrape="1m")
    wait_for(lambda: worker.metrics()("governor_ready") == 1, "readiness")
    delete_topic(deployment, "controls")
    deployment.create_topics({"controls": 1})
    worker.stopped_by("input_recreated")
    assert f"the topic {deployment.topic('controls')}" in worker.log()
    assert "A restart" in worker.log()


@pytest.mark.slow
def test_events_deleted_before_they_were_read_are_told(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    events = scenario(72, users=40, events=300)
    deployment.send(events)
    with deployment.worker():
        deployment.wait_until_committed()
    deployment.send(scenario(73, users=40, events=300))
    tp = TopicPartition(deployment.topic("impressions"), 0)
    administer(deployment, lambda admin: admin.delete_records({tp: RecordsToDelete(-1)}))
    with deployment.worker() as worker:
        wait_for(lambda: counted(worker, "input_expired") == 1, "input_expired")
        assert "retention.ms" in worker.log()


def test_more_partitions_are_refused(deploy: Deploy) -> None:
    deployment = deploy(partitions=2, last_scrape="1m")
    deployment.create_event_topics()
    deployment.send(scenario(74, users=40, events=300))
    worker = deployment.worker(stall_timeout="4s")
    deployment.wait_until_committed()
    counts = {
        deployment.topic(name): NewPartitions(total_count=3)
        for name in deployment.partition_counts()
    }
    administer(deployment, lambda admin: admin.create_partitions(counts))
    worker.stopped_by("partitions_changed")
    assert "has 3 partitions and had 2" in worker.log()
    again = deployment.worker(wait=False)
    again.stopped_by("partitions_changed")
    assert "has 3 partitions and had 2" in again.log()
    assert "GOVERNOR_TOPIC_PREFIX" in again.log()


@pytest.mark.parametrize("how", ["deleted", pytest.param("emptied", marks=pytest.mark.slow)])
def test_a_lost_changelog_stops_the_start_until_somebody_decides(deploy: Deploy, how: str) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    events = scenario(75, users=40, events=300)
    deployment.send(events)
    with deployment.worker():
        deployment.wait_until_committed()
    if how == "deleted":
        delete_topic(deployment, "ledger")
    else:
        # Kafka deletes no records of a topic that is only compacted.
        change_setting(deployment, "ledger", "cleanup.policy", "compact,delete")
        tp = TopicPartition(deployment.topic("ledger"), 0)
        administer(deployment, lambda admin: admin.delete_records({tp: RecordsToDelete(-1)}))
    refused = deployment.worker(wait=False, last_scrape="1m")
    refused.stopped_by("changelog_lost")
    assert "has lost rows of 1 partitions" in refused.log()
    assert "--reset-offsets --to-earliest" in refused.log()
    rewind(deployment)
    with deployment.worker() as worker:
        deployment.wait_until_committed()
        held = deployment.oracle(events).held()
        assert worker.metrics()("governor_exposures_held") == held


def test_a_clock_that_jumps_changes_no_decision(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    events = scenario(76, users=60, events=900)
    deployment.send(events[:300])
    worker = deployment.worker(fault="jump_clock:315360000", stall_timeout="2s")
    deployment.wait_until_committed()
    wait_for(lambda: counted(worker, "clock_jumped") >= 1, "a jump of the clock")
    assert "clock jumped by +315360000 s" in worker.log()
    deployment.send(events[300:])
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert worker.metrics()("governor_stalled_seconds") == 0
    assert worker.stop() == 0


def test_a_record_too_large_for_its_topic_stops_with_what_to_do(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    deployment.create_topics({"decisions": 1, "ledger": 1, "deadletters": 1})
    change_setting(deployment, "ledger", "max.message.bytes", "2000")
    deployment.send(scenario(77, users=60, events=900))
    worker = deployment.worker(wait=False, last_scrape="1m")
    worker.stopped_by("message_too_large")
    assert "max.message.bytes" in worker.log()
    assert deployment.topic("ledger") in worker.log()
    assert deployment.committed()[0] == 0


def test_a_changelog_kept_otherwise_is_told_with_the_command(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_topics({"ledger": 1})
    with deployment.worker() as worker:
        assert counted(worker, "topic_settings") == 1
        assert "kafka-configs.sh" in worker.log()
        assert f"--entity-name {deployment.topic('ledger')}" in worker.log()
        assert "cleanup.policy=compact" in worker.log()


def change_setting(deployment: Deployment, name: str, key: str, value: str) -> None:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    resource = ConfigResource(
        ConfigResourceType.TOPIC, deployment.topic(name), configs={key: value}
    )
    administer(deployment, lambda admin: admin.alter_configs([resource]))


@pytest.mark.slow
def test_the_loss_of_a_node_of_three_costs_nothing(deploy: Deploy) -> None:
    """Leaders and the group's coordinator move; every record is on two nodes at least."""
    with Cluster(nodes=3) as cluster:
        deployment = deploy(cluster.bootstrap)
        events = scenario(78, users=100, events=3000)
        worker = deployment.worker(replication="3", stall_timeout="8s")
        assert deployment.topic_configuration("ledger")["min.insync.replicas"] == "2"
        deployment.send(events[:1000])
        deployment.wait_until_committed()
        with deployment.stream(events[1000:]):
            cluster.kill(coordinator(deployment))
        deployment.wait_until_committed(150)
        deployment.assert_decides(events)
        held = deployment.oracle(events).held()
        assert worker.metrics()("governor_exposures_held") == held
        wait_for(lambda: counted(worker, "leader_moved") >= 1, "leader_moved")
        wait_for(lambda: counted(worker, "coordinator_moved") >= 1, "coordinator_moved")
        assert counted(worker, "stalled") == 0
        assert worker.stop() == 0


def coordinator(deployment: Deployment) -> int:
    """The node that coordinates the group."""
    found = []

    async def ask(admin: Any) -> None:
        found.append(await admin.find_coordinator(deployment.settings["group"]))

    administer(deployment, ask)
    return int(found[0])


def test_an_event_that_ends_the_process_is_found_and_quarantined(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    good = [each for each in scenario(79, users=40, events=400) if each[0] == "impressions"]
    poison = (
        "impressions",
        {"event_id": "p", "user_id": "poison", "ts": T0 + 60, "campaign_id": "C1"},
    )
    middle = len(good) // 2
    deployment.send([*good[:middle], poison, *good[middle:]])
    for _ in range(2):
        worker = deployment.worker(fault="die_on_user:poison", crash_attempts="2", wait=False)
        assert worker.wait(120) == -signal.SIGSEGV
    worker = deployment.worker(fault="die_on_user:poison", crash_attempts="2")
    deployment.wait_until_committed()
    (letter,) = deployment.dead_letters()
    assert (letter["reason"], letter["offset"]) == ("quarantined", middle)
    assert counted(worker, "crash_loop") == 1
    deployment.assert_decides(good)
    assert worker.stop() == 0


def test_snapshots_shorten_a_restart_and_a_full_disk_only_costs_them(
    deploy: Deploy, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshots"
    deployment = deploy(partitions=2, snapshots=str(folder))
    deployment.create_event_topics()
    events = scenario(80, users=100, events=3000)
    deployment.send(events[:1000])
    with deployment.worker() as worker:
        deployment.wait_until_committed()
    assert "GOVERNOR_SNAPSHOTS" not in worker.log()
    assert len(list(folder.iterdir())) == 2
    with deployment.worker() as worker:
        wait_for(lambda: worker.metrics()("governor_ready") == 1, "readiness")
        assert snapshots(worker, "loaded") == 2
        deployment.send(events[1000:2000])
        deployment.wait_until_committed()
        deployment.assert_decides(events[:2000])
    before = {file: file.read_bytes() for file in folder.iterdir()}
    # A refusal of the kernel's, as a full disk's is.
    worker = deployment.worker(fault="limit_files:4096", snapshot_interval="1s")
    deployment.send(events[2000:])
    wait_with_events(deployment, lambda: snapshots(worker, "failed") >= 1, "a failure", events)
    assert counted(worker, "snapshot_failed") >= 1
    deployment.wait_until_committed()
    assert worker.stop() == 0
    assert "GOVERNOR_SNAPSHOTS" in worker.log()
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    damaged = next(iter(before))
    damaged.write_bytes(before[damaged][:-5] + b"wrong")
    with deployment.worker() as worker:
        wait_for(lambda: worker.metrics()("governor_ready") == 1, "readiness")
        assert (snapshots(worker, "loaded"), snapshots(worker, "discarded")) == (1, 1)
        assert counted(worker, "snapshot_discarded") == 1
        deployment.assert_decides(events)
        held = deployment.oracle(events).held()
        assert worker.metrics()("governor_exposures_held") == held


def test_a_stop_while_rows_are_evaluated_again_leaves_snapshots(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(partitions=2)
    deployment.create_event_topics()
    events = scenario(82, users=100, events=1000)
    deployment.send(events)
    with deployment.worker():
        deployment.wait_until_committed()
    folder = tmp_path / "snapshots"
    with deployment.worker(snapshots=str(folder), failpoints="flush.begin=pause:2") as worker:
        # A worker evaluates all rows again when it starts; these wait for a flush.
        worker.wait_for_metric("governor_changelog_lag_rows")
    assert len(list(folder.iterdir())) == 2
    with deployment.worker(snapshots=str(folder)) as worker:
        wait_for(lambda: worker.metrics()("governor_ready") == 1, "readiness")
        assert snapshots(worker, "loaded") == 2
        deployment.assert_decides(events)


def wait_with_events(
    deployment: Deployment, condition: Callable[[], bool], what: str, events: Sequence[Event]
) -> None:
    """Wait for what comes with a flush only: some events are sent again, which changes nothing."""

    def found() -> bool:
        deployment.send(events[:20])
        return condition()

    wait_for(found, what)


def snapshots(worker: Worker, outcome: str) -> float:
    return worker.metrics()("governor_snapshots_total", outcome=outcome)


def wait_for_snapshot(deployment: Deployment, worker: Worker, events: Sequence[Event]) -> None:
    wait_with_events(deployment, lambda: snapshots(worker, "written") >= 1, "a snapshot", events)


@pytest.mark.slow
def test_snapshots_are_taken_under_load_and_after_a_kill_nothing_differs(
    deploy: Deploy, tmp_path: Path
) -> None:
    deployment = deploy(snapshots=str(tmp_path / "snapshots"), snapshot_interval="1s")
    deployment.create_event_topics()
    events = scenario(81, users=200, events=9000)
    worker = deployment.worker()
    for part in (events[:3000], events[3000:6000]):
        with deployment.stream(part):
            wait_for_snapshot(deployment, worker, part)
            worker.kill()
            worker = deployment.worker()
    deployment.send(events[6000:])
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert snapshots(worker, "loaded") >= 1
    held = deployment.oracle(events).held()
    assert worker.metrics()("governor_exposures_held") == held
    assert worker.stop() == 0
