"""The kill switch, as an ad server that follows the topics sees it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from streams.client import Client
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

    def allowed(client: Client) -> list[bool]:
        at, ads = T0 + 10, {"campaign": "C1"}
        return [client.allowed({"user": user}, ads, at).allowed for user in ("capped", "refusing")]

    for command, expected in (
        ("release", [True, False]),
        ("release --everything", [True, True]),
        ("release --undo", [False, False]),
    ):
        pull = partial(governor, deployment, *command.split())
        seen_by(deployment, _says(allowed, expected), command, pull)
    assert worker.stop() == 0


def _says(answer: Callable[[Client], list[bool]], expected: list[bool]) -> Callable[[Client], bool]:
    return lambda client: answer(client) == expected
