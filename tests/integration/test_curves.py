"""Curves on Kafka: exposures and answers in, a version out, and a rest that names it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Thread
from typing import Any, TypeVar

import pytest

from governor.fatigue.curves import ALL, KNOTS, Curve, unknown
from governor.fatigue.sampling import Marks
from governor.fatigue.versions import Version
from streams.curves_topic import Held
from streams.settings import load_settings
from streams.verify import Span, verify
from tests.integration.conftest import Deploy
from tests.integration.curves import curves, observed, settled
from tests.integration.deployment import Deployment, Event, Worker
from tests.integration.deployment import wait_for as wait_for_any
from tests.integration.events import control, shown
from tests.integration.scenario import T0

POLICY = """
version: test
rules:
  - {name: tired, fatigue: {floor: 0.7, probability: 0.7}, per: campaign}
attribution: [{window: 10m}]
"""
SETTINGS = {"sample_interval": "200ms", "curves_interval": "1s", "history": "32d"}
DAY = 86_400
PEOPLE, DAYS = 2_000, 12
FIRST_RATE, LEFT = 0.15, 0.6
"""Of an exposure's effect so much is left after each exposure to the campaign."""


T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """The first true answer."""
    answer = wait_for_any(condition, what, seconds)
    assert answer is not None
    return answer


SHOWN = 3


def population(seed: int = 7) -> Iterator[Event]:
    """People who see campaign C1 once a day and answer it less and less, beside ads of others,
    which they answer as ever."""
    chance = random.Random(seed)
    for person in range(PEOPLE):
        user, begins = f"person {person}", chance.uniform(2, DAYS - 1)
        rate = FIRST_RATE * chance.gammavariate(4, 1 / 4)
        for n in range(min(chance.randint(1, 8), int(DAYS - begins))):
            at = T0 + (begins + n + chance.uniform(0, 0.2)) * DAY
            yield from exposure(chance, user, "C1", f"{n}", at, rate * LEFT**n)
        for n in range(chance.randint(1, 12)):
            at = T0 + chance.uniform(0, DAYS) * DAY
            yield from exposure(chance, user, f"other {n % 4}", f"o{n}", at, rate / 2)


def exposure(
    chance: random.Random, user: str, campaign: str, name: str, at: float, rate: float
) -> Iterator[Event]:
    event: dict[str, Any] = {
        "event_id": f"{user}/{name}",
        "impression_id": f"{user}/{name}",
        "user_id": user,
        "ts": round(at, 3),
        "campaign_id": campaign,
        "creative_id": f"{campaign}/a",
    }
    yield "impressions", event
    if chance.random() < rate:
        yield "engagements", answer(user, name, at + chance.uniform(1, 300))


def answer(user: str, name: str, at: float) -> dict[str, Any]:
    return {
        "event_id": f"{user}/{name}/click",
        "impression_id": f"{user}/{name}",
        "user_id": user,
        "ts": round(at, 3),
        "type": "click",
    }


def in_order(events: Iterator[Event]) -> list[Event]:
    return sorted(events, key=lambda one: one[1]["ts"])


def throttled(deployment: Deployment, user: str) -> dict[str, Any]:
    decision = deployment.published().get(user, {"throttles": []})
    return {one["label"]: one for one in decision["throttles"]}


def tired_person(day: int) -> list[Event]:
    """Somebody who sees the campaign three times in as many minutes and answers none."""
    chance, at = random.Random(1), T0 + day * DAY
    return [
        event
        for n in range(SHOWN)
        for event in exposure(chance, "tired", "C1", f"{n}", at + 60 * n, 0.0)
    ]


def test_from_exposures_to_curves_to_a_rest_that_a_late_answer_withdraws(deploy: Deploy) -> None:
    deployment = deploy(policy=POLICY, **SETTINGS)
    deployment.create_event_topics()
    events = [*in_order(population()), *tired_person(DAYS + 1)]
    deployment.send(events)
    with deployment.worker() as worker:
        deployment.wait_until_committed()
        version = wait_for(settled(deployment, events, worker), "curves of everybody", 400)
        curve = version.curves.curves["campaign:C1"]
        assert curve.identified, curve.reason
        assert 0.3 < curve.at(2.0)[1] < 0.75, "people were made to answer less: .36 of it"
        other = version.curves.curves["campaign:other 1"]
        assert other.at(1.0)[2] > 0.8, "nobody tires of these"
        label = "campaign:C1"
        rest = wait_for(lambda: throttled(deployment, "tired").get(label), "a rest")
        assert rest["reasons"] == ["tired"]
        evidence = rest["evidence"]["tired"]
        assert evidence["depth"] == SHOWN
        assert evidence["expected"] < 0.45
        assert evidence["curves"].encode() in b" ".join(curves(deployment))
        assert deployment.published()["tired"]["curves"] == evidence["curves"]
        assert worker.metrics()("governor_fatigue_campaigns") >= 5
        status, verdict = deployment.verify()
        assert status == 0, verdict
        # Every one of them was answered after all.
        at = T0 + (DAYS + 1) * DAY
        late = [("engagements", answer("tired", f"{n}", at + 60 * n + 30)) for n in range(SHOWN)]
        deployment.send(late)
        deployment.wait_until_committed()
        wait_for(lambda: label not in throttled(deployment, "tired"), "rest withdrawn")
        status, verdict = deployment.verify()
        assert status == 0, verdict


