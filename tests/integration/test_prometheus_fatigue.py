"""Dashboards and alerts of fatigue against a real Prometheus, while ads wear.

Every panel of the dashboard *Fatigue* shows what follows from the stream, from the curves that are
on their topic, and from the alarms on theirs. Then a campaign gets no answers any more, and after
that exposures move to where nobody can answer: the right alert fires, and ends.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from deploy.dashboards.questions import filled, questions
from governor.fatigue.curves import Curve
from governor.fatigue.sampling import Marks
from governor.fatigue.versions import Version
from governor.ticks import from_seconds
from streams.logs import said
from streams.metrics import ALL_CAMPAIGNS, DEPTHS
from tests.integration.curves import governing, observed, settled
from tests.integration.deployment import READY_SECONDS, Deployment, Worker, wait_for
from tests.integration.prometheus import Server, Values, by, pictured, values, world
from tests.integration.wearing import CAMPAIGNS, POLICY, STEADY, WORN, Audience, Shown, events_of

pytestmark = pytest.mark.slow

CURVES_SECONDS = 400.0
"""For curves of all that was sent, on a machine that may be busy."""

QUESTIONS = {
    (one.panel, one.legend): one.expression for one in questions() if one.dashboard == "fatigue"
}


@dataclass
class Wearing:
    """A worker that is sent exposures, and the Prometheus that sees it."""

    deployment: Deployment
    worker: Worker
    server: Server
    began: float
    shown: list[Shown] = field(default_factory=list)
    at: float = 0.0
    """The last scrape that is looked at."""

    def show(self, shown: list[Shown]) -> None:
        """Send exposures; return when curves are made of all so far."""
        self.shown += shown
        self.deployment.send(events_of(shown))
        self.deployment.wait_until_committed()
        made = settled(self.deployment, events_of(self.shown), self.worker)

        def whole() -> bool:
            # The topic is large to be asked all the time.
            rounds = said(self.worker.log(), "curves made")
            return (
                bool(rounds) and rounds[-1]["exposures"] == len(self.shown) and made() is not None
            )

        wait_for(whole, "curves of all that was shown", CURVES_SECONDS)

    def look(self) -> None:
        """Go by a scrape of after this moment."""
        self.server.scraped_since(time.time())
        self.at = self.server.now("timestamp(governor_ready)")[0][1]

    def answer(self, panel: str, legend: str) -> Values:
        window = round(self.at - self.began, 3)
        return values(self.server.now(filled(QUESTIONS[panel, legend], window=window), self.at))

    def alarms(self) -> dict[str, list[str]]:
        """Alarms and recoveries by label, as their topic tells them."""
        found: dict[str, list[str]] = defaultdict(list)
        for message in self.deployment.read("fatigue"):
            if message.value:
                found[message.json()["label"]].append(message.json()["event"])
        return found

    def counted(self) -> list[Shown]:
        """What was settled after the first look at buckets, and by the last."""
        looks = [
            one.json()["until"] for one in self.deployment.read("curves") if one.key == b"watched"
        ]
        return [one for one in self.shown if looks[0] <= from_seconds(one.ts) < looks[-1]]


@pytest.fixture(scope="module")
def wearing(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wearing]:
    folder = tmp_path_factory.mktemp("wearing")
    settings = {"sample_interval": "200ms", "curves_interval": "1s", "standbys": "0"}
    with world(folder, broker, "wearing", POLICY, **settings) as (deployment, server):
        worker = deployment.worker()
        ready = "governor_ready == 1"
        wait_for(lambda: values(server.now(ready)), "ready worker that is scraped", READY_SECONDS)
        # A scrape in which nothing has been counted, so that rates miss nothing.
        began = server.now("timestamp(governor_ready)")[0][1] - 0.001
        yield Wearing(deployment, worker, server, began)


def _wear(curve: Curve) -> dict[int, tuple[float, float, float]]:
    """Estimate and band by depth, of depths that are shown."""
    return {
        one.depth: (one.estimate, one.low, one.high)
        for one in curve.depths
        if one.exposures and one.depth in DEPTHS
    }


def _share(part: Mapping[str, int], whole: Mapping[str, int]) -> dict[str, float]:
    return {name: part[name] / count for name, count in whole.items()}


def _coverage(shown: list[Shown]) -> Values:
    seen = Counter(one.campaign for one in shown if one.measurable)
    everything = Counter(one.campaign for one in shown)
    together = {ALL_CAMPAIGNS: sum(seen.values()) / sum(everything.values())}
    return by("campaign", _share(seen, everything) | together)


def _arms(world: Wearing) -> Values:
    """Answers an exposure, by the arm that the person's sample has."""
    arms, marks = observed(world.deployment).arms(), Marks(b"")
    counted = [one for one in world.counted() if one.measurable]
    of = {user: arms[marks.of(user.encode())] for user in {one.user for one in counted}}
    shown = Counter(of[one.user] for one in counted)
    answered = Counter(of[one.user] for one in counted if one.answered)
    assert set(shown) == {"governed", "holdout"}
    return by("arm", _share(answered, shown))


def _curves(version: Version, which: int) -> Values:
    """Of depth 8, by campaign."""
    curves = {name: version.curves.curves[f"campaign:{name}"] for name in CAMPAIGNS}
    found = {name: _wear(curve).get(8, (math.nan,) * 3)[which] for name, curve in curves.items()}
    return by("campaign", found | {ALL_CAMPAIGNS: math.nan})


