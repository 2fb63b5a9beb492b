"""Partitions that change hands: by a kill, by a sleep in the middle of a flush, by a new worker."""

from __future__ import annotations

import signal

import pytest

from governor.partitioning import partition_of
from tests.integration.conftest import Deploy
from tests.integration.deployment import READY_SECONDS, Event, Worker, wait_for
from tests.integration.scenario import SPAN, T0, scenario
from tests.integration.test_planted import stopped
from tests.integration.test_worker import held

EVENTS = scenario(80, users=100, events=2500)


def test_a_standby_takes_over_what_it_holds_without_reading_it_again(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    one, two = deployment.two_workers()
    deployment.send(EVENTS[:1500])
    deployment.wait_until_committed()
    # Rows come in order: who holds the last of a partition has read all before it.
    seen = EVENTS[:1500] + newcomers(4)
    deployment.send(seen[1500:])
    deployment.wait_until_committed()
    total = held(deployment, seen)
    wait_for(lambda: held_by(two) == total, "rows of both halves")
    before = two.metrics()("governor_changelog_read_records_total")
    one.kill()
    wait_for(lambda: two.partitions == 4, "takeover")
    # A fence for each partition.
    assert two.metrics()("governor_changelog_read_records_total") <= before + 4
    assert two.metrics()("governor_exposures_held") == total
    deployment.send(EVENTS[1500:])
    deployment.wait_until_committed()
    everything = seen + EVENTS[1500:]
    deployment.assert_decides(everything)
    assert two.metrics()("governor_exposures_held") == held(deployment, everything)
    assert two.stop() == 0


def newcomers(partitions: int) -> list[Event]:
    """One exposure in each partition, of a person who has no other."""
    people = {partition_of(f"newcomer {n}".encode(), partitions): n for n in range(100)}
    assert len(people) == partitions
    return [
        (
            "impressions",
            {
                "event_id": f"newcomer-{n}",
                "user_id": f"newcomer {n}",
                "campaign_id": "C0",
                "ts": T0 + SPAN,
            },
        )
        for n in people.values()
    ]


def held_by(worker: Worker) -> float:
    """Entries of its own partitions and of those that it has copies of."""
    metrics = worker.metrics()
    return metrics("governor_exposures_held") + metrics("governor_standby_exposures_held")


def test_partitions_that_leave_take_their_rows_with_them(deploy: Deploy) -> None:
    deployment = deploy(standbys="0")
    deployment.create_event_topics()
    one = deployment.worker()
    deployment.send(EVENTS[:1500])
    deployment.wait_until_committed()
    alone = one.metrics()
    two = deployment.worker()
    wait_for(lambda: one.partitions == two.partitions == 2, "two halves")
    wait_for(lambda: one.metrics()("governor_partitions") == 2, "ledgers gone")
    for name in ("governor_users", "governor_exposures_held"):
        assert one.metrics()(name) + two.metrics()(name) == alone(name)
    for name in ("governor_ledger_bytes", "governor_ads"):
        assert one.metrics()(name) < alone(name)
    assert one.metrics()("governor_pending_events") == 0
    deployment.send(EVENTS[1500:])
    deployment.wait_until_committed()
    deployment.assert_decides(EVENTS)
    assert one.stop() == 0
    assert two.stop() == 0


def test_a_stop_in_the_middle_of_a_rebalance_waits_for_nobody(deploy: Deploy) -> None:
    deployment = deploy(session_timeout="30s")
    deployment.create_event_topics()
    one, two = deployment.two_workers()
    deployment.send(EVENTS[:1500])
    deployment.wait_until_committed()
    # What a third one begins cannot end before this one has joined too.
    two.process.send_signal(signal.SIGSTOP)
    three = deployment.worker(wait=False)
    wait_for(lambda: one.metrics()("governor_ready") == 0, "rebalance", READY_SECONDS)
    assert one.stop() == 0
    assert "not stopped within" not in one.log()
    two.process.send_signal(signal.SIGCONT)
    wait_for(lambda: three.partitions == 2, "half of the partitions")
    deployment.send(EVENTS[1500:])
    deployment.wait_until_committed()
    deployment.assert_decides(EVENTS)
    assert two.stop() == 0
    assert three.stop() == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("without_lease:", "another worker has taken the partition over"),
        pytest.param(None, "stood still", marks=pytest.mark.slow),
    ],
)
def test_a_sleeper_that_wakes_in_mid_flush_overwrites_nothing(
    deploy: Deploy, fault: str | None, told: str
) -> None:
    deployment = deploy(standbys="0")
    deployment.create_event_topics()
    sleeper = deployment.worker(
        fault=fault, failpoints="flush.before_rows=stop#1", last_scrape="1m"
    )
    sleeper.expected_to_end = True
    deployment.send(EVENTS[:1000])
    wait_for(lambda: stopped(sleeper.process.pid), "sleep in the middle of a flush")
    heir = deployment.worker()
    wait_for(lambda: heir.partitions == 4, "takeover")
    deployment.send(EVENTS[1000:])
    deployment.wait_until_committed()
    sleeper.process.send_signal(signal.SIGCONT)
    sleeper.stopped_by("fenced")
    assert told in sleeper.log()
    deployment.assert_decides(EVENTS)
    wait_for(lambda: heir.partitions == 4, "the group after the sleeper's end")
    assert heir.stop() == 0
    again = deployment.worker()
    wait_for(lambda: again.partitions == 4, "recovery")
    assert again.metrics()("governor_exposures_held") == held(deployment, EVENTS)
    assert again.stop() == 0
