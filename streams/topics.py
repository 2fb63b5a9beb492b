"""The topics: their names, how they are kept, and that they fit together.

An event, its user's row and its user's decision share one partition number. A topic that a
producer creates by accident has one partition, which is why all topics are created before
anything is read or written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    KafkaError,
    for_code,
)
from aiokafka.helpers import create_ssl_context

from streams.settings import Settings

__all__ = [
    "EVENT_TOPICS",
    "TopicError",
    "connection",
    "ensure",
    "ensure_policy",
    "partitions",
    "replicated",
    "unfit",
    "until_reachable",
]

log = logging.getLogger(__name__)

EVENT_TOPICS = ("impressions", "engagements", "controls")
READ_TOPICS = (*EVENT_TOPICS, "repartition")
"""What the agents read: events, and those of them that were sent on."""

# Larger than any event may be, so that one too large is a dead letter with coordinates rather than
# a failure that only its producer sees; and than the largest row or decision.
_LARGE = {"max.message.bytes": str(4 * 1024 * 1024)}
_LAG = "min.compaction.lag.ms"
# Stamped by the broker: it would refuse the records of a worker whose clock runs ahead.
_STAMPED = {"message.timestamp.type": "LogAppendTime"}
_COMPACTED = {
    **_LARGE,
    **_STAMPED,
    "cleanup.policy": "compact",
    # What is behind the last full segment is never compacted, and recovery reads it all. A segment
    # is a few seconds of a worker's rows, and ends after ten minutes at the latest.
    "segment.bytes": str(16 * 1024 * 1024),
    "segment.ms": str(600_000),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(600_000),
    # Who is shown ads now has a row a second, most of them overwritten within the minute: sooner, a
    # broker would copy them for nothing, at the very time at which it has most to do.
    _LAG: str(60_000),
    # A snapshot may be half as old: see `streams.snapshots`.
    "delete.retention.ms": str(86_400_000),
}
CONFIGURATION: Mapping[str, Mapping[str, str]] = {
    "impressions": _LARGE,
    "engagements": _LARGE,
    "controls": _LARGE,
    # Deleted when it is applied, not by age: the records keep their original times, whatever those
    # are. A merge carries a whole row.
    "repartition": {
        **_LARGE,
        "retention.ms": "-1",
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": str(2**63 - 1),
        "message.timestamp.after.max.ms": str(2**63 - 1),
    },
    "decisions": _COMPACTED,
    "ledger": _COMPACTED,
    # They may hold what a person is known by, so they go after a week, and sooner by a tombstone.
    "deadletters": {
        **_STAMPED,
        "cleanup.policy": "compact,delete",
        "retention.ms": str(7 * 86_400_000),
        "max.compaction.lag.ms": str(600_000),
    },
}
"""Every topic of the governor with a partition for each of its ledgers, without the prefix, and
how it is kept."""
_SMALL: Mapping[str, str] = {**_COMPACTED, "segment.bytes": str(1024 * 1024)}
SINGLE: Mapping[str, Mapping[str, str]] = {
    "policy": _SMALL,
    "samples": _COMPACTED,
    "curves": _SMALL,
    # Alarms and recoveries, for people and their tools.
    "fatigue": {
        **_STAMPED,
        "cleanup.policy": "compact,delete",
        "retention.ms": str(90 * 86_400_000),
    },
}
"""The topics that have one partition, likewise."""

_TOPIC_EXISTS = 36
_LONGEST_PAUSE = 30.0


class TopicError(Exception):
    """Topics that cannot be used as they are; says what to do."""


@dataclass(frozen=True)
class _Existing:
    name: str
    partitions: int


def connection(settings: Settings) -> dict[str, Any]:
    """How to reach Kafka, as aiokafka's clients take it."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.broker.split(","),
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = create_ssl_context(
            cafile=settings.ssl_ca_file or None,
            certfile=settings.ssl_cert_file or None,
            keyfile=settings.ssl_key_file or None,
        )
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return options


async def until_reachable(settings: Settings, away: Callable[[str], None] = lambda _: None) -> None:
    """Return when Kafka answers; until then say so, a line a try, less and less often.

    Args:
        settings: where it should be.
        away: is told why it does not answer, each time.
    """
    pause = 1.0
    while (reason := await _refusal(settings)) is not None:
        away(reason)
        log.warning(
            "no Kafka answers at %s (GOVERNOR_BROKER): %s: trying again in %.0f s",
            settings.broker,
            reason,
            pause,
        )
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _refusal(settings: Settings) -> str | None:
    """Why the brokers cannot be talked to, or None when they can."""
    # aiokafka logs the cause (a wrong password, a certificate) and raises only that it failed.
    said = _Said()
    library = logging.getLogger("aiokafka")
    library.addHandler(said)
    propagate, library.propagate = library.propagate, False
    admin = AIOKafkaAdminClient(**connection(settings))
    try:
        await admin.start()
    except (KafkaError, OSError) as error:
        return said.last or str(error)
    finally:
        await admin.close()
        library.propagate = propagate
        library.removeHandler(said)
    return None


class _Said(logging.Handler):
    """Keeps the last error that was logged."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, in one line."""
        if record.levelno >= logging.ERROR:
            self.last = " ".join(record.getMessage().split())


