"""The policy topic and the kill switch through a real Kafka, by the command line and a reader."""

from __future__ import annotations

import json

from tests.integration.commands import governor, seen_by
from tests.integration.conftest import Deploy
from tests.integration.deployment import Event, wait_for
from tests.integration.scenario import T0

LOOSE = "version: loose\nrules:\n  - {name: day, cap: 100, per: user, window: 1d}\n"
TIGHT = "version: tight\nrules:\n  - {name: day, cap: 2, per: user, window: 1d}\n"
BAD = "version: bad\nrules:\n  - {name: day, cap: 0, per: user, window: 1d}\n"
TOO_FAR = "version: far\nrules:\n  - {name: day, cap: 2, per: user, window: 30d}\n"

AT = T0 + 10.0


def shown(users: int, times: int) -> list[Event]:
    return [
        (
            "impressions",
            {
                "event_id": f"{user}-{n}",
                "user_id": f"u{user}",
                "ts": T0 + n,
                "campaign_id": "C",
            },
        )
        for user in range(users)
        for n in range(times)
    ]


def test_a_policy_is_pushed_takes_effect_and_is_rolled_back(deploy: Deploy) -> None:
    """Rows that no event touches follow too; the topic wins over the file after a restart."""
    deployment = deploy(partitions=2)
    policy = deployment.folder / "policy.yaml"
    policy.write_text(LOOSE)
    worker = deployment.worker()
    deployment.send(shown(20, 3))
    deployment.wait_until_committed()
    users = [{"user": f"u{n}"} for n in range(20)]

    tight = deployment.folder / "tight.yaml"
    tight.write_text(TIGHT)
    told = governor(deployment, "policy", "diff", tight)
    assert "all changes: 20 of 20 users throttled more (100.0%), 0 freed" in told
    assert "changed day: 20 of 20" in told
    assert "--confirm" in governor(deployment, "policy", "push", tight, status=1)
    seen_by(
        deployment,
        lambda reader: not any(reader.allowed(one, {}, AT).allowed for one in users),
        "all users throttled",
        lambda: governor(deployment, "policy", "push", tight, "--confirm"),
    )
    wait_for(lambda: worker.metrics()("governor_policy_rows_left") == 0, "all evaluated")
    assert worker.metrics().total("governor_build_info", policy="tight") == 1

    bad = deployment.folder / "bad.yaml"
    bad.write_text(BAD)
    assert "line 3" in governor(deployment, "policy", "push", bad, status=2)
    far = deployment.folder / "far.yaml"
    far.write_text(TOO_FAR)
    assert "GOVERNOR_HISTORY" in governor(
        deployment, "policy", "push", far, status=2, history="10d"
    )

    shown_text = governor(deployment, "policy", "show")
    assert "* tight" in shown_text
    assert "  loose" in shown_text
    assert json.loads(governor(deployment, "policy", "show", "--json"))["version"] == "tight"
    assert worker.stop() == 0
    again = deployment.worker()
    assert again.metrics().total("governor_build_info", policy="tight") == 1

    seen_by(
        deployment,
        lambda reader: all(reader.allowed(one, {}, AT).allowed for one in users),
        "all users free",
        lambda: governor(deployment, "policy", "rollback"),
    )
    assert again.stop() == 0


def test_a_policy_that_a_worker_cannot_use_is_refused_loudly(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    (deployment.folder / "policy.yaml").write_text(TIGHT)
    worker = deployment.worker(history="10d")
    far = deployment.folder / "far.yaml"
    far.write_text(TOO_FAR)
    governor(deployment, "policy", "push", far)
    worker.wait_for_metric("governor_policy_refused_total")
    assert "policy version far is refused, version tight goes on" in worker.log()
    deployment.send(shown(1, 3))
    deployment.wait_until_committed()
    (record,) = (message.json() for message in deployment.read("decisions") if message.value)
    assert record["policy"] == "tight"
    assert worker.stop() == 0


def test_the_kill_switch_releases_and_is_taken_back(deploy: Deploy) -> None:
    deployment = deploy(partitions=2)
    (deployment.folder / "policy.yaml").write_text(TIGHT)
    worker = deployment.worker()
    deployment.send(shown(5, 3))
    deployment.wait_until_committed()
    user = {"user": "u1"}
    assert not worker.metrics()("governor_released")
    seen_by(
        deployment,
        lambda reader: reader.allowed(user, {}, AT).allowed,
        "the release",
        lambda: governor(deployment, "release"),
    )
    worker.wait_for_metric("governor_released")
    seen_by(
        deployment,
        lambda reader: not reader.allowed(user, {}, AT).allowed,
        "throttles again",
        lambda: governor(deployment, "policy", "resume"),
    )
    assert worker.stop() == 0
