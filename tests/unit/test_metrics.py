"""The metrics module by itself: series from the start, how many they can become, and its text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from governor.policy import Policy, load
from governor.policy.model import MAX_RULES
from streams.metrics import Metrics, Snapshot, Wear, reference

ROOT = Path(__file__).parents[2]
MOST_SERIES = 5000


def policy(version: str, rules: int, shadow: int = 0) -> Policy:
    lines = [f"version: {version}", "rules:"]
    for n in range(rules):
        shade = ", shadow: true" if n < shadow else ""
        what = f"cap: {n + 3}, per: campaign, window: {n + 1}h{shade}"
        lines.append(f"  - {{name: {version}-{n}, {what}}}")
    return load("\n".join(lines), row_limit=1024)


def series(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
    }


def test_names_and_labels_that_churn_do_not_add_up() -> None:
    metrics = Metrics(policy("p0", MAX_RULES), Snapshot)
    most = 0
    for generation in range(1, 20):
        metrics.policy(policy(f"p{generation}", MAX_RULES, shadow=generation))
        metrics.published(np.ones(MAX_RULES + 3, np.int64))
        names = {f"C{generation}-{n}": Wear(n, alarmed=n % 3 == 0) for n in range(1000)}
        metrics.fatigue.curves(Wear(1), names)
        found = series(metrics)
        most = max(most, len(found))
        rules = {dict(labels)["rule"] for _, labels in found if "rule" in dict(labels)}
        assert {rule.partition("-")[0] for rule in rules} == {
            f"p{generation}",
            *("opt_out", "hide", "consent"),
        }
    assert most <= MOST_SERIES
    assert most > 2000, "too tame"


def test_nothing_that_happens_adds_a_series() -> None:
    metrics = Metrics(policy("p", 3, shadow=1), Snapshot)
    before = series(metrics).keys()
    metrics.published(np.array([1, 2, 0, 4, 0, 0]))
    metrics.overshot(np.array([6.0, 7.0, 1e7]))
    metrics.fatigue.settled("holdout", exposures=1, engagements=1, unmeasurable=1)
    found = series(metrics)
    assert found.keys() == before

    def of(name: str, **labels: str) -> float:
        return found[f"governor_{name}", frozenset(labels.items())]

    assert of("decisions_total", rule="p-0", state="shadow") == 1
    assert of("decisions_total", rule="p-1", state="throttled") == 2
    assert of("decisions_total", rule="opt_out", state="throttled") == 4
    assert of("overshoot_seconds_count") == 3
    assert of("overshoot_seconds_bucket", le="10.0") == 2


def test_the_reference_is_that_of_this_module() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference(), "run make metrics-table"
