"""What the governor must answer, in plain Python: the definitions, with no engine behind them.

Imports nothing of ``governor`` or ``streams``: it parses JSON by itself, counts time in integers
and looks at every pair of entries, however slow that is. Where an answer of the compiled ledger
differs from this module, one of the two misreads the definitions below.

**Ties.** Entries are ordered by (ts, event hash, content hash), and the hashes are the ledger's
own business. Order only decides an answer where entries of one ``ts`` meet: two contents of one
event, two exposures under one ``impression_id``, or more of them than ``row_limit`` leaves room
for. The oracle does not know who wins there, so it tries every order the hashes could have made
(any order of the events, and of the contents within an event) and returns all *admissible*
decisions. Nearly always that is one; tests that need a single answer call :func:`only`. That the
ledger sticks to its choice whatever the order of arrival is the business of the
order-independence tests.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

SECOND = 1_000_000
"""Ticks in a second: all times in here are whole microseconds."""

MOST_ORDERS = 6_000
MAX_ID_BYTES = 512
MAX_MAGNITUDE = 100_000_000_000
"""Seconds; an epoch time this large is in milliseconds or finer."""

LABEL_FIELDS = {
    "campaign": "campaign_id",
    "creative": "creative_id",
    "advertiser": "advertiser_id",
    "category": "category",
    "channel": "channel",
    "surface": "surface",
    "segment": "segment",
}
KINDS = ("loaded", "impression", "viewable")
CONTROL_TYPES = ("opt_out", "opt_in", "consent", "less_often", "erase", "link")

Decision = dict[str, Any]


class Rule(NamedTuple):
    name: str
    kind: str
    """``cap`` or ``spacing``."""
    limit: int
    """Exposures a cap allows; 1 for spacing."""
    window: int
    """Look-back of a cap, distance of a spacing, in ticks."""
    per: str
    """``user``, one of LABEL_FIELDS, or the key of a custom label."""


@dataclass(frozen=True)
class Entry:
    """One accepted event as its user's row holds it."""

    topic: str
    """``impression``, ``engagement`` or ``control``."""
    user_id: str
    event_id: str
    ts: int
    impression_id: str | None
    content: str
    """Everything in the event that means something, in one canonical text."""
    labels: Mapping[str, str] = field(hash=False)
    """Dimension -> label text, such as ``campaign`` -> ``campaign:C7``."""


