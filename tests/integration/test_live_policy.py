"""A policy pushed, shown, compared and rolled back while a worker runs, through a real Kafka."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from tests.integration.commands import governor
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, Worker, run, wait_for
from tests.integration.events import control, shown
from tests.integration.scenario import T0

BEFORE = "version: before\nrules:\n  - {name: daily, cap: 3, per: campaign, window: 1d}\n"
AFTER = "version: after\nrules:\n  - {name: daily, cap: 2, per: campaign, window: 1d}\n"
USERS = [f"u{n}" for n in range(200)]


@pytest.fixture
def governed(deploy: Deploy) -> tuple[Deployment, Worker]:
    """Two exposures of each of two hundred users, all under the cap of three."""
    deployment = deploy(policy=BEFORE)
    worker = deployment.worker()
    deployment.send(shown(user, n) for user in USERS for n in range(2))
    deployment.wait_until_committed()
    assert deployment.published() == {}
    return deployment, worker


def written(deployment: Deployment, name: str, text: str) -> Path:
    path = deployment.folder / name
    path.write_text(text)
    return path


def by_version(deployment: Deployment) -> dict[str, int]:
    """Decisions by the version of the policy that they name."""
    versions = [record["policy"] for record in deployment.published().values()]
    return {version: versions.count(version) for version in versions}


def test_all_rows_are_evaluated_again_under_a_policy_that_is_pushed(
    governed: tuple[Deployment, Worker],
) -> None:
    """Nobody sends an event; it waits for --confirm, and a rollback takes it all back."""
    deployment, worker = governed
    path = written(deployment, "after.yaml", AFTER)
    told = governor(deployment, "policy", "diff", path, "--json")
    differences = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert [one["change"] for one in differences] == ["all changes", "changed daily"]
    assert {(one["users"], one["throttled"], one["freed"]) for one in differences} == {
        (len(USERS), len(USERS), 0)
    }
    refused = governor(deployment, "policy", "push", path, status=1)
    assert "--confirm" in refused
    assert "200" in refused
    assert deployment.published() == {}

    governor(deployment, "policy", "push", path, "--confirm")
    wait_for(lambda: by_version(deployment) == {"after": len(USERS)}, "decisions of all rows")
    wait_for(lambda: worker.metrics()("governor_policy_rows_left") == 0, "the end of rows left")
    assert all(
        one["throttles"][0]["until"] == T0 + 86400 for one in deployment.published().values()
    )
    shows = governor(deployment, "policy", "show")
    assert "* after" in shows
    assert "  before" in shows

    governor(deployment, "policy", "rollback")
    wait_for(lambda: by_version(deployment) == {}, "withdrawal of all decisions")
    assert "* before" in governor(deployment, "policy", "show")
    # What an event decides is by the policy that governs, also after a restart with another file.
    deployment.policy_file.write_text(AFTER)
    assert worker.stop() == 0
    worker = deployment.worker()
    deployment.send([shown("u1", 5)])
    deployment.wait_until_committed()
    assert by_version(deployment) == {"before": 1}
    assert "policy push" in worker.log()


def test_a_policy_that_cannot_be_used_is_refused_loudly_and_the_old_one_goes_on(
    governed: tuple[Deployment, Worker],
) -> None:
    """Before it is on the topic, and where somebody has put it there."""
    deployment, worker = governed
    bad = AFTER.replace("window: 1d", "window: 1 fortnight").replace("after", "bad")
    told = governor(deployment, "policy", "push", written(deployment, "bad.yaml", bad), status=2)
    assert "line 3" in told
    assert worker.metrics()("governor_policy_refused_total") == 0

    rule = {"name": "daily", "cap": 2, "per": "campaign", "window": "400d"}
    pushed = {"version": "bad", "policy": json.dumps({"rules": [rule]}), "pushed_at": 1}
    strange = json.dumps(pushed | {"policy": "{"}).encode(), json.dumps(pushed | {"version": 7})
    values = json.dumps(pushed).encode(), b"{", strange[0], strange[1].encode()
    for number, value in enumerate(values, start=1):
        put(deployment, b"current", value)
        worker.wait_for_metric("governor_policy_refused_total", number)
    assert '"level": "critical"' in worker.log()
    assert "version bad is refused, version before goes on" in worker.log()
    deployment.send([shown("u1", 5)])
    deployment.wait_until_committed()
    assert by_version(deployment) == {"before": 1}
    # So it does after a restart, whatever the file says by now, be it under the same version.
    deployment.policy_file.write_text(AFTER.replace("after", "before"))
    assert worker.stop() == 0
    worker = deployment.worker()
    deployment.send([shown("u2", 5), shown("u3", 5, campaign_id="C2")])
    deployment.wait_until_committed()
    assert by_version(deployment) == {"before": 2}
    assert "version bad is refused, what governed before it goes on" in worker.log()
    good = written(deployment, "after.yaml", AFTER)
    governor(deployment, "policy", "push", good, "--confirm")
    wait_for(lambda: by_version(deployment) == {"after": len(USERS)}, "decisions by the next one")
    assert worker.stop() == 0


def put(deployment: Deployment, key: bytes, value: bytes) -> None:
    """Write a record to the policy topic, as no command would."""

    async def send() -> None:
        async with AIOKafkaProducer(**deployment.kafka, acks="all") as producer:
            await producer.send_and_wait(deployment.topic("policy"), value, key)

    run(send())


def test_people_who_are_evaluated_again_keep_what_they_said(
    governed: tuple[Deployment, Worker],
) -> None:
    """Under a policy that holds nothing back controls are left."""
    deployment, _ = governed
    deployment.send([control("opt_out", "u3", 10, label="campaign:C1"), shown("u4", 10)])
    deployment.wait_until_committed()
    assert deployment.published().keys() == {"u3", "u4"}
    lax = AFTER.replace("cap: 2", "cap: 100")
    governor(deployment, "policy", "push", written(deployment, "lax.yaml", lax))
    wait_for(lambda: deployment.published().keys() == {"u3"}, "what people said, and no more")
    assert deployment.published()["u3"]["throttles"][0]["reasons"] == ["opt_out"]
