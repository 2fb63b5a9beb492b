"""Curves estimated in a process of their own, so that the stream never waits for them.

The process is started for one estimate, reads what it is to estimate from its standard input,
writes the curves to its standard output, and gives its memory back with its end. It runs at the
lowest priority. The worker keeps the input open until the curves are there: where it ends, it ends
its estimate too, so that a killed worker leaves no process behind.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from contextlib import suppress
from threading import Thread

from governor.fatigue.curves import CurveSet
from governor.fatigue.exposures import Exposures
from governor.fatigue.frailty import fit

__all__ = ["FittingError", "fit_apart"]


# Before it imports anything, which takes a second of a core that the worker may have need of.
_LAST = "import os, runpy; os.nice(19); runpy.run_module('streams.fitting', run_name='__main__')"


class FittingError(Exception):
    """The process ended without curves; says how."""


async def fit_apart(exposures: Exposures, previous: CurveSet | None, now: int) -> CurveSet:
    """`governor.fatigue.frailty.fit`, elsewhere.

    Raises:
        FittingError: it failed.
    """
    told = pickle.dumps((exposures, None if previous is None else previous.to_json(), now))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _LAST,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # what it says below tells why
            process.stdin.write(told)
            await process.stdin.drain()
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait()
    finally:
        process.stdin.close()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    if process.returncode:
        last = err.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise FittingError(f"it ended with status {process.returncode}: {last[0]}")
    return CurveSet.from_json(out)


def _end_with_the_worker() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing more is said: it returns when the other end is gone
    os._exit(1)


def _main() -> None:
    # From the worker that started this process, over a pipe that nobody else has.
    exposures, previous, now = pickle.load(sys.stdin.buffer)  # noqa: S301
    Thread(target=_end_with_the_worker, daemon=True).start()
    before = None if previous is None else CurveSet.from_json(previous)
    sys.stdout.write(fit(exposures, before, now=now).to_json())


if __name__ == "__main__":
    _main()
