"""The schedule of `make chaos` keeps what it promises, whatever the seed."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.faults import IN_A_FLUSH, SHARES, schedule
from streams.failpoints import NAMES, parse


@pytest.mark.parametrize(("count", "seed"), [(20, 1), (20, 7), (200, 1), (200, 2)])
def test_every_kind_comes_about_and_half_lie_in_a_flush(count: int, seed: int) -> None:
    to_workers, others = schedule(count, seed)
    kinds = Counter(fault.kind for fault in to_workers + others)
    assert kinds.total() == count
    assert kinds.keys() == SHARES.keys()
    assert 2 * sum(kinds[kind] for kind in IN_A_FLUSH) >= count
    assert kinds["worker added"] >= kinds["worker removed"]


def test_every_failpoint_is_hit_and_the_same_seed_gives_the_same() -> None:
    to_workers, _ = schedule(200, 3)
    assert schedule(200, 3) == schedule(200, 3)
    armed = Counter(name for fault in to_workers for name in parse(fault.failpoints))
    assert armed.keys() == set(NAMES)
    assert min(armed.values()) >= 10
