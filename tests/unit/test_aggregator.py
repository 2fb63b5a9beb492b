"""What the aggregator says of labels that lose their answers; without Kafka."""

from __future__ import annotations

import json
import random

from governor.fatigue.samples import Samples, clock_record, history_record
from governor.fatigue.versions import Version
from streams.aggregator import _look
from tests.unit.test_samples import DAY, T0, history, known

HOUR = 3600
USUAL, LEFT = 0.3, 0.1
BREAKS = 60 * HOUR
"""Seconds after T0 at which answers to campaign C1 become rare."""


def samples() -> Samples:
    """People who are shown C1 or C2 once: 100 an hour each, for 90 hours."""
    chance = random.Random(5)
    made = Samples()
    for campaign in ("C1", "C2"):
        for n in range(9_000):
            at = n * 36
            rate = USUAL * (LEFT if campaign == "C1" and at >= BREAKS else 1.0)
            answered = (at,) if chance.random() < rate else ()
            mark = chance.getrandbits(64)
            made.take(*history_record(mark, 0, history(campaign, (at,), answered)))
    made.take(*clock_record(0, T0 + 30 * DAY, drained=False))
    return made


def test_a_campaign_that_loses_its_answers_is_told_of_and_no_other() -> None:
    held = samples()
    version = Version(known(USUAL), held.since)
    first = T0 - DAY
    states, records = _look(held.exposures(), version, {}, first, T0 + 30 * DAY)
    told = [json.loads(value or b"") for _, value, _ in records]
    by_campaign = [one for one in told if one["label"].startswith("campaign:")]
    assert [(one["label"], one["event"]) for one in by_campaign] == [("campaign:C1", "alarm")]
    alarm = by_campaign[0]
    begins = T0 / 1e6 + BREAKS
    assert begins < alarm["at"] < begins + 20 * HOUR
    assert abs(alarm["since"] - begins) < 5 * HOUR
    assert alarm["low"] < LEFT * 1.5
    assert alarm["high"] < 0.6
    assert alarm["curves"] == version.name
    assert states["campaign:C2"] is not None


def test_what_is_looked_at_again_after_a_crash_is_told_under_the_same_keys() -> None:
    held = samples()
    version = Version(known(USUAL), held.since)
    exposures, middle, end = held.exposures(), T0 + 2 * DAY, T0 + 30 * DAY
    states, before = _look(exposures, version, {}, T0 - DAY, middle)
    assert not before
    once = _look(exposures, version, states, middle, end)
    again = _look(exposures, version, json.loads(json.dumps(states)), middle, end)
    assert once == again
    assert once[1] == _look(exposures, version, {}, T0 - DAY, end)[1]
