"""`/healthz` and `/readyz` of a real worker: what they say, and when."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from streams.broker import Cluster
from tests.integration.conftest import Deploy
from tests.integration.deployment import READY_SECONDS, Worker, free_port, wait_for
from tests.integration.scenario import scenario


def asked(worker: Worker, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body of one of the worker's pages."""
    address = worker.address.removesuffix("/metrics") + path
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


def test_a_worker_with_its_partitions_is_alive_and_ready(deploy: Deploy) -> None:
    deployment = deploy()
    worker = deployment.worker()
    wait_for(lambda: asked(worker, "/readyz")[0] == 200, "readiness")
    assert asked(worker, "/readyz") == (200, {"status": "ready", "partitions": 4})
    assert asked(worker, "/healthz") == (200, {"status": "ok"})
    metrics = worker.metrics()
    assert metrics("governor_ready") == 1
    assert metrics("governor_broker_reachable") == 1
    assert metrics("governor_stalled_seconds") == 0
    assert worker.stop() == 0


def test_a_consumer_that_falls_silent_is_found(deploy: Deploy) -> None:
    """It raises nothing and its own lag stays 0: only the topic's end tells."""
    deployment = deploy()
    deployment.create_event_topics()
    worker = deployment.worker(fault="fall_silent:", stall_timeout="2s")
    deployment.send(scenario(50, users=20, events=200))
    wait_for(lambda: asked(worker, "/healthz")[0] == 503, "a failing /healthz")
    status, body = asked(worker, "/healthz")
    assert (status, body["status"]) == (503, "stalled")
    assert "restart this worker" in body["why"]
    assert "GOVERNOR_STALL_TIMEOUT" in worker.log()
    metrics = worker.metrics()
    assert metrics("governor_guard_total", guard="stalled") == 1
    assert metrics("governor_stalled_seconds") > 2
    worker.kill()


def test_a_worker_that_waits_for_kafka_is_alive_and_says_so(deploy: Deploy, tmp_path: Path) -> None:
    """What keeps workers running must not restart one because Kafka is not up yet."""
    port = free_port()
    worker = deploy(f"127.0.0.1:{port}").worker(wait=False)
    worker.wait_for_log("trying again in")
    assert asked(worker, "/healthz") == (200, {"status": "ok"})
    status, body = asked(worker, "/readyz")
    assert (status, body["status"]) == (503, "not ready")
    assert "Kafka does not answer" in body["why"]
    metrics = worker.metrics()
    assert metrics("governor_ready") == 0
    assert metrics("governor_broker_reachable") == 0
    with Cluster(data_dir=tmp_path / "kafka", port=port):
        wait_for(lambda: asked(worker, "/readyz")[0] == 200, "readiness", READY_SECONDS)
        assert worker.metrics()("governor_broker_reachable") == 1
        assert worker.stop() == 0


@pytest.mark.slow
def test_a_broker_that_is_away_is_no_stall(deploy: Deploy, tmp_path: Path) -> None:
    with Cluster(data_dir=tmp_path / "kafka") as cluster:
        deployment = deploy(cluster.bootstrap)
        events = scenario(51, users=50, events=1000)
        worker = deployment.worker(stall_timeout="2s", flush_interval="1s")
        deployment.send(events[:500])
        deployment.wait_until_committed()
        cluster.kill()
        wait_for(lambda: asked(worker, "/readyz")[0] == 503, "a failing /readyz")
        assert "Kafka does not answer" in asked(worker, "/readyz")[1]["why"]
        assert worker.metrics()("governor_broker_reachable") == 0
        assert asked(worker, "/healthz")[0] == 200
        assert worker.metrics()("governor_guard_total", guard="broker_away") == 1
        cluster.restart()
        wait_for(lambda: asked(worker, "/readyz")[0] == 200, "readiness")
        deployment.send(events[500:])
        deployment.wait_until_committed()
        deployment.assert_decides(events)
        assert "Kafka answers again after" in worker.log()
        assert worker.metrics()("governor_guard_total", guard="stalled") == 0
        assert worker.stop() == 0
