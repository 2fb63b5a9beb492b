"""How many dead letters are borne: streaks across batches, and the share of the last messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.tolerance import LEAST, WINDOW, Tolerance


def test_a_streak_counts_across_batches() -> None:
    tolerance = Tolerance(streak=10, percent=0)
    assert not tolerance.bears(5, [1, 2, 3, 4])
    assert not tolerance.bears(5, [0, 1, 2, 3, 4])
    assert "10 dead letters in a row" in tolerance.bears(2, [0])
    assert not tolerance.bears(1, [])  # what is refused is not counted
    assert not tolerance.bears(9, list(range(9)))


def test_a_streak_within_a_batch_is_found() -> None:
    assert Tolerance(streak=3, percent=0).bears(9, [2, 3, 4, 7])
    assert not Tolerance(streak=4, percent=0).bears(9, [2, 3, 4, 7])


def test_no_limit_bears_everything() -> None:
    tolerance = Tolerance(streak=0, percent=0)
    for _ in range(10):
        assert not tolerance.bears(LEAST, list(range(LEAST)))


def test_the_share_counts_from_some_messages_on() -> None:
    tolerance = Tolerance(streak=0, percent=50)
    assert not tolerance.bears(LEAST - 1, list(range(LEAST - 1)))
    assert tolerance.bears(1, [0])


def test_the_share_is_of_the_last_messages() -> None:
    tolerance = Tolerance(streak=0, percent=50)
    for _ in range(20):
        assert not tolerance.bears(WINDOW // 10, [])
    half = list(range(0, WINDOW // 10, 2))
    most = list(range(WINDOW // 10 - 1))
    for _ in range(5):
        assert not tolerance.bears(WINDOW // 10, half)
    assert any(tolerance.bears(WINDOW // 10, most) for _ in range(6))


@given(st.lists(st.lists(st.booleans(), max_size=12), max_size=12), st.integers(1, 20))
def test_streaks_are_those_of_the_plain_definition(batches: list[list[bool]], streak: int) -> None:
    tolerance = Tolerance(streak, percent=0)
    run = 0
    for batch in batches:
        if not batch:
            continue
        longest, now = 0, run
        for dead in batch:
            now = now + 1 if dead else 0
            longest = max(longest, now)
        refused = tolerance.bears(len(batch), [i for i, dead in enumerate(batch) if dead])
        assert bool(refused) == (longest >= streak and any(batch))
        if refused:
            break
        run = now
