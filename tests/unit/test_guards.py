"""What an operator is told of errors, and which guard they are counted by."""

from __future__ import annotations

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaTimeoutError, MessageSizeTooLargeError

from streams.guards import GUARDS, GuardError, changed, remedy
from streams.identities import FencedError
from streams.lease import LeaseLostError
from streams.settings import Settings
from streams.store import UnreadableRowError
from streams.topics import CONFIGURATION, TopicError, unfit
from streams.topology import Topic


@pytest.mark.parametrize(
    ("error", "guard", "told"),
    [
        (FencedError("ledger[3]"), "fenced", "start it anew"),
        (LeaseLostError("this process stood still"), "fenced", "stood still"),
        (MessageSizeTooLargeError("raise max.message.bytes"), "message_too_large", "[Error 10]"),
        (InvalidTimestampError(), "clock_jumped", "set this machine's clock"),
        (UnreadableRowError("ledger[0] at 7"), "unreadable_row", "ledger[0] at 7"),
        (GuardError("changelog_lost", "bring it back"), "changelog_lost", "bring it back"),
        (TopicError("counts differ"), "", "counts differ"),
        (KafkaTimeoutError("slow"), "", "KafkaTimeoutError"),
    ],
)
def test_errors_are_told_and_counted(error: Exception, guard: str, told: str) -> None:
    found, text = remedy(error)
    assert found == guard
    assert guard in GUARDS or not guard
    assert told in text


SETTINGS = Settings()
BEFORE = {
    name: Topic(name, f"id of {name}", {0: 1, 1: 2})
    for name in ("governor.impressions", "governor.ledger")
}


def now(**changes: Topic | None) -> dict[str, Topic]:
    found = {**BEFORE, **{f"governor.{name}": topic for name, topic in changes.items()}}
    return {name: topic for name, topic in found.items() if topic is not None}


def test_topics_that_only_moved_are_the_same() -> None:
    name = "governor.impressions"
    changed(SETTINGS, BEFORE, now(impressions=Topic(name, f"id of {name}", {0: 3, 1: -1})))


@pytest.mark.parametrize(
    ("changes", "guard"),
    [
        ({"impressions": None}, "input_recreated"),
        (
            {"impressions": Topic("governor.impressions", "another", {0: 1, 1: 2})},
            "input_recreated",
        ),
        ({"ledger": None}, "changelog_lost"),
        ({"ledger": Topic("governor.ledger", "another", {0: 1, 1: 2})}, "changelog_lost"),
        (
            {"ledger": Topic("governor.ledger", "id of governor.ledger", {0: 1, 1: 2, 2: 3})},
            "partitions_changed",
        ),
    ],
)
def test_topics_that_are_others_stop_the_worker(
    changes: dict[str, Topic | None], guard: str
) -> None:
    with pytest.raises(GuardError) as stopped:
        changed(SETTINGS, BEFORE, now(**changes))
    assert stopped.value.guard == guard


def test_a_topic_kept_as_it_should_be_is_not_told() -> None:
    kept = {SETTINGS.topic(name): dict(wanted) for name, wanted in CONFIGURATION.items()}
    assert unfit(SETTINGS, kept) == []
    kept["governor.ledger"]["max.message.bytes"] = "9999999"  # more is no fault
    kept["governor.ledger"]["min.compaction.lag.ms"] = "0"  # nor is less
    assert unfit(SETTINGS, kept) == []


def test_compaction_that_comes_later_than_it_should_is_told() -> None:
    kept = {SETTINGS.topic(name): dict(wanted) for name, wanted in CONFIGURATION.items()}
    kept["governor.ledger"]["min.compaction.lag.ms"] = "600000"
    (told,) = unfit(SETTINGS, kept)
    assert "--add-config min.compaction.lag.ms=60000" in told


def test_what_differs_is_told_with_the_command() -> None:
    kept = {SETTINGS.topic(name): dict(wanted) for name, wanted in CONFIGURATION.items()}
    kept["governor.ledger"] |= {"segment.bytes": "1073741824", "cleanup.policy": "compact,delete"}
    (told,) = unfit(SETTINGS, kept)
    assert "segment.bytes=1073741824" in told
    assert "--entity-name governor.ledger" in told
    assert "--add-config cleanup.policy=compact,segment.bytes=16777216" in told
