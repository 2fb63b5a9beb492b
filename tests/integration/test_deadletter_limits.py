"""Too many dead letters hold a topic back; what was written can be listed and put back once."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.integration.conftest import Deploy
from tests.integration.deployment import ROOT, Deployment, Event, Worker, wait_for
from tests.integration.scenario import scenario
from tests.integration.test_health import asked


def impressions(seed: int, events: int) -> list[Event]:
    return [each for each in scenario(seed, users=40, events=events) if each[0] == "impressions"]


def in_milliseconds(events: list[Event]) -> list[Event]:
    """As a producer that takes the wrong unit sends them."""
    return [
        (topic, {**event, "ts": int(event["ts"] * 1000), "event_id": f"ms {event['event_id']}"})
        for topic, event in events
    ]


def wait_until_paused(worker: Worker) -> None:
    wait_for(lambda: worker.metrics()("governor_paused", topic="impressions") == 1, "a pause")


def governor(deployment: Deployment, *arguments: str) -> str:
    """What the command prints."""
    finished = subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**deployment.environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_topic_gone_bad_is_held_back_until_it_is_good_again(deploy: Deploy) -> None:
    deployment = deploy(partitions=2, deadletter_streak="100", stall_timeout="2s")
    deployment.create_event_topics()
    good, bad, others = impressions(90, 500), in_milliseconds(impressions(91, 500)), scenario(92)
    others = [each for each in others if each[0] != "impressions"][:500]
    worker = deployment.worker()
    deployment.send(good)
    deployment.wait_until_committed()
    deployment.send(bad)
    wait_until_paused(worker)
    assert counted_letters(worker) < 100
    # The other topics go on.
    before = worker.metrics().total("governor_events_total", topic="engagements")
    deployment.send(others)
    wait_for(
        lambda: worker.metrics().total("governor_events_total", topic="engagements") > before,
        "engagements",
    )
    log = worker.log()
    assert "GOVERNOR_DEADLETTER_STREAK=100" in log
    assert "mend what produces them" in log
    status, body = asked(worker, "/readyz")
    assert status == 200
    assert "in a row" in body["paused"]["impressions"]
    assert asked(worker, "/healthz")[0] == 200
    assert worker.metrics()("governor_guard_total", guard="dead_letters") == 1

    more = impressions(93, 500)
    deployment.send(more)
    deployment.wait_until_committed()
    assert worker.metrics()("governor_paused", topic="impressions") == 0
    assert {letter["reason"] for letter in deployment.dead_letters()} == {"milliseconds"}
    assert len(deployment.dead_letters()) == len(bad)
    deployment.assert_decides(good + others + more)
    assert worker.stop() == 0


def test_a_worker_that_holds_a_topic_stops_in_order_and_a_restart_begins_anew(
    deploy: Deploy,
) -> None:
    deployment = deploy(partitions=1, deadletter_streak="100")
    deployment.create_event_topics()
    bad = in_milliseconds(impressions(94, 500))
    deployment.send(bad)
    worker = deployment.worker()
    wait_until_paused(worker)
    assert worker.stop() == 0
    assert deployment.committed()[0] == 0
    assert not deployment.dead_letters()
    with deployment.worker(deadletter_streak="0", deadletter_percent="0"):
        deployment.wait_until_committed()
    assert len(deployment.dead_letters()) == len(bad)


def counted_letters(worker: Worker) -> float:
    return worker.metrics().total("governor_dead_letters_total")


def test_dead_letters_are_listed_and_put_back_once(deploy: Deploy) -> None:
    deployment = deploy(partitions=2)
    deployment.create_event_topics()
    events = impressions(95, 300)
    late = events[:50]
    deployment.send(events[50:])
    deployment.send_raw([("impressions", None, b"\xff no event")], partition=1)
    # Refused under one setting, right under another.
    with deployment.worker(max_event_bytes="450"):
        deployment.send([(topic, {**event, "pad": "x" * 500}) for topic, event in late])
        deployment.wait_until_committed()

    listed = governor(deployment, "deadletters", "show", "--reason", "too_large", "--limit", "100")
    assert listed.count("too_large") == len(late)
    assert deployment.topic("impressions") in listed
    (line,) = governor(
        deployment, "deadletters", "show", "--reason", "malformed", "--json"
    ).splitlines()
    malformed = json.loads(line)
    assert (malformed["partition"], malformed["requeued"]) == (1, None)
    assert "malformed" not in governor(deployment, "deadletters", "show", "--partition", "0")
    assert not governor(deployment, "deadletters", "show", "--until", "2001-01-01")

    chosen = ("deadletters", "requeue", "--reason", "too_large")
    said = governor(deployment, *chosen, "--dry-run")
    assert f"{len(late)} of {len(late)} messages would be put back" in said
    assert f"{len(late)} of {len(late)} messages put back" in governor(deployment, *chosen)
    with deployment.worker():
        deployment.wait_until_committed()
    deployment.assert_decides(events)
    homes = {
        message.json()["event_id"]: message.partition
        for message in deployment.read("impressions")
        if message.value and message.value[:1] == b"{"
    }
    assert len(homes) == len({event["event_id"] for _, event in events})

    again = governor(deployment, *chosen)
    assert f"0 of {len(late)} messages put back" in again
    assert "was put back already" in again
    assert governor(deployment, "deadletters", "show", "--reason", "too_large").count("(put back)")
