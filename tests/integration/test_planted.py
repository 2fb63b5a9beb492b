"""`governor verify` finds bugs of the kinds that it is there to find, planted in a worker."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, wait_for
from tests.integration.scenario import SPAN, T0, scenario

pytestmark = pytest.mark.slow

EVENTS = scenario(60, users=100, events=1500)


def finish(deployment: Deployment, fault: str | None = None) -> None:
    """Let a sound worker do what is left."""
    with deployment.worker(fault=fault):
        deployment.wait_until_committed()


def told(deployment: Deployment) -> set[str]:
    """What differs by `governor verify`: decisions, rows."""
    status, found = deployment.verify()
    assert status == (1 if found["differences"] else 0)
    for one in found["found"]:
        assert one["user"]
        assert one["place"]["topic"].startswith(deployment.topic(""))
    return {one["what"] for one in found["found"]}


@pytest.mark.parametrize(
    ("fault", "different"),
    [("rows_before_decisions", {"decision"}), ("ack_too_early", {"decision", "row"})],
)
def test_a_crash_in_a_flush_of_a_wrong_order(
    deploy: Deploy, fault: str, different: set[str]
) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    deployment.send(EVENTS)
    finish(deployment)
    # Alone in its flush: an event behind it would have the row decided anew.
    event = {"event_id": "last", "user_id": "last", "ts": T0 + SPAN, "campaign_id": "C1"}
    deployment.send([("impressions", event | {"creative_id": "C1-1"})])
    worker = deployment.worker(fault=fault, wait=False)
    assert worker.wait(120) == -signal.SIGKILL
    # A new owner evaluates all rows anew, and mends this where it comes to it before the event.
    finish(deployment, fault="never_look_again:")
    assert told(deployment) == different


def test_a_row_that_was_never_written(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    deployment.send(EVENTS)
    user = EVENTS[0][1]["user_id"]
    worker = deployment.worker(fault=f"drop_row:{user}")
    deployment.wait_until_committed()
    assert worker.stop() == 0
    status, found = deployment.verify()
    assert status == 1
    assert {(one["user"], one["what"], one["place"]["offset"]) for one in found["found"]} == {
        (user, "row", None)
    }


def test_a_worker_that_nobody_fenced_off(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.create_event_topics()
    deployment.send(EVENTS[:1])  # one flush
    sleeper = deployment.worker(fault="unfenced", failpoints="flush.before_rows=stop#2")
    deployment.wait_until_committed()
    deployment.send(EVENTS[1:700])
    wait_for(lambda: stopped(sleeper.process.pid), "sleep in the middle of a flush")
    deployment.worker()
    deployment.send(EVENTS[700:])
    sleeper.expected_to_end = True
    deployment.wait_until_committed()
    before = len(deployment.read("ledger"))
    sleeper.process.send_signal(signal.SIGCONT)
    wait_for(lambda: len(deployment.read("ledger")) > before, "rows of the sleeper")
    sleeper.kill()
    assert "row" in told(deployment)


def stopped(process: int) -> bool:
    """Whether a process is held still."""
    text = Path(f"/proc/{process}/stat").read_text()
    return text.rpartition(")")[2].split()[0] == "T"
