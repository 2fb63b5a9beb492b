"""What must be there, and be allowed, in a Kafka that does not let workers create and do all.

`wanted` is the list, without prefix and group, from which the Helm chart writes its own;
`commands` are the same as Kafka's own tools take them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streams.settings import Settings
from streams.topics import CONFIGURATION, EVENT_TOPICS, SINGLE, replicated

__all__ = ["PERMISSIONS", "Permission", "commands", "wanted"]

Resource = Literal["topic", "group", "transactional-id"]


@dataclass(frozen=True, slots=True)
class Permission:
    """What somebody may do with a resource."""

    resource: Resource
    name: str
    """A topic's without the prefix; empty for the group and its transactional ids."""
    operations: tuple[str, ...]
    """As kafka-acls.sh calls them."""

    def full_name(self, settings: Settings) -> str:
        """As Kafka knows it; of transactional ids it is what they begin with."""
        if self.resource == "topic":
            return settings.topic(self.name)
        return settings.group if self.resource == "group" else f"{settings.group}-"


def _topics(names: tuple[str, ...], *operations: str) -> tuple[Permission, ...]:
    return tuple(Permission("topic", name, operations) for name in names)


PERMISSIONS: Mapping[str, tuple[Permission, ...]] = {
    "worker": (
        *_topics(EVENT_TOPICS, "Read"),
        *_topics(("ledger", "decisions"), "Read", "Write", "DescribeConfigs"),
        *_topics(("deadletters",), "Write"),
        *_topics(("policy", "samples", "curves"), "Read", "Write"),
        *_topics(("fatigue",), "Write"),
        # What was applied is deleted from it.
        *_topics(("repartition",), "Read", "Write", "Delete"),
        Permission("group", "", ("Read",)),
        # The ids fence a former owner of a partition off; no transactions are made.
        Permission("transactional-id", "", ("Write", "Describe")),
    ),
    "pipeline": _topics(EVENT_TOPICS, "Write"),
    "reader": _topics(("decisions", "policy"), "Read"),
}
"""By who: a worker, the pipeline that writes events, an ad server that reads decisions."""


def wanted() -> dict[str, Any]:
    """Topics and permissions, without what settings choose."""
    return {
        "topics": [
            {"name": name, "partitioned": name not in SINGLE, "config": dict(configuration)}
            for name, configuration in {**CONFIGURATION, **SINGLE}.items()
        ],
        "permissions": [
            {
                "who": who,
                "resource": one.resource,
                "name": one.name,
                "operations": list(one.operations),
            }
            for who, each in PERMISSIONS.items()
            for one in each
        ],
    }


def commands(settings: Settings, principals: Mapping[str, str]) -> Iterator[str]:
    """Commands that create the topics and allow what is needed.

    Args:
        settings: name the brokers, the topics, the group, partitions and replicas.
        principals: Kafka's name of each of `PERMISSIONS`, such as ``User:governor``; those that
            are not named are left out.
    """
    for name, configuration in {**CONFIGURATION, **SINGLE}.items():
        yield shlex.join(
            [
                *("kafka-topics.sh", "--bootstrap-server", settings.broker),
                *("--create", "--if-not-exists", "--topic", settings.topic(name)),
                *("--partitions", "1" if name in SINGLE else str(settings.partitions)),
                *("--replication-factor", str(settings.replication)),
                *(
                    word
                    for key, value in replicated(configuration, settings).items()
                    for word in ("--config", f"{key}={value}")
                ),
            ]
        )
    for who, principal in principals.items():
        for one in PERMISSIONS[who]:
            prefixed = one.resource == "transactional-id"
            yield shlex.join(
                [
                    *("kafka-acls.sh", "--bootstrap-server", settings.broker, "--add"),
                    *("--allow-principal", principal),
                    *(word for each in one.operations for word in ("--operation", each)),
                    *(f"--{one.resource}", one.full_name(settings)),
                    *(("--resource-pattern-type", "prefixed") if prefixed else ()),
                ]
            )
