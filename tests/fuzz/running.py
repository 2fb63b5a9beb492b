"""One case through the ledger and the oracle, what it met on the way, and the least that fails."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from governor.events import Limits, decode_controls, decode_engagements, decode_impressions
from governor.ledger import Ledger
from governor.oracle import Oracle, TooManyOrdersError, compare, ticks
from governor.policy import Policy
from governor.records import Records
from tests.fuzz.cases import DAY, Case, Event, looks_back

DECODERS = {
    "impression": decode_impressions,
    "engagement": decode_engagements,
    "control": decode_controls,
}


class Mismatch(AssertionError):
    """The ledger and the oracle differ."""


def run(case: Case, met: Counter[str] | None = None) -> None:
    """Compare both after the last batch and, for some, in the middle; count what was met."""
    met = Counter() if met is None else met
    policy = Policy.model_validate(case.policy)
    ledger = Ledger(policy, horizon=case.horizon, row_limit=case.row_limit)
    oracle = Oracle(policy, horizon=case.horizon, row_limit=case.row_limit)
    half = len(case.batches) // 2
    for i, batch in enumerate(case.batches):
        if i == half and case.later is not None:
            ledger.set_policy(Policy.model_validate(case.later))
            oracle.policy = Policy.model_validate(case.later)
            met["widened policy"] += sum(map(len, case.batches[:i]))
        feed(ledger, batch, met)
        for topic, event in batch:
            reason = oracle.add(topic, event)
            assert reason is None, (reason, event)
        if i == half:
            compare_all(ledger, oracle, met)
    compare_all(ledger, oracle, met)
    count(case, ledger, oracle, met)


def feed(ledger: Ledger, batch: tuple[Event, ...], met: Counter[str]) -> None:
    """Apply a batch as a worker does, in its order."""
    for topic, group in groupby(batch, key=lambda event: event[0]):
        events = [event for _, event in group]
        values = [(None, json.dumps(one).encode(), int(one["ts"] * 1000)) for one in events]
        columns, rejected = DECODERS[topic](Records.of(values), ledger.labels, Limits())
        assert not rejected, rejected
        for outcome, number in ledger.apply(columns).counts().items():
            met[f"outcome {outcome}"] += number


def compare_all(ledger: Ledger, oracle: Oracle, met: Counter[str]) -> None:
    """Every row's decision is one that the definitions admit."""
    for key in list(oracle.rows):
        actual = ledger.decide(key)
        met["rows"] += 1
        met["decisions"] += actual is not None
        if compare(oracle.decide(key), actual) == []:
            continue
        try:
            differences = [compare(one, actual) for one in oracle.admissible(key)]
        except TooManyOrdersError:
            met["undecided"] += 1
            continue
        if [] not in differences:
            raise Mismatch(f"{key!r}: " + "\n  ".join(min(differences, key=len)))


def count(case: Case, ledger: Ledger, oracle: Oracle, met: Counter[str]) -> None:
    """What the stream of a case had that is hard."""
    met["events"] += len(case.events)
    met["overflow"] += ledger.overflow
    longest = looks_back(ledger.policy)
    for entries in oracle.rows.values():
        now = 0
        times = Counter(entry.ts for entry in set(entries))
        met["ties"] += sum(number for number in times.values() if number > 1)
        for entry in entries:
            met["later than the window"] += entry.ts <= now - longest
            now = max(now, entry.ts)
        met["pruned"] += sum(ts <= now - case.horizon for ts in times)
        met["clocks set"] += sum(
            abs(entry.ts - change) < DAY for entry in entries for change in case.changes
        )


def least(case: Case, fails: Callable[[Case], bool]) -> Case:
    """A smaller case that fails still: without any event, rule or section that it does not need."""
    case = _try(case, fails, [replace(case, batches=tuple((event,) for event in case.events))])
    while True:
        smaller = next((one for one in _smaller(case) if fails(one)), None)
        if smaller is None:
            return case
        case = smaller


def _try(case: Case, fails: Callable[[Case], bool], others: list[Case]) -> Case:
    return next((one for one in others if fails(one)), case)


def _smaller(case: Case) -> Iterator[Case]:
    batches = case.batches
    size = len(batches) // 2
    while size:
        for first in range(0, len(batches), size):
            rest = batches[:first] + batches[first + size :]
            if rest:
                yield replace(case, batches=rest)
        size //= 2
    rules: list[Any] = case.policy["rules"]
    if len(rules) > 1:
        for i in range(len(rules)):
            yield replace(case, policy=case.policy | {"rules": rules[:i] + rules[i + 1 :]})
    for section in case.policy.keys() - {"rules", "version"}:
        rest = {key: value for key, value in case.policy.items() if key != section}
        yield replace(case, policy=rest)
    for i, rule in enumerate(rules):
        for name in rule.keys() & {"match", "shadow", "count", "id"}:
            plain = {key: value for key, value in rule.items() if key != name}
            yield replace(
                case, policy=case.policy | {"rules": [*rules[:i], plain, *rules[i + 1 :]]}
            )
    for i, batch in enumerate(batches):
        ((topic, event),) = batch
        for name in event.keys() - {"event_id", "user_id", "ts", "type", "campaign_id"}:
            plain = {key: value for key, value in event.items() if key != name}
            yield replace(case, batches=(*batches[:i], ((topic, plain),), *batches[i + 1 :]))


def fails(case: Case) -> bool:
    """Whether the two differ."""
    try:
        run(case)
    except Mismatch:
        return True
    except AssertionError:
        return False
    return False


def told(case: Case) -> str:
    """A failing case as somebody can read and run it."""
    message = ""
    try:
        run(case)
    except Mismatch as error:
        message = str(error)
    lines = [f"policy: {json.dumps(case.policy)}", f"horizon {case.horizon}, rows {case.row_limit}"]
    if case.later:
        lines.append(f"later: {json.dumps(case.later)}")
    start = min(ticks(event["ts"]) for _, event in case.events)
    for topic, event in case.events:
        lines.append(f"  +{(ticks(event['ts']) - start) / 1e6:<14} {topic:11}{json.dumps(event)}")
    return "\n".join([f"seed {case.seed}", message, *lines])
