"""Guards: what a worker does when the ground under it is not what it was.

Each has a name, by which `governor_guard_total` counts it, and a line in the log that says what to
do. Those that would make answers wrong stop the worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from aiokafka.errors import InvalidTimestampError, MessageSizeTooLargeError
from aiokafka.structs import TopicPartition

from streams.bookmarks import Bookmark
from streams.identities import FencedError
from streams.lease import LeaseLostError
from streams.settings import Settings
from streams.store import UnreadableRowError
from streams.topics import EVENT_TOPICS, TopicError
from streams.topology import Committed, Topic, Topology

__all__ = ["GUARDS", "GuardError", "Remedy", "changed", "check", "remedy"]

GUARDS: Mapping[str, str] = {
    "input_recreated": "a topic of events was deleted and created anew: read from its beginning",
    "input_expired": "events were deleted before they were read: going on with the rest",
    "partitions_changed": "the number of partitions is not what the rows were written under: stop",
    "changelog_lost": "rows that were acknowledged are not in the changelog any more: stop",
    "unreadable_row": "a changelog record cannot be read: stop, or skip it",
    "clock_jumped": "the machine's clock jumped: counted; no decision depends on it",
    "fenced": "another worker has this one's partitions: stop",
    "message_too_large": "a topic refuses a record for its size: stop",
    "broker_away": "Kafka does not answer: keep trying",
    "leader_moved": "a partition is led by another broker: going on",
    "coordinator_moved": "the group is coordinated by another broker: going on",
    "stalled": "nothing is done although something is due: not alive",
    "dead_letters": "too many messages are no events: the topic is not read until they are again",
    "crash_loop": "a partition's next events took workers down: try each in a process of its own",
    "snapshot_failed": "a snapshot could not be written: going on without",
    "snapshot_discarded": "a snapshot cannot be used: the changelog is read instead",
    "topic_settings": "a topic is kept otherwise than recovery needs it: going on",
}
"""Every guard, with what happened and what the worker does."""


class GuardError(TopicError):
    """A guard that stops the worker; says what to do."""

    def __init__(self, guard: str, text: str) -> None:
        super().__init__(text)
        self.guard = guard


async def check(topology: Topology, settings: Settings) -> None:
    """Refuse to begin where it would make answers wrong.

    Raises:
        GuardError: the partition counts or the changelog are not what the group's commits say.
    """
    names = [settings.topic(name) for name in (*EVENT_TOPICS, "ledger")]
    # Commits first: what they say of the changelog is written there already.
    committed = await topology.committed(settings.group)
    topics = await topology.topics(names)
    ledger = topics[settings.topic("ledger")]
    begins, ends = await topology.begins([ledger.name]), await topology.ends([ledger.name])
    bookmarks = dict(_bookmarks(committed, names))
    for tp, bookmark in bookmarks.items():
        topic = topics.get(tp.topic)
        if topic is not None and bookmark.topic == topic.id and bookmark.end:
            _same_count(topic, bookmark.partitions)
    lost = {
        tp.partition: why
        for tp, bookmark in bookmarks.items()
        if (why := _lost(bookmark, ledger, tp.partition, begins, ends))
    }
    if lost:
        raise GuardError("changelog_lost", _changelog_lost(settings, ledger.name, lost))


def _bookmarks(
    committed: Mapping[TopicPartition, Committed], names: Iterable[str]
) -> Iterator[tuple[TopicPartition, Bookmark]]:
    for tp, one in committed.items():
        if tp.topic in names and (bookmark := Bookmark.read(one.metadata)) is not None:
            yield tp, bookmark


def _lost(
    bookmark: Bookmark,
    ledger: Topic,
    partition: int,
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> str:
    """What of a changelog partition is gone; empty when nothing is."""
    tp = TopicPartition(ledger.name, partition)
    if bookmark.end == 0:
        return ""
    if bookmark.ledger != ledger.id:
        return "the topic was deleted and created anew"
    if tp not in ends:
        return "the partition is gone"
    if ends[tp] < bookmark.end:
        return f"it ends at {ends[tp]} and reached {bookmark.end}"
    if begins[tp] > bookmark.begin:
        return f"it begins at {begins[tp]} and began at {bookmark.begin}"
    return ""


def _changelog_lost(settings: Settings, ledger: str, lost: Mapping[int, str]) -> str:
    first, why = min(lost.items())
    topics = " ".join(f"--topic {settings.topic(name)}" for name in EVENT_TOPICS)
    return (
        f"the changelog {ledger} has lost rows of {len(lost)} partitions ({ledger}[{first}]: "
        f"{why}). Going on would forget what these people have seen. Bring the topic back from a "
        "copy; or rebuild the rows from the events that are still there: stop all workers of the "
        f"group and run kafka-consumer-groups.sh --bootstrap-server {settings.broker} --group "
        f"{settings.group} --reset-offsets --to-earliest {topics} --execute"
    )


def changed(settings: Settings, before: Mapping[str, Topic], now: Mapping[str, Topic]) -> None:
    """Refuse to go on when topics are not what they were when the worker began.

    Raises:
        GuardError: a topic is gone, is another, or has another number of partitions.
    """
    for name, topic in before.items():
        found = now.get(name)
        if found is not None and found.id == topic.id:
            _same_count(found, topic.partitions)
            continue
        what = "is gone" if found is None else "was deleted and created anew"
        if name == settings.topic("ledger"):
            raise GuardError(
                "changelog_lost", _changelog_lost(settings, name, {0: f"the topic {what}"})
            )
        raise GuardError(
            "input_recreated",
            f"the topic {name} {what}. A restart creates it if need be and reads it from its "
            "beginning; what was applied before does not count twice",
        )


def _same_count(topic: Topic, partitions: int) -> None:
    if topic.partitions != partitions:
        raise GuardError(
            "partitions_changed",
            f"{topic.name} has {topic.partitions} partitions and had {partitions}: events of a "
            "user now come to another partition than that of the user's row, and would count "
            "apart. Kafka cannot take partitions away: set another GOVERNOR_TOPIC_PREFIX and "
            "GOVERNOR_GROUP with the GOVERNOR_PARTITIONS wanted, copy the events there (keyed as "
            "they are), and point producers and readers to them",
        )


class Remedy(NamedTuple):
    """Why a worker stops."""

    guard: str
    """The guard that stopped it; empty for none."""
    text: str
    """What happened, and what to do."""


def remedy(error: BaseException) -> Remedy:
    """The guard that an error belongs to, and what to tell an operator."""
    text = str(error)
    if isinstance(error, TopicError):
        return Remedy(getattr(error, "guard", ""), text)
    if isinstance(error, UnreadableRowError):
        return Remedy("unreadable_row", text)
    if isinstance(error, FencedError | LeaseLostError):
        return Remedy("fenced", text)
    if isinstance(error, MessageSizeTooLargeError):
        return Remedy("message_too_large", text)
    if isinstance(error, InvalidTimestampError):
        return Remedy(
            "clock_jumped",
            "Kafka refuses records for their time: set this machine's clock, or let the broker "
            "stamp them: kafka-configs.sh --alter --entity-type topics --entity-name NAME "
            "--add-config message.timestamp.type=LogAppendTime, for decisions and ledger",
        )
    return Remedy("", f"{type(error).__name__}: {text}")
