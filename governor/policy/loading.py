"""A policy from its text, or every mistake in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ValidationError

from governor.policy import checks
from governor.policy.fields import Bounds
from governor.policy.mistakes import Mistake, PolicyError, mistyped, shown
from governor.policy.model import (
    EXAMPLE,
    KINDS,
    MAX_RULES,
    Ad,
    Attribution,
    Consent,
    Controls,
    Exclude,
    Holdout,
    Ignoring,
    Lifecycle,
    Policy,
    QuietHours,
    Sensitive,
    Tiring,
    kind_of,
)
from governor.policy.reading import Path, line_of, read

__all__ = ["default_text", "load"]

_SECTIONS: Mapping[str, type[BaseModel]] = {
    "ads": Ad,
    "attribution": Attribution,
    "sensitive": Sensitive,
    "quiet_hours": QuietHours,
    "lifecycle": Lifecycle,
    "holdout": Holdout,
    "exclude": Exclude,
    "controls": Controls,
    "consent": Consent,
}
_EXAMPLES = {
    "name": "name: user-daily",
    "per": "per: campaign",
    "window": "window: 1d",
    "rest": "rest: 14d",
    "match": "match: {channel: [ctv]}",
    "categories": "categories: [Alcoholic Beverages]",
    "from": "from: '22:00'",
    "to": "to: '07:00'",
    "ignored": "ignored: 5",
}


def default_text() -> str:
    """The policy that is used when none is configured, as YAML with comments."""
    return (files("governor") / "policy.default.yaml").read_text("utf-8")


def load(text: str | bytes, *, horizon: int | None = None, row_limit: int = 128) -> Policy:
    """The policy written in the YAML ``text``.

    ``horizon`` is how far back rows remember, in ticks (``None``: not checked), ``row_limit``
    how many exposures they keep: a rule that would need more is refused. What is allowed but
    probably not meant is in the policy's ``warnings``. Raises ``PolicyError`` with every mistake;
    of a text that is not plain YAML, with those alone.
    """
    document, lines, mistakes = read(text)
    bounds = Bounds(horizon, row_limit)
    wrong: set[Path] = set()
    policy = None
    try:
        policy = Policy.model_validate(document, context=bounds)
    except ValidationError as refused:
        for error in refused.errors(include_url=False):
            loc = error["loc"]
            # pydantic puts the kind of rule after the rule's index; the file has no such level.
            path = (*loc[:2], *loc[3:]) if len(loc) > 2 and loc[0] == "rules" else loc
            wrong |= {path[:1], path[:2]}
            message = _explained(document, path, error["type"], error.get("ctx", {}))
            if message is not None:
                mistakes.append(Mistake(line_of(lines, path), message))
    found = checks.Checked(document, lines, bounds)
    rules = document.get("rules")
    if isinstance(rules, list) and len(rules) <= MAX_RULES:
        found.names("rules")
        valid = [
            (i, KINDS[kind_of(item)].model_validate(item, context=bounds))
            for i, item in enumerate(rules)
            if ("rules", i) not in wrong
        ]
        found.rules(valid)
    found.names("quiet_hours")
    if policy is not None:
        found.whole(policy)
    mistakes += found.mistakes
    if policy is None or mistakes:
        raise PolicyError(mistakes)
    return policy.warned(found.warnings)


def _explained(
    document: Mapping[str, Any], path: Path, kind: str, context: Mapping[str, Any]
) -> str | None:
    """The message for one of pydantic's errors; None where another message says it already."""
    field = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    if "error" in context:
        return f"{field} {context['error']}"
    if kind in {"default_factory_not_called", "default_factory_validated_data"}:
        return None
    if kind == "missing" and path == ("rules",):
        return f"rules is missing: write rules: and below it {EXAMPLE}"
    if len(path) == 1 and kind == "extra_forbidden":
        return f"unknown field {shown(field)}{mistyped(field, Policy.model_fields)}"
    if path[0] == "rules":
        return _explained_rule(document["rules"][path[1]], path, kind)
    section = _SECTIONS[str(path[0])]
    if kind == "extra_forbidden":
        return f"unknown field {shown(field)} in {path[0]}{mistyped(field, _aliases(section))}"
    if kind == "missing":
        return f"{field} is missing in {path[0]}: write {_EXAMPLES[field]}"
    example = ", ".join(f"{name}: ..." for name in _aliases(section))
    return f"{field} is not a mapping: write one such as {{{example}}}"


def _explained_rule(rule: Any, path: Path, kind: str) -> str | None:
    field = str(path[-1])
    if len(path) == 2:
        return f"rule {shown(rule)} is not a mapping: write one such as {EXAMPLE}"
    model = KINDS[kind_of(rule)]
    if len(path) > 3 and path[2] in ("reaction", "fatigue"):
        inner: type[BaseModel] = Ignoring if path[2] == "reaction" else Tiring
        if kind == "missing":
            return f"{field} is missing: write {path[2]}: {{ignored: 5}}, or the type of engagement"
        return f"unknown field {shown(field)} in {path[2]}{mistyped(field, _aliases(inner))}"
    if kind == "extra_forbidden":
        return _unknown(rule, field, _aliases(model))
    if field == "fatigue":
        return "fatigue is not a mapping: write fatigue: {floor: 0.4, probability: 0.9}"
    if field == "cap":
        return (
            "the rule has neither cap nor spacing: write cap: 3 and window: 1h, or spacing: 1m, "
            "or reaction: conversion and rest: 30d"
        )
    return f"{field} is missing: write {_EXAMPLES[field]}"


def _unknown(rule: Mapping[str, Any], field: str, known: list[str]) -> str:
    kinds = [each for each in ("cap", "spacing", "reaction", "fatigue") if each in rule]
    if field in kinds:
        return f"the rule has both {kinds[0]} and {field}: write two rules, each with one of them"
    if field in {"window", "calendar"} and kinds:
        time = "spacing" if kinds[0] == "spacing" else "rest"
        return f"a {kinds[0]} has no {field}: write its time as {time}, and remove {field}"
    if field == "rest" and kinds:
        time = "window" if kinds[0] == "cap" else "spacing"
        return f"a {kinds[0]} has no rest: write its time as {time}, and remove rest"
    if not kinds:
        known = [*known, "spacing", "reaction"]
    return f"unknown field {shown(field)}{mistyped(field, known)}"


def _aliases(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields in the file."""
    return [field.alias or name for name, field in model.model_fields.items()]
