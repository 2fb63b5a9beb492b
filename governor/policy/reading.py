"""YAML to plain values, each with its line; nothing that expands, no key twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import yaml

from governor.policy.mistakes import Mistake, PolicyError, shown
from governor.policy.model import EXAMPLE

__all__ = ["MAX_BYTES", "Path", "line_of", "read"]

MAX_BYTES: Final = 1024 * 1024
"""The largest policy file, in bytes of UTF-8."""

MAX_DEPTH: Final = 16

Path = tuple[str | int, ...]
"""Where a value stands: keys of mappings and places in lists, from the top."""


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of a value, or of the innermost thing around it that the file has."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


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
        if self.depth == MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels: write rules as a flat list"
            raise PolicyError([Mistake(mark.line + 1, message)])
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._refuse(mark, f"alias *{_brief(event.anchor)} is refused: write its value out")
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)
        if event.anchor is not None:
            self._refuse(mark, f"anchor &{_brief(event.anchor)} is refused: remove it")
        if event.tag is not None:
            self._refuse(mark, f"tag {_brief(event.tag)} is refused: remove it")
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


def read(text: str | bytes) -> tuple[dict[str, Any], dict[Path, int], list[Mistake]]:
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
        raise PolicyError([Mistake(1, f"the file is empty: write rules: and below it {EXAMPLE}")])
    if not isinstance(root, yaml.MappingNode):
        message = f"the file is not a mapping: begin with rules: and below it {EXAMPLE}"
        raise PolicyError([Mistake(root.start_mark.line + 1, message)])
    lines: dict[Path, int] = {}
    mistakes: list[Mistake] = []
    return _plain(root, (), lines, mistakes), lines, mistakes


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise PolicyError([Mistake(line, "not UTF-8: save the file as UTF-8")]) from None


def _brief(name: object) -> str:
    return shown(name)[1:-1]


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


def _plain(node: yaml.Node, path: Path, lines: dict[Path, int], mistakes: list[Mistake]) -> Any:
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
            message = f"{shown(key.value)} was given on line {earlier} already: write it once"
            mistakes.append(Mistake(line, message))
        else:
            lines[(*path, key.value)] = line
            mapping[key.value] = _plain(value, (*path, key.value), lines, mistakes)
    return mapping
