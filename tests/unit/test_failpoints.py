"""Failpoints: what can be armed, and when an armed one acts."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from streams.failpoints import InjectedError, arm, failpoint, parse


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def errors_at(name: str, times: int) -> list[int]:
    """At which of so many times the failpoint raises."""
    found = []
    for time in range(1, times + 1):
        try:
            asyncio.run(failpoint(name))
        except InjectedError:
            found.append(time)
    return found


def test_nothing_happens_unarmed() -> None:
    arm("flush.begin=error")
    assert errors_at("flush.after_ack", 3) == []


def test_an_armed_one_acts_every_time_at_its_place_only() -> None:
    arm("flush.begin=error;flush.after_ack=pause:0.001")
    assert errors_at("flush.begin", 3) == [1, 2, 3]
    assert errors_at("flush.after_ack", 3) == []


def test_a_number_is_the_one_time_at_which_it_acts() -> None:
    arm("flush.begin=error#3")
    assert errors_at("flush.begin", 5) == [3]


def test_a_probability_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([0.5, 0.009, 0.01])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    arm("flush.begin=error@0.01")
    assert errors_at("flush.begin", 3) == [2]


@pytest.mark.parametrize(
    "text",
    ["flush.begin", "flush.middle=kill", "flush.begin=explode", "flush.begin=kill@2", "a=kill#0"],
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write name=kill.*flush\.before_rows"):
        parse(text)