async def ensure(settings: Settings) -> int:
    """Create the topics that are missing; return the number of partitions of them all.

    Raises:
        TopicError: existing topics differ in their number of partitions, or creating fails.
    """
    admin = AIOKafkaAdminClient(**connection(settings))
    await admin.start()
    try:
        existing = await _existing(admin, settings)
        partitions = _common(existing, settings)
        missing = [
            NewTopic(
                settings.topic(name),
                partitions,
                settings.replication,
                topic_configs=replicated(configuration, settings),
            )
            for name, configuration in CONFIGURATION.items()
            if settings.topic(name) not in {topic.name for topic in existing}
        ]
        if missing:
            await _create(admin, missing)
            log.info(
                "created topics",
                extra={"topics": [one.name for one in missing], "partitions": partitions},
            )
            # Somebody else may have created some of them first, and otherwise.
            deadline = asyncio.get_running_loop().time() + 30
            while len(found := await _existing(admin, settings)) < len(CONFIGURATION):
                if asyncio.get_running_loop().time() > deadline:
                    raise TopicError("the topics created do not appear: is the cluster healthy?")
                await asyncio.sleep(0.05)
            partitions = _common(found, settings)
        for name in SINGLE:
            await _ensure_single(admin, settings, name)
        await _coordinated(admin, settings.group)
        return partitions
    finally:
        await admin.close()


async def partitions(settings: Settings) -> int:
    """How many partitions the topics have, of those that are there; 0 when none is.

    Raises:
        TopicError: some are missing, or they differ.
    """
    admin = AIOKafkaAdminClient(**connection(settings))
    await admin.start()
    try:
        existing = await _existing(admin, settings)
    finally:
        await admin.close()
    missing = {settings.topic(name) for name in CONFIGURATION} - {one.name for one in existing}
    if existing and missing:
        raise TopicError(
            f"{', '.join(sorted(missing))} is not there: is GOVERNOR_TOPIC_PREFIX right?"
        )
    return _common(existing, settings) if existing else 0


async def ensure_policy(settings: Settings) -> None:
    """Create the policy topic if it is missing: an operator may come before the workers."""
    admin = AIOKafkaAdminClient(**connection(settings))
    await admin.start()
    try:
        await _ensure_single(admin, settings, "policy")
    finally:
        await admin.close()


async def _ensure_single(admin: AIOKafkaAdminClient, settings: Settings, short: str) -> None:
    """Create a topic with one partition if it is missing, and wait until it is there."""
    name = settings.topic(short)
    deadline = asyncio.get_running_loop().time() + 30
    asked = False
    while not (described := await admin.describe_topics([name]))[0]["partitions"]:
        if not asked:
            configuration = replicated(SINGLE[short], settings)
            topic = NewTopic(name, 1, settings.replication, topic_configs=configuration)
            await _create(admin, [topic])
            asked = True
        if asyncio.get_running_loop().time() > deadline:
            raise TopicError(f"{name} does not appear: {described}: is the cluster healthy?")
        await asyncio.sleep(0.05)


async def _coordinated(admin: AIOKafkaAdminClient, group: str) -> None:
    """Wait for the group's coordinator, which a new cluster makes when it is first asked."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            await admin.find_coordinator(group)
        except GroupCoordinatorNotAvailableError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise TopicError(
                    "the cluster has no coordinator for consumer groups: is the topic "
                    "__consumer_offsets there and healthy?"
                ) from error
            await asyncio.sleep(0.05)
        else:
            return


async def _existing(admin: AIOKafkaAdminClient, settings: Settings) -> list[_Existing]:
    names = [settings.topic(name) for name in CONFIGURATION]
    described = await admin.describe_topics(names)
    return [
        _Existing(topic["topic"], len(topic["partitions"]))
        for topic in described
        if topic["error_code"] == 0 and topic["partitions"]
    ]


def _common(existing: list[_Existing], settings: Settings) -> int:
    counts = {topic.partitions for topic in existing}
    if len(counts) > 1:
        listed = ", ".join(f"{topic.name} has {topic.partitions}" for topic in existing)
        raise TopicError(
            f"the topics' partition counts differ: {listed}. A user's events, row and decision "
            "must share one partition number. Recreate those that differ (an empty topic can be "
            "deleted: the worker creates it anew), or set GOVERNOR_TOPIC_PREFIX to use others"
        )
    return counts.pop() if counts else settings.partitions


def unfit(settings: Settings, found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What to tell an operator of compacted topics that are kept otherwise than `CONFIGURATION`.

    Args:
        settings: those of the worker.
        found: the settings of topics, by full name.
    """
    texts = []
    for name, wanted in CONFIGURATION.items():
        has = found.get(settings.topic(name), {})
        wrong = {
            key: value
            for key, value in wanted.items()
            if key in has and not _fits(key, has[key], value)
        }
        if wrong:
            differing = ", ".join(f"{key}={has[key]}" for key in wrong)
            change = ",".join(f"{key}={value}" for key, value in wrong.items())
            texts.append(
                f"the topic {settings.topic(name)} has {differing}: recovery may read far more "
                "than the live rows, or miss some. To change it: kafka-configs.sh "
                f"--bootstrap-server {settings.broker} --alter --entity-type topics --entity-name "
                f"{settings.topic(name)} --add-config {change}"
            )
    return texts


def _fits(key: str, has: str, wanted: str) -> bool:
    """Whether recovery can do with a topic's setting as it is."""
    if key in _LARGE:
        return int(has) >= int(wanted)
    if key == _LAG:
        return int(has) <= int(wanted)
    return has == wanted


def replicated(configuration: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """A topic's configuration with as many replicas as the settings ask for."""
    if settings.replication < 3:
        return dict(configuration)
    return {**configuration, "min.insync.replicas": str(settings.replication - 1)}


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    try:
        response = await admin.create_topics(topics)
    except KafkaError as error:
        raise TopicError(f"cannot create topics: {error}") from error
    for name, code, *text in response.topic_errors:
        if code not in (0, _TOPIC_EXISTS):
            why = (text[0] if text else None) or for_code(code).__name__
            raise TopicError(
                f"cannot create {name}: {why}. Create it yourself, or allow it; "
                "GOVERNOR_PARTITIONS and GOVERNOR_REPLICATION say how the worker would"
            )
