"""A version of the curves: what decisions name, and all that it takes to make them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from governor.fatigue.curves import CurveSet

__all__ = ["Version"]


@dataclass(frozen=True)
class Version:
    """Curves, and since when people have been observed. It never changes."""

    curves: CurveSet
    since: int
    """Ticks; before it, that nothing is held of somebody says nothing about them."""

    @cached_property
    def name(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of its text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def to_json(self) -> str:
        """Canonical: the same version gives the same text."""
        curves = json.loads(self.curves.to_json())
        return json.dumps(
            {"curves": curves, "since": self.since}, sort_keys=True, separators=(",", ":")
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Version:
        """What `to_json` wrote.

        Raises:
            ValueError: for anything else.
        """
        try:
            content: Mapping[str, object] = json.loads(text)
            curves, since = content["curves"], content["since"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a version of curves: {error!r}") from error
        if not isinstance(since, int):
            raise ValueError(f"not a version of curves: since is {since!r}")
        return cls(CurveSet.from_json(json.dumps(curves)), since)
