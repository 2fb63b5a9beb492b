"""The part of ``governor verify`` for people whose events lie on several partitions.

Events that a producer put elsewhere, those that name other ids, links and erasures concern rows
that live on other partitions. `Apart` notes their keys while partitions are read one by one;
`Gathering` then reads all partitions for the events of these keys, and compares with what
`governor.oracle.people` makes of them.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from governor.events import Columns, Limits, row_key
from governor.fatigue.versions import Version
from governor.gate import Gate, again
from governor.labels import Labels
from governor.ledger import Ledger
from governor.oracle.people import People
from governor.partitioning import partition_of, partitions_of
from governor.policy import Fatigue, Policy
from governor.records import Records
from streams import curves_topic
from streams.curves_topic import Held
from streams.pipeline import DECODERS
from streams.reader import Reader, committed
from streams.repartition import TOPIC
from streams.settings import Settings, ticks
from streams.topics import EVENT_TOPICS
from streams.verdict import Difference, Found, Judge, Place, Skipped, Verdict

__all__ = [
    "CURVES_TRIED",
    "Apart",
    "Gathering",
    "Progress",
    "Roll",
    "Span",
    "curves_by_now",
    "curves_for",
    "quarantined",
]

CURVES_TRIED = 3
"""Versions of curves that somebody is judged by before it is told that something differs."""

SLICE = 50_000
"""Keys whose events are held at a time."""

Progress = Callable[[str, int], None]
"""Told what is being done, and how many records were read since it was last told."""


async def curves_by_now(settings: Settings, policy: Policy) -> Held:
    """What the topic of curves holds; nothing where no rule of the policy asks about curves.

    To be asked for when decisions have been read: what they name is there then.
    """
    if not any(isinstance(rule, Fatigue) for rule in policy.rules):
        return Held()
    return (await curves_topic.fetch(settings))[0]


def curves_for(curves: Held, decision: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The versions of curves to judge somebody by, empty for none: that which the decision names,
    that which governs, and the one before it, as workers may be on their way between them."""
    current = curves.current or ""
    before = ([current, *reversed(curves.kept[:-1])] + [current] * CURVES_TRIED)[1]
    named = (decision or {}).get("curves")
    return str(named or current), current, before


@dataclass(frozen=True)
class Span:
    """Which events, by the timestamps of their records in epoch seconds; None for no bound."""

    begin: float | None = None
    end: float | None = None


class _Control(msgspec.Struct, gc=False):
    user_id: str
    type: str
    to: str | None = None
    ids: dict[str, str] | None = None


_control = msgspec.json.Decoder(_Control).decode


