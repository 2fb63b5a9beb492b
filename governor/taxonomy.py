"""The IAB Content Taxonomy: which categories belong to one that a policy names.

Versions 1.0 (``IAB8-18``), 2.2 and 3.1 (``211``), side by side, because ads carry any of them.
``governor/data/NOTICE.md`` says where the data is from.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["family", "nearest"]


class Category(NamedTuple):
    """A line of the data; ids are unique within one version of the taxonomy."""

    taxonomy: str
    id: str
    parent: str
    name: str


@cache
def categories() -> tuple[Category, ...]:
    """All of them."""
    lines = (files("governor") / "data" / "categories.tsv").read_text("utf-8").splitlines()
    return tuple(Category(*line.split("\t")) for line in lines[1:])


@lru_cache(maxsize=4096)
def family(wanted: str) -> frozenset[str] | None:
    """The ids and, in lower case, the names of a category and of all below it.

    Args:
        wanted: an id, or a name in any case; in whichever versions it occurs.

    Returns:
        None where no version has it.
    """
    found = {
        (each.taxonomy, each.id)
        for each in categories()
        if wanted == each.id or wanted.casefold() == each.name.casefold()
    }
    if not found:
        return None
    by_parent = _children()
    inside: set[tuple[str, str]] = set()
    while found:
        inside |= found
        found = {child for each in found for child in by_parent.get(each, ())} - inside
    members = [each for each in categories() if (each.taxonomy, each.id) in inside]
    return frozenset({each.id for each in members} | {each.name.casefold() for each in members})


def nearest(word: str) -> str | None:
    """The name that was probably meant: one that looks like it, or the shortest that has it."""
    names = {each.name.casefold(): each.name for each in categories()}
    lower = word[:64].casefold()
    likely = get_close_matches(lower, names, 1, 0.8)
    if likely:
        return names[likely[0]]
    stem = lower.removesuffix("s")
    having = [name for name in names if len(stem) > 3 and stem in name]
    return names[min(having, key=lambda name: (len(name), name))] if having else None


@cache
def _children() -> Mapping[tuple[str, str], list[tuple[str, str]]]:
    below: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for each in categories():
        if each.parent:
            below.setdefault((each.taxonomy, each.parent), []).append((each.taxonomy, each.id))
    return below
