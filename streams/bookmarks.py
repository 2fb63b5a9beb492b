"""Bookmarks: what an offset that a group has committed was said of.

An offset alone does not tell whether the topic is still the one that it counts in, nor whether the
rows that were in the changelog then are there now. So each commit carries, as its metadata, the ids
of both topics, how far the changelog reached, and how many workers in a row have begun here and not
got on. Kafka's own tools commit without metadata: resetting a group's offsets forgets all that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aiokafka.structs import TopicPartition

__all__ = ["Bookkeeper", "Bookmark", "Start", "start_of"]


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What holds of one partition at the time of a commit."""

    topic: str
    """Id of the topic of events that the offset counts in."""
    ledger: str
    """Id of the changelog topic."""
    partitions: int
    """Of every topic."""
    begin: int
    """The changelog partition's first offset."""
    end: int
    """The offset behind the last row that this group has written to it; 0 for none."""
    attempts: int = 0
    """How many workers in a row have begun at this offset and committed none behind it."""

    def text(self) -> str:
        """As a commit's metadata."""
        return json.dumps(
            [self.topic, self.ledger, self.partitions, self.begin, self.end, self.attempts],
            separators=(",", ":"),
        )

    @classmethod
    def read(cls, metadata: str) -> Bookmark | None:
        """The bookmark of a commit; None where it has none of ours."""
        try:
            topic, ledger, *numbers = json.loads(metadata)
            partitions, begin, end, attempts = map(int, numbers)
        except (ValueError, TypeError):
            return None
        return cls(str(topic), str(ledger), partitions, begin, end, attempts)


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin to read a partition, and what is to be said about it."""

    offset: int
    guard: str = ""
    """One of `streams.guards.GUARDS`; empty when nothing is wrong."""
    text: str = ""


def start_of(name: str, committed: int, topic: str, marked: str, begin: int, end: int) -> Start:
    """Where to go on in a partition whose committed offset may be another topic's.

    Reading again what was applied changes nothing, so the beginning is always right.

    Args:
        name: of the partition, for people.
        committed: the offset that the group has committed.
        topic: id of the topic as it is now.
        marked: the id of the topic that the offset counts in; empty when it is not known.
        begin: the first offset that is there.
        end: the offset behind the last.
    """
    again = "reading it from its beginning; what was applied before does not count twice"
    if marked and marked != topic:
        return Start(
            begin, "input_recreated", f"{name}: the topic was deleted and created anew: {again}"
        )
    if committed > end:
        return Start(
            begin,
            "input_recreated",
            f"{name}: ends at {end}, before offset {committed} that this group has committed: "
            f"{again}. If nobody recreated the topic, its cluster has lost records: check for "
            "unclean leader elections",
        )
    if committed < begin:
        return Start(
            begin,
            "input_expired",
            f"{name}: {begin - committed} offsets were deleted before this group read them, and "
            "what happened there is not known: raise the topic's retention.ms above the time for "
            "which workers may be away",
        )
    return Start(committed)


class Bookkeeper:
    """Keeps the bookmarks of one worker's partitions.

    Args:
        written: asks for the newest changelog offset of a partition whose row is in memory.
        attempts: how many workers in a row may begin at an offset and not get on, before what
            follows is suspected; 0 never suspects.
        suspects: how many offsets behind such a beginning may have been at work.
        tripped: is told the guard and the text of what is wrong.
    """

    def __init__(
        self,
        written: Callable[[int], int | None],
        attempts: int,
        suspects: int,
        tripped: Callable[[str, str], None],
    ) -> None:
        self._written = written
        self._attempts = attempts
        self._suspects = suspects
        self._tripped = tripped
        self._topics: Mapping[str, str] = {}
        self._ledger = ""
        self._partitions = 0
        self._begins: Mapping[int, int] = {}
        self._tried: dict[TopicPartition, tuple[int, Bookmark]] = {}
        self._suspicious: dict[TopicPartition, int] = {}

    def know(
        self, topics: Mapping[str, str], ledger: str, partitions: int, begins: Mapping[int, int]
    ) -> None:
        """Note ids of the topics of events by name, that of the changelog, and its beginnings."""
        self._topics, self._ledger = topics, ledger
        self._partitions, self._begins = partitions, begins

    def metadata(self, tp: TopicPartition) -> str:
        """What goes with the commit of an offset that was reached."""
        return self._mark(tp).text()

    def start(
        self, tp: TopicPartition, committed: int, metadata: str, begin: int, end: int
    ) -> tuple[int, str]:
        """Where to begin to read, and the metadata to commit there before anything is read."""
        tried = self._tried.get(tp)
        if tried is not None and tried[0] == committed:
            return committed, tried[1].text()  # this worker's own attempt goes on
        bookmark = Bookmark.read(metadata)
        topic, known = self._topics.get(tp.topic, ""), bookmark.topic if bookmark else ""
        start = Start(max(begin, committed))
        if topic:  # the others are cut off by workers, where they have been read
            start = start_of(f"{tp.topic}[{tp.partition}]", committed, topic, known, begin, end)
        if start.guard:
            self._tripped(start.guard, start.text)
        attempts = bookmark.attempts if bookmark and start.offset == committed else 0
        if 0 < self._attempts <= attempts and end > start.offset:
            self._suspicious[tp] = start.offset + self._suspects
            self._tripped(
                "crash_loop",
                f"{tp.topic}[{tp.partition}]: {attempts} workers in a row began at offset "
                f"{start.offset} and did not get on: its next {self._suspects} offsets are tried "
                "in a process of their own, and what ends that process is quarantined",
            )
        marked = replace(self._mark(tp), attempts=attempts + 1)
        self._tried[tp] = start.offset, marked
        return start.offset, marked.text()

    def reached(self, tp: TopicPartition) -> None:
        """An offset behind the beginning was committed."""
        self._tried.pop(tp, None)

    def unharmed(self) -> dict[TopicPartition, tuple[int, str]]:
        """Offsets and metadata to commit where this worker leaves in order and got no further."""
        tried, self._tried = self._tried, {}
        return {
            tp: (offset, replace(mark, attempts=0).text()) for tp, (offset, mark) in tried.items()
        }

    def suspicious(self, tp: TopicPartition, offset: int) -> bool:
        """Whether what lies at an offset may be what took workers down."""
        return bool(self._suspicious) and offset < self._suspicious.get(tp, 0)

    def _mark(self, tp: TopicPartition) -> Bookmark:
        written = self._written(tp.partition)
        return Bookmark(
            self._topics.get(tp.topic, ""),
            self._ledger,
            self._partitions,
            self._begins.get(tp.partition, 0),
            0 if written is None else written + 1,
        )