class RejectedError(Exception):
    """An event that is a dead letter."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TooManyOrdersError(Exception):
    """More ties than the oracle is willing to try."""


# ---- Events in ---------------------------------------------------------------------------------


def ticks(seconds: float | Decimal) -> int:
    """Epoch seconds as whole microseconds, to the nearest."""
    exact = Decimal(str(seconds)) if isinstance(seconds, float) else Decimal(seconds)
    return round(exact * SECOND)


def seconds(tick: int) -> int | float:
    """Ticks as the JSON number that a decision carries."""
    return tick // SECOND if tick % SECOND == 0 else tick / SECOND


def decode(topic: str, value: bytes | Mapping[str, Any] | None) -> Entry:
    """The entry an event makes, or :class:`RejectedError`."""
    event = _object(value)
    own = "campaign_id" if topic == "impression" else "type"
    for name in ("event_id", "user_id", own, "ts"):
        _require(name in event, "missing_field", name)
        _require(event[name] is not None, "wrong_type", name)
        _require(name == "ts" or _text(event, name), "empty_id", name)

    impression_id = _text(event, "impression_id") or None if topic != "control" else None
    if topic == "impression":
        _require(event.get("kind") in (None, *KINDS), "wrong_type", "kind")
        _require(isinstance(event.get("retargeting", False), bool), "wrong_type", "retargeting")
    elif topic == "control":
        _require(event["type"] in CONTROL_TYPES, "wrong_type", "type")
        to = _text(event, "to")
        _require(event["type"] != "link" or to is not None, "missing_field", "to")
        _require(event["type"] != "link" or to, "empty_id", "to")

    ts = event["ts"]
    is_number = isinstance(ts, int | float | Decimal) and not isinstance(ts, bool)
    _require(is_number and math.isfinite(ts), "wrong_type", "ts")
    _require(abs(ts) < MAX_MAGNITUDE, "milliseconds", "ts")

    labels = _labels(event)
    if topic == "engagement":
        _require(impression_id or len(labels) > 1, "missing_field", "impression_id or a label")
    content = (
        sorted(labels.items()),
        impression_id,
        event.get("kind") or "impression",
        event.get("retargeting", False),
        event.get("type"),
        event.get("label"),
    )
    return Entry(
        topic,
        event["user_id"],
        event["event_id"],
        ticks(ts),
        impression_id,
        json.dumps(content),
        labels,
    )


def _object(value: bytes | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if value is None:
        raise RejectedError("no_value", "tombstone")
    if isinstance(value, bytes):
        try:
            value = json.loads(
                value.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant
            )
            json.dumps(value, default=str, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise RejectedError("malformed", str(error)) from None
    if not isinstance(value, Mapping):
        raise RejectedError("malformed", "not an object")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _require(condition: object, reason: str, detail: str) -> None:
    if not condition:
        raise RejectedError(reason, detail)


def _text(event: Mapping[str, Any], name: str) -> str | None:
    """An optional string that can be an id or a label; null counts as absent."""
    value = event.get(name)
    if value is None:
        return None
    _require(isinstance(value, str), "wrong_type", name)
    _require("\0" not in value, "nul_byte", name)
    _require(len(value.encode()) <= MAX_ID_BYTES, "id_too_long", name)
    return str(value)


def _labels(event: Mapping[str, Any]) -> dict[str, str]:
    """Label text by dimension; every event is about all ads, ``user``."""
    custom = {} if event.get("labels") is None else event["labels"]
    _require(isinstance(custom, Mapping), "wrong_type", "labels")
    labels = {}
    for key in custom:
        value = _text(custom, key)
        _require(value is not None, "wrong_type", f"labels.{key}")
        labels[key] = f"{key}:{value}"
    for dimension, name in LABEL_FIELDS.items():
        value = _text(event, name)
        if value:
            labels[dimension] = f"{dimension}:{value}"
    labels["user"] = "user"
    return labels


# ---- Rows --------------------------------------------------------------------------------------


def live_exposures(
    row: Iterable[Entry], horizon: int, row_limit: int, rank: Mapping[Entry, int]
) -> list[Entry]:
    """The exposures that count, newest first, when ``rank`` breaks ties of equal ``ts``."""
    now = newest(row)
    kept = sorted(
        (e for e in row if e.topic == "impression" and e.ts > now - horizon),
        key=lambda e: (e.ts, rank[e]),
        reverse=True,
    )[:row_limit]

    def smaller_has_its_id(i: int) -> bool:
        return any(
            other.event_id == kept[i].event_id
            or (other.impression_id is not None and other.impression_id == kept[i].impression_id)
            for other in kept[i + 1 :]
        )

    return [kept[i] for i in range(len(kept)) if not smaller_has_its_id(i)]


def newest(row: Iterable[Entry]) -> int:
    """A row's own clock: its newest event time, of any kind."""
    return max(e.ts for e in row)


def decide(
    user_id: str, row: Iterable[Entry], rules: Sequence[Rule], exposures: Sequence[Entry]
) -> Decision | None:
    """The decision that follows from the exposures that count, newest first."""
    now = newest(row)
    by_label: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for exposure in exposures:
        for dimension, label in exposure.labels.items():
            by_label[dimension, label].append(exposure)

    throttles: dict[str, Decision] = {}
    for rule in rules:
        for (dimension, label), shown in by_label.items():
            if dimension != rule.per or len(shown) < rule.limit:
                continue
            until = shown[rule.limit - 1].ts + rule.window
            if until <= now:
                continue
            throttle = throttles.setdefault(
                label,
                {
                    "label": label,
                    "state": "throttled",
                    "factor": 0,
                    "from": seconds(shown[0].ts),
                    "until": seconds(until),
                    "remaining": 0,
                    "reasons": [],
                    "evidence": {},
                },
            )
            throttle["until"] = max(throttle["until"], seconds(until))
            throttle["reasons"].append(rule.name)
            throttle["evidence"][rule.name] = {
                "exposures": sum(e.ts > now - rule.window for e in shown),
                "limit": rule.limit,
                "window": seconds(rule.window),
                "until": seconds(until),
            }
    return {"id": user_id, "throttles": list(throttles.values())} if throttles else None


# ---- Ties --------------------------------------------------------------------------------------


def rankings(row: Iterable[Entry], horizon: int, row_limit: int) -> Iterator[dict[Entry, int]]:
    """Every order of the exposures of equal ``ts`` that could change an answer."""
    exposures = {e for e in row if e.topic == "impression" and e.ts > newest(row) - horizon}
    contested = _contested(exposures, row_limit)
    events = sorted({e.event_id for e in contested})
    contents: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in sorted(contested, key=lambda e: (e.event_id, e.ts, e.content)):
        contents[entry.event_id, entry.ts].append(entry)
    sizes = [len(events), *map(len, contents.values())]
    count = math.prod(math.factorial(size) for size in sizes)
    if count > MOST_ORDERS:
        raise TooManyOrdersError(f"{count} orders of {len(contested)} tied exposures")
    for order in itertools.permutations(events):
        place = {event_id: i * len(exposures) for i, event_id in enumerate(order)}
        for chosen in itertools.product(*map(itertools.permutations, contents.values())):
            rank = dict.fromkeys(exposures, 0)
            for group in chosen:
                rank.update({e: place[e.event_id] + i for i, e in enumerate(group)})
            yield rank


