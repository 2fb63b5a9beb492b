"""`/metrics` of a real worker."""

from __future__ import annotations

import pytest

from governor.events import Reason
from tests.integration.conftest import Deploy
from tests.integration.scenario import RULES, scenario

TOPICS = ("impressions", "engagements", "controls")
OUTCOMES = ("applied", "duplicate", "late", "overflow", "rejected")

SINGLE = (
    "governor_exposures_held",
    "governor_users",
    "governor_overflow_total",
    "governor_changelog_lag_rows",
    "governor_changelog_rows_total",
    "governor_pending_events",
    "governor_ledger_bytes",
    "governor_event_to_decision_seconds_count",
    "governor_event_to_decision_seconds_sum",
)


def test_every_series_is_there_from_the_start(deploy: Deploy) -> None:
    metrics = deploy().worker().metrics()
    for topic in TOPICS:
        for outcome in OUTCOMES:
            assert metrics("governor_events_total", topic=topic, outcome=outcome) == 0
        for reason in Reason:
            assert metrics("governor_dead_letters_total", topic=topic, reason=reason) == 0
        assert metrics("governor_decode_errors_total", topic=topic) == 0
        assert metrics("governor_batch_events_count", topic=topic) == 0
        assert metrics("governor_consumer_lag_records", topic=topic) == 0
    for rule in RULES:
        assert metrics("governor_decisions_total", rule=rule.name, state="throttled") == 0
    for name in SINGLE:
        assert metrics(name) == 0
    for name in ("governor_asyncio_tasks", "governor_threads"):
        assert metrics(name) > 0
    assert metrics.total("governor_build_info", policy="test") == 1
    assert all(name.startswith(("governor_", "process_")) for name, _ in metrics.samples)


def test_values_are_those_of_what_was_fed_and_name_no_user(deploy: Deploy) -> None:
    # Nobody is observed: with the first curves campaigns would have series of their own.
    deployment = deploy(sample_people="0")
    deployment.create_event_topics()
    worker = deployment.worker()
    events = scenario(40, users=60, events=1500)
    deployment.send(events)
    bad = [("impressions", b"user 40/bad", b"{}"), ("controls", None, b"user 40/bad")]
    deployment.send_raw(bad)
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    before = worker.metrics()
    series = before.samples.keys()

    expected = deployment.oracle(events)
    distinct = expected.held()
    assert before("governor_users") == len(expected.rows)
    assert before("governor_exposures_held") == distinct
    assert before.total("governor_events_total", outcome="applied") == distinct
    assert before.total("governor_events_total", outcome="duplicate") == len(events) - distinct
    for topic in TOPICS:
        sent = sum(one == topic for one, _ in events) + sum(one == topic for one, _, _ in bad)
        assert before.total("governor_events_total", topic=topic) == sent
        assert before("governor_batch_events_sum", topic=topic) == sent
        assert before("governor_batch_events_count", topic=topic) >= 1
        assert before("governor_consumer_lag_records", topic=topic) == 0
    missing = before("governor_dead_letters_total", topic="impressions", reason="missing_field")
    assert missing == 1
    assert before("governor_dead_letters_total", topic="controls", reason="malformed") == 1
    assert before.total("governor_decode_errors_total") == 2
    assert before("governor_event_to_decision_seconds_count") == len(events) + len(bad)
    assert before("governor_event_to_decision_seconds_bucket", le="+Inf") == len(events) + len(bad)
    assert before("governor_event_to_decision_seconds_sum") > 0
    assert before("governor_pending_events") == 0
    assert before("governor_changelog_lag_rows") == 0
    assert before("governor_overflow_total") == 0

    published = [one for one in deployment.read("decisions") if one.key]  # not the fences
    withdrawn = sum(one.value is None for one in published)
    assert before("governor_decision_records_total", kind="withdrawn") == withdrawn
    assert before("governor_decision_records_total", kind="published") == len(published) - withdrawn
    for rule in RULES:
        fired = sum(
            throttle["reasons"].count(rule.name)
            for one in published
            if one.value is not None
            for throttle in one.json()["throttles"]
        )
        counted = before("governor_decisions_total", rule=rule.name, state="throttled")
        assert counted == fired, rule.name
        assert fired, f"{rule.name} never fired: the events are too tame"
    changes = [one for one in deployment.read("ledger") if one.key and one.key[:1] == b"u"]
    assert before("governor_changelog_rows_total") == len(changes)

    text = worker.scrape()
    assert "user 40" not in text
    assert worker.metrics().samples.keys() == series
    assert worker.stop() == 0


@pytest.mark.slow
def test_rows_that_are_full_are_counted(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    worker = deployment.worker(row_limit="12")
    events = [
        (
            "impressions",
            {"event_id": f"e{n}", "user_id": "u", "ts": 1_790_000_000 + n, "campaign_id": "C"},
        )
        for n in range(30)
    ]
    deployment.send(events)
    deployment.wait_until_committed()
    metrics = worker.metrics()
    assert metrics("governor_overflow_total") == 18
    # Twelve exposures, and since when the row has been cut.
    assert metrics("governor_exposures_held") == 12 + 1
    assert worker.stop() == 0


def test_lag_is_what_is_not_acked_and_decisions_wait_for_no_rows(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(41, users=60, events=1000)
    deployment.send(events)
    worker = deployment.worker(fault="never_acknowledge:ledger")
    worker.wait_for_metric("governor_changelog_lag_rows")
    worker.wait_for_metric("governor_pending_events", len(events))
    lag = worker.metrics().total("governor_consumer_lag_records")
    assert lag == len(events)
    worker.wait_for_metric("governor_event_to_decision_seconds_count", len(events))
    deployment.assert_decides(events)
    assert worker.metrics()("governor_changelog_rows_total") == 0
    more = scenario(42, users=60, events=500)
    deployment.send(more)
    worker.wait_for_metric("governor_event_to_decision_seconds_count", len(events) + len(more))
    assert deployment.committed()[0] == 0
    worker.kill()
    deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides([*events, *more])
