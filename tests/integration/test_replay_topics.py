"""A log read from topics of Kafka: the same as from a file, and a span of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from governor.replay.log import Log
from streams import backfill
from streams.mapping import Mapped
from streams.replay_log import Loader, Source
from streams.settings import load_settings
from tests.integration.commands import governor
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment
from tests.integration.scenario import scenario

TOPICS = ("impressions", "engagements", "controls")


def from_topics(
    deployment: Deployment, since: float | None = None, until: float | None = None
) -> Log:
    settings = load_settings(deployment.environment())
    loader = Loader()

    async def read() -> None:
        for name in TOPICS:
            topic = deployment.topic(name)
            span = backfill.Span(topic, since, until, name)
            await loader.topic(topic, backfill.from_topic(settings, span))

    asyncio.run(read())
    return loader.closed()


def from_file(path: Path) -> Log:
    loader = Loader()
    loader.files([Source(path, Mapped())])
    return loader.closed()


def test_topics_are_the_log_that_a_file_of_the_same_events_is(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(71, users=50, events=1000)
    deployment.send(events)
    path = deployment.folder / "log.jsonl"
    path.write_text("".join(json.dumps(event | {"topic": name}) + "\n" for name, event in events))
    topics, file = from_topics(deployment), from_file(path)
    assert len(file) > 900
    assert topics.ts.tolist() == file.ts.tolist()
    assert topics.event.tolist() == file.event.tolist()
    assert topics.what.tolist() == file.what.tolist()
    # Clashing ids of two people at one instant may stand in either order.
    keys = [
        sorted(zip(log.ts.tolist(), map(log.key, log.who.tolist()), strict=True))
        for log in (topics, file)
    ]
    assert keys[0] == keys[1]


def test_of_a_topic_only_the_span_is_read(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    began = 1_790_000_000
    for n in range(5):
        event = {"event_id": f"e{n}", "user_id": "u", "ts": began + n, "campaign_id": "C"}
        raw = [("impressions", b"u", json.dumps(event).encode())]
        deployment.send_raw(raw, timestamp=(began + 100 * n) * 1000)
    log = from_topics(deployment, began + 100, began + 300)
    assert (log.ts // 1_000_000).tolist() == [began + 1, began + 2]


def test_a_topic_that_is_not_there_is_told(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    said = governor(deployment, "replay", "--topic", "nowhere", status=1)
    assert "there is no topic nowhere" in said
