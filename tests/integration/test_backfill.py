"""History written to the input topics, from a file and from a topic, beside live events."""

from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any

from tests.integration.commands import governor
from tests.integration.conftest import Deploy
from tests.integration.scenario import scenario


def test_history_from_a_file_counts_once_however_often_it_is_filled_in(deploy: Deploy) -> None:
    deployment = deploy()
    events = scenario(61, users=80, events=1500)
    past, live = events[:1200], events[900:]
    path = deployment.folder / "history.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for topic, event in past:
            file.write(json.dumps(event | {"topic": topic}) + "\n")
    worker = deployment.worker()
    said = governor(deployment, "backfill", path)
    assert f"{len(past):,} events applied" in said
    deployment.assert_decides(past)
    deployment.send(live)
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    held = worker.metrics()("governor_exposures_held")
    governor(deployment, "backfill", path)
    assert worker.metrics()("governor_exposures_held") == held
    deployment.assert_decides(events)
    assert worker.stop() == 0


def test_history_from_a_topic_says_what_rules_cannot_know_yet(deploy: Deploy) -> None:
    """Of records from a time on; the events began half an hour ago."""
    policy = (
        "version: test\nrules:\n"
        "  - {name: minute, cap: 3, per: user, window: 1m}\n"
        "  - {name: week, cap: 4, per: user, window: 7d}\n"
    )
    deployment = deploy(policy=policy)
    deployment.create_topics({"archive": 2})
    deployment.worker()
    began = int(time.time()) - 1800
    archived: list[dict[str, Any]] = [
        {"event_id": f"e{n}", "user_id": f"u{n % 10}", "ts": began + n, "campaign_id": "C1"}
        for n in range(40)
    ]
    old: dict[str, Any] = {"event_id": "old", "user_id": "old", "ts": began, "campaign_id": "C1"}
    for stamp, some in ((began - 2 * 86400, [old]), (began, archived)):
        deployment.send_raw(
            (("archive", event["user_id"].encode(), json.dumps(event).encode()) for event in some),
            timestamp=stamp * 1000,
        )
    since = datetime.fromtimestamp(began - 60, UTC).isoformat()
    said = governor(
        deployment, "backfill", "--topic", deployment.topic("archive"), "--since", since
    )
    assert "40 events applied" in said
    assert deployment.published().keys() == {f"u{n}" for n in range(10)}
    assert [line.split()[0] for line in said.splitlines() if "looks back to" in line] == ["week"]
