"""Series of fatigue: there from the start, of the top campaigns only, and gone with them."""

from __future__ import annotations

import math

from streams.metrics import ALL_CAMPAIGNS, DEPTHS, TOP_CAMPAIGNS, Fatigue, Wear

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(fatigue: Fatigue) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in fatigue.collect()
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float:
    return found[f"governor_fatigue_{name}", frozenset(labels.items())]


def campaigns(found: Samples) -> set[str]:
    return {dict(labels)["campaign"] for _, labels in found if "campaign" in dict(labels)}


def test_every_series_is_there_from_the_start() -> None:
    found = samples(Fatigue())
    for depth in DEPTHS:
        ratio = of(found, "relative_engagement_ratio", campaign=ALL_CAMPAIGNS, depth=str(depth))
        assert math.isnan(ratio)
    assert of(found, "alarms_total") == of(found, "rests_total") == 0
    for arm in ("governed", "holdout"):
        assert of(found, "exposures_total", arm=arm) == 0
        assert of(found, "engagements_total", arm=arm) == 0
    assert campaigns(found) == {ALL_CAMPAIGNS}


def test_what_is_set_is_shown() -> None:
    fatigue = Fatigue()
    wear = Wear(100, {1: (1.0, 1.0, 1.0), 3: (0.7, 0.6, 0.8)}, 0.9, True, True)
    fatigue.curves(Wear(100, coverage=0.8), {"C1": wear})
    fatigue.settled("governed", exposures=10, engagements=2, unmeasurable=1)
    fatigue.settled("holdout", exposures=5, engagements=1, unmeasurable=0)
    fatigue.alarms += 1
    found = samples(fatigue)
    assert of(found, "relative_engagement_ratio", campaign="C1", depth="3") == 0.7
    assert of(found, "relative_engagement_low_ratio", campaign="C1", depth="3") == 0.6
    assert of(found, "relative_engagement_high_ratio", campaign="C1", depth="3") == 0.8
    assert math.isnan(of(found, "relative_engagement_ratio", campaign="C1", depth="24"))
    assert of(found, "coverage_ratio", campaign="C1") == 0.9
    assert of(found, "coverage_ratio", campaign=ALL_CAMPAIGNS) == 0.8
    assert of(found, "alarmed", campaign="C1") == of(found, "identified", campaign="C1") == 1
    assert of(found, "exposures_total", arm="governed") == 10
    assert of(found, "engagements_total", arm="holdout") == 1
    assert of(found, "unmeasurable_exposures_total") == 1
    assert of(found, "alarms_total") == of(found, "campaigns") == 1


def test_campaigns_that_churn_are_retired() -> None:
    fatigue = Fatigue()
    sizes = set()
    for generation in range(50):
        names = {f"C{generation}-{n}": Wear(1000 - n) for n in range(200)}
        names[f"C{generation}-199"] = Wear(1, alarmed=True)
        fatigue.curves(Wear(1), names)
        found = samples(fatigue)
        assert {name.partition("-")[0] for name in campaigns(found)} == {f"C{generation}", "*"}
        assert f"C{generation}-199" in campaigns(found), "alarmed, so shown although it is small"
        sizes.add(len(found))
    assert len(sizes) == 1
    assert len(campaigns(found)) == TOP_CAMPAIGNS + 2
