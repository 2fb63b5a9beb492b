"""The aggregator: one worker makes curves of all histories that are observed, and watches labels.

It is the owner of partition 0 of the changelog, so there is one, and Kafka itself keeps a former
one from writing (`streams.producer`). It holds nothing that is not in a topic: who takes over reads
the samples from the beginning and makes the same of them. Each round:

1. it estimates curves, in a process of their own (`streams.fitting`),
2. looks at the buckets of event time that have been settled since, and tells alarms on the topic
   `fatigue`, under a key that a repetition after a crash has too,
3. writes the detectors' states, then the version, then that it governs,
4. adapts who is observed to how many they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from mode import Service

from governor.fatigue.buckets import WATCHED, observed, settled_before
from governor.fatigue.curves import ALL, Curve
from governor.fatigue.detector import Alarm, Detector, Observed
from governor.fatigue.exposures import Exposures
from governor.fatigue.samples import Samples, SamplesError, mark_key
from governor.fatigue.versions import Version
from governor.policy import Policy
from governor.policy.durations import DAY
from governor.records import Records
from governor.ticks import to_seconds
from streams import curves_topic, observer
from streams.curves_topic import Held, Written, shares_record, watched_records
from streams.fitting import FittingError, fit_apart
from streams.identities import FencedError
from streams.metrics import DEPTHS, Metrics, Wear
from streams.patience import connected
from streams.settings import Settings

__all__ = ["TOPIC", "Aggregator"]

log = logging.getLogger(__name__)

TOPIC = "fatigue"

PAUSE = 1.0
POLL_SECONDS = 0.25
POLL_RECORDS = 500
"""Histories taken in at a time: some milliseconds."""
CUT_RATIO = 1.5
"""With so many times more people than wanted, shares are cut between rounds."""

Write = Callable[[Mapping[TopicPartition, Records]], Awaitable[Any]]


class Aggregator(Service):
    """Makes curves while this worker owns partition 0.

    Args:
        settings: where Kafka is, how often, of how many.
        policy: what governs: it says how long an answer takes.
        owns: whether this worker has partition 0.
        write: writes to partition 0 of topics as its owner.
        metrics: what is shown of it.
        there: how many people there are at least, as far as this worker can tell.
    """

    mundane_level = "debug"

    def __init__(
        self,
        settings: Settings,
        policy: Callable[[], Policy],
        owns: Callable[[], bool],
        write: Write,
        metrics: Metrics,
        there: Callable[[], int],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._policy = policy
        self._owns = owns
        self._write = write
        self._metrics = metrics
        self._there = there
        self._counted_until = 0

    @Service.task
    async def _run(self) -> None:
        while self._settings.sample_people and not self.should_stop:
            if not self._owns():
                await self.sleep(POLL_SECONDS)
                continue
            try:
                await self._aggregate()
            except FencedError:
                log.info("the curves are another worker's from now on")
            except (KafkaError, OSError) as error:
                log.warning("curves cannot be made now: %r: trying again", error)
            self._metrics.fatigue.curves(Wear(0), {})
            await self.sleep(PAUSE)

    async def _aggregate(self) -> None:
        """Read everything, then make curves as long as this worker is to."""
        held, _ = await curves_topic.fetch(self._settings)
        samples = Samples()
        part = TopicPartition(self._settings.topic(observer.TOPIC), 0)
        done, due = -1, 0.0
        async with connected(curves_topic.consumer(self._settings)) as reading:
            reading.assign([part])
            await reading.seek_to_beginning(part)
            end = (await reading.end_offsets([part]))[part]
            while self._owns() and not self.should_stop:
                fetched = await reading.getmany(part, timeout_ms=250, max_records=POLL_RECORDS)
                self._take(samples, fetched.get(part, ()))
                if await reading.position(part) < end:
                    continue
                expected = max(len(samples), self._there() >> held.shares.halvings)
                if expected > CUT_RATIO * self._settings.sample_people:
                    await self._adapt(samples, held)
                if time.monotonic() >= due and samples.changes != done:
                    done = samples.changes
                    await self._round(samples, held)
                    due = time.monotonic() + self._settings.curves_interval.total_seconds()

    def _take(self, samples: Samples, records: Iterable[Any]) -> None:
        for record in records:
            try:
                samples.take(record.key, record.value)
            except SamplesError as error:
                log.critical("the samples topic has a record that is none of ours: %s", error)

    async def _round(self, samples: Samples, held: Held) -> None:
        started = time.monotonic()
        now, since = samples.now, samples.since
        exposures = await asyncio.to_thread(samples.exposures)
        if not len(exposures):
            await self._adapt(samples, held)
            return
        before = held.version()
        try:
            curves = await fit_apart(exposures, before.curves if before else None, now)
        except FittingError as error:
            log.error("curves could not be estimated: %s: those before go on", error)
            return
        version = Version(curves, since)
        until = settled_before(exposures, samples.settled_until, self._longest())
        records = await self._watch(exposures, version, held, until)
        records += held.published(version, time.time())
        await self._publish(records, held)
        self._show(version, held, float(exposures.measurable.mean()))
        self._count(exposures, samples, until)
        await self._adapt(samples, held)
        told = {"version": version.name, "people": len(samples), "exposures": len(exposures)}
        seconds = round(time.monotonic() - started, 3)
        log.info("curves made", extra={**told, "labels": len(curves.curves), "seconds": seconds})

    def _longest(self) -> int:
        """The longest time, in ticks, after which something is still an answer."""
        return max([DAY, *(one.window for one in self._policy().attribution)])

    async def _watch(
        self, exposures: Exposures, version: Version, held: Held, until: int
    ) -> list[Written]:
        """Let the detectors see the buckets up to ``until``; the records of their states."""
        first = held.watched_until
        if until <= first:
            return []
        states = dict(held.detectors)
        changed, alarms = await asyncio.to_thread(_look, exposures, version, states, first, until)
        if alarms:
            await self._write({self._part(TOPIC): Records.of(alarms)})
            self._metrics.fatigue.alarms += sum(b'"alarm"' in (each[1] or b"") for each in alarms)
        return watched_records(until, changed)

    async def _adapt(self, samples: Samples, held: Held) -> None:
        """Adapt who is observed, and let go of those who are not any more."""
        shares = samples.adapted(held.shares, self._settings.sample_people, self._there())
        if shares != held.shares:
            await self._publish([shares_record(shares)], held)
            told = {"one_in": 1 << shares.halvings, "campaigns_with_more": len(shares.campaigns)}
            log.info("people observed", extra=told)
        outside = samples.outside(shares)
        if outside:
            gone = [(mark_key(mark), None, 0) for mark in outside]
            await self._write({self._part(observer.TOPIC): Records.of(gone)})
            for key, _, _ in gone:
                samples.take(key, None)

    async def _publish(self, records: list[Written], held: Held) -> None:
        await self._write({self._part(curves_topic.TOPIC): Records.of(records)})
        for key, value, _ in records:
            held.take(key, value)

    def _part(self, name: str) -> TopicPartition:
        return TopicPartition(self._settings.topic(name), 0)

    def _show(self, version: Version, held: Held, coverage: float) -> None:
        """Show the curves, and the ``coverage`` of all exposures, whether they have one or not."""
        curves = version.curves
        campaigns = {
            label.removeprefix("campaign:"): _wear(curve, held.detectors.get(label))
            for label, curve in curves.curves.items()
            if label.startswith("campaign:")
        }
        together = replace(_wear(curves.curves[ALL], None), coverage=coverage)
        self._metrics.fatigue.curves(together, campaigns)

    def _count(self, exposures: Exposures, samples: Samples, until: int) -> None:
        """Count the observed exposures that have been settled since the last round, by arm."""
        first, self._counted_until = self._counted_until or until, max(until, self._counted_until)
        new = (exposures.ts >= first) & (exposures.ts < until)
        if not new.any():
            return
        arms = samples.arms()
        for arm in ("governed", "holdout"):
            marks = [mark for mark, name in arms.items() if name == arm]
            mine = new & np.isin(exposures.person, np.array(marks, np.uint64))
            seen = mine & exposures.measurable
            self._metrics.fatigue.settled(
                arm,
                exposures=int(seen.sum()),
                engagements=int((seen & exposures.engaged).sum()),
                unmeasurable=int((mine & ~exposures.measurable).sum()),
            )


def _look(
    exposures: Exposures, version: Version, states: Mapping[str, Any], first: int, until: int
) -> tuple[dict[str, Mapping[str, Any] | None], list[Written]]:
    """Show the detectors the buckets from ``first`` to ``until``: the states of those that have
    changed, None for one of a label that is not seen any more, and the records of alarms."""
    changed: dict[str, Mapping[str, Any] | None] = {}
    alarms: list[Written] = []
    for dimension in WATCHED:
        buckets = observed(exposures, version.curves, dimension, version.since, first, until)
        for label, seen in buckets.items():
            state = states.get(label)
            detector = Detector() if state is None else Detector.from_fields(deepcopy(state))
            alarms += [_told(label, each, version) for each in _update(detector, seen)]
            changed[label] = detector.to_fields()
        _, names = exposures.labels(dimension)
        known = {f"{dimension}:{name}" for name in names}
        gone = {one for one in states if one.startswith(f"{dimension}:")} - known
        changed |= dict.fromkeys(gone)
    return changed, alarms


def _update(detector: Detector, buckets: Iterable[Observed]) -> list[Alarm]:
    return [alarm for each in buckets if (alarm := detector.update(each)) is not None]


def _told(label: str, alarm: Alarm, version: Version) -> Written:
    """An alarm as a record of the topic."""
    content = {
        "label": label,
        "event": "recovery" if alarm.recovered else "alarm",
        "at": to_seconds(alarm.ts),
        "since": to_seconds(alarm.since),
        "ratio": round(alarm.ratio, 4),
        "low": round(alarm.low, 4),
        "high": round(alarm.high, 4),
        "evidence": round(min(alarm.evidence, 1e12), 4),
        "curves": version.name,
    }
    key = f"{label}@{to_seconds(alarm.ts)}"
    return key.encode(), json.dumps(content, ensure_ascii=False).encode(), 0


def _wear(curve: Curve, detector: Mapping[str, Any] | None) -> Wear:
    """What metrics show of a campaign."""
    by_depth = {line.depth: line for line in curve.depths if line.exposures}
    shown = {
        depth: (by_depth[depth].estimate, by_depth[depth].low, by_depth[depth].high)
        for depth in DEPTHS
        if depth in by_depth
    }
    return Wear(
        exposures=round(curve.exposures),
        curve=shown,
        coverage=curve.coverage if curve.people else math.nan,
        identified=curve.identified,
        alarmed=bool(detector and detector["alarm"]),
    )
