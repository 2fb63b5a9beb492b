"""Changelog records that are not rows, or not of this version: stop, or skip and count."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, wait_for
from tests.integration.scenario import scenario

BROKEN = {
    "damaged": "is damaged",
    "truncated": "is damaged",
    "foreign": "not the governor's",
    "newer": "newer version",
}


def spoil(how: str, value: bytes) -> bytes:
    """A row's value, made unreadable."""
    return {
        "damaged": value[:-9] + bytes([value[-9] ^ 1]) + value[-8:],
        "truncated": value[: len(value) // 2],
        "foreign": b'{"some": "json of another system, long enough to be a row of the governor"}',
        "newer": value[:1] + b"\x7f" + value[2:],
    }[how]


def spoiled(deployment: Deployment, *ways: str) -> list[bytes]:
    """Overwrite the rows of one user for each way; their keys."""
    rows = [one for one in deployment.read("ledger") if one.key and one.key[:1] == b"u"]
    chosen = list({one.key: one for one in rows if one.value}.values())[: len(ways)]
    for how, row in zip(ways, chosen, strict=True):
        assert row.value is not None
        message = ("ledger", row.key, spoil(how, row.value))
        deployment.send_raw([message], partition=row.partition)
    return [row.key or b"" for row in chosen]


@pytest.mark.parametrize(
    "how", ["damaged", *(pytest.param(each, marks=pytest.mark.slow) for each in list(BROKEN)[1:])]
)
def test_a_row_that_cannot_be_read_stops_the_worker(deploy: Deploy, how: str) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    deployment.send(scenario(60, users=30, events=300))
    with deployment.worker():
        deployment.wait_until_committed()
    before = deployment.committed()
    spoiled(deployment, how)
    worker = deployment.worker(wait=False, last_scrape="1m")
    worker.stopped_by("unreadable_row")
    log = worker.log()
    assert BROKEN[how] in log
    assert f"{deployment.topic('ledger')}[0]: changelog record at offset" in log
    assert "GOVERNOR_UNREADABLE_ROWS=skip" in log
    assert deployment.committed() == before


def test_rows_that_cannot_be_read_are_skipped_and_counted_where_that_is_set(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    events = scenario(61, users=30, events=300)
    deployment.send(events)
    with deployment.worker():
        deployment.wait_until_committed()
    users = len(deployment.oracle(events).rows)
    keys = spoiled(deployment, *BROKEN)
    worker = deployment.worker(unreadable_rows="skip")
    wait_for(lambda: worker.metrics()("governor_ready") == 1, "readiness")
    metrics = worker.metrics()
    assert metrics("governor_unreadable_rows_total") == len(keys)
    # The rows that these records replaced were read before and are as old as the spoilt ones.
    assert metrics("governor_users") == users
    for said in BROKEN.values():
        assert said in worker.log()
    more = scenario(62, users=30, events=300)
    deployment.send(more)
    deployment.wait_until_committed()
    assert worker.stop() == 0
