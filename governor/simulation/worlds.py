"""Worlds: who is shown what, and when; the truth stands beside the event log, not in it.

A person comes in sessions, and is shown one ad after another. From the time at which they are
targeted (they looked at a product) a share of what they are shown is the campaign's, until the
world's ad server stops it; everything else is other ads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.fatigue.exposures import DAY, NEVER, Exposures, from_columns
from governor.simulation.people import Habits, Tiring, answer, draw, faded, fatigue
from governor.ticks import SECOND

__all__ = [
    "PAUSE", "SCENARIOS", "Course", "Simulated", "World", "chance_of", "course_of", "drawn",
    "generate", "switched_at",
]  # fmt: skip

_TIRED = Tiring(0.65, 3.82)
"""Leaves .43 of a ninth exposure."""

_FRESH = Tiring(0.0, 1.0)

STOPS: Final = {"never": 0, "ignored": 1, "half": 2, "first": 3}

PAUSE: Final = 120.0 * SECOND
"""Ticks between exposures within a session, mean."""


@dataclass(frozen=True)
class World:
    """One campaign among others, and how its people answer.

    Attributes:
        name: in reports.
        habits: of the people.
        tiring: how the campaign's creative tires them.
        base: how often an average person answers a first exposure.
        heavy: heavy users click more: the power of relative activity.
        people: how many.
        before: days of the log before the campaign begins.
        days: of the campaign.
        entry: the share of the campaign's days over which people come to be targeted.
        share: the campaign's share of what a targeted person is shown.
        stop: when the ad server stops the campaign for a person: never, after five ignored in a
            row, at a click every second time, or at the first click.
        swing: seasons: the base rises and falls by this share within a week, ...
        trend: ... and changes by this factor over the campaign.
        dark: share of exposures on surfaces where no answer could be seen.
        delay: mean seconds until an answer comes.
        window: seconds after which an exposure without an answer is settled.
        switch: after this share of the days another creative takes over, unworn; 0 for never.
        second: how often it is answered, relative to the first one.
    """

    name: str
    habits: Habits = field(default_factory=Habits)
    tiring: Tiring = _TIRED
    base: float = 0.04
    heavy: float = 0.0
    people: int = 20_000
    before: float = 7.0
    days: float = 14.0
    entry: float = 0.5
    share: float = 0.4
    stop: Literal["never", "ignored", "half", "first"] = "never"
    swing: float = 0.0
    trend: float = 1.0
    dark: float = 0.0
    delay: float = 0.0
    window: float = 86_400.0
    switch: float = 0.0
    second: float = 1.0


class Course(NamedTuple):
    """A world as numbers, for compiled code; times in ticks."""

    base: float
    heavy: float
    share: float
    stop: int
    swing: float
    trend: float
    dark: float
    delay: float
    window: float
    switched: int
    second: float
    session: float


@dataclass(frozen=True)
class Simulated:
    """An event log and the truth about it.

    Attributes:
        exposures: the log.
        left: (exposures,) what fatigue truly leaves of each; nan for other ads.
        bots: hashes of the people who are programs.
    """

    exposures: Exposures
    left: NDArray[np.float64]
    bots: NDArray[np.uint64]


SCENARIOS: Final = (
    World("heavy users click more", tiring=_FRESH, heavy=1.0),
    World("throttled after five ignored", tiring=_FRESH, heavy=1.0, stop="ignored"),
    World("half stop after a click", tiring=_FRESH, heavy=1.0, stop="half", people=40_000),
    World("tired, heavy and throttled", tiring=_TIRED, heavy=1.0, stop="ignored"),
    World("all stop at the first click", tiring=_TIRED, stop="first"),
    World("recency recovery", tiring=Tiring(0.8, 2.0, 2 * DAY)),
    World("recovery by another law", tiring=Tiring(0.8, 3.0, 3 * DAY, True)),
    World("recovery ever more slowly", tiring=Tiring(0.8, 3.0, 2 * DAY, True, True)),
    World("season", tiring=_TIRED, swing=0.3, trend=0.5),
    World("bots", Habits(bots=0.005), tiring=_TIRED),
    World("creative switched", tiring=_TIRED, switch=0.5, second=0.7, stop="ignored"),
    World("delayed answers", tiring=_TIRED, heavy=1.0, stop="ignored", delay=14_400.0),
    World("60% dark", tiring=_TIRED, heavy=1.0, dark=0.6),
    World("no fatigue", tiring=_FRESH),
    World("lognormal propensity", Habits(propensity="lognormal"), tiring=_TIRED, stop="ignored"),
    World(
        "most never answer", Habits(propensity="some", shape=0.25), tiring=_TIRED, stop="ignored"
    ),
    World("log begins with the campaign", tiring=_FRESH, heavy=1.0, before=0.0, entry=0.01),
)
"""The five worlds of the design, and twelve more."""


def drawn(seed: int, tiring: bool = True) -> World:
    """A campaign that follows people, from the prior that the value of governing is measured over.

    What fatigue takes in the end is uniform from half to all; it is 63% gone after one to eight
    exposures, and wear halves in half a day to ten days (both log-uniform). Rates, pressure and
    heterogeneity: log-uniform, the first exposure is answered by 1% to 8%, a targeted person gets
    1 to 6 exposures a day on average, the gamma shape of propensity is .3 to 2; and heavy users
    click more by a power of activity from 0 to 1.

    Args:
        tiring: False for the same campaign, which tires nobody.
    """
    rng = np.random.default_rng([seed, 77])
    loss, heavy = rng.uniform(0.5, 1.0), rng.uniform(0.0, 1.0)
    scale, recovery, base, pressure, shape = np.exp(
        rng.uniform(np.log([1.0, 0.5, 0.01, 1.0, 0.3]), np.log([8.0, 10.0, 0.08, 6.0, 2.0]))
    )
    share = 0.5
    return World(
        f"campaign {seed}",
        Habits(activity=pressure / share, spread=0.8, session=3.0, shape=shape),
        Tiring(loss, scale, round(recovery * DAY)) if tiring else _FRESH,
        base=base,
        heavy=heavy,
        people=3_000,
        days=28.0,
        entry=0.25,
        share=share,
    )


def generate(world: World, seed: int) -> Simulated:
    """The world's event log, cut at its end, and its truth; the same for the same seed."""
    rng = np.random.default_rng([seed, len(world.name), sum(map(ord, world.name))])
    people = draw(rng, world.people, 1, world.habits)
    begin = round(world.before * DAY)
    end = begin + round(world.days * DAY)
    entry = begin + rng.random(world.people) * world.entry * (end - begin)
    size = int(people.activity.sum() * (world.before + world.days) * 1.3) + 1000
    columns = _columns(size)
    stream = np.random.default_rng([seed, 1, sum(map(ord, world.name))])
    count = _live(
        stream, people.activity, people.relative, people.propensity[:, 0], people.bot,
        entry.astype(np.int64), begin, end, course_of(world), world.tiring, *columns,
    )  # fmt: skip
    if count < 0:
        raise AssertionError(f"{world.name}: more exposures than {size}")
    person, ts, campaign, measurable, engaged, engaged_at, left = (c[:count] for c in columns)
    late = engaged_at > end
    creative = np.where(campaign < 0, NEVER, 0)
    if world.switch:
        creative = np.where((campaign >= 0) & (ts >= switched_at(world)), 1, creative)
    exposures = from_columns(
        person + 1, ts, campaign=campaign, campaigns=("C",), creative=creative,
        creatives=("A", "B") if world.switch else ("A",),
        category=np.where(campaign < 0, NEVER, 0), categories=("shoes",),
        measurable=measurable, engaged=engaged & ~late,
        engaged_at=np.where(late, NEVER, engaged_at),
        settled=ts + round(world.window * SECOND) <= end,
    )  # fmt: skip
    bots = (np.flatnonzero(people.bot) + 1).astype(np.uint64)
    return Simulated(exposures, left, bots)


