"""One case through the ledger and the oracle, what it met on the way, and the least that fails."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from governor.decisions import GRACE
from governor.events import Columns, Limits, decode_controls, decode_engagements, decode_impressions
from governor.fatigue.histories import History
from governor.fatigue.versions import Version
from governor.ledger import Ledger
from governor.oracle import Decision, Entry, Oracle, TooManyOrdersError, compare, ticks
from governor.oracle.rows import entries_of
from governor.policy import Policy
from governor.records import Records
from tests.fuzz.cases import DAY, Case, Event, looks_back

__all__ = ["Mismatch", "Pair", "fails", "least", "names_last", "run", "told"]

DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}


class Mismatch(AssertionError):
    """The ledger and the oracle differ."""


Changelog = list[tuple[bytes | None, bytes | None, int]]


def names_last(changelog: Changelog) -> Changelog:
    """The same rows, and the names of their ads behind them."""
    return sorted(changelog, key=_names_an_ad)


def _names_an_ad(record: tuple[bytes | None, bytes | None, int]) -> bool:
    return (record[0] or b"")[:1] == b"a"


class Pair:
    """A ledger and an oracle that are told the same.

    Around the ledger is what a worker has around it: marks of the erased, whose older events do
    not come in again, and links, by which an id's events go to another row.
    """

    def __init__(
        self,
        policy: Mapping[str, Any],
        *,
        horizon: int,
        row_limit: int,
        version: Version | None = None,
    ) -> None:
        checked = Policy.model_validate(policy)
        self.ledger = Ledger(checked, horizon=horizon, row_limit=row_limit)
        self.oracle = Oracle(checked, horizon=horizon, row_limit=row_limit, version=version)
        if version is not None:
            self.ledger.learn(version)
        self.horizon, self.row_limit = horizon, row_limit
        self.topic: dict[str, dict[str, Any]] = {}
        """The compacted decisions topic, by key."""
        self.changelog: Changelog = []
        self.erased: dict[str, int] = {}
        self.links: dict[str, str] = {}
        self.met: Counter[str] = Counter()

    def feed(self, events: Iterable[Event]) -> None:
        """Apply events as a worker does, in their order."""
        known = [(topic, self._known(event)) for topic, event in events]
        for (topic, _), group in groupby(known, key=_alone):
            batch = [event for _, event in group]
            values = [(None, json.dumps(each).encode(), int(each["ts"] * 1000)) for each in batch]
            records = Records.of(values)
            columns, rejected = DECODERS[topic](records, self.ledger.labels, Limits())
            assert not rejected, rejected
            for event in batch:
                if topic == "control" and event["type"] == "erase":
                    user, ts = event["user_id"], ticks(event["ts"])
                    self.erased[user] = max(ts, self.erased.get(user, 0))
                assert self.oracle.add(topic, event) is None
            is_erasing = topic == "control" and batch[0]["type"] == "erase"
            admitted = columns if is_erasing else self._not_erased(columns)
            for outcome, number in self.ledger.apply(admitted).counts().items():
                self.met[f"outcome {outcome}"] += number

    def link(self, key: str, known: str, at: int) -> None:
        """One id becomes another: its row goes over, and its later events too."""
        self.ledger.merge(known, self.ledger.raw(key), at)
        self.ledger.forget(key)
        self.oracle.merge(key, known, at)
        self.links[key] = known
        self.met["linked"] += len(self.oracle.entries(known))

    def govern(self, policy: Mapping[str, Any]) -> None:
        """Have another policy from now on."""
        checked = Policy.model_validate(policy)
        self.ledger.set_policy(checked)
        self._reevaluate()
        self.oracle.policy = checked

    def learn(self, version: Version) -> None:
        """Have other curves from now on."""
        self.ledger.learn(version)
        self._reevaluate()
        self.oracle.version = version

    def _reevaluate(self) -> None:
        """Have every row evaluated again; rows that were let go are gone through too."""
        while self.ledger.reevaluate(100):
            pass

    def publish(self) -> None:
        """Flush: the topic then says of every row what the ledger decides."""
        taken = self.ledger.take(0)
        for i in range(len(taken.decisions)):
            record, value = taken.decisions.key(i), taken.decisions.value(i)
            assert record is not None
            self.topic.pop(record.decode(), None)
            if value is not None:
                self.topic[record.decode()] = json.loads(value)
        for i in range(len(taken.changelog)):
            self.changelog.append((taken.changelog.key(i), taken.changelog.value(i), 0))
        for key in self.oracle.rows:
            decided, published = self.ledger.decide(key), self.topic.get(key)
            self.met["published"] += published is not None
            if published is None and self._over(decided):
                continue
            if compare(_told(decided), _told(published)):
                raise Mismatch(f"{key!r}: the topic has {published}, the ledger {decided}")

    def restart(self) -> None:
        """Begin anew from the changelog, as a worker does after a crash.

        Every second time the names of ads stand behind the rows, as compaction leaves those that
        another owner of the partition wrote again.
        """
        self.publish()
        self.ledger = Ledger(self.ledger.policy, horizon=self.horizon, row_limit=self.row_limit)
        if self.oracle.version is not None:
            self.ledger.learn(self.oracle.version)
        if self.met["restarts"] % 2:
            for is_name, records in groupby(names_last(self.changelog), key=_names_an_ad):
                self.ledger.load(Records.of(list(records)))
                self.met["rows before names"] += not is_name
        else:
            self.ledger.load(Records.of(self.changelog))
        self.met["restarts"] += 1
        self.compare()

    def _over(self, decided: Decision | None) -> bool:
        """Whether a decision has run out for everybody, so that the topic need not have it."""
        throttles = decided["throttles"] if decided else []
        return all(
            each["until"] is not None and ticks(each["until"]) <= self.ledger.newest - GRACE
            for each in throttles
        )

    def compare(self) -> None:
        """Every row's decision is one that the definitions admit."""
        for key in self.links:
            if self.ledger.decide(key) is not None:
                raise Mismatch(f"{key!r} has a decision of its own after its link")
        for key in list(self.oracle.rows):
            actual = self.ledger.decide(key)
            self.met["rows"] += 1
            self.met["decisions"] += actual is not None
            self._count_tired(actual)
            self._compare_answers(key)
            if compare(self.oracle.decide(key), actual) == []:
                continue
            try:
                differences = [compare(one, actual) for one in self.oracle.admissible(key)]
            except TooManyOrdersError:
                self.met["undecided"] += 1
                continue
            if [] not in differences:
                closest: list[str] = min(differences, key=len)
                raise Mismatch(f"{key!r}: " + "\n  ".join(closest))

    def _count_tired(self, decision: Decision | None) -> None:
        for throttle in decision["throttles"] if decision else ():
            tired = any("expected" in evidence for evidence in throttle["evidence"].values())
            self.met["tired"] += tired
            self.met["softened"] += throttle["state"] == "softened"

    def _compare_answers(self, key: str) -> None:
        """Which exposures of a row were answered, and when, is what some order of ties says."""
        history = self.ledger.history(key)
        found = [] if history is None else told_answers(history)
        self.met["answers"] += sum(answer >= 0 for _, _, answer, _ in found)
        if found == self.oracle.answered(key):
            return
        try:
            rows = self.oracle.admissible_rows(key, every_tie=True)
            if found in map(self.oracle.answers_of, rows):
                return
        except TooManyOrdersError:
            self.met["answers undecided"] += 1
            return
        raise Mismatch(f"{key!r}: {found} were answered, not {self.oracle.answered(key)}")

    def _known(self, event: dict[str, Any]) -> dict[str, Any]:
        user = event["user_id"]
        while user in self.links:
            user = self.links[user]
        return event | {"user_id": user}

    def _not_erased(self, columns: Columns) -> Columns:
        if not self.erased:
            return columns
        # Whether an event is excluded is asked of all its ids, before some of them are gone.
        columns = columns.select(np.flatnonzero(~self.ledger.excluded(columns)))
        starts, sizes = columns.user_start.tolist(), columns.user_size.tolist()
        keys = [
            bytes(columns.text[start : start + size]).decode()
            for start, size in zip(starts, sizes, strict=True)
        ]
        until = np.array([self.erased.get(key, -1) for key in keys], np.int64)
        self.met["erased then replayed"] += int(np.sum(columns.ts <= until))
        return columns.select(np.flatnonzero(columns.ts > until))


