"""The closed loop of simulated people: held against an ad server that caps by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from governor.fatigue.exposures import DAY, NEVER
from governor.policy import load
from governor.simulation.loop import Drawn, Server, occasions, run
from governor.simulation.worlds import World

CAPPED = load("rules: [{name: weekly, cap: 3, per: campaign, window: 1w}]")


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return occasions(World("few", people=300, days=14.0, delay=7_200.0, dark=0.2), 5)


def test_a_governor_that_caps_does_what_a_capping_ad_server_does(drawn: Drawn) -> None:
    own = run(drawn, Server(cap=3, window=7 * DAY))
    governed = run(drawn, Server(), CAPPED)
    assert 0 < own.shown < own.offered.sum()
    assert (own.campaign == governed.campaign).all()
    assert (own.engaged_at == governed.engaged_at).all()
    assert (governed.held == governed.offered & ~governed.campaign).all()
    assert (governed.rules[governed.held] == 1).all()


def test_an_ad_server_that_never_obeys_shows_what_it_shows_ungoverned(drawn: Drawn) -> None:
    alone, deaf = run(drawn), run(drawn, Server(obeys=0.0), CAPPED)
    assert (alone.campaign == deaf.campaign).all()
    assert (deaf.rules > 0).any()
    assert not deaf.held.any()


def test_what_is_obeyed_grows_with_obedience(drawn: Drawn) -> None:
    shown = [run(drawn, Server(obeys=share), CAPPED).shown for share in (0.0, 0.5, 1.0)]
    assert shown[0] > shown[1] > shown[2]


def test_the_same_seed_is_the_same_world() -> None:
    world = World("few", people=50)
    one, two, other = occasions(world, 1), occasions(world, 1), occasions(world, 2)
    assert all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(one.occasions, two.occasions, strict=True)
    )
    assert len(one.occasions.ts) != len(other.occasions.ts)


def test_answers_come_to_what_was_shown_and_after_it(drawn: Drawn) -> None:
    found = run(drawn, Server(), CAPPED)
    answered = found.engaged_at != NEVER
    assert answered.any()
    assert found.campaign[answered].all()
    assert found.measurable[answered].all()
    assert (found.engaged_at[answered] >= drawn.occasions.ts[answered]).all()


def test_what_came_about_is_what_was_known_at_the_time(drawn: Drawn) -> None:
    found = run(drawn, Server(), CAPPED)
    until = drawn.begin + 5 * DAY
    early, late = found.exposures(until), found.exposures()
    assert early.ts.max() < until
    assert early.engaged.sum() < late.engaged.sum()
    assert (early.engaged_at <= until).all()
    assert not early.settled[early.ts > until - DAY].any()


def test_fatigue_lowers_the_chance_of_those_who_are_shown_more() -> None:
    world = World("few", people=300, days=14.0)
    tired = run(occasions(world, 5))
    first = np.nan_to_num(tired.left, nan=1.0) == 1.0
    fresh = run(occasions(replace(world, tiring=world.tiring._replace(loss=0.0)), 5))
    assert (fresh.expected[first & fresh.offered] == tired.expected[first & fresh.offered]).all()
    assert (fresh.expected >= tired.expected)[fresh.offered].all()
    assert tired.engagements < fresh.engagements
