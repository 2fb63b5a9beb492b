"""Every example of docs/policy.md, and the policies to start from, are right as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from governor.policy import Policy, default_text, duration, load

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "policy.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
HISTORY = "32d"
"""GOVERNOR_HISTORY, unless a policy says that it needs another."""

ANY_RULE = "rules:\n  - {name: any, cap: 20, per: user, window: 1d}\n"
STARTS = sorted((ROOT / "deploy" / "policies").glob("*.yaml"))


def loaded(text: str) -> Policy:
    """The policy, with the history that its own comments ask for."""
    needed = re.search(r"GOVERNOR_HISTORY=(\w+)", text)
    return load(text, horizon=duration(needed[1] if needed else HISTORY))


def test_there_are_examples_of_everything() -> None:
    policies = [load(text if "rules:" in text else ANY_RULE + text) for text in EXAMPLES]
    kinds = {rule.kind for policy in policies for rule in policy.rules}
    assert kinds == {"cap", "spacing", "reaction", "ignored", "fatigue"}
    said = {name for policy in policies for name in policy.model_fields_set}
    assert said == set(Policy.model_fields)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_right(text: str) -> None:
    policy = loaded(text if "rules:" in text else ANY_RULE + text)
    assert policy.warnings == ()


@pytest.mark.parametrize("platform", [
    "Display & Video 360", "Google Ad Manager", "Campaign Manager 360", "Xandr", "Beeswax", "Meta",
    "AdCP",
])  # fmt: skip
def test_caps_of_a_platform_have_an_example(platform: str) -> None:
    part = DOCUMENT.partition(f"### {platform}")[2].partition("###")[0]
    assert "```yaml\nrules:" in part


def test_there_are_three_policies_to_start_from() -> None:
    assert [path.stem for path in STARTS] == ["balanced", "cautious", "performance"]
    assert all(f"deploy/policies/{path.name}" in DOCUMENT for path in STARTS)


@pytest.mark.parametrize("path", STARTS, ids=lambda path: path.stem)
def test_a_policy_to_start_from_is_right_and_warns_of_nothing(path: Path) -> None:
    policy = loaded(path.read_text("utf-8"))
    assert policy.version == f"{path.stem}-1"
    assert policy.warnings == ()


@pytest.mark.parametrize("text", [*EXAMPLES, default_text(), *(p.read_text() for p in STARTS)])
def test_a_policy_in_its_canonical_spelling_is_the_same(text: str) -> None:
    policy = load(text if "rules:" in text else ANY_RULE + text)
    again = load(policy.canonical())
    assert again.canonical() == policy.canonical()
    assert again.rules == policy.rules
    assert again.model_copy(update={"version": policy.version}).warned(policy.warnings) == policy


def test_readers_are_told_what_decisions_do_not_say() -> None:
    text = """\
timezone: Europe/Berlin
rules:
  - {name: a, cap: 3, per: user, window: 1d}
  - {name: b, cap: 3, per: user, window: 1d, id: household}
ads: [{match: {campaign: [service]}, priority: always}, {match: {channel: ctv}, weight: 2}]
quiet_hours: [{name: night, from: "22:00", to: "07:00", match: {channel: push}}]
"""
    policy = load(text)
    assert policy.for_readers() == {
        "policy": policy.version,
        "timezone": "Europe/Berlin",
        "ids": ["user", "household"],
        "always": [{"campaign": ["service"]}],
        "quiet_hours": [
            {"name": "night", "from": "22:00", "to": "07:00", "match": {"channel": ["push"]}}
        ],
    }
