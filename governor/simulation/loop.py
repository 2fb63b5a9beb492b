"""A closed loop: people, an ad server, and the governor between them, in simulated time.

What people would meet is drawn first and is the same whatever governs (`occasions`): when they
come by, what is offered to them, and the luck of each answer. So runs of one world differ by what
governed alone. Then `run` leads them past the governor's ledger, one after the other: the ad
server obeys what holds an ad back, or does not; what is shown tires, is answered, and enters the
ledger; the curves are estimated anew once in a while from what has settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.ads import ad_of_labels
from governor.applying import apply_events
from governor.compiled import allocating, compiled, integer
from governor.entries import CLICK, ENGAGEMENT, EXPOSURE, TYPE_SHIFT, UNMEASURABLE
from governor.fatigue import frailty
from governor.fatigue.curves import CurveSet
from governor.fatigue.exposures import DAY, NEVER, Exposures, from_columns
from governor.fatigue.versions import Version
from governor.hashing import hash_bytes, mix
from governor.holding import DONE, FULL, SHARES, Governing, Spoken, held_back
from governor.ledger import Ledger
from governor.policy import Fatigue, Policy, load
from governor.replay.replaying import sample
from governor.rows import find
from governor.simulation.people import Tiring, draw, faded, fatigue
from governor.simulation.worlds import PAUSE, Course, World, chance_of, course_of, switched_at
from governor.ticks import SECOND

__all__ = ["Drawn", "Occasions", "Run", "Server", "occasions", "run"]

_OTHERS: Final = {"channel": "elsewhere"}
"""The labels of all ads but the campaign's."""

_EXPOSURE, _CLICK = EXPOSURE, ENGAGEMENT | CLICK << TYPE_SHIFT
_DONE, _FULL = DONE, FULL
_DARK = UNMEASURABLE
_ZERO, _LUCK, _SHARES = np.uint64(0), np.uint64(0x1C), np.uint64(SHARES)


class Occasions(NamedTuple):
    """When people could be shown an ad, in order of time; an element an occasion.

    Attributes:
        person: numbered from 0.
        ts: ticks.
        offered: whether the ad server has the campaign for them; else another ad.
        answer, dark, late, obey, stop: the luck of an answer, of a surface where none is seen,
            of its delay (exponential, of mean 1), of the ad server's obedience and its own stop;
            uniform otherwise.
    """

    person: NDArray[np.int32]
    ts: NDArray[np.int64]
    offered: NDArray[np.bool_]
    answer: NDArray[np.float32]
    dark: NDArray[np.float32]
    late: NDArray[np.float32]
    obey: NDArray[np.float32]
    stop: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A world with its people and what they would meet."""

    world: World
    occasions: Occasions
    relative: NDArray[np.float64]
    propensity: NDArray[np.float64]
    bot: NDArray[np.bool_]
    begin: int
    end: int


class Server(NamedTuple):
    """The ad server.

    Attributes:
        obeys: the share of occasions on which it heeds what the governor says.
        cap: its own: so many exposures of the campaign per person in the last ``window`` ticks;
            0 for none.
    """

    obeys: float = 1.0
    cap: int = 0
    window: int = 7 * DAY


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run; arrays have an element an occasion, in order of time.

    Attributes:
        campaign: what was shown was the campaign; else it was another ad, or held back.
        held: the governor held the campaign back, and was obeyed; another ad was shown instead.
        rules: of each occasion the bits of the rules that held it back, obeyed or not.
        expected: the true chance of an answer, shown or not; nan where not offered.
        left: what fatigue truly left; nan where not offered.
        engaged_at: ticks, `NEVER` where it was not answered.
        curves: those that governed, in the order of their times.
    """

    drawn: Drawn
    offered: NDArray[np.bool_]
    campaign: NDArray[np.bool_]
    held: NDArray[np.bool_]
    rules: NDArray[np.uint64]
    measurable: NDArray[np.bool_]
    expected: NDArray[np.float64]
    left: NDArray[np.float64]
    engaged_at: NDArray[np.int64]
    curves: tuple[CurveSet, ...]

    @property
    def shown(self) -> int:
        """Exposures of the campaign."""
        return int(self.campaign.sum())

    @property
    def engagements(self) -> int:
        """Answers to the campaign, seen or not yet due at the end."""
        return int((self.engaged_at != NEVER).sum())

    def exposures(self, until: int | None = None) -> Exposures:
        """What took place before a time, as it was known then; by default at the end."""
        world, ts = self.drawn.world, self.drawn.occasions.ts
        now = self.drawn.end if until is None else until
        return _exposures(
            world, self.drawn.occasions, self.campaign, self.measurable, self.engaged_at,
            int(np.searchsorted(ts, now)), now,
        )  # fmt: skip


