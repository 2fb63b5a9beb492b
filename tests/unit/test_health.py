"""When a worker counts as standing still, and what /healthz and /readyz say then."""

from __future__ import annotations

from streams.health import Health, Phase, Reading, StallDetector


def test_work_at_hand_and_nothing_done_is_a_stall_that_grows() -> None:
    detector = StallDetector()
    assert detector.see(Reading(0.0, due=5, done=1)) == 0
    assert detector.see(Reading(10.0, due=5, done=1)) == 10
    assert detector.see(Reading(30.0, due=9, done=1)) == 30


def test_any_progress_ends_it() -> None:
    detector = StallDetector()
    detector.see(Reading(0.0, due=5, done=1))
    detector.see(Reading(10.0, due=5, done=1))
    assert detector.see(Reading(20.0, due=900, done=2)) == 0
    assert detector.see(Reading(25.0, due=900, done=2)) == 5


def test_nothing_to_do_is_no_stall() -> None:
    detector = StallDetector()
    for at in (0.0, 100.0, 200.0):
        assert detector.see(Reading(at, due=0, done=1)) == 0
    assert detector.see(Reading(201.0, due=1, done=1)) == 1


def test_an_excuse_counts_from_when_it_ends() -> None:
    detector = StallDetector()
    detector.see(Reading(0.0, due=5, done=1))
    assert detector.see(Reading(100.0, due=5, done=1, excused=True)) == 0
    assert detector.see(Reading(130.0, due=5, done=1)) == 30


def test_what_the_pages_say() -> None:
    phase = Phase("starting")
    health = Health(lambda: phase, patience=60)
    assert health.health() == (True, {"status": "ok"})
    assert health.readiness()[1]["why"] == "starting: it looks at its topics and compiles"
    phase = Phase("recovering", remaining=7)
    well, body = health.readiness()
    assert (well, body["why"]) == (False, "7 changelog records to read")
    phase = Phase("running", partitions=3)
    assert health.readiness() == (True, {"status": "ready", "partitions": 3})
    health.unreachable = "no route"
    assert health.readiness()[1]["why"] == "Kafka does not answer: no route"
    health.unreachable, health.stalled = "", 60.5
    well, body = health.health()
    assert (well, body["status"]) == (False, "stalled")


def test_a_topic_that_is_held_back_is_told_and_is_no_failure() -> None:
    health = Health(lambda: Phase("running", partitions=3), patience=60)
    health.paused["impressions"] = "1000 dead letters in a row"
    for well, body in (health.health(), health.readiness()):
        assert well
        assert body["paused"] == {"impressions": "1000 dead letters in a row"}
