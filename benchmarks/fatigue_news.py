"""A real stream: clicks on articles shown again, EB-NeRD's sample (see `governor/data/NOTICE.md`).

A page view shows up to 81 articles at one instant and nearly always gets one click, so how often an
article is clicked follows from how many stand beside it. Within the slate that cancels: conditional
logit (McFadden 1974), the click falls on article i with probability
``exp(x_i'b) / sum_j exp(x_j'b)``, x the logarithm (base 2) of how often the person has been shown
it, whether they clicked it before, and how often other people click it. Intervals are from a
bootstrap over the 38 people. An article that somebody did not click is likelier to be one that does
not interest them, which no covariate here takes out: the figure is what repetition *and* lack of
interest do together, an upper bound of fatigue.
"""

from __future__ import annotations

import csv
import gzip
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Odds", "odds"]


class Odds(NamedTuple):
    """The odds of a click per doubling of exposures, with their 95% interval."""

    per_doubling: float
    low: float
    high: float
    people: int
    slates: int


class _Slates(NamedTuple):
    """Articles of page views with one click, sorted by slate."""

    x: NDArray[np.float64]
    click: NDArray[np.bool_]
    slate: NDArray[np.int64]
    person: NDArray[np.int64]


def odds(draws: int = 1000) -> Odds:
    """The figure, from the sample that is part of the package."""
    slates = _read()
    start = np.flatnonzero(np.append(True, slates.slate[1:] != slates.slate[:-1]))
    people = slates.person[start]
    names = np.unique(people)
    found = _maximize(slates, start, np.ones(len(start)))
    rng = np.random.default_rng(38)
    drawn = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        weight = times[np.searchsorted(names, people)].astype(np.float64)
        drawn.append(_maximize(slates, start, weight)[0])
    low, high = np.exp(np.quantile(drawn, [0.025, 0.975]))
    return Odds(float(np.exp(found[0])), float(low), float(high), len(names), len(start))


def _read() -> _Slates:
    with gzip.open(str(files("governor") / "data" / "exposures.csv.gz"), "rt") as file:
        rows = list(csv.DictReader(file))
    column = {
        name: np.array([int(row[name]) for row in rows])
        for name in ("user_id", "impression_id", "item_id", "click", "exposure_no")
    }
    _, slate = np.unique(column["impression_id"], return_inverse=True)
    click = column["click"] == 1
    one = np.bincount(slate, click)[slate] == 1
    x = np.stack([np.log2(column["exposure_no"]), _clicked(column), _popular(column)], axis=1)
    order = np.flatnonzero(one)[np.argsort(slate[one], kind="stable")]
    return _Slates(x[order], click[order], slate[order], column["user_id"][order])


def _clicked(column: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Whether the person clicked the article before; the file is in order of time per person."""
    seen: set[tuple[int, int]] = set()
    out = np.zeros(len(column["click"]))
    for i, pair in enumerate(zip(column["user_id"], column["item_id"], strict=True)):
        out[i] = pair in seen
        if column["click"][i]:
            seen.add(pair)
    return out


def _popular(column: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Logarithm of how often other people click the article when they first see it, shrunk."""
    _, item = np.unique(column["item_id"], return_inverse=True)
    _, pair = np.unique(np.stack([column["user_id"], item]), axis=1, return_inverse=True)
    first = column["exposure_no"] == 1
    shown = np.bincount(item[first], minlength=item.max() + 1)
    clicks = np.bincount(item[first & (column["click"] == 1)], minlength=item.max() + 1)
    mine = np.bincount(pair, first & (column["click"] == 1))[pair]
    rate = clicks.sum() / shown.sum()
    return np.asarray(np.log((clicks[item] - mine + 20 * rate) / (shown[item] - 1 + 20)))


def _maximize(
    slates: _Slates, start: NDArray[np.int64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The coefficients with the largest likelihood, by Newton's method; a weight a slate."""
    size = np.diff(np.append(start, len(slates.x)))
    each = np.repeat(weight, size)
    b = np.zeros(slates.x.shape[1])
    for _ in range(30):
        u = np.exp(slates.x @ b)
        p = u / np.repeat(np.add.reduceat(u, start), size)
        mean = np.repeat(np.add.reduceat(slates.x * p[:, None], start), size, axis=0)
        apart = slates.x - mean
        slope = (apart * (each * slates.click)[:, None]).sum(axis=0)
        bend = (apart * (each * p)[:, None]).T @ apart + 1e-6 * np.eye(len(b))
        step = np.linalg.solve(bend, slope)
        b = b + step
        if np.abs(step).max() < 1e-8:
            break
    return b