def occasions(world: World, seed: int) -> Drawn:
    """A world's people and what they would meet; the same for the same seed."""
    rng = np.random.default_rng([seed, len(world.name), sum(map(ord, world.name))])
    people = draw(rng, world.people, 1, world.habits)
    begin = round(world.before * DAY)
    end = begin + round(world.days * DAY)
    entry = (begin + rng.random(world.people) * world.entry * (end - begin)).astype(np.int64)
    stream = np.random.default_rng([seed, 2])
    size = int(people.activity.sum() * (world.before + world.days) * 1.3) + 1000
    person, ts = np.zeros(size, np.int32), np.zeros(size, np.int64)
    count = _come_by(stream, people.activity, world.habits.session, end, person, ts)
    if count < 0:
        raise AssertionError(f"{world.name}: more occasions than {size}")
    order = np.argsort(ts[:count], kind="stable")
    person, ts = person[order], ts[order]
    luck = stream.random((5, count), np.float32)
    drawn = Occasions(
        person, ts, (ts >= entry[person]) & (luck[0] < world.share), luck[1], luck[2],
        stream.standard_exponential(count, np.float32), luck[3], luck[4],
    )  # fmt: skip
    return Drawn(
        world, drawn, people.relative, people.propensity[:, 0].copy(), people.bot, begin, end
    )


@compiled
def _come_by(
    rng: np.random.Generator,
    activity: NDArray[np.float64],
    session: float,
    end: int,
    person: NDArray[np.int32],
    ts: NDArray[np.int64],
) -> int:
    """Fill in when people come by, as `worlds` has it; how often, or -1 for want of room."""
    n = 0
    for i in range(len(activity)):
        apart = DAY * session / activity[i]
        now = rng.exponential(apart)
        while now < end:
            if n == len(ts):
                return -1
            person[n], ts[n] = i, int(now)
            n += 1
            pause = apart if rng.random() < 1.0 / session else PAUSE
            now += rng.exponential(pause)
    return n


class _State(NamedTuple):
    """What the loop keeps between calls; by person unless said otherwise."""

    wear: NDArray[np.float64]
    last: NDArray[np.int64]
    worn: NDArray[np.int64]
    ignored: NDArray[np.int64]
    stopped: NDArray[np.bool_]
    recent: NDArray[np.int64]  # (people, cap): times of the last exposures, in a ring
    turn: NDArray[np.int64]
    heap: NDArray[np.int64]  # occasions whose answers are under way, the next one first
    sizes: NDArray[np.int64]  # of the heap; the next occasion


class _Took(NamedTuple):
    """The columns of `Run`."""

    offered: NDArray[np.bool_]
    campaign: NDArray[np.bool_]
    held: NDArray[np.bool_]
    rules: NDArray[np.uint64]
    measurable: NDArray[np.bool_]
    expected: NDArray[np.float64]
    left: NDArray[np.float64]
    engaged_at: NDArray[np.int64]