def _contested(exposures: set[Entry], row_limit: int) -> set[Entry]:
    by_ts: dict[int, list[Entry]] = defaultdict(list)
    for exposure in exposures:
        by_ts[exposure.ts].append(exposure)
    contested: set[Entry] = set()
    for tied in by_ts.values():
        for a, b in itertools.combinations(tied, 2):
            if a.event_id == b.event_id or (
                a.impression_id is not None and a.impression_id == b.impression_id
            ):
                contested |= {a, b}
    newer = 0
    for ts in sorted(by_ts, reverse=True):
        if newer < row_limit < newer + len(by_ts[ts]):
            contested |= set(by_ts[ts])
        newer += len(by_ts[ts])
    return contested


# ---- Answers -----------------------------------------------------------------------------------


class Oracle:
    """Rows of many users. ``add`` takes events in any order, ``decisions`` answers."""

    def __init__(self, rules: Iterable[Sequence[Any]], *, horizon: int, row_limit: int) -> None:
        self.rules = [Rule(*rule) for rule in rules]
        self.horizon = horizon
        self.row_limit = row_limit
        self.rows: dict[str, set[Entry]] = defaultdict(set)

    def add(self, topic: str, value: bytes | Mapping[str, Any] | None) -> str | None:
        """Record an event; the reason code if it is a dead letter, which changes nothing."""
        try:
            entry = decode(topic, value)
        except RejectedError as rejection:
            return rejection.reason
        self.rows[entry.user_id].add(entry)
        return None

    def admissible(self, user_id: str) -> list[Decision | None]:
        """Every decision of a user that some order of ties explains; nearly always one."""
        row = self.rows.get(user_id)
        if not row:
            return [None]
        answers: list[Decision | None] = []
        for rank in rankings(row, self.horizon, self.row_limit):
            exposures = live_exposures(row, self.horizon, self.row_limit, rank)
            answer = decide(user_id, row, self.rules, exposures)
            if not any(compare(answer, other) == [] for other in answers):
                answers.append(answer)
        return answers


def evaluate(
    rules: Iterable[Sequence[Any]],
    events: Iterable[tuple[str, bytes | Mapping[str, Any] | None]],
    *,
    horizon: int,
    row_limit: int,
) -> tuple[dict[str, list[Decision | None]], list[str | None]]:
    """Admissible decisions by user, and the reason code (None: accepted) of each event."""
    oracle = Oracle(rules, horizon=horizon, row_limit=row_limit)
    outcomes = [oracle.add(topic, value) for topic, value in events]
    return {user: oracle.admissible(user) for user in oracle.rows}, outcomes


def only(answers: Sequence[Decision | None]) -> Decision | None:
    """The one admissible decision, where a test has been built so that no tie matters."""
    assert len(answers) == 1, f"the answer depends on a tie: {answers}"
    return answers[0]


def compare(expected: Decision | None, actual: Decision | None) -> list[str]:
    """What differs between two decisions of a user, in words; nothing if they are equal.

    The order of throttles means nothing, that of reasons does; times are equal to the tick.
    """
    want = {t["label"]: t for t in (expected or {"throttles": []})["throttles"]}
    have = {t["label"]: t for t in (actual or {"throttles": []})["throttles"]}
    differences = [f"{label}: throttle is missing" for label in want.keys() - have.keys()]
    differences += [f"{label}: throttle is not expected" for label in have.keys() - want.keys()]
    if (expected is None) != (actual is None):
        differences.append(f"expected {expected and 'a decision'}, not {actual and 'a decision'}")
    elif expected is not None and actual is not None and expected["id"] != actual["id"]:
        differences.append(f"id: expected {expected['id']!r}, not {actual['id']!r}")
    if len(have) != len((actual or {"throttles": []})["throttles"]):
        differences.append("a label is throttled twice")
    for label in want.keys() & have.keys():
        differences += _compare_fields(label, want[label], have[label])
    return sorted(differences)


def _compare_fields(path: str, expected: Any, actual: Any) -> list[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        names = sorted(expected.keys() | actual.keys())
        return [
            difference
            for name in names
            for difference in _compare_fields(
                f"{path}.{name}", expected.get(name, "<absent>"), actual.get(name, "<absent>")
            )
        ]
    if _is_number(expected) and _is_number(actual):
        same = ticks(expected) == ticks(actual)
    else:
        same = type(expected) is type(actual) and expected == actual
    return [] if same else [f"{path}: expected {expected!r}, not {actual!r}"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
