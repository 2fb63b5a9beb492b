"""How many dead letters of a topic are borne.

A producer that goes wrong turns a day of traffic into dead letters in minutes. Past a limit the
messages are left where they are, in their topic, from which they can still be read rightly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

__all__ = ["Tolerance"]

WINDOW = 10_000
"""Messages over which the share is taken, and more where a batch is larger."""
LEAST = 1_000
"""Messages below which there is no share to speak of."""


class Tolerance:
    """Counts what became of one topic's messages.

    Args:
        streak: so many dead letters in a row are too many; 0 for no limit.
        percent: more than this share of the last `WINDOW` messages is; 0 for no limit.
    """

    def __init__(self, streak: int, percent: int) -> None:
        self._streak = streak
        self._percent = percent
        self._window: deque[tuple[int, int]] = deque()
        self._run = self._messages = self._dead = 0

    def bears(self, messages: int, dead: Sequence[int]) -> str:
        """Why a batch is too much; empty, and the batch is counted, when it is not.

        Args:
            messages: in the batch.
            dead: indices of the dead letters among them, ascending.
        """
        longest, run = self._runs(messages, dead)
        if dead and 0 < self._streak <= longest:
            return f"{longest} dead letters in a row (GOVERNOR_DEADLETTER_STREAK={self._streak})"
        total, bad = self._messages + messages, self._dead + len(dead)
        if dead and self._percent and total >= LEAST and 100 * bad > self._percent * total:
            return (
                f"{bad} dead letters among the last {total} messages "
                f"(GOVERNOR_DEADLETTER_PERCENT={self._percent})"
            )
        self._run, self._messages, self._dead = run, total, bad
        self._window.append((messages, len(dead)))
        while self._messages - self._window[0][0] >= WINDOW:
            old, old_dead = self._window.popleft()
            self._messages, self._dead = self._messages - old, self._dead - old_dead
        return ""

    def forget(self) -> None:
        """Begin to count anew."""
        self._window.clear()
        self._run = self._messages = self._dead = 0

    def _runs(self, messages: int, dead: Sequence[int]) -> tuple[int, int]:
        """The longest run of dead letters, those before the batch included, and the last one."""
        good = np.ones(messages, np.bool_)
        good[list(dead)] = False
        ends = np.flatnonzero(good)
        if not len(ends):
            return self._run + messages, self._run + messages
        between = np.diff(ends) - 1
        first, last = self._run + int(ends[0]), messages - 1 - int(ends[-1])
        return max(first, last, int(between.max(initial=0))), last
