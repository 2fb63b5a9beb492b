"""Curves of fatigue as the topics hold them: what tests hold the workers' word against."""

from __future__ import annotations

import json
from collections.abc import Callable

from governor.fatigue.samples import Samples
from governor.fatigue.versions import Version
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


def settled(
    deployment: Deployment, events: list[Event], *workers: Worker
) -> Callable[[], Version | None]:
    """The version that governs, once one of these workers made it of all that there is."""
    shown = sum(topic == "impressions" for topic, _ in events)

    def made() -> Version | None:
        samples, version = observed(deployment), governing(deployment)
        if version is None or len(samples.exposures()) != shown:
            return None
        last = [rounds[-1] for one in workers if (rounds := said(one.log(), "curves made"))]
        whole = {one["version"] for one in last if one["exposures"] == shown}
        newest = version.curves.reference == samples.now and version.since == samples.since
        return version if newest and version.name in whole else None

    return made