class _One(NamedTuple):
    """Room for one event, as the ledger takes it."""

    text: NDArray[np.uint8]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    ts: NDArray[np.int64]
    what: NDArray[np.int64]
    event: NDArray[np.uint64]
    exposure: NDArray[np.uint64]
    ad: NDArray[np.int64]
    zone: NDArray[np.int64]
    consent: NDArray[np.int64]
    skipped: NDArray[np.uint8]
    outcome: NDArray[np.uint8]


class _Ads(NamedTuple):
    other: int
    first: int
    second: int


def run(
    drawn: Drawn,
    server: Server | None = None,
    policy: Policy | None = None,
    *,
    refit: int = DAY,
    horizon: int = 32 * DAY,
    row_limit: int = 128,
    most: int = 100_000,
    tell: Callable[[int], None] | None = None,
) -> Run:
    """Lead people past an ad server and, with a policy, the governor.

    Args:
        refit: event time between two estimates of the curves.
        most: exposures, of whole people, that an estimate is made of at most.
        tell: is called with the number of occasions done, now and then.
    """
    server = server or Server()
    world, n = drawn.world, len(drawn.occasions.ts)
    took = _Took(
        np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.bool_),
        np.zeros(n, np.uint64), np.ones(n, np.bool_), np.full(n, np.nan), np.full(n, np.nan),
        np.full(n, NEVER, np.int64),
    )  # fmt: skip
    state = _begun(world.people, server.cap, n)
    one = _room(world.people)
    # Without a policy no rule is asked and nothing is entered: this one only fills the arguments.
    ledger = Ledger(policy or _NO_POLICY, horizon=horizon, row_limit=row_limit)
    ads = _Ads(*(ledger.labels.intern(ad_of_labels(each)) for each in _labels()))
    spoken = Spoken()
    versions: list[CurveSet] = []
    for until, at in _steps(drawn, refit, policy):
        if at is not None:
            seen = _exposures(
                world, drawn.occasions, took.campaign, took.measurable, took.engaged_at,
                int(state.sizes[1]), at,
            )  # fmt: skip
            if (seen.campaign >= 0).any():
                seen = seen.take(sample(seen.person, most))
                versions.append(frailty.fit(seen, versions[-1] if versions else None, now=at))
                ledger.learn(Version(versions[-1], 0))

        def step(governing: Governing, until: int = until) -> int:
            return _live(
                governing, drawn.occasions, drawn.relative, drawn.propensity, drawn.bot,
                drawn.begin, drawn.end, course_of(world), world.tiring, server, policy is not None,
                ads, state, took, one, until,
            )  # fmt: skip

        ledger.lead(step, spoken)
        if tell is not None:
            tell(until)
    return Run(drawn, *took, tuple(versions))


_NO_POLICY: Final = load("rules: [{name: none, cap: 1024, per: user, window: 1m}]", row_limit=1024)

_DIGITS: Final = 9


def _labels() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    campaign = {"campaign": "C", "category": "shoes"}
    return _OTHERS, {**campaign, "creative": "A"}, {**campaign, "creative": "B"}


def _begun(people: int, cap: int, occasions: int) -> _State:
    return _State(
        np.zeros(people), np.zeros(people, np.int64), np.zeros(people, np.int64),
        np.zeros(people, np.int64), np.zeros(people, np.bool_),
        np.full((people, max(1, cap)), -(1 << 62), np.int64), np.zeros(people, np.int64),
        np.zeros(occasions, np.int64), np.zeros(2, np.int64),
    )  # fmt: skip


