"""The ledger against the oracle over random policies and streams (`tests.fuzz`), by seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.fuzz.cases import Features, case
from tests.fuzz.mixes import LEAST, MIXES
from tests.fuzz.running import Mismatch, least, run, told

MET: Counter[str] = Counter()
"""Over all mixes, in the order in which the tests run."""


@pytest.mark.parametrize("mix", range(len(MIXES)))
def test_the_ledger_answers_as_the_definitions_do(mix: int) -> None:
    wanted = -(-LEAST["events"] // len(MIXES))
    met: Counter[str] = Counter()
    seed = mix
    while met["events"] < wanted:
        drawn = case(seed, MIXES[mix])
        try:
            met += run(drawn)
        except Mismatch:
            pytest.fail(told(least(drawn)))
        seed += len(MIXES)
    assert met["decisions"] > met["rows"] / 20
    assert met["undecided"] < met["rows"] / 100
    assert met["answers undecided"] < met["rows"] / 20
    MET.update(met)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.builds(Features, *[st.booleans()] * len(fields(Features))))
def test_whatever_goes_together(seed: int, features: Features) -> None:
    """Some do not: what a crowded row let go, a wider policy cannot have back; what was erased
    before a link is for tests of links; and rows of several ids may be so far apart that one is
    forgotten."""
    assume(not (features.linked and features.erased))
    assume(not (features.restarted and features.ids))
    assume(not (features.crowded and features.widened))
    drawn = case(seed, features, users=4, most=24)
    try:
        run(drawn)
    except Mismatch:
        pytest.fail(told(least(drawn)))


def test_the_run_met_what_is_hard() -> None:
    """Runs after the test above, of whose mixes it adds up the counts."""
    if MET["events"] < LEAST["events"]:
        pytest.fail("run the whole module: the counts are of all its mixes")
    short = {what: MET[what] for what, least in LEAST.items() if MET[what] < least}
    assert not short
