"""Curves estimated in a process of their own."""

import asyncio
import pickle
import subprocess
import sys

import numpy as np
import pytest

from governor.fatigue.exposures import DAY, Exposures, from_columns
from governor.fatigue.frailty import fit
from governor.ticks import SECOND
from streams.fitting import FittingError, fit_apart

NOW = 20 * DAY


def exposures() -> Exposures:
    """Forty people, five exposures an hour apart; every third answers the first."""
    people, times = np.arange(40), np.arange(5) * 3600 * SECOND
    engaged = np.zeros((40, 5), bool)
    engaged[::3, 0] = True
    return from_columns(
        np.repeat(people, 5),
        np.tile(times, 40) + 10 * DAY,
        campaign=np.zeros(200),
        engaged=engaged.ravel(),
        campaigns=["C1"],
    )


def test_curves_are_those_that_would_be_estimated_here() -> None:
    apart = asyncio.run(fit_apart(exposures(), None, NOW))
    assert apart.to_json() == fit(exposures(), None, now=NOW).to_json()


def test_what_went_wrong_is_told() -> None:
    with pytest.raises(FittingError, match="status 1"):
        asyncio.run(fit_apart(None, None, NOW))  # type: ignore[arg-type]


def test_an_estimate_ends_with_the_worker_that_wanted_it() -> None:
    worker = (
        "import time, streams.fitting as fitting\n"
        "fitting.fit = lambda *_, **__: (print('began', flush=True), time.sleep(3600))\n"
        "fitting._main()\n"
    )
    apart = subprocess.Popen(
        [sys.executable, "-c", worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert apart.stdin is not None
    assert apart.stdout is not None
    with apart:
        apart.stdin.write(pickle.dumps((None, None, NOW)))
        apart.stdin.flush()
        assert apart.stdout.readline() == b"began\n"
        apart.stdin.close()  # as the worker's end does, however it ended
        assert apart.wait(60) == 1
