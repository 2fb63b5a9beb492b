"""``governor verify``: do rows and decisions say what the events say?

One partition after the other: the events that the group has committed, the changelog loaded into
a ledger, the newest decision of each user; then, after those, the events that came meanwhile. Who
has one of these is not judged, so that it can run beside live workers. Whose events lie on several
partitions, because of their producers, of other ids, of links or of erasures, is judged after that:
see `streams.verify_people`.

What may be missing before the span is told from record timestamps: an event's time is never later
than its record's by more than GOVERNOR_MAX_FUTURE, so whoever was seen a whole history after the
span begins has everything that counts inside it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from zlib import crc32

import click
import msgspec
import numpy as np
from aiokafka.errors import KafkaError

from governor.events import Limits
from governor.fatigue.versions import Version
from governor.gate import Gate
from governor.labels import Labels
from governor.ledger import Ledger
from governor.policy import Fatigue, Policy, PolicyError
from governor.records import Records
from governor.rowcodec import RowError
from streams import logs, policy_topic, topics
from streams import verify_report as report
from streams.curves_topic import Held
from streams.patience import ReaderError
from streams.pipeline import DECODERS
from streams.reader import Reader, committed
from streams.settings import Settings, read_policy, ticks
from streams.topics import EVENT_TOPICS, TopicError
from streams.verdict import Event, Found, Judge, Place, Skipped, Verdict
from streams.verify_people import (
    CURVES_TRIED,
    Apart,
    Gathering,
    Progress,
    Roll,
    Span,
    curves_by_now,
    curves_for,
    quarantined,
)
from streams.verify_report import Ticker

__all__ = ["Span", "UncomparableError", "run", "verify"]

UNCOMPARABLE = 2


class UncomparableError(Exception):
    """There is nothing that could be compared; says what to do."""


_UNCOMPARABLE = (
    UncomparableError,
    ReaderError,
    TopicError,
    RowError,
    PolicyError,
    KafkaError,
    OSError,
)


class _Who(msgspec.Struct, gc=False):
    user_id: str


_WHO = msgspec.json.Decoder(_Who).decode


@dataclass
class _Told:
    """What one partition's topics of events hold."""

    events: dict[str, list[tuple[int, str, int, bytes]]] = field(default_factory=dict)
    """By user: time of the record in milliseconds, topic, offset, JSON."""
    accepted: int = 0
    rejected: int = 0
    newest: int = 0
    """The newest event time, in ticks."""
    moving: set[str] = field(default_factory=set)
    after: set[str] = field(default_factory=set)
    missing_until: float | None = None
    """Record time before which events may be missing, in epoch seconds."""


@dataclass(frozen=True)
class _Waiting:
    """One user, to be judged."""

    user: str
    events: list[Event]
    newest: Place | None
    decision: dict[str, Any] | None
    decision_at: int | None


