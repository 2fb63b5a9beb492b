"""Policy: the rules that say when a person has seen enough, read from YAML.

``load`` reports every mistake of a file at once, each with its line and what to write instead.
Times are ticks (microseconds), as everywhere inside this package.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from importlib.resources import files
from itertools import combinations
from typing import Annotated, Any, ClassVar, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
)

__all__ = [
    "DIMENSIONS",
    "MAX_BYTES",
    "Cap",
    "Mistake",
    "Policy",
    "PolicyError",
    "Spacing",
    "default_text",
    "duration",
    "load",
    "written",
]

DIMENSIONS: Final = (
    "user",
    "campaign",
    "creative",
    "advertiser",
    "category",
    "channel",
    "surface",
)
"""The built-in label dimensions; any other is a custom label key."""

MAX_BYTES: Final = 1024 * 1024
"""The largest policy file, in bytes of UTF-8."""

MAX_RULES: Final = 64
MAX_ROW_LIMIT: Final = 1024
"""The most exposures that a row can be set to keep."""

_MAX_DEPTH: Final = 16

_UNITS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_SECOND: Final = _UNITS["s"]
_MINUTE: Final = _UNITS["m"]
_LONGEST: Final = 366 * _UNITS["d"]


# --- Durations ---------------------------------------------------------------------------------


def duration(value: object) -> int:
    """The ticks of a text such as ``60s``, ``1.5h`` or ``2w``; exact, never negative.

    Raises ``ValueError`` with a message that begins with the value and names the remedy.
    """
    shown = _shown(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{shown} is not a duration: write one such as 60s, 12h or 1d")
    text = str(value).strip()
    if text.startswith("-"):
        raise ValueError(f"{shown} is negative: write a duration such as 60s, 12h or 1d")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        choices = f"{text}s, {text}m, {text}h, {text}d or {text}w"
        raise ValueError(f"{shown} has no unit: write {choices}")
    match = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(ms|[smhdw])", text)
    if match is None or text != value:
        likely = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(ms|[smhdw])[a-z]*", text.lower())
        example = "".join(likely.groups()) if likely else "60s, 12h or 1d"
        raise ValueError(
            f"{shown} is not a duration: write a number and one unit (s, m, h, d or w) "
            f"without a space, such as {example}"
        )
    whole, fraction, unit = match[1], match[2] or "", match[3]
    scale: int = 10 ** len(fraction)
    ticks, rest = divmod(int(whole + fraction) * _UNITS[unit], scale)
    if rest:
        raise ValueError(f"{shown} is finer than a microsecond: write fewer decimals")
    return ticks


def written(ticks: int) -> str:
    """``ticks`` as the shortest duration text that ``duration`` reads back as the same."""
    for unit in ("d", "h", "m", "s", "ms"):
        if ticks % _UNITS[unit] == 0 and (ticks or unit == "s"):
            return f"{ticks // _UNITS[unit]}{unit}"
    return f"{ticks // 1000}.{ticks % 1000:03}".rstrip("0") + "ms"


# --- The model ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bounds:
    """What the deployment can answer: how far rows look back and how much they hold."""

    horizon: int | None
    row_limit: int


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not text: write a name such as user-daily")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value):
        plain = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:63]
        raise ValueError(
            f"{_shown(value)} is not a rule's name (lower-case letters, digits and hyphens, "
            f"at most 63): write {plain or 'user-daily'}"
        )
    return value


def _dimension(value: object) -> str:
    known = ", ".join(DIMENSIONS)
    remedy = f"write one of {known}, or the key of a custom label (a-z, 0-9, _; at most 32)"
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a dimension: {remedy}")
    # A mistyped dimension would count as a custom label that no event has, and never fire.
    lower = value[:64].lower()
    likely = max(DIMENSIONS, key=lambda each: SequenceMatcher(None, lower, each).ratio())
    near = SequenceMatcher(None, lower, likely).ratio() > 0.85
    if value not in DIMENSIONS and (near or value == f"{likely}_id"):
        raise ValueError(f"{_shown(value)} is not a dimension: did you mean {likely}?")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", value):
        raise ValueError(f"{_shown(value)} is not a dimension: {remedy}")
    return value


def _limit(value: object, info: ValidationInfo) -> int:
    shown = _shown(value)
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError(f"{shown} is text: write {int(value)} without quotes")
        raise ValueError(f"{shown} is not a whole number: write how many exposures, such as 3")
    if value < 1:
        raise ValueError(f"{shown} is less than 1: write how many exposures are allowed, from 1")
    most = info.context.row_limit if isinstance(info.context, _Bounds) else MAX_ROW_LIMIT
    if value > most:
        raised = f", or raise GOVERNOR_ROW_LIMIT to {value}" if value <= MAX_ROW_LIMIT else ""
        raise ValueError(
            f"{shown} is more than the {most} newest exposures that are kept of a user: "
            f"write {most} or less{raised}"
        )
    return value


def _between(shortest: int) -> BeforeValidator:
    def check(value: object, info: ValidationInfo) -> int:
        ticks = duration(value)
        if ticks < shortest:
            raise ValueError(f"{_shown(value)} is too short: write {written(shortest)} or more")
        if ticks > _LONGEST:
            raise ValueError(f"{_shown(value)} is too long: write {written(_LONGEST)} or less")
        horizon = info.context.horizon if isinstance(info.context, _Bounds) else None
        if horizon is not None and ticks > horizon:
            raise ValueError(
                f"{_shown(value)} looks further back than the history of {written(horizon)}: "
                f"shorten it, or set GOVERNOR_HISTORY to {value} or more"
            )
        return ticks

    return BeforeValidator(check)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Cap(_Strict):
    """At most ``limit`` exposures per label value in any look-back window of ``window`` ticks."""

    kind: ClassVar[Literal["cap"]] = "cap"

    name: Annotated[str, BeforeValidator(_name)]
    limit: Annotated[int, BeforeValidator(_limit), Field(alias="cap")]
    per: Annotated[str, BeforeValidator(_dimension)]
    window: Annotated[int, _between(_MINUTE)]


class Spacing(_Strict):
    """At least ``window`` ticks between two exposures of one label value."""

    kind: ClassVar[Literal["spacing"]] = "spacing"
    limit: ClassVar[Literal[1]] = 1

    name: Annotated[str, BeforeValidator(_name)]
    window: Annotated[int, _between(_SECOND), Field(alias="spacing")]
    per: Annotated[str, BeforeValidator(_dimension)]


def _kind(value: object) -> str:
    spaced = isinstance(value, Mapping) and "spacing" in value and "cap" not in value
    return "spacing" if spaced else "cap"


Rule = Annotated[
    Annotated[Cap, Tag("cap")] | Annotated[Spacing, Tag("spacing")], Discriminator(_kind)
]


def _some(value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_shown(value)} is not a list: write one rule a line, each after a '-'")
    if not value:
        raise ValueError(f"has no rule: write at least one, such as {_EXAMPLE}")
    if len(value) > MAX_RULES:
        raise ValueError(f"has {len(value)} rules: write at most {MAX_RULES}")
    return tuple(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        shown = _shown(value)
        raise ValueError(f"{shown} is not text: write it in quotes, such as 'spring-2'")
    if not (value.strip() and value.isprintable() and len(value) <= 64):
        raise ValueError(f"{_shown(value)} is no version: write 1 to 64 printable characters")
    return value


class Policy(_Strict):
    """Rules in the order of the file, and the version that decisions name."""

    rules: Annotated[tuple[Rule, ...], BeforeValidator(_some)]
    version: Annotated[str, BeforeValidator(_text)] = Field(
        default_factory=lambda fields: _digest(fields["rules"])
    )


def _digest(rules: Iterable[Cap | Spacing]) -> str:
    canonical = json.dumps(
        [[rule.kind, rule.name, rule.per, rule.limit, rule.window] for rule in rules],
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


# --- Reading -----------------------------------------------------------------------------------

_EXAMPLE: Final = "- {name: user-daily, cap: 20, per: user, window: 1d}"
_Path = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Mistake:
    """What is wrong at a line of a policy file (the first is 1), and what to write instead."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


