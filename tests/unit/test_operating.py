"""Dashboards, alerts and runbooks speak of series that exist, and of each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.dashboards.__main__ import write
from governor.events import Reason
from governor.policy import default_text, load
from streams.metrics import Metrics, Snapshot
from streams.settings import Settings

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())
CASES = yaml.safe_load((ROOT / "deploy/prometheus/rules_test.yaml").read_text())
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
RUNBOOKS = sorted(set((ROOT / "docs/runbooks").glob("*.md")) - {ROOT / "docs/runbooks/README.md"})
ALERTS = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule
}
RECORDED = {
    rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
}


def runbook(rule: dict[str, Any]) -> Path:
    """Of an alert; it may be served from anywhere (`make runbooks`)."""
    url = str(rule["annotations"]["runbook_url"])
    return ROOT / "docs/runbooks" / url.rsplit("/", 1)[1]


def served() -> dict[str, set[str]]:
    """Names of samples, and the labels that each has."""
    metrics = Metrics(load(default_text()), Snapshot)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Series of the governor's in an expression, with the labels that it selects them by."""
    for name, _, labels in re.findall(
        r"\b((?:governor|process)[_:][\w:]+)(\{([^}]*)\})?", expression
    ):
        yield name, set(re.findall(r"(\w+)\s*[=!]~?", labels))


def panels(path: Path) -> list[dict[str, Any]]:
    return [one for one in json.loads(path.read_text())["panels"] if one["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    found = [
        (f"{path.stem}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in panels(path)
        for target in panel["targets"]
    ]
    found += [
        (rule.get("alert") or rule["record"], rule["expr"])
        for group in RULES["groups"]
        for rule in group["rules"]
    ]
    for path in RUNBOOKS:
        for query in re.findall(r"promtool query instant \S+ '([^']+)'", path.read_text()):
            found.append((path.stem, query))
    return found


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_all_that_is_asked_of_prometheus_exists(where: str, expression: str) -> None:
    known = served()
    for name, labels in asked(expression):
        if ":" in name:
            assert name in RECORDED, where
        else:
            assert name in known, where
            assert labels <= known[name] | {"job", "instance"}, where


def test_dashboards_are_what_their_code_says(tmp_path: Path) -> None:
    write(tmp_path)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {
        one.name: one.read_text() for one in DASHBOARDS
    }


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_says_what_it_shows(path: Path) -> None:
    found = panels(path)
    assert len(found) >= 9
    for panel in found:
        assert panel["title"]
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters)), panel["title"]
        for link in panel["links"]:
            name = link["url"].removeprefix("${runbooks}/")
            assert (ROOT / "docs/runbooks" / name).exists(), panel["title"]
    names = {one["name"] for one in json.loads(path.read_text())["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for p in found for t in p["targets"])))
    assert used - {"__rate_interval", "__range"} <= names
    assert {"datasource", "job", "runbooks"} <= names


def test_every_series_that_counts_is_on_a_dashboard_or_alerted_on() -> None:
    shown = {name for _, expression in expressions() for name, _ in asked(expression)}
    bare = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    unseen = {
        re.sub("_(bucket|sum|count)$", "", name)
        for name in served()
        if name.startswith("governor_")
    } - bare
    assert unseen <= {
        "governor_build_info",  # what runs; dashboards show the policy's version
        "governor_decode_errors_total",  # a part of dead letters
        "governor_unreadable_rows_total",
        "governor_snapshots_total",
        "governor_ads",
        "governor_row_bytes",
        "governor_asyncio_tasks",
        "governor_threads",
    }


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_every_alert_has_cases_and_a_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    text = runbook(rule).read_text()
    assert text.startswith(f"# {name}\n")
    for part in ("## What to look at", "## What to do", "## When it is over"):
        assert part in text
    cases = [
        case["exp_alerts"]
        for test in CASES["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == name
    ]
    assert any(cases), "never fires"
    jobs = {
        (series["series"], test["name"])
        for test in CASES["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == name
        for series in test["input_series"]
    }
    quiet = [] in cases or len(jobs) > sum(map(len, cases))
    assert quiet, "fires in every case"


def test_every_runbook_is_of_an_alert() -> None:
    named = {runbook(rule) for rule in ALERTS.values()}
    assert named == set(RUNBOOKS)


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_what_a_runbook_names_exists(path: Path) -> None:
    text = path.read_text()
    known = served().keys()
    for name in re.findall(r"`(governor_\w+)", text):
        assert name in known, name
    for name in re.findall(r"GOVERNOR_(\w+)", text):
        assert name.lower() in Settings.model_fields, name
    for name in re.findall(r"reasons? `(\w+)`", text):
        assert name in {str(reason) for reason in Reason}, name
    for link in re.findall(r"\]\(([\w.-]+\.md)\)", text):
        assert (path.parent / link).exists(), link