class _Sample:
    """Keeps at most some ``size`` users, those with the smallest hashes; all when it is 0.

    The bound only falls, so who is in at the end was in all the time.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._bound = 1 << 32

    def __contains__(self, user: str) -> bool:
        return not self._size or crc32(user.encode()) < self._bound

    def thin(self, users: dict[str, Any]) -> None:
        """Let go of users when there are twice as many as wanted."""
        if self._size and len(users) > 2 * self._size:
            self.fit(users)

    def fit(self, users: dict[str, Any]) -> None:
        """Let go of those that are too many."""
        if self._size and len(users) > self._size:
            self._bound = sorted(crc32(user.encode()) for user in users)[self._size]
            for user in [each for each in users if each not in self]:
                del users[user]


def run(
    settings: Settings,
    begin: float | None,
    end: float | None,
    *,
    sample: int,
    limit: int,
    as_json: bool,
) -> int:
    """The command: verify, print, and return the exit status."""
    logs.configure(settings, "error")
    ticker, began = Ticker(), time.monotonic()
    try:
        verdict = asyncio.run(verify(settings, Span(begin, end), sample=sample, progress=ticker))
    except _UNCOMPARABLE as error:
        ticker.end()
        click.echo(f"verify: {error or type(error).__name__}", err=True)
        return UNCOMPARABLE
    ticker.end()
    seconds = time.monotonic() - began
    if as_json:
        click.echo(report.as_json(verdict, seconds))
    else:
        for line in report.as_text(verdict, seconds, limit):
            click.echo(line)
    return verdict.status


async def verify(
    settings: Settings, span: Span, *, sample: int = 0, progress: Progress = lambda *_: None
) -> Verdict:
    """Compare all users, or about ``sample`` of them.

    Raises:
        UncomparableError: the topics or the group are not there.
        aiokafka.errors.KafkaError: Kafka does not answer.
        governor.rowcodec.RowError: a changelog record cannot be read.
    """
    partitions = await topics.partitions(settings)
    if not partitions:
        raise UncomparableError(
            f"there are no topics {settings.topic('...')} at {settings.broker}: set "
            "GOVERNOR_BROKER and GOVERNOR_TOPIC_PREFIX as the workers have them"
        )
    done = await committed(settings, map(settings.topic, EVENT_TOPICS))
    if not done:
        raise UncomparableError(
            f"the group {settings.group} has committed nothing of {settings.topic('impressions')}: "
            "set GOVERNOR_GROUP as the workers have it, or let one start"
        )
    policy = await _governing(settings)
    total, roll = Verdict(policy=policy.version), Roll()
    apart = Apart()
    async with Reader(settings, partitions) as reader:
        for partition in range(partitions):
            share = sample * (partition + 1) // partitions - sample * partition // partitions
            if sample and not share:
                continue
            one = _Partition(
                settings, policy, reader, partition, span, _Sample(share), roll, progress
            )
            total.add(await one.verify(done, partitions, apart))
        # Known only now: of whom a partition holds what concerns a row of another.
        roll.take_out(apart.keys, total)
        people = Gathering(settings, policy, reader, partitions, span, progress)
        for keys in apart.slices(sample):
            total.add(await people.verify(done, keys))
    return total


class _Partition:
    """One partition of every topic."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        reader: Reader,
        partition: int,
        span: Span,
        sample: _Sample,
        roll: Roll,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._curves = Held()
        self._tiring = any(isinstance(rule, Fatigue) for rule in policy.rules)
        self._reader = reader
        self._partition = partition
        self._span = span
        self._sample = sample
        self._roll = roll
        self._progress = progress
        self._told = _Told()
        self._labels = Labels()
        self._partitions = 0
        self._apart = Apart()
        self._limits = Limits(
            max_future=ticks(settings.max_future),
            max_age=ticks(settings.max_age),
            max_bytes=settings.max_event_bytes,
        )

    async def verify(
        self, done: Mapping[tuple[str, int], int], partitions: int, apart: Apart
    ) -> Verdict:
        """The verdict on this partition's users.

        Those who are not to be judged by what one partition holds are noted in ``apart``.
        """
        self._partitions, self._apart = partitions, apart
        told, sample = self._told, self._sample
        bad = await quarantined(self._reader, self._settings, self._partition)
        ends = {}
        for kind in EVENT_TOPICS:
            ends[kind] = await self._read_events(kind, done, bad)
        sample.fit(told.events)
        ledger, rows = await self._read_rows()
        decisions = await self._read_decisions()
        self._curves = await curves_by_now(self._settings, self._policy)
        for kind in EVENT_TOPICS:
            await self._read_tail(kind, ends[kind])
        return self._judge(ledger, rows, decisions)

    async def _read_events(
        self, kind: str, done: Mapping[tuple[str, int], int], bad: set[tuple[str, int]]
    ) -> int:
        """Take in one topic's events; return the offset that they end at."""
        told, topic, span = self._told, self._settings.topic(kind), self._span
        begin = await self._reader.begin(topic, self._partition)
        if span.begin is not None:
            begin = max(begin, await self._reader.since(topic, self._partition, span.begin))
        end = done.get((topic, self._partition), 0)
        if span.end is not None:
            end = min(end, await self._reader.since(topic, self._partition, span.end))
        if begin > 0:
            told.missing_until = max(told.missing_until or 0.0, span.begin or 0.0)
        first = begin > 0
        async for records in self._read(kind, begin, end):
            if first and len(records):
                oldest = int(records.timestamp[0]) / 1000
                told.missing_until = max(told.missing_until or 0.0, oldest)
                first = False
            unwanted = [(topic, offset) in bad for offset in records.offset.tolist()]
            wanted = records.select(np.flatnonzero(~np.array(unwanted, bool)))
            told.rejected += len(records) - len(wanted)
            for i, user in self._accepted(kind, wanted):
                if user in self._sample:
                    at, offset = int(wanted.timestamp[i]), int(wanted.offset[i])
                    event = (at, kind, offset, wanted.value(i) or b"")
                    told.events.setdefault(user, []).append(event)
            self._sample.thin(told.events)
        return max(begin, end)

    async def _read_tail(self, kind: str, begin: int) -> None:
        """Note whose events go on where `_read_events` ended."""
        topic, span, told = self._settings.topic(kind), self._span, self._told
        later = told.moving
        if span.end is not None:
            later = told.after
        end = await self._reader.end(topic, self._partition)
        async for records in self._read(kind, begin, end):
            later.update(user for _, user in self._accepted(kind, records, count=False))

    def _accepted(
        self, kind: str, records: Records, *, count: bool = True
    ) -> list[tuple[int, str]]:
        """Index and user of the records that are events."""
        columns, rejected = DECODERS[kind](records, self._labels, self._limits)
        told = self._told
        if len(columns):
            told.newest = max(told.newest, int(columns.ts.max()))
        if count:
            told.accepted += len(records) - len(rejected)
            told.rejected += len(rejected)
        self._apart.note(kind, records, columns, self._partition, self._partitions)
        bad = {one.index for one in rejected}
        view = records.buffer.data
        start = records.value_start.tolist()
        size = records.value_size.tolist()
        return [
            (i, _WHO(view[start[i] : start[i] + size[i]]).user_id)
            for i in range(len(records))
            if i not in bad
        ]

    async def _read_rows(self) -> tuple[Ledger, dict[str, int]]:
        """The rows, and where each user's last changelog record is."""
        settings = self._settings
        ledger = Ledger(
            self._policy,
            horizon=ticks(settings.history),
            row_limit=settings.row_limit,
        )
        gate = Gate(secret=b"", retention=0)
        where: dict[str, int] = {}
        async for records in self._all("ledger"):
            ledger.load(gate.load(records))
            for i, offset in enumerate(records.offset.tolist()):
                key = records.key(i) or b""
                if key[:1] == b"u" and (user := key[1:].decode()) in self._sample:
                    where[user] = offset
        return ledger, where

    async def _read_decisions(self) -> dict[str, tuple[int, bytes | None]]:
        """Offset and value of each user's last decision; None for a tombstone."""
        found: dict[str, tuple[int, bytes | None]] = {}
        async for records in self._all("decisions"):
            for i, offset in enumerate(records.offset.tolist()):
                user = (records.key(i) or b"").decode()
                if user and user in self._sample:
                    found[user] = (offset, records.value(i))
        return found

    async def _all(self, name: str) -> AsyncIterator[Records]:
        topic = self._settings.topic(name)
        begin = await self._reader.begin(topic, self._partition)
        async for records in self._read(
            name, begin, await self._reader.end(topic, self._partition)
        ):
            yield records

    async def _read(self, name: str, begin: int, end: int) -> AsyncIterator[Records]:
        topic = self._settings.topic(name)
        async for records in self._reader.read(topic, self._partition, begin, end):
            self._progress(f"reading {topic}[{self._partition}]", len(records))
            yield records

    def _judge(
        self,
        ledger: Ledger,
        rows: Mapping[str, int],
        decisions: Mapping[str, tuple[int, bytes | None]],
    ) -> Verdict:
        told = self._told
        verdict = Verdict(events=told.accepted, rejected=told.rejected, rows=len(ledger))
        there = {user for user in rows if ledger.live(user) is not None}
        decided = {user for user, (_, value) in decisions.items() if value is not None}
        users = sorted(
            user
            for user in told.events.keys() | there | decided
            if user in self._sample and user not in self._apart.keys
        )
        waiting = []
        for user in users:
            offset, value = decisions.get(user, (None, None))
            decision = None if value is None else msgspec.json.decode(value)
            if decision is not None and "redirect" in decision:
                self._apart.keys.add(user)
                continue
            verdict.users += 1
            policy = None
            if decision is not None:
                policy = str(decision.get("policy"))
                verdict.decisions += 1
                verdict.policies[policy] += 1
            mine: dict[tuple[str, bytes], int] = {}
            for _, kind, at, value in sorted(told.events.get(user, [])):
                mine.setdefault((kind, value), at)
            events = [(kind, msgspec.json.decode(value)) for kind, value in mine]
            reason = self._unjudgeable(user, events, ticks(self._settings.history))
            if reason is not None:
                verdict.skipped[reason] += 1
                self._roll.note(user, reason, 0, policy)
                continue
            newest = None
            if events:
                (kind, _), at = max(
                    zip(events, mine.values(), strict=True), key=lambda one: one[0][1]["ts"]
                )
                newest = Place(self._settings.topic(kind), self._partition, at)
            waiting.append(_Waiting(user, events, newest, decision, offset))
        self._judge_all(waiting, ledger, rows, verdict)
        return verdict

    def _judge_all(
        self,
        waiting: list[_Waiting],
        ledger: Ledger,
        rows: Mapping[str, int],
        verdict: Verdict,
    ) -> None:
        """Judge each by the curves that its decision names; where something differs, by those that
        govern and the ones before them, as workers may be on their way from one to the other."""
        for attempt in range(CURVES_TRIED):
            differing: list[_Waiting] = []
            found = Verdict()
            for name, group in groupby(
                sorted(waiting, key=lambda one: curves_for(self._curves, one.decision)[attempt]),
                key=lambda one: curves_for(self._curves, one.decision)[attempt],
            ):
                version = self._curves.version(name)
                if version is not None:
                    ledger.learn(version)
                for one in group:
                    self._progress(f"comparing partition {self._partition}", 0)
                    mine = self._judge_one(one, ledger, rows, version)
                    if mine.differences and attempt < CURVES_TRIED - 1 and self._tiring:
                        differing.append(one)
                    else:
                        self._roll.count(one.user, one.decision, mine)
                        found.add(mine)
            verdict.add(found)
            waiting = differing
            if not waiting:
                return

    def _judge_one(
        self, one: _Waiting, ledger: Ledger, rows: Mapping[str, int], version: Version | None
    ) -> Verdict:
        settings, verdict = self._settings, Verdict()
        found = Found(
            one.decision,
            Place(settings.topic("decisions"), self._partition, one.decision_at),
            ledger.decide(one.user),
            ledger.live(one.user),
            Place(settings.topic("ledger"), self._partition, rows.get(one.user)),
        )
        horizon = ticks(settings.history)
        judge = Judge(self._policy, horizon, settings.row_limit, self._told.newest, version)
        judge.judge(one.user, one.events, one.newest, found, verdict)
        return verdict

    def _unjudgeable(self, user: str, events: list[Event], horizon: int) -> str | None:
        told = self._told
        if user in told.moving:
            return Skipped.MOVING
        if user in told.after:
            return Skipped.AFTER
        if told.missing_until is not None:
            newest = max((event["ts"] for _, event in events), default=0.0)
            past = told.missing_until + self._settings.max_future.total_seconds()
            if newest - horizon / 1e6 <= past:
                return Skipped.BEFORE
        return None


async def _governing(settings: Settings) -> Policy:
    """The policy that the workers have: that of the policy topic, or else that of the file."""
    held, _ = await policy_topic.fetch(settings)
    if held.current is not None:
        return policy_topic.policy_of(held.current, settings)
    return read_policy(settings)