class Apart:
    """Keys of rows that are made of more than their own events in their own partition."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._links: dict[str, set[str]] = defaultdict(set)
        """The other end of links, either way."""

    def note(
        self, kind: str, records: Records, columns: Columns, partition: int, partitions: int
    ) -> None:
        """Take in what came on a partition of a topic of events."""
        where = partitions_of(columns.text, columns.user_start, columns.user_size, partitions)
        elsewhere = np.flatnonzero((where != partition) | again(columns, len(records)))
        self.keys.update(_key(columns, i) for i in elsewhere.tolist())
        if kind != "controls":
            return
        for i in range(len(records)):
            value = records.value(i) or b""
            if b'"link"' in value or b'"erase"' in value:
                self._note_control(value)

    def _note_control(self, value: bytes) -> None:
        try:
            control = _control(value)
        except msgspec.MsgspecError:
            return  # a dead letter, which names nobody
        if control.type == "link" and control.to:
            self.keys |= {control.user_id, control.to}
            self._links[control.user_id].add(control.to)
            self._links[control.to].add(control.user_id)
        elif control.type == "erase":
            others = (control.ids or {}).items()
            self.keys |= {control.user_id, *(row_key(kind, value) for kind, value in others)}

    def slices(self, sample: int) -> Iterator[set[str]]:
        """The keys, linked ones together, some at a time; about ``sample`` if it is not 0."""
        groups = sorted(self._groups(), key=lambda group: crc32(min(group).encode()))
        taken, some = 0, set[str]()
        for group in groups:
            if sample and taken >= sample:
                break
            some |= group
            taken += len(group)
            if len(some) >= SLICE:
                yield some
                some = set()
        if some:
            yield some

    def _groups(self) -> Iterator[set[str]]:
        left = set(self.keys)
        while left:
            group, waiting = set[str](), [left.pop()]
            while waiting:
                key = waiting.pop()
                if key not in group:
                    group.add(key)
                    waiting += self._links.get(key, ())
            left -= group
            yield group


class Roll:
    """What became of each user, so that those who turn out to be apart can be taken out again."""

    def __init__(self) -> None:
        self._who, self._throttles = array("q"), array("L")
        self._skipped: dict[int, str] = {}
        self._policies, self._policy = list[str](), array("h")

    def note(self, user: str, skipped: str | None, throttles: int, policy: str | None) -> None:
        """A user was not judged, and why; or was, and so many throttles were expected.

        ``policy`` is what the user's decision names, None where there is none.
        """
        if policy is not None and policy not in self._policies:
            self._policies.append(policy)
        self._policy.append(-1 if policy is None else self._policies.index(policy))
        if skipped is not None:
            self._skipped[len(self._who)] = skipped
        self._who.append(hash(user))
        self._throttles.append(throttles)

    def count(self, user: str, decision: Mapping[str, Any] | None, verdict: Verdict) -> None:
        """The same of a verdict on one user."""
        skipped = next(iter(verdict.skipped), None)
        policy = None if decision is None else str(decision.get("policy"))
        self.note(user, skipped, verdict.throttles, policy)

    def take_out(self, keys: set[str], verdict: Verdict) -> None:
        """Have a verdict say nothing of these."""
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        for i in np.flatnonzero(np.isin(np.array(self._who, np.int64), hashes)).tolist():
            verdict.users -= 1
            verdict.throttles -= self._throttles[i]
            if self._policy[i] >= 0:
                verdict.decisions -= 1
                verdict.policies[self._policies[self._policy[i]]] -= 1
            if (reason := self._skipped.get(i)) is None:
                verdict.judged -= 1
            else:
                verdict.skipped[reason] -= 1
        verdict.skipped, verdict.policies = +verdict.skipped, +verdict.policies
        verdict.differences = [one for one in verdict.differences if one.user not in keys]


@dataclass(frozen=True, slots=True, order=True)
class _Told:
    """An event; they are ordered as they probably came."""

    at: int
    """The time of its record, in milliseconds."""
    partition: int
    topic: str
    offset: int
    value: bytes


@dataclass(frozen=True, slots=True)
class _Found:
    """What Kafka has of a key."""

    partition: int
    by_curves: list[tuple[Version | None, Found]]
    """By the version of curves that its row is asked by, the likeliest first."""

    @property
    def any(self) -> Found:
        """By the likeliest."""
        return self.by_curves[0][1]


class Gathering:
    """Reads every partition for the events of some keys, and judges the rows of these."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        reader: Reader,
        partitions: int,
        span: Span,
        progress: Progress,
    ) -> None:
        self._settings, self._policy, self._reader = settings, policy, reader
        self._tiring = any(isinstance(rule, Fatigue) for rule in policy.rules)
        self._partitions, self._span, self._progress = partitions, span, progress
        self._horizon = ticks(settings.history)
        self._limits = Limits(
            max_future=ticks(settings.max_future),
            max_age=ticks(settings.max_age),
            max_bytes=settings.max_event_bytes,
        )

    async def verify(self, done: Mapping[tuple[str, int], int], keys: set[str]) -> Verdict:
        """The verdict on these keys, with all that are linked with one of them among them."""
        self._keys = keys
        self._told: list[_Told] = []
        self._labels = Labels()
        self._missing_until: float | None = None
        self._newest = [0] * self._partitions
        self._unsettled: dict[str, str] = {}
        ends = {
            (kind, partition): await self._read_events(kind, partition, done)
            for partition in range(self._partitions)
            for kind in EVENT_TOPICS
        }
        forwarded = await committed(self._settings, [self._settings.topic(TOPIC)])
        found: dict[str, _Found] = {}
        for partition in range(self._partitions):
            found |= await self._read_rows(partition)
        await self._read_tails(ends, forwarded)
        return self._judge(found)

    # -- Reading

    async def _read_events(
        self, kind: str, partition: int, done: Mapping[tuple[str, int], int]
    ) -> int:
        """Take in the events of one partition of a topic; return the offset that they end at."""
        reader, span, topic = self._reader, self._span, self._settings.topic(kind)
        begin = await reader.begin(topic, partition)
        if span.begin is not None:
            begin = max(begin, await reader.since(topic, partition, span.begin))
        end = done.get((topic, partition), 0)
        if span.end is not None:
            end = min(end, await reader.since(topic, partition, span.end))
        if begin > 0:
            self._missing(span.begin or 0.0)
        bad = await quarantined(reader, self._settings, partition)
        first = begin > 0
        async for records in self._read(topic, partition, begin, end):
            if first and len(records):
                self._missing(int(records.timestamp[0]) / 1000)
                first = False
            for i, keys, newest in self._concerning(kind, records):
                offset = int(records.offset[i])
                if keys and (topic, offset) not in bad:
                    value = records.value(i) or b""
                    at = int(records.timestamp[i])
                    self._told.append(_Told(at, partition, kind, offset, value))
                for key in keys:
                    home = partition_of(key.encode(), self._partitions)
                    self._newest[home] = max(self._newest[home], newest)
        return max(begin, end)

    def _missing(self, until: float) -> None:
        self._missing_until = max(self._missing_until or 0.0, until)

    def _concerning(self, kind: str, records: Records) -> Iterator[tuple[int, set[str], int]]:
        """Index, keys and time of the events that concern any of the keys."""
        columns, _ = DECODERS[kind](records, self._labels, self._limits)
        by_record: dict[int, set[str]] = {}
        for n, i in enumerate(columns.source.tolist()):
            if (key := _key(columns, n)) in self._keys:
                by_record.setdefault(i, set()).add(key)
        times = dict(zip(columns.source.tolist(), columns.ts.tolist(), strict=True))
        for i, keys in by_record.items():
            yield i, keys, times[i]

    async def _read_rows(self, partition: int) -> dict[str, _Found]:
        """What one partition has of the keys that live on it."""
        settings, keys = self._settings, self._keys
        ledger = Ledger(self._policy, horizon=self._horizon, row_limit=settings.row_limit)
        gate = Gate(secret=b"", retention=0)
        rows: dict[str, int] = {}
        async for records in self._all(settings.topic("ledger"), partition):
            ledger.load(gate.load(records))
            for i, offset in enumerate(records.offset.tolist()):
                name = records.key(i) or b""
                if name[:1] == b"u" and (key := name[1:].decode()) in keys:
                    rows[key] = offset
        decisions: dict[str, tuple[int, bytes | None]] = {}
        async for records in self._all(settings.topic("decisions"), partition):
            for i, offset in enumerate(records.offset.tolist()):
                if (key := (records.key(i) or b"").decode()) in keys:
                    decisions[key] = offset, records.value(i)
        self._newest[partition] = max(self._newest[partition], ledger.newest)
        mine = [key for key in keys if partition_of(key.encode(), self._partitions) == partition]
        said = {
            key: None if value is None else msgspec.json.decode(value)
            for key, (_, value) in decisions.items()
        }
        curves = await curves_by_now(settings, self._policy)
        versions = {key: dict.fromkeys(curves_for(curves, said.get(key))) for key in mine}
        found: dict[tuple[str, str], tuple[Version | None, Found]] = {}
        for each in sorted({one for some in versions.values() for one in some}):
            if (version := curves.version(each)) is not None:
                ledger.learn(version)
            for key in mine:
                if each in versions[key]:
                    decision_at = decisions.get(key, (None,))[0]
                    one = Found(
                        said.get(key),
                        Place(settings.topic("decisions"), partition, decision_at),
                        ledger.decide(key),
                        ledger.live(key),
                        Place(settings.topic("ledger"), partition, rows.get(key)),
                    )
                    found[key, each] = version, one
        return {
            key: _Found(partition, [found[key, each] for each in versions[key]]) for key in mine
        }

    async def _read_tails(
        self, ends: Mapping[tuple[str, int], int], forwarded: Mapping[tuple[str, int], int]
    ) -> None:
        """Note of whom events go on where they were read to, or are still being forwarded."""
        why = Skipped.MOVING if self._span.end is None else Skipped.AFTER
        for (kind, partition), begin in ends.items():
            topic = self._settings.topic(kind)
            end = await self._reader.end(topic, partition)
            async for records in self._read(topic, partition, begin, end):
                for _, keys, _ in self._concerning(kind, records):
                    self._unsettled |= dict.fromkeys(keys, why)
        topic = self._settings.topic(TOPIC)
        for partition in range(self._partitions):
            begin = await self._reader.begin(topic, partition)
            begin = max(begin, forwarded.get((topic, partition), 0))
            end = await self._reader.end(topic, partition)
            async for records in self._read(topic, partition, begin, end):
                for i in range(len(records)):
                    if (key := (records.key(i) or b"").decode(errors="replace")) in self._keys:
                        self._unsettled[key] = Skipped.MOVING

    async def _all(self, topic: str, partition: int) -> AsyncIterator[Records]:
        begin = await self._reader.begin(topic, partition)
        end = await self._reader.end(topic, partition)
        async for records in self._read(topic, partition, begin, end):
            yield records

    async def _read(
        self, topic: str, partition: int, begin: int, end: int
    ) -> AsyncIterator[Records]:
        async for records in self._reader.read(topic, partition, begin, end):
            self._progress(f"reading {topic}[{partition}] for people of several", len(records))
            yield records

    # -- Judging

    def _judge(self, found: Mapping[str, _Found]) -> Verdict:
        verdict = Verdict()
        orders = self._orders()
        places = self._newest_places(orders[0])
        for key, one in sorted(found.items()):
            there = one.any
            if not self._known(key, there, orders[0]):
                continue
            verdict.users += 1
            if there.decision is not None and "policy" in there.decision:
                verdict.decisions += 1
                verdict.policies[str(there.decision["policy"])] += 1
            if (reason := self._unjudgeable(key, orders[0])) is not None:
                verdict.skipped[reason] += 1
            elif len({order.links.get(key) for order in orders}) > 1:
                verdict.skipped[Skipped.ORDER] += 1
            elif self._redirect_differs(key, there, orders[0], places.get(key), verdict):
                verdict.judged += 1
            else:
                verdict.add(self._judge_row(key, one, orders, places.get(key)))
        return verdict

    def _judge_row(
        self, key: str, found: _Found, orders: list[People], newest: Place | None
    ) -> Verdict:
        """The verdict on one row, by the versions of curves that its decision may be of."""
        watermark = self._newest[found.partition]
        verdict = Verdict()
        for version, one in found.by_curves:
            for order in orders:
                order.oracle.version = version
            judge = Judge(self._policy, self._horizon, self._settings.row_limit, watermark, version)
            verdict = Verdict()
            oracles = (order.oracle for order in orders)
            judge.judge_by(key, oracles, newest, _without_redirect(one), verdict)
            if not verdict.differences or not self._tiring:
                break
        return verdict

    def _orders(self) -> list[People]:
        """What events make of people, in the order in which they probably came and in others."""
        distinct: dict[tuple[str, bytes], _Told] = {}
        for told in sorted(self._told):
            distinct.setdefault((told.topic, told.value), told)
        events = [(one.topic[:-1], msgspec.json.decode(one.value)) for one in distinct.values()]
        orders = [
            events,
            sorted(events, key=lambda event: event[1]["ts"]),
            sorted(events, key=lambda event: event[1].get("type") not in ("link", "erase")),
            sorted(events, key=lambda event: event[0] == "control"),
        ]
        found = []
        for order in orders:
            limit = self._settings.row_limit
            people = People(self._policy, horizon=self._horizon, row_limit=limit)
            for topic, event in order:
                people.add(topic, event)
            found.append(people)
        return found

    def _newest_places(self, people: People) -> dict[str, Place]:
        """Where the newest event of each key's row is."""
        newest: dict[str, tuple[float, _Told]] = {}
        for told in self._told:
            event: dict[str, Any] = msgspec.json.decode(told.value)
            ids = event.get("ids") or {}
            for key in (event["user_id"], *(row_key(*one) for one in ids.items())):
                root = people.root(key)
                if root not in newest or newest[root][0] < event["ts"]:
                    newest[root] = event["ts"], told
        return {
            key: Place(self._settings.topic(told.topic), told.partition, told.offset)
            for key, (_, told) in newest.items()
        }

    def _known(self, key: str, found: Found, people: People) -> bool:
        """Whether there is anything of a key, or should be."""
        there = found.decision is not None or found.live is not None
        return there or key in people.links or bool(people.oracle.entries(key))

    def _unjudgeable(self, key: str, people: People) -> str | None:
        linked = {key, people.root(key), *people.origins.get(key, ())}
        for each in linked:
            if each in self._unsettled:
                return self._unsettled[each]
        if self._missing_until is not None:
            newest = max((one.ts for one in people.oracle.entries(people.root(key))), default=0)
            past = self._missing_until + self._settings.max_future.total_seconds()
            if (newest - self._horizon) / 1e6 <= past:
                return Skipped.BEFORE
        return None

    def _redirect_differs(
        self, key: str, found: Found, people: People, newest: Place | None, verdict: Verdict
    ) -> bool:
        """Whether a key has a redirect where it should not, or not the one that it should have."""
        link = people.links.get(key)
        expected = link and {"id": key.rpartition("\0")[2], "redirect": link.to}
        there = found.decision if found.decision and "redirect" in found.decision else None
        if expected == there:
            return False
        verdict.differences.append(
            Difference(key, None, "decision", expected, there, found.decision_at, 0, newest)
        )
        return True


def _without_redirect(found: Found) -> Found:
    """What an id has of its own."""
    if found.decision is not None and "redirect" in found.decision:
        return Found(None, found.decision_at, found.row, found.live, found.row_at)
    return found


def _key(columns: Columns, i: int) -> str:
    start, size = int(columns.user_start[i]), int(columns.user_size[i])
    return columns.text[start : start + size].tobytes().decode()


async def quarantined(reader: Reader, settings: Settings, partition: int) -> set[tuple[str, int]]:
    """Topic and offset of a partition's events that made the governor fail: they are in no row."""
    topic = settings.topic("deadletters")
    found = set()
    begin, end = await reader.begin(topic, partition), await reader.end(topic, partition)
    async for records in reader.read(topic, partition, begin, end):
        for i in range(len(records)):
            value = records.value(i) or b""
            if b'"quarantined"' in value:
                letter = json.loads(value)
                if letter["reason"] == "quarantined" and letter["partition"] == partition:
                    found.add((str(letter["topic"]), int(letter["offset"])))
    return found
