"""Bookmarks beside committed offsets: where to go on, and when the next events are suspected."""

from __future__ import annotations

import pytest
from aiokafka.structs import TopicPartition

from streams.bookmarks import Bookkeeper, Bookmark, start_of

TP = TopicPartition("impressions", 0)


@pytest.mark.parametrize(
    ("committed", "marked", "begin", "end", "offset", "guard"),
    [
        (50, "t1", 0, 100, 50, ""),
        (50, "", 0, 100, 50, ""),
        (100, "t1", 0, 100, 100, ""),
        (50, "t0", 0, 100, 0, "input_recreated"),
        (150, "t1", 10, 100, 10, "input_recreated"),
        (150, "", 0, 100, 0, "input_recreated"),
        (5, "t1", 20, 100, 20, "input_expired"),
    ],
)
def test_where_to_go_on(
    committed: int, marked: str, begin: int, end: int, offset: int, guard: str
) -> None:
    start = start_of("impressions[0]", committed, "t1", marked, begin, end)
    assert (start.offset, start.guard) == (offset, guard)
    assert bool(start.text) == bool(guard)


@pytest.mark.parametrize("metadata", ["", "x", "[]", "{}", "[1]", '["a","b",1,2,"c",4]', "null"])
def test_metadata_of_others_is_no_bookmark(metadata: str) -> None:
    assert Bookmark.read(metadata) is None


def test_a_bookmark_is_read_as_it_was_written() -> None:
    bookmark = Bookmark("t1", "l1", 8, 0, 4711, 2)
    assert Bookmark.read(bookmark.text()) == bookmark


class Group:
    """What the group has committed, and workers that begin there."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
        self.offset, self.metadata = 10, ""
        self.told: list[str] = []

    def begin(self) -> Bookkeeper:
        keeper = Bookkeeper(
            lambda _: 99, self.attempts, 1000, lambda guard, _: self.told.append(guard)
        )
        keeper.know({TP.topic: "t1"}, "l1", 4, {0: 0})
        _, self.metadata = keeper.start(TP, self.offset, self.metadata, 0, 500)
        return keeper


def test_events_are_suspected_after_so_many_workers_did_not_get_on() -> None:
    group = Group(attempts=3)
    for _ in range(3):
        assert not group.begin().suspicious(TP, 10)
    keeper = group.begin()
    assert group.told == ["crash_loop"]
    assert keeper.suspicious(TP, 10)
    assert keeper.suspicious(TP, 1009)
    assert not keeper.suspicious(TP, 1010)


def test_progress_and_leaving_in_order_clear_the_suspicion() -> None:
    group = Group(attempts=2)
    group.begin()
    keeper = group.begin()
    group.offset, group.metadata = 20, keeper.metadata(TP)
    keeper.reached(TP)
    assert keeper.unharmed() == {}
    assert not group.begin().suspicious(TP, 20)
    keeper = group.begin()
    ((group.offset, group.metadata),) = keeper.unharmed().values()
    assert not group.begin().suspicious(TP, 20)
    assert not group.begin().suspicious(TP, 20)
    assert group.told == []


def test_one_worker_that_begins_again_is_one_attempt() -> None:
    group = Group(attempts=2)
    keeper = group.begin()
    for _ in range(5):
        _, group.metadata = keeper.start(TP, group.offset, group.metadata, 0, 500)
    assert not keeper.suspicious(TP, 10)


def test_zero_attempts_never_suspect() -> None:
    group = Group(attempts=0)
    for _ in range(9):
        assert not group.begin().suspicious(TP, 10)
