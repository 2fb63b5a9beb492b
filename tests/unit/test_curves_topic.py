"""What the topic of curves holds: versions, which of them are kept, and what stands beside them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from governor.fatigue.curves import unknown
from governor.fatigue.detector import Detector, Observed
from governor.fatigue.sampling import Shares
from governor.fatigue.versions import Version
from governor.rowcodec import FENCE_KEY
from streams.curves_topic import KEPT, Held, Written, shares_record, watched_records


def version(reference: int) -> Version:
    return Version(unknown(reference), 0)


def publish(topic: dict[bytes, bytes | None], held: Held, records: list[Written]) -> None:
    for key, value, _ in records:
        topic[key] = value
        held.take(key, value)


def read(topic: dict[bytes, bytes | None]) -> Held:
    held = Held()
    for key, value in topic.items():
        if value is not None:
            held.take(key, value)
    return held


def test_the_newest_versions_are_kept_and_older_ones_withdrawn() -> None:
    topic: dict[bytes, bytes | None] = {}
    held = Held()
    made = [version(n) for n in range(KEPT + 5)]
    for n, one in enumerate(made):
        publish(topic, held, held.published(one, float(n)))
        assert held.version() == one
    again = read(topic)
    assert set(again.versions) == {one.name for one in made[-KEPT:]}
    assert again.version() == made[-1]
    assert again.version(made[-3].name) == made[-3]
    assert again.version(made[0].name) == made[-1], "not kept: the one that governs"


def test_the_same_version_again_is_one() -> None:
    topic: dict[bytes, bytes | None] = {}
    held = Held()
    for one in (version(1), version(2), version(1)):
        publish(topic, held, held.published(one, 0.0))
    assert read(topic).kept == [version(2).name, version(1).name]


def test_there_may_be_none() -> None:
    assert Held().version() is None
    assert Held().shares == Shares()


def test_a_takeover_goes_on_with_the_detectors_and_the_shares() -> None:
    topic: dict[bytes, bytes | None] = {}
    held = Held()
    detector = Detector()
    detector.update(Observed(0, 900, 1000, 50, 55.0))
    publish(topic, held, watched_records(900, {"campaign:C1": detector.to_fields()}))
    publish(topic, held, [shares_record(Shares(3, {"C1": 1}))])
    again = read(topic)
    assert again.watched_until == 900
    assert Detector.from_fields(again.detectors["campaign:C1"]) == detector
    assert again.shares == Shares(3, {"C1": 1})
    publish(topic, held, watched_records(1800, {"campaign:C1": None}))
    assert read(topic).detectors == {}


def test_a_fence_says_nothing() -> None:
    held = Held()
    held.take(FENCE_KEY, b"1 2")
    assert dataclasses.asdict(held) == dataclasses.asdict(Held())


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"current", b"{}"), (b"shares", b"[]"), (b"other", b"{}"), (None, b"{}"), (b"current", b"x")],
)
def test_what_is_none_of_ours_is_refused(key: bytes | None, value: bytes) -> None:
    held = Held()
    with pytest.raises(ValueError, match=r"record|JSON|Expecting"):
        held.take(key, value)
    assert held.current is None


def test_texts_are_json() -> None:
    for key, value, _ in Held().published(version(1), 2.0):
        assert json.loads(value or b"null") is not None, key