def switched_at(world: World) -> int:
    """When the second creative takes over, ticks; where the world has one."""
    return round((world.before + world.switch * world.days) * DAY)


def _columns(size: int) -> tuple[NDArray[Any], ...]:
    """Person, time, campaign, measurable, engaged, when, and what fatigue leaves."""
    return (
        np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size, np.int32),
        np.zeros(size, np.bool_), np.zeros(size, np.bool_), np.zeros(size, np.int64),
        np.zeros(size, np.float64),
    )  # fmt: skip


def course_of(world: World) -> Course:
    """The world for compiled code."""
    return Course(
        base=world.base,
        heavy=world.heavy,
        share=world.share,
        stop=STOPS[world.stop],
        swing=world.swing,
        trend=math.log(world.trend),
        dark=world.dark,
        delay=world.delay * SECOND,
        window=world.window * SECOND,
        switched=switched_at(world) if world.switch else 0,
        second=world.second,
        session=world.habits.session,
    )


@compiled
def _live(
    rng: np.random.Generator,
    activity: NDArray[np.float64],
    relative: NDArray[np.float64],
    propensity: NDArray[np.float64],
    bot: NDArray[np.bool_],
    entry: NDArray[np.int64],
    begin: int,
    end: int,
    course: Course,
    tiring: Tiring,
    person: NDArray[np.int64],
    ts: NDArray[np.int64],
    campaign: NDArray[np.int32],
    measurable: NDArray[np.bool_],
    engaged: NDArray[np.bool_],
    engaged_at: NDArray[np.int64],
    left: NDArray[np.float64],
) -> int:
    """Fill the columns; how many exposures there are, or -1 where there is no room for them."""
    n = 0
    for i in range(len(activity)):
        # Times of sessions are a Poisson process; so are the pauses within one.
        apart = DAY * course.session / activity[i]
        now = rng.exponential(apart)
        wear, last, ignored, stopped, worn = 0.0, now, 0, False, 0
        while now < end:
            if n == len(ts):
                return -1
            person[n], ts[n] = i, int(now)
            engaged[n], engaged_at[n], measurable[n] = False, NEVER, True
            campaign[n], left[n] = NEVER, np.nan
            if now >= entry[i] and not stopped and rng.random() < course.share:
                creative = 1 if 0 < course.switched <= now else 0
                if creative != worn:
                    wear, worn = 0.0, creative
                gap = int(now - last)
                wear = faded(wear, gap, tiring)
                campaign[n] = 0
                left[n] = fatigue(wear, gap, tiring)
                chance = chance_of(now, begin, end, relative[i], propensity[i], left[n], course)
                if creative == 1:
                    chance *= course.second
                if bot[i]:
                    chance = 0.6
                measurable[n] = rng.random() >= course.dark
                if rng.random() < chance and measurable[n]:
                    late = rng.exponential(course.delay) if course.delay > 0 else 0.0
                    if late <= course.window:
                        engaged[n], engaged_at[n] = True, int(now + late)
                if engaged[n]:
                    ignored = 0
                    stopped = course.stop == 3 or (course.stop == 2 and rng.random() < 0.5)
                elif measurable[n]:
                    ignored += 1
                    stopped = course.stop == 1 and ignored >= 5
                wear += 1.0
                last = now
            n += 1
            pause = apart if rng.random() < 1.0 / course.session else PAUSE
            now += rng.exponential(pause)
    return n


@compiled
def chance_of(
    now: float,
    begin: int,
    end: int,
    relative: float,
    propensity: float,
    left: float,
    course: Course,
) -> float:
    """The chance of an answer to the first creative at a time; ``left`` is fatigue's doing."""
    week = 2.0 * math.pi * now / (7 * DAY)
    season = (1.0 + course.swing * math.sin(week)) * math.exp(
        course.trend * (now - begin) / (end - begin)
    )
    return answer(course.base, season, relative, course.heavy, left, propensity)