def _depths(version: Version) -> Values:
    found = defaultdict(list)
    for name in CAMPAIGNS:
        for depth, (estimate, _, _) in _wear(version.curves.curves[f"campaign:{name}"]).items():
            found[str(depth)].append(estimate)
    return by("depth", {depth: sum(each) / len(each) for depth, each in found.items()})


def _rests(world: Wearing) -> int:
    return sum(
        throttle["reasons"].count("tired")
        for one in world.deployment.read("decisions")
        if one.key and one.value
        for throttle in one.json()["throttles"]
    )


def expected(world: Wearing) -> dict[tuple[str, str], Values]:
    """What each panel of the dashboard has to show."""
    version, alarms = governing(world.deployment), world.alarms()
    assert version is not None
    raised = sum(events.count("alarm") for events in alarms.values())
    stands = [
        label.removeprefix("campaign:")
        for label, events in alarms.items()
        if label.startswith("campaign:") and events[-1] == "alarm"
    ]
    identified = [version.curves.curves[f"campaign:{name}"].identified for name in CAMPAIGNS]
    eighth = "Engagement at the eighth exposure"
    return {
        ("Engagement by depth", "{{depth}}"): _depths(version),
        (eighth, "{{campaign}}"): _curves(version, 0),
        (eighth, "{{campaign}}, at least"): _curves(version, 1),
        (eighth, "{{campaign}}, at most"): _curves(version, 2),
        ("Campaigns that wear worse than usual", "{{campaign}}"): by(
            "campaign", dict.fromkeys(stands, 1)
        ),
        ("Alarms", "alarms"): {(): raised},
        ("Rests", "rests"): {(): _rests(world) / (world.at - world.began)},
        ("Coverage", "{{campaign}}"): _coverage(world.shown),
        ("Engagement, governed and held out", "{{arm}}"): _arms(world),
        ("Curves that can be told from selection", "identified"): {
            (): sum(identified) / len(identified)
        },
        ("Campaigns with a curve", "campaigns"): {(): len(CAMPAIGNS)},
    }


def wait_until_panels_show_it(world: Wearing) -> None:
    """Wait until each panel has what it has to show: rows are evaluated by new curves for a while,
    and those are made once more when clocks go on."""
    wrong: dict[tuple[str, str], tuple[Values, Values]] = {}

    def right() -> bool:
        world.look()
        wanted = expected(world)
        assert wanted.keys() == QUESTIONS.keys()
        found = {key: world.answer(*key) for key in wanted}
        wrong.clear()
        for key, each in wanted.items():
            if found[key] != pytest.approx(each, rel=1e-6, abs=1e-9, nan_ok=True):
                wrong[key] = found[key], each
        print(wrong)
        return not wrong

    wait_for(right, "panels that show what follows from the stream")


@pytest.fixture(scope="module")
def audience() -> Audience:
    return Audience()


@pytest.fixture(scope="module")
def usual(wearing: Wearing, audience: Audience) -> Wearing:
    """After days on which nothing was out of the ordinary."""
    shown = audience.usual()
    # What is there when curves are made first is no news to who counts, so it comes in two.
    early = sorted(shown, key=lambda one: one.ts)[: len(shown) // 4]
    wearing.show(early)
    wearing.show([one for one in shown if one not in set(early)])
    return wearing


def test_panels_show_how_ads_wear(usual: Wearing) -> None:
    version = governing(usual.deployment)
    assert version is not None
    assert version.curves.curves[f"campaign:{WORN}"].at(4.0)[2] < 1, "people were made to tire"
    wait_until_panels_show_it(usual)
    assert usual.alarms() == {}
    assert usual.server.fired(usual.began) == set()


@pytest.fixture(scope="module")
def ignored(usual: Wearing, audience: Audience) -> Wearing:
    """After days on which nobody answered one of the campaigns."""
    usual.show(audience.ignoring())
    return usual


def test_a_campaign_that_gets_no_answers_is_told(ignored: Wearing) -> None:
    ignored.server.wait_until_firing("GovernorFatigueAlarm")
    assert ignored.alarms()[f"campaign:{STEADY}"] == ["alarm"]
    wait_until_panels_show_it(ignored)


@pytest.fixture(scope="module")
def answered(ignored: Wearing, audience: Audience) -> Wearing:
    """After days on which it was answered again."""
    ignored.show(audience.answering())
    return ignored


def test_a_campaign_that_gets_answers_again_is_told_no_more(answered: Wearing) -> None:
    answered.server.wait_until_quiet("GovernorFatigueAlarm")
    assert answered.alarms()[f"campaign:{STEADY}"] == ["alarm", "recovery"]
    wait_until_panels_show_it(answered)
    assert answered.server.fired(answered.began) == {"GovernorFatigueAlarm"}


def test_exposures_that_nobody_could_answer_are_told(answered: Wearing, audience: Audience) -> None:
    world, server = answered, answered.server
    world.show(audience.on_radio())
    server.wait_until_firing("GovernorFatigueCoverageCollapsed")
    wait_until_panels_show_it(world)
    world.show(audience.seen_again())
    server.wait_until_quiet()
    pictured(server, world.began, "fatigue")
    assert server.fired(world.began) == {
        "GovernorFatigueAlarm",
        "GovernorFatigueCoverageCollapsed",
    }
