"""How simulated people answer an ad: the truth that estimates are held against.

An exposure is answered with probability ``base season activity^heavy f theta`` (at most 1):

- ``f``, what fatigue leaves: ``1 - loss (1 - exp(-wear / scale))``, where wear is the person's
  earlier exposures, each fading by half in ``recovery`` ticks (0: never); or, where ``rested``, the
  count of earlier exposures, with the whole loss fading since the last one, by half-lives or, where
  ``slow``, ever more slowly;
- ``theta``, the person's propensity for the campaign, of mean 1;
- ``activity``, relative to the mean: where ``heavy`` > 0, heavy users click more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled

__all__ = ["Habits", "People", "Tiring", "answer", "draw", "faded", "fatigue"]

_LN2: Final = math.log(2.0)


class Tiring(NamedTuple):
    """How an ad tires people; plain numbers, for compiled code.

    Attributes:
        loss: the share of the effect that is lost in the end.
        scale: wear at which 63% of that is lost.
        recovery: ticks in which wear halves; 0 for never.
        rested: whether the loss itself fades since the last exposure, instead of each one's wear.
        slow: whether it then fades as ``1 / (1 + elapsed / recovery)``: half is left after
            ``recovery``, a quarter after three times that.
    """

    loss: float
    scale: float
    recovery: int = 0
    rested: bool = False
    slow: bool = False


@dataclass(frozen=True)
class Habits:
    """What a population is like.

    Attributes:
        activity: exposures a day of all ads, mean over people.
        spread: standard deviation of the logarithm of activity.
        session: exposures in a session, mean.
        propensity: ``gamma``, ``lognormal``, or ``some``: only a share of people ever answers.
        shape: of the gamma distribution; the lognormal's variance is 1 / shape; the share of
            people is shape / (1 + shape), so that all three have the same mean and variance.
        bots: the share of people who are programs.
    """

    activity: float = 2.5
    spread: float = 1.0
    session: float = 2.0
    propensity: Literal["gamma", "lognormal", "some"] = "gamma"
    shape: float = 1.0
    bots: float = 0.0


@dataclass(frozen=True)
class People:
    """A population.

    Attributes:
        activity: (people,) exposures a day of all ads.
        relative: (people,) the same over its mean, bots aside.
        propensity: (people, campaigns) theta.
        bot: (people,) whether it is a program: it is shown ten times as much, and answers three of
            five whatever it is shown.
    """

    activity: NDArray[np.float64]
    relative: NDArray[np.float64]
    propensity: NDArray[np.float64]
    bot: NDArray[np.bool_]


def draw(rng: np.random.Generator, count: int, campaigns: int, habits: Habits) -> People:
    """``count`` people, with a propensity for each of ``campaigns``."""
    drift = habits.spread**2 / 2
    relative = np.exp(rng.normal(-drift, habits.spread, count))
    size = (count, campaigns)
    if habits.propensity == "gamma":
        propensity = rng.gamma(habits.shape, 1.0 / habits.shape, size)
    elif habits.propensity == "lognormal":
        sd = math.sqrt(math.log1p(1.0 / habits.shape))
        propensity = np.exp(rng.normal(-(sd**2) / 2, sd, size))
    else:
        share = habits.shape / (1.0 + habits.shape)
        propensity = np.where(rng.random(size) < share, 1.0 / share, 0.0)
    bot = rng.random(count) < habits.bots
    activity = habits.activity * np.where(bot, 10.0, relative)
    return People(activity, relative, propensity, bot)


@compiled
def fatigue(wear: float, gap: int, tiring: Tiring) -> float:
    """``f``: what fatigue leaves of an exposure's effect.

    Args:
        wear: as `faded` keeps it, at the time of the exposure.
        gap: ticks since the last exposure; anything where there was none.
    """
    lost = tiring.loss * (1.0 - math.exp(-wear / tiring.scale))
    if tiring.rested and tiring.recovery > 0:
        if tiring.slow:
            lost /= 1.0 + gap / tiring.recovery
        else:
            lost *= math.exp(-_LN2 * gap / tiring.recovery)
    return 1.0 - lost


@compiled
def faded(wear: float, gap: int, tiring: Tiring) -> float:
    """Wear after ``gap`` ticks without exposure. An exposure adds 1 to it."""
    if tiring.recovery == 0 or tiring.rested:
        return wear
    return wear * math.exp(-_LN2 * gap / tiring.recovery)


@compiled
def answer(
    base: float, season: float, relative: float, heavy: float, left: float, propensity: float
) -> float:
    """The probability that an exposure is answered; ``left`` is what `fatigue` leaves."""
    return min(1.0, base * season * math.pow(relative, heavy) * left * propensity)