def aggregates(worker: Worker) -> bool:
    """Whether this worker makes the curves now."""
    return worker.metrics()("governor_fatigue_campaigns") > 0


def test_who_takes_over_makes_the_same_curves(deploy: Deploy) -> None:
    deployment = deploy(policy=POLICY, **SETTINGS)
    deployment.create_event_topics()
    events = in_order(population())
    one, two = deployment.two_workers()
    deployment.send(events)
    deployment.wait_until_committed()
    before = wait_for(settled(deployment, events, one, two), "curves of everybody", 400)
    first = wait_for(lambda: next(filter(aggregates, (one, two)), None), "an aggregator")
    (second,) = {one, two} - {first}
    assert not aggregates(second)
    held = curves(deployment)
    first.kill()
    wait_for(lambda: second.partitions == 4, "takeover")
    after = wait_for(settled(deployment, events, second), "the same curves, anew", 400)
    assert after.name == before.name
    assert after.to_json() == before.to_json()
    shown = {key: value for key, value in held.items() if key.startswith(b"detector:")}
    assert {key: curves(deployment).get(key) for key in shown} == shown
    assert second.stop() == 0


def test_an_erased_person_leaves_no_sample(deploy: Deploy) -> None:
    deployment = deploy(policy=POLICY, erasure_key="secret", **SETTINGS)
    deployment.create_event_topics()
    chance = random.Random(3)
    people = [f"person {n}" for n in range(20)]
    for user in people:
        deployment.send(exposure(chance, user, "C1", "0", T0, 0.0))
    with deployment.worker():
        deployment.wait_until_committed()
        wait_for(lambda: len(observed(deployment)) == 20, "everybody's sample")
        values = b" ".join(m.value or b"" for m in deployment.read("samples"))
        assert not any(user.encode() in values for user in people)
        erase = {"event_id": "e", "user_id": "person 7", "ts": T0 + 60, "type": "erase"}
        deployment.send([("controls", erase)])
        deployment.wait_until_committed()
        # Told before the row was: it is there as soon as the offset is committed.
        mark = Marks(b"secret").of(b"person 7")
        assert mark not in set(observed(deployment).arms())
        assert len(observed(deployment)) == 19


def tiring(since: int) -> Version:
    """Curves by which whoever does not answer campaign C1 twice is tired of it."""
    known = unknown(since)
    base, level = (0.5,) * len(known.curves[ALL].base), tuple(-knot for knot in KNOTS)
    worn: Curve = replace(
        known.curves[ALL], label="campaign:C1", base=base, level=level, spread=(0.0,) * len(KNOTS),
        coverage=1.0, identified=True, reason="",
    )  # fmt: skip
    return Version(replace(known, curves={**known.curves, worn.label: worn}), since)


def publish(deployment: Deployment, version: Version) -> None:
    held = Held()
    for key, value in curves(deployment).items():
        held.take(key, value)
    records = held.published(version, 0.0)
    deployment.send_raw((("curves", key, value) for key, value, _ in records), partition=0)


@pytest.mark.parametrize("apart", [False, True], ids=["one-partition", "people-of-several"])
def test_curves_that_change_while_it_is_verified_are_no_difference(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, *, apart: bool
) -> None:
    deployment = deploy(policy=POLICY, **SETTINGS | {"sample_people": "0"})
    deployment.create_event_topics()
    users = [f"person {n}" for n in range(20)]
    deployment.send(shown(user, n * DAY) for n in range(SHOWN) for user in users)
    if apart:
        deployment.send(control("link", f"{user}'s telephone", 0, to=user) for user in users)
    monkeypatch.chdir(deployment.folder)
    settings = load_settings(deployment.environment())
    with deployment.worker() as worker:
        publish(deployment, Version(unknown(int(T0 * 1e6)), 0))
        deployment.wait_until_committed()
        assert not any(throttled(deployment, user) for user in users)
        new = tiring(int(T0 * 1e6))

        def change() -> None:
            publish(deployment, new)
            wait_for(lambda: all(throttled(deployment, user) for user in users), "rests of all")

        def progress(what: str, _: int) -> None:
            if (
                new.name not in seen
                and "impressions" in what
                and apart == ("for people of several" in what)
            ):
                seen.add(new.name)
                changing = Thread(target=change)
                changing.start()
                changing.join()

        seen = set[str]()
        verdict = asyncio.run(verify(settings, Span(), progress=progress))
        assert seen
        assert verdict.differences == []
        assert verdict.throttles == len(users)
        assert worker.stop() == 0
