"""A worker that stood still past its session does not flush."""

import pytest

from streams import lease
from streams.lease import Lease, LeaseLostError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(lease, "_now", lambda: now[0])
    return now


def test_within_the_session_it_holds(clock: list[float]) -> None:
    held = Lease(10)
    clock[0] += 10
    held.check()


def test_past_the_session_it_is_lost_and_says_what_to_do(clock: list[float]) -> None:
    held = Lease(10)
    clock[0] += 10.5
    with pytest.raises(LeaseLostError, match=r"GOVERNOR_SESSION_TIMEOUT=10s.*Start it anew"):
        held.check()


def test_the_thread_waking_first_does_not_hide_the_gap(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Lease(10)
    rounds = iter([False, False, True])
    monkeypatch.setattr(held._end, "wait", lambda _: next(rounds))
    clock[0] += 60
    held._keep()
    with pytest.raises(LeaseLostError):
        held.check()
