"""The rules that integration tests run are those of deploy, only quicker."""

from __future__ import annotations

import yaml

from tests.integration.prometheus import RULES, quickened


def test_only_times_differ() -> None:
    real, quick = yaml.safe_load(RULES.read_text()), yaml.safe_load(quickened(RULES.read_text()))
    for before, after in zip(real["groups"], quick["groups"], strict=True):
        for one, other in zip(before["rules"], after["rules"], strict=True):
            assert {k: v for k, v in one.items() if k not in ("expr", "for")} == {
                k: v for k, v in other.items() if k not in ("expr", "for")
            }
            assert one.keys() == other.keys()
    by_name = {one.get("alert"): one for group in quick["groups"] for one in group["rules"]}
    assert "_seconds) > 10.0" in by_name["GovernorDecisionsLate"]["expr"]
    assert by_name["GovernorNotProgressing"]["for"] == "12000ms"
    assert "[8000ms]" in by_name["GovernorRecoveryStuck"]["expr"]
    assert "[1440000ms]" in by_name["GovernorThrottledShareAbnormal"]["expr"]
