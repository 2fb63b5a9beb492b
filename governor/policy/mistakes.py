"""What is wrong with a policy file, and the words to say it in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = ["Mistake", "PolicyError", "mistyped", "shown"]


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


def mistyped(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: what was probably meant."""
    known = list(known)
    likely = get_close_matches(word[:64].lower(), [each.lower() for each in known], 1, 0.7)
    if likely:
        return f": did you mean {next(each for each in known if each.lower() == likely[0])}?"
    return f": remove it (known are {', '.join(known)})"


def shown(value: object) -> str:
    """``value`` as a message quotes it: short, on one line, in YAML's words."""
    if value is None:
        return "(empty)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return "(a list)" if isinstance(value, list) else "(a mapping)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"
