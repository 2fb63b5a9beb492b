"""``governor traffic``: what it sends is governed, and it obeys, as far as it is asked to."""

from __future__ import annotations

import re

from tests.integration.commands import governor
from tests.integration.conftest import Deploy


def totals(printed: str) -> dict[str, int]:
    """The last line of the command, by name."""
    line = printed.splitlines()[0]
    return {
        name: int(count.replace(",", "")) for count, name in re.findall(r"(\d[\d,]*) (\w+)", line)
    }


def test_an_audience_is_served_as_the_decisions_say(deploy: Deploy) -> None:
    deployment = deploy()
    worker = deployment.worker()
    # So few people that the rules hold most of them, once what was shown first is decided.
    few = ("traffic", "--users", "20", "--campaigns", "5", "--rate", "200", "--seconds", "4")
    first = totals(governor(deployment, *few))
    assert first["shown"] > 0
    deployment.wait_until_committed()
    obeying = totals(governor(deployment, *few))
    assert obeying["held"] > 0
    assert obeying["defied"] == 0
    deployment.wait_until_committed()
    sent = sum(each[name] for each in (first, obeying) for name in ("shown", "clicks", "purchases"))
    assert worker.metrics().total("governor_events_total", outcome="applied") == sent
    defying = totals(governor(deployment, *few, "--defy", "1"))
    assert defying["held"] == 0
    assert 0 < defying["defied"] <= defying["shown"]
    # Its times are those of a clock, with as many decimals as that has.
    deployment.wait_until_committed()
    status, verdict = deployment.verify()
    assert status == 0, verdict


def test_without_topics_it_says_what_to_do(deploy: Deploy) -> None:
    printed = governor(deploy(), "traffic", "--seconds", "1", status=1)
    assert "start a worker" in printed
