"""Whose fault it is: an event that breaks our code goes, a Kafka that fails stops the worker."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Deploy
from tests.integration.scenario import T0, scenario


@pytest.mark.parametrize(
    "fault",
    ["raise_on_user:poison", pytest.param("raise_in_apply:poison", marks=pytest.mark.slow)],
)
def test_an_event_that_breaks_the_code_is_found_and_quarantined(deploy: Deploy, fault: str) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    good = scenario(30, users=50, events=800)
    impressions = [event for event in good if event[0] == "impressions"]
    poison = (
        "impressions",
        {"event_id": "p", "user_id": "poison", "ts": T0 + 60, "campaign_id": "C1"},
    )
    middle = len(impressions) // 2
    deployment.send([*impressions[:middle], poison, *impressions[middle:], poison])
    deployment.send([event for event in good if event[0] != "impressions"])
    worker = deployment.worker(fault=fault)
    deployment.wait_until_committed()

    letters = deployment.dead_letters()
    assert [letter["reason"] for letter in letters] == ["quarantined"] * 2
    assert [letter["offset"] for letter in letters] == [middle, len(impressions) + 1]
    for letter in letters:
        assert "injected for poison" in letter["detail"]
        assert '"poison"' in letter["message"]
        assert letter["topic"] == deployment.topic("impressions")
        assert letter["partition"] == 0
    metrics = worker.metrics()
    quarantined = metrics("governor_dead_letters_total", topic="impressions", reason="quarantined")
    assert quarantined == 2
    assert metrics("governor_events_total", topic="impressions", outcome="rejected") == 2
    assert metrics("governor_decode_errors_total", topic="impressions") == 0
    # Halves of a batch are applied again, which is no delivery: each message has one outcome.
    assert metrics.total("governor_events_total", topic="impressions") == len(impressions) + 2
    if fault.startswith("raise_on_user"):
        deployment.assert_decides(good)
        assert metrics("governor_users") == len(deployment.oracle(good).rows)
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "topic",
    [
        "ledger",
        pytest.param("decisions", marks=pytest.mark.slow),
        pytest.param("deadletters", marks=pytest.mark.slow),
    ],
)
def test_a_failing_kafka_stops_the_worker_with_nothing_acked(deploy: Deploy, topic: str) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    good = scenario(31, users=50, events=800)
    deployment.send(good)
    deployment.send_raw([("impressions", None, b"no event")])
    worker = deployment.worker(fault=f"fail_before:{topic}", wait=False)
    assert worker.wait(120) == 1
    assert f"injected before {topic}" in worker.log()
    committed, end = deployment.committed()
    # A flush without dead letters may have gone before the one that failed.
    assert committed < end if topic == "deadletters" else committed == 0

    again = deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides(good)
    assert again.metrics()("governor_exposures_held") == deployment.oracle(good).held()
    assert {letter["reason"] for letter in deployment.dead_letters()} == {"malformed"}
    assert again.stop() == 0


@pytest.mark.slow
def test_a_kafka_that_never_acknowledges_does_not_hold_up_a_stop(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    good = scenario(32, users=50, events=800)
    deployment.send(good)
    worker = deployment.worker(fault="never_acknowledge:ledger")
    worker.wait_for_metric("governor_pending_events")
    assert worker.stop() == 1
    assert "not stopped within" in worker.log()
    assert deployment.committed()[0] == 0
    again = deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides(good)
    assert again.stop() == 0