class PolicyError(Exception):
    """A policy that cannot be used: all its mistakes, in the order of their lines."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(set(mistakes))
        super().__init__("\n".join(map(str, self.mistakes)))


def default_text() -> str:
    """The policy that is used when none is configured, as YAML with comments."""
    return (files("governor") / "policy.default.yaml").read_text("utf-8")


def load(text: str | bytes, *, horizon: int | None = None, row_limit: int = 128) -> Policy:
    """The policy written in the YAML ``text``.

    ``horizon`` is how far back rows remember, in ticks (``None``: not checked), ``row_limit``
    how many exposures they keep: a rule that would need more is refused. Raises
    ``PolicyError`` with every mistake; of a text that is not plain YAML, with those alone.
    """
    document, lines, mistakes = _read(text)
    bounds = _Bounds(horizon, row_limit)
    wrong: set[object] = set()
    policy = None
    try:
        policy = Policy.model_validate(document, context=bounds)
    except ValidationError as refused:
        for error in refused.errors(include_url=False):
            loc = error["loc"]
            # pydantic puts the kind of rule after the rule's index; the file has no such level.
            path = (*loc[:2], *loc[3:]) if len(loc) > 2 and loc[0] == "rules" else loc
            wrong.add(path[1] if len(path) > 1 else None)
            message = _explained(document, path, error["type"], error.get("ctx", {}))
            if message is not None:
                mistakes.append(Mistake(_line(lines, path), message))
    rules = document.get("rules")
    if isinstance(rules, list) and len(rules) <= MAX_RULES:
        mistakes += _conflicts(rules, wrong, bounds, lines)
    if policy is None or mistakes:
        raise PolicyError(mistakes)
    return policy


def _conflicts(
    rules: Sequence[object], wrong: set[object], bounds: _Bounds, lines: Mapping[_Path, int]
) -> list[Mistake]:
    """Names given twice, and rules that another rule makes pointless."""
    mistakes = []
    first: dict[str, int] = {}
    valid: list[tuple[int, Cap | Spacing]] = []
    for i, item in enumerate(rules):
        name = item.get("name") if isinstance(item, Mapping) else None
        if isinstance(name, str):
            line = _line(lines, ("rules", i, "name"))
            if name in first:
                message = f"name {_shown(name)} is used on line {first[name]} too: write another"
                mistakes.append(Mistake(line, message))
            first.setdefault(name, line)
        if i not in wrong:
            model = Spacing if _kind(item) == "spacing" else Cap
            valid.append((_line(lines, ("rules", i)), model.model_validate(item, context=bounds)))
    pointless: set[int] = set()
    for one, other in combinations(valid, 2):
        for (line, strict), (late, lax) in ((one, other), (other, one)):
            same = (strict.kind, strict.per) == (lax.kind, lax.per)
            implied = same and strict.limit <= lax.limit and strict.window >= lax.window
            if implied and pointless.isdisjoint({id(strict), id(lax)}):
                pointless.add(id(lax))
                message = (
                    f"{lax.name} can never be the first to fire: {strict.name} on line {line} "
                    f"allows no more per {lax.per} in at least the same time: remove one of them"
                )
                mistakes.append(Mistake(late, message))
    return mistakes


def _line(lines: Mapping[_Path, int], path: _Path) -> int:
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _explained(
    document: Mapping[str, Any], path: _Path, kind: str, context: Mapping[str, Any]
) -> str | None:
    """The message for one of pydantic's errors; None where another message says it already."""
    field = str(path[-1])
    if "error" in context:
        return f"{field} {context['error']}"
    if kind == "default_factory_not_called":
        return None
    if len(path) == 1:
        if kind == "missing":
            return f"rules is missing: write rules: and below it {_EXAMPLE}"
        return f"unknown field {_shown(field)}{_mistyped(field, Policy.model_fields)}"
    rule = document["rules"][path[1]]
    if len(path) == 2:
        return f"rule {_shown(rule)} is not a mapping: write one such as {_EXAMPLE}"
    if kind == "extra_forbidden":
        if field == "spacing":
            return "the rule has both cap and spacing: write two rules, each with one of them"
        if field == "window" and "spacing" in rule:
            return "a spacing has no window: write its time as spacing, and remove window"
        known = ["name", "per", *(each for each in ("cap", "spacing") if each in rule)]
        known += ["window"] if "cap" in rule else []
        known += [] if len(known) > 2 else ["cap", "window", "spacing"]
        return f"unknown field {_shown(field)}{_mistyped(field, known)}"
    if field == "cap":
        return "the rule has neither cap nor spacing: write cap: 3 and window: 1h, or spacing: 1m"
    if field == "window" and "cap" not in rule:
        return None
    example = {"name": "name: user-daily", "per": "per: campaign", "window": "window: 1d"}[field]
    return f"{field} is missing: write {example}"


