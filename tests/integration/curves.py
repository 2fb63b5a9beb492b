"""Curves of fatigue as the topics hold them: what tests hold the workers' word against."""

from __future__ import annotations

import json
from collections.abc import Callable

from governor.fatigue.frailty import fit
from governor.fatigue.samples import Samples, clock_record
from governor.fatigue.versions import Version
from governor.partitioning import partition_of
from governor.ticks import from_seconds
from streams.logs import said
from tests.integration.deployment import Deployment, Event, Worker


def curves(deployment: Deployment) -> dict[bytes, bytes]:
    """What compaction leaves of the topic of curves."""
    newest = {message.key: message.value for message in deployment.read("curves")}
    return {key: value for key, value in newest.items() if key is not None and value is not None}


def governing(deployment: Deployment) -> Version | None:
    """The version that governs."""
    held = curves(deployment)
    if b"current" not in held:
        return None
    name = json.loads(held[b"current"])["version"]
    return Version.from_json(held[f"version:{name}".encode()])


def observed(deployment: Deployment) -> Samples:
    """What the samples topic holds."""
    samples = Samples()
    for message in deployment.read("samples"):
        samples.take(message.key, message.value)
    return samples


def _told(deployment: Deployment, events: list[Event]) -> bool:
    """Whether every partition has told that it knows all of these events."""
    newest: dict[int, int] = {}
    for _, event in events:
        partition = partition_of(str(event["user_id"]).encode(), deployment.partitions)
        newest[partition] = max(newest.get(partition, 0), from_seconds(event["ts"]))
    clocks = dict(clock_record(*clock, drained=True) for clock in newest.items())
    topic = {message.key: message.value for message in deployment.read("samples")}
    return clocks.items() <= topic.items()


def settled(
    deployment: Deployment, events: list[Event], *workers: Worker
) -> Callable[[], Version | None]:
    """The version that governs, once one of these workers made it of all that there is."""
    shown = sum(topic == "impressions" for topic, _ in events)

    def made() -> Version | None:
        if not _told(deployment, events):
            return None
        samples, version = observed(deployment), governing(deployment)
        exposures = samples.exposures()
        if version is None or len(exposures) != shown:
            return None
        last = [rounds[-1] for one in workers if (rounds := said(one.log(), "curves made"))]
        if version.name not in {one["version"] for one in last}:
            return None
        # Of other clocks of as many people other curves are made: those people have not settled.
        anew = Version(fit(exposures, version.curves, now=samples.now), samples.since)
        return version if anew.name == version.name else None

    return made
