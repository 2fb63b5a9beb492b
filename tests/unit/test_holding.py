"""What is known of controls' labels is found again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from governor.compiled import compiled
from governor.holding import Heard, Spoken, _answer, _pair


@compiled
def answer(heard: Heard, label: int, ad: int) -> int:
    """As compiled code asks."""
    return _answer(heard, _pair(label, ad))


def test_every_pair_that_was_heard_is_answered() -> None:
    spoken = Spoken()
    labels: Any = SimpleNamespace(labels_of=lambda ad: {"campaign": f"c{ad}"})
    scopes: Any = SimpleNamespace(label_names=[f"campaign:c{n}" for n in range(40)])
    pairs = [(label, ad) for label in range(40) for ad in range(40)]
    for label, ad in pairs:
        assert answer(spoken.heard, label, ad) == -1
        spoken.hear(label, ad, labels, scopes)
        assert answer(spoken.heard, label, ad) == (label == ad)
    assert all(answer(spoken.heard, label, ad) == (label == ad) for label, ad in pairs)
