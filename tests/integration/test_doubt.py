"""What a worker published and never wrote into its rows does not outlive it."""

from __future__ import annotations

import signal

from tests.integration.conftest import Deploy
from tests.integration.deployment import HOUR, Event
from tests.integration.scenario import T0
from tests.oracle import Rule


def impression(user: str, campaign: str, ts: float) -> Event:
    event = {"event_id": f"{user} {ts}", "user_id": user, "ts": ts, "campaign_id": campaign}
    return "impressions", event


def test_a_decision_that_only_a_dead_worker_knew_of_is_withdrawn(deploy: Deploy) -> None:
    deployment = deploy(rules=[Rule("spacing", "spacing", 1, HOUR // 60, "campaign")], partitions=1)
    deployment.create_event_topics()
    deployment.send([impression("someone", "C1", T0)])
    worker = deployment.worker(wait=False, failpoints="flush.before_rows=kill#1")
    assert worker.wait(120) == -signal.SIGKILL
    assert deployment.decisions().keys() == {"someone"}
    # By the newest event both of someone's throttles have run out for everybody, so that there is
    # as little to publish as the row, which was never written, seems to have published.
    deployment.send([impression("someone", "C2", T0 + 600), impression("else", "C1", T0 + 10_000)])
    with deployment.worker():
        deployment.wait_until_committed()
    assert deployment.decisions().keys() == {"else"}
    assert deployment.verify()[0] == 0