def run(case: Case) -> Counter[str]:
    """Compare after the last batch and in the middle; what was met."""
    pair = Pair(
        case.policy, horizon=case.horizon, row_limit=case.row_limit, version=case.versions[0]
    )
    half = len(case.batches) // 2
    for i, batch in enumerate(case.batches):
        if i == half and case.later is not None:
            pair.govern(case.later)
            pair.met["widened policy"] += sum(map(len, case.batches[:i]))
        if i == half and case.versions[1] is not None:
            pair.learn(case.versions[1])
        if i == half and case.features.linked:
            _link_some(pair, case.seed)
        pair.feed(batch)
        if case.features.restarted:
            pair.restart() if i % 3 == 0 else pair.publish()
        elif i == half:
            pair.compare()
    if case.features.erased:
        pair.feed(case.events)
    pair.compare()
    _count(case, pair)
    return pair.met


def _link_some(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    users = sorted(key for key in pair.oracle.rows if "\0" not in key)
    chance.shuffle(users)
    times = [entry.ts for key in users for entry in sorted(pair.oracle.entries(key), key=_when)]
    for key, known in zip(users[0::3], users[1::3], strict=False):
        pair.link(key, known, chance.choice(times))
    for known, last in zip(users[1::3], users[2::3], strict=False):
        if chance.random() < 0.3:
            pair.link(known, last, chance.choice(times))


def _when(entry: Entry) -> tuple[int, str, str]:
    return entry.ts, entry.event_id, entry.content


def told_answers(history: History) -> list[tuple[int, str, int, bool]]:
    """Time, campaign, time of the answer (-1: none) and measurability of every exposure."""
    columns = zip(
        history.ts.tolist(),
        history.ad.tolist(),
        history.answer.tolist(),
        history.measurable.tolist(),
        strict=True,
    )
    return sorted(
        (ts, history.ads[ad]["campaign"], answer, dark) for ts, ad, answer, dark in columns
    )


def _told(decision: Decision | None) -> Decision | None:
    """What has a decision published anew: neither its evidence alone, nor another arm."""
    if decision is None:
        return None
    throttles = [each | {"evidence": {}} for each in decision["throttles"]]
    return {"id": decision["id"], "throttles": throttles}


def _alone(event: Event) -> tuple[str, int]:
    """What may be applied at once: events of one topic, an erasure by itself."""
    topic, content = event
    return topic, id(content) if content.get("type") == "erase" else 0


def _count(case: Case, pair: Pair) -> None:
    """What the stream of a case had that is hard."""
    met = pair.met
    met["events"] += len(case.events)
    met["overflow"] += pair.ledger.overflow
    longest = looks_back(pair.ledger.policy)
    for arrivals in pair.oracle.rows.values():
        now = 0
        entries = list(entries_of(arrivals))
        times = Counter(entry.ts for entry in set(entries))
        met["ties"] += sum(number for number in times.values() if number > 1)
        for entry in entries:
            met["later than the window"] += entry.ts <= now - longest
            now = max(now, entry.ts)
        met["pruned"] += sum(ts <= now - case.horizon for ts in times)
        met["clocks set"] += sum(
            abs(entry.ts - change) < DAY for entry in entries for change in case.changes
        )


# --- The least case that fails ------------------------------------------------------------------


def fails(case: Case) -> bool:
    """Whether the two differ."""
    try:
        run(case)
    except Mismatch:
        return True
    except AssertionError:
        return False  # what is left of the case is no longer one that a producer could send
    return False


def least(case: Case, still: Callable[[Case], bool] = fails) -> Case:
    """A smaller case that fails still: without any event, rule or section that it does not need."""
    single = replace(case, batches=tuple((event,) for event in case.events))
    if still(single):
        case = single
    while True:
        smaller = next((one for one in _smaller(case) if still(one)), None)
        if smaller is None:
            return case
        case = smaller


def _smaller(case: Case) -> Iterator[Case]:
    batches = case.batches
    size = len(batches) // 2
    while size:
        for first in range(0, len(batches), size):
            left = batches[:first] + batches[first + size :]
            if left:
                yield replace(case, batches=left)
        size //= 2
    for policy in _plainer(case.policy):
        yield replace(case, policy=policy)
    for i, batch in enumerate(batches):
        for topic, event in batch if len(batch) == 1 else ():
            for name in event.keys() - {"event_id", "user_id", "ts", "type", "campaign_id"}:
                plain = {key: value for key, value in event.items() if key != name}
                yield replace(case, batches=(*batches[:i], ((topic, plain),), *batches[i + 1 :]))


def _plainer(policy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    rules: list[dict[str, Any]] = policy["rules"]
    if len(rules) > 1:
        for i in range(len(rules)):
            yield policy | {"rules": rules[:i] + rules[i + 1 :]}
    for section in policy.keys() - {"rules", "version"}:
        yield {key: value for key, value in policy.items() if key != section}
    for i, rule in enumerate(rules):
        for name in rule.keys() & {"match", "shadow", "count", "id"}:
            plain = {key: value for key, value in rule.items() if key != name}
            yield policy | {"rules": [*rules[:i], plain, *rules[i + 1 :]]}


def told(case: Case) -> str:
    """A failing case as somebody can read and run it."""
    message = "it does not fail"
    try:
        run(case)
    except Mismatch as error:
        message = str(error)
    lines = [f"policy: {json.dumps(case.policy)}"]
    lines += [f"later: {json.dumps(case.later)}"] if case.later else []
    lines += [f"horizon: {case.horizon} ticks, row_limit: {case.row_limit}"]
    start = min(ticks(event["ts"]) for _, event in case.events)
    for topic, event in case.events:
        lines.append(f"  +{(ticks(event['ts']) - start) / 1e6:<14} {topic:11}{json.dumps(event)}")
    return "\n".join([f"seed {case.seed}, {case.features}", message, *lines])