def _mistyped(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: what was probably meant."""
    known = list(known)
    likely = get_close_matches(word[:64].lower(), [each.lower() for each in known], 1, 0.7)
    if likely:
        return f": did you mean {next(each for each in known if each.lower() == likely[0])}?"
    return f": remove it (known are {', '.join(known)})"


def _shown(value: object) -> str:
    """``value`` as a message quotes it: short, on one line, in YAML's words."""
    if value is None:
        return "(empty)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return "(a list)" if isinstance(value, list) else "(a mapping)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


class _Loader(yaml.SafeLoader):
    """YAML's 1.2 scalars (``yes`` and ``1:30`` are text, ``010`` is no 8), nothing that expands."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.mistakes: list[Mistake] = []

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if self.depth == _MAX_DEPTH:
            message = f"nested deeper than {_MAX_DEPTH} levels: write rules as a flat list"
            raise PolicyError([Mistake(mark.line + 1, message)])
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._refuse(mark, f"alias *{event.anchor} is refused: write its value out")
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        if event.anchor is not None:
            self._refuse(mark, f"anchor &{event.anchor} is refused: remove it")
        if event.tag is not None:
            self._refuse(mark, f"tag {event.tag} is refused: remove it")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def _refuse(self, mark: Any, message: str) -> None:
        self.mistakes.append(Mistake(mark.line + 1, message))


for _tag, _pattern, _starts in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})", [*"-+0123456789"]),
    ("float", r"[-+]?(0|[1-9][0-9]{0,17})?\.[0-9]{1,17}", [*"-+.0123456789"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _starts
    )


def _read(text: str | bytes) -> tuple[dict[str, Any], dict[_Path, int], list[Mistake]]:
    """The file as plain values, the line of each path, and keys given twice."""
    size = len(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        message = f"the file has more than {MAX_BYTES} bytes: is it a policy? shorten it"
        raise PolicyError([Mistake(1, message)])
    if isinstance(text, bytes):
        text = _decoded(text)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"character U+{ord(text[error.position]):04X} is refused: remove it"
        raise PolicyError([Mistake(line, message)]) from None
    except yaml.MarkedYAMLError as error:
        raise PolicyError([_syntax(error)]) from None
    if loader.mistakes:
        raise PolicyError(loader.mistakes)
    if root is None or root.tag.endswith(":null"):
        raise PolicyError([Mistake(1, f"the file is empty: write rules: and below it {_EXAMPLE}")])
    if not isinstance(root, yaml.MappingNode):
        message = f"the file is not a mapping: begin with rules: and below it {_EXAMPLE}"
        raise PolicyError([Mistake(root.start_mark.line + 1, message)])
    lines: dict[_Path, int] = {}
    mistakes: list[Mistake] = []
    return _plain(root, (), lines, mistakes), lines, mistakes


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise PolicyError([Mistake(line, "not UTF-8: save the file as UTF-8")]) from None


def _syntax(error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    if error.context == "expected a single document in the stream":
        return Mistake(line, "a second document begins: keep one, and remove '---'")
    problem = str(error.problem or error.context)
    if r"'\t'" in problem:
        return Mistake(line, "a tab stands where YAML allows only spaces: indent with spaces")
    while_doing = f" {error.context}" if error.context and error.problem else ""
    return Mistake(
        line, f"not YAML ({problem}{while_doing}): mend the indentation, colon, bracket or quote"
    )


_SCALARS: Final[Mapping[str, Callable[[str], object]]] = {
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": "true".__eq__,
    "tag:yaml.org,2002:null": lambda _: None,
}


def _plain(node: yaml.Node, path: _Path, lines: dict[_Path, int], mistakes: list[Mistake]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(each, (*path, i), lines, mistakes) for i, each in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _SCALARS.get(node.tag, str)(node.value)
    mapping: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            mistakes.append(Mistake(line, "a field's name is not text: write a word and a colon"))
        elif key.value in mapping:
            earlier = lines[(*path, key.value)]
            message = f"{_shown(key.value)} was given on line {earlier} already: write it once"
            mistakes.append(Mistake(line, message))
        else:
            lines[(*path, key.value)] = line
            mapping[key.value] = _plain(value, (*path, key.value), lines, mistakes)
    return mapping
