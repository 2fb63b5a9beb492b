"""``governor traffic``: what it sends is governed, and it obeys, as far as it is asked to."""

from __future__ import annotations

import re

from tests.integration.commands import governor
from tests.integration.conftest import Deploy
from tests.integration.deployment import wait_for


def totals(printed: str) -> dict[str, int]:
    """The last line of the command, by name."""
    line = printed.splitlines()[0]
    return {
        name: int(count.replace(",", "")) for count, name in re.findall(r"([\d,]+) (\w+)", line)
    }


def test_an_audience_is_served_as_the_decisions_say(deploy: Deploy) -> None:
    deployment = deploy()
    worker = deployment.worker()
    wait_for(lambda: worker.metrics()("governor_ready") == 1, "readiness")
    # So few people that rules of exposures a minute hold many of them.
    few = ("traffic", "--users", "20", "--campaigns", "5", "--rate", "200", "--seconds", "6")
    obeying = totals(governor(deployment, *few))
    assert obeying["shown"] > 0
    assert obeying["held"] > 0
    assert obeying["defied"] == 0
    deployment.wait_until_committed()
    applied = worker.metrics().total("governor_events_total", outcome="applied")
    assert applied == obeying["shown"] + obeying["clicks"] + obeying["purchases"]
    defying = totals(governor(deployment, *few, "--defy", "1"))
    assert defying["held"] == 0
    assert 0 < defying["defied"] < defying["shown"]


def test_without_topics_it_says_what_to_do(deploy: Deploy) -> None:
    printed = governor(deploy(), "traffic", "--seconds", "1", status=1)
    assert "start a worker" in printed
