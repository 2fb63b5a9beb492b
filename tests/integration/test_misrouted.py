"""Events that other partitioners put elsewhere than Kafka's default one count all the same."""

from __future__ import annotations

import json
import random

from confluent_kafka import Producer

from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, Event, wait_for
from tests.integration.scenario import T0, scenario


def send_with_librdkafka(deployment: Deployment, events: list[Event]) -> None:
    """Keyed by user id, by librdkafka's default partitioner: crc32 of the key."""
    producer = Producer({"bootstrap.servers": deployment.bootstrap})
    failed: list[object] = []
    for topic, event in events:
        producer.produce(
            deployment.topic(topic),
            json.dumps(event).encode(),
            str(event["user_id"]).encode(),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failed


def send_without_keys(deployment: Deployment, events: list[Event]) -> None:
    deployment.send_raw((topic, None, json.dumps(event).encode()) for topic, event in events)


def test_partitioners_of_three_kinds_count_together(deploy: Deploy) -> None:
    """A user's impressions from one producer, clicks from another, controls from a third."""
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(41, users=150, events=3000)
    rng = random.Random(41)
    java: list[Event] = []
    librdkafka: list[Event] = []
    unkeyed: list[Event] = []
    for event in events:
        rng.choice((java, librdkafka, unkeyed)).append(event)
    send_with_librdkafka(deployment, librdkafka)
    worker = deployment.worker()
    deployment.send(java)
    send_without_keys(deployment, unkeyed)
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    metrics = worker.metrics()
    assert metrics("governor_forwarded_total", reason="misrouted") > len(events) / 4
    assert metrics.total("governor_dead_letters_total") == 0
    assert metrics("governor_users") == len(deployment.oracle(events).rows)
    assert worker.stop() == 0


def test_a_forwarded_event_keeps_the_time_of_its_record(deploy: Deploy) -> None:
    """By which it is judged: what was the far future then is so wherever it is applied."""
    deployment = deploy(partitions=4)
    deployment.create_event_topics()
    worker = deployment.worker()
    users = [f"u{n}" for n in range(8)]
    for ahead, name in ((200, "fine"), (400, "future")):
        messages = [
            (
                "impressions",
                None,
                json.dumps(
                    {
                        "event_id": f"{name} {user}",
                        "user_id": user,
                        "ts": T0 + ahead,
                        "campaign_id": "C1",
                    }
                ).encode(),
            )
            for user in users
        ]
        for partition in range(4):
            deployment.send_raw(messages, partition=partition, timestamp=T0 * 1000)
    deployment.wait_until_committed()
    assert {letter["reason"] for letter in deployment.dead_letters()} == {"future"}
    metrics = worker.metrics()
    assert metrics("governor_exposures_held") == len(users)
    stamps = {message.timestamp for message in deployment.read("repartition")}
    assert stamps <= {T0 * 1000}


def test_what_was_forwarded_survives_kills(deploy: Deploy) -> None:
    deployment = deploy()
    deployment.create_event_topics()
    events = scenario(43, users=100, events=4000)
    worker = deployment.worker()
    half = len(events) // 2
    send_with_librdkafka(deployment, events[:half])
    wait_for(lambda: worker.metrics().total("governor_events_total") > 500, "events applied")
    worker.kill()
    send_without_keys(deployment, events[half:])
    worker = deployment.worker()
    deployment.wait_until_committed()
    deployment.assert_decides(events)
    assert worker.stop() == 0


def test_records_that_are_not_the_governors_are_dead_letters(deploy: Deploy) -> None:
    deployment = deploy(partitions=1)
    deployment.worker()
    deployment.send_raw(
        [
            ("repartition", b"u", b"hello"),
            ("repartition", b"u", None),
            ("repartition", b"u", b"mhello"),
            ("repartition", b"", b"i{}"),
            ("repartition", b"u", b"i{}"),
        ]
    )
    deployment.wait_until_committed()
    letters = deployment.dead_letters()
    assert [letter["reason"] for letter in letters] == ["malformed"] * 4 + ["missing_field"]
    assert all(letter["topic"] == deployment.topic("repartition") for letter in letters)
