"""The kill switch, as an ad server that follows the topics sees it."""

from __future__ import annotations

from tests.integration.commands import governor, seen_by
from tests.integration.conftest import Deploy
from tests.integration.events import control, shown
from tests.integration.scenario import T0

POLICY = "version: test\nrules:\n  - {name: daily, cap: 2, per: campaign, window: 1d}\n"


def test_readers_release_what_rules_hold_and_keep_what_people_said(deploy: Deploy) -> None:
    """And all of it with --everything; both are taken back, and the governor has counted on."""
    deployment = deploy(policy=POLICY)
    worker = deployment.worker()
    deployment.send([shown("capped", n) for n in range(2)])
    deployment.send([control("opt_out", "refusing", 1, label="campaign:C1")])
    deployment.wait_until_committed()

    for arguments, expected in (
        (["release"], [True, False]),
        (["release", "--everything"], [True, True]),
        (["release", "--undo"], [False, False]),
    ):
        seen_by(
            deployment,
            lambda client, expected=expected: (
                expected
                == [
                    client.allowed({"user": user}, {"campaign": "C1"}, T0 + 10).allowed
                    for user in ("capped", "refusing")
                ]
            ),
            " ".join(arguments),
            lambda arguments=arguments: governor(deployment, *arguments),
        )
    assert worker.stop() == 0
