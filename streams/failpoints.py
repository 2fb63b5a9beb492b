"""Failpoints: named places where a test makes a worker fail.

``GOVERNOR_FAILPOINTS=flush.before_rows=stop#3;flush.after_decisions=kill@0.01`` arms two of them.
Unarmed, a failpoint is an empty call. An action is

- ``kill``: SIGKILL to the worker itself,
- ``stop``: SIGSTOP to the worker itself; whoever sends SIGCONT wakes it,
- ``pause:S``: wait for S seconds while everything else goes on,
- ``error``: raise `InjectedError`,

every time, or with ``@P`` behind it with probability P each time, or with ``#N`` the Nth time only.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from dataclasses import dataclass

__all__ = ["NAMES", "InjectedError", "arm", "failpoint", "parse"]

NAMES = (
    "flush.begin",
    "flush.before_decisions",
    "flush.after_decisions",
    "flush.before_rows",
    "flush.after_rows",
    "flush.before_ack",
    "flush.after_ack",
)

_FORM = re.compile(
    r"(?P<name>[a-z_.]+)=(?P<action>kill|stop|error|pause:(?P<seconds>\d+(\.\d+)?))"
    r"(@(?P<probability>0?\.\d+|1)|#(?P<number>[1-9]\d*))?"
)


class InjectedError(Exception):
    """Raised by a failpoint armed with ``error``."""


@dataclass
class _Armed:
    """What happens at one failpoint, and how often."""

    action: str
    seconds: float
    probability: float
    number: int
    """The time at which it acts, from 1 on; 0 for every time."""
    reached: int = 0

    def due(self) -> bool:
        self.reached += 1
        if self.number:
            return self.reached == self.number
        return self.probability >= 1 or random.random() < self.probability


_armed: dict[str, _Armed] = {}


def parse(text: str) -> dict[str, _Armed]:
    """The failpoints that a setting arms.

    Raises:
        ValueError: it is not ``name=action[@P|#N];...``, or a name is not one of `NAMES`.
    """
    armed = {}
    for each in filter(None, text.split(";")):
        found = _FORM.fullmatch(each)
        if found is None or found["name"] not in NAMES:
            raise ValueError(
                f"{each!r} is no failpoint: write name=kill, stop, pause:SECONDS or error, then "
                f"@PROBABILITY or #TIME if wanted; names are {', '.join(NAMES)}"
            )
        armed[found["name"]] = _Armed(
            found["action"].partition(":")[0],
            float(found["seconds"] or 0),
            float(found["probability"] or 1),
            int(found["number"] or 0),
        )
    return armed


def arm(text: str) -> None:
    """Arm these failpoints and no others, in this process."""
    _armed.clear()
    _armed.update(parse(text))


async def failpoint(name: str) -> None:
    """Do what is armed for ``name``; usually nothing."""
    if not _armed or (armed := _armed.get(name)) is None or not armed.due():
        return
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif armed.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif armed.action == "pause":
        await asyncio.sleep(armed.seconds)
    else:
        raise InjectedError(f"failpoint {name}")