def _room(people: int) -> _One:
    """Room for one event, and the ids of all people end to end."""
    digits = 10 ** np.arange(_DIGITS - 1, -1, -1)
    text = (48 + np.arange(people)[:, None] // digits % 10).astype(np.uint8).reshape(-1)
    text.flags.writeable = False
    return _One(
        text, np.zeros(1, np.int64), np.full(1, _DIGITS, np.int64), np.zeros(1, np.int64),
        np.zeros(1, np.int64), np.zeros(1, np.uint64), np.zeros(1, np.uint64),
        np.zeros(1, np.int64), np.full(1, -1, np.int64), np.zeros(1, np.int64),
        np.zeros(1, np.uint8), np.zeros(1, np.uint8),
    )  # fmt: skip


def _steps(drawn: Drawn, refit: int, policy: Policy | None) -> Iterator[tuple[int, int | None]]:
    """Up to which occasion to go, and at which time, if any, to estimate the curves before."""
    ts = drawn.occasions.ts
    tiring = policy is not None and any(isinstance(rule, Fatigue) for rule in policy.rules)
    if not tiring:
        yield len(ts), None
        return
    at: int | None = None
    for until in range(refit, drawn.end + refit, refit):
        yield int(np.searchsorted(ts, until)), at
        at = until


def _exposures(
    world: World,
    drawn: Occasions,
    campaign: NDArray[np.bool_],
    measurable: NDArray[np.bool_],
    engaged_at: NDArray[np.int64],
    count: int,
    now: int,
) -> Exposures:
    """The first ``count`` occasions as what took place, as it is known at ``now``."""
    some = slice(0, count)
    shown, ts = campaign[some], drawn.ts[some]
    known = (engaged_at[some] != NEVER) & (engaged_at[some] <= now)
    second = shown & (ts >= switched_at(world)) if world.switch else np.zeros(count, np.bool_)
    return from_columns(
        drawn.person[some].astype(np.uint64) + np.uint64(1), ts,
        campaign=np.where(shown, 0, NEVER), campaigns=("C",),
        creative=np.where(shown, second.astype(np.int32), NEVER), creatives=("A", "B"),
        category=np.where(shown, 0, NEVER), categories=("shoes",),
        measurable=measurable[some], engaged=known,
        engaged_at=np.where(known, engaged_at[some], NEVER),
        settled=ts + round(world.window * SECOND) <= now,
    )  # fmt: skip


@allocating
def _live(
    governing: Governing,
    occasions: Occasions,
    relative: NDArray[np.float64],
    propensity: NDArray[np.float64],
    bot: NDArray[np.bool_],
    begin: int,
    end: int,
    course: Course,
    tiring: Tiring,
    server: Server,
    governed: bool,
    ads: _Ads,
    state: _State,
    took: _Took,
    one: _One,
    until: int,
) -> int:
    """Go on with the occasions up to ``until``; as `Ledger.lead` wants it.

    Nothing of an occasion is kept before all that may be missing has been asked.
    """
    by = np.zeros(2, np.uint64)
    while state.sizes[1] < until:
        i = state.sizes[1]
        person, now = occasions.person[i], occasions.ts[i]
        while governed and state.sizes[0] > 0 and took.engaged_at[state.heap[0]] <= now:
            if not _enter_answer(governing, one, occasions, took, state.heap[0]):
                return _FULL
            _pop(state.heap, state.sizes, took.engaged_at)
        offered = occasions.offered[i] and not state.stopped[person]
        creative = 1 if 0 < course.switched <= now else 0
        ad = ads.other
        shown, held = False, False
        if offered:
            ad = ads.second if creative == 1 else ads.first
            shown = _under_cap(state, server, person, now)
            if shown and governed:
                row = _row_of(governing, one, person)
                luck = integer(mix(np.uint64(i + 1), _LUCK) % _SHARES)
                controls = held_back(governing, row, now, _EXPOSURE, ad, luck, by)
                if controls < 0:
                    return controls
                if by[0] != _ZERO or controls:
                    took.rules[i] = by[0]
                    held = occasions.obey[i] < server.obeys
                    shown = not held
        measurable = not shown or occasions.dark[i] >= course.dark
        if governed:
            what = _EXPOSURE if measurable else _EXPOSURE | _DARK
            if not _enter(governing, one, person, now, what, i, ad if shown else ads.other):
                return _FULL
        took.offered[i], took.campaign[i], took.held[i] = offered, shown, held
        took.measurable[i] = measurable
        if offered:
            gap = now - state.last[person]
            wear = 0.0
            if creative == state.worn[person]:
                wear = faded(state.wear[person], gap, tiring)
            left = fatigue(wear, gap, tiring)
            chance = chance_of(now, begin, end, relative[person], propensity[person], left, course)
            if creative == 1:
                chance *= course.second
            if bot[person]:
                chance = 0.6
            took.left[i], took.expected[i] = left, chance
            if shown:
                state.wear[person], state.worn[person] = wear + 1.0, creative
                state.last[person] = now
                _answered(occasions, course, state, took, i, chance, governed)
        state.sizes[1] = i + 1
    return _DONE


@compiled
def _answered(
    occasions: Occasions,
    course: Course,
    state: _State,
    took: _Took,
    i: int,
    chance: float,
    governed: bool,
) -> None:
    """Let a person answer what was shown, or not, and the ad server draw its own conclusions."""
    person = occasions.person[i]
    hit = took.measurable[i] and occasions.answer[i] < chance
    if hit:
        late = occasions.late[i] * course.delay
        hit = late <= course.window
        if hit:
            took.engaged_at[i] = occasions.ts[i] + int(late)
            if governed:
                _push(state.heap, state.sizes, took.engaged_at, i)
    if hit:
        state.ignored[person] = 0
        if course.stop == 3 or (course.stop == 2 and occasions.stop[i] < 0.5):
            state.stopped[person] = True
    elif took.measurable[i]:
        state.ignored[person] += 1
        if course.stop == 1 and state.ignored[person] >= 5:
            state.stopped[person] = True


@compiled
def _under_cap(state: _State, server: Server, person: int, now: int) -> bool:
    """Whether the ad server's own cap lets the campaign be shown; if so, it counts as shown."""
    if server.cap == 0:
        return True
    turn = state.turn[person]
    if state.recent[person, turn] > now - server.window:
        return False
    state.recent[person, turn] = now
    state.turn[person] = (turn + 1) % server.cap
    return True


@compiled
def _row_of(governing: Governing, one: _One, person: int) -> int:
    start, size = person * _DIGITS, _DIGITS
    return find(governing.table, hash_bytes(one.text, start, size), one.text, start, size)


@compiled
def _enter(
    governing: Governing, one: _One, person: int, ts: int, what: int, i: int, ad: int
) -> bool:
    """Enter an exposure, or with ``what`` an answer to it; False where rows must grow first."""
    number = np.uint64(i + 1)
    one.start[0], one.ts[0], one.what[0], one.ad[0] = person * _DIGITS, ts, what, ad
    one.event[0] = mix(number, np.uint64(1 + (what & 3)))
    one.exposure[0] = mix(number, np.uint64(9))
    return bool(
        apply_events(
            governing.table, one.text, one.start, one.size, one.ts, one.what, one.event,
            one.exposure, one.ad, one.zone, one.consent, one.skipped, governing.ad_hash,
            governing.rules, governing.ads, governing.scratch, governing.horizon,
            governing.row_limit, one.outcome, 0,
        )
        == 1
    )  # fmt: skip


@compiled
def _enter_answer(
    governing: Governing, one: _One, occasions: Occasions, took: _Took, i: int
) -> bool:
    return _enter(governing, one, occasions.person[i], took.engaged_at[i], _CLICK, i, 0)


@compiled
def _push(
    heap: NDArray[np.int64], sizes: NDArray[np.int64], key: NDArray[np.int64], item: int
) -> None:
    """Put an item into a binary heap whose first item has the least key."""
    at = sizes[0]
    sizes[0] += 1
    while at > 0 and key[heap[(at - 1) // 2]] > key[item]:
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = item


@compiled
def _pop(heap: NDArray[np.int64], sizes: NDArray[np.int64], key: NDArray[np.int64]) -> None:
    """Take the first item out."""
    sizes[0] -= 1
    n = sizes[0]
    item = heap[n]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= n:
            break
        if child + 1 < n and key[heap[child + 1]] < key[heap[child]]:
            child += 1
        if key[heap[child]] >= key[item]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = item
