"""What another policy would do: users throttled and freed, on rows of the live state or on events.

Both policies answer for the same rows at the newest event of each. A user is throttled more when a
label is held that was not, freed when one that was held is not; the same user can be both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from governor.events import Limits
from governor.gate import Gate
from governor.ledger import Ledger
from governor.policy import Policy
from governor.records import Records
from streams.history import batches
from streams.patience import connected, read_all
from streams.pipeline import DECODERS
from streams.settings import Settings, ticks
from streams.topics import connection

__all__ = ["Difference", "Rows", "compare", "live", "replayed"]

BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """What one change does to the users of a sample."""

    change: str
    users: int
    throttled: int
    freed: int

    def as_json(self) -> dict[str, Any]:
        """As the command prints it."""
        return {
            "change": self.change,
            "users": self.users,
            "throttled": self.throttled,
            "freed": self.freed,
        }


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows to ask: they are filled into a ledger of any policy."""

    fill: Callable[[Ledger], set[str]]
    """Fills an empty ledger; the keys of its rows."""


async def live(settings: Settings, sample: int) -> Rows:
    """Rows of the changelog: of as many partitions as it takes for ``sample`` users."""
    topic = settings.topic("ledger")
    newest: dict[bytes, bytes | None] = {}
    consumer = AIOKafkaConsumer(
        **connection(settings), enable_auto_commit=False, isolation_level="read_committed"
    )
    async with connected(consumer):
        for partition in sorted(await _partitions(consumer, topic)):
            part = TopicPartition(topic, partition)
            async for _, records in read_all(consumer, [part], most=BATCH):
                newest.update((one.key, one.value) for one in records)
            if sum(key[:1] == b"u" for key in newest) >= sample:
                break
    chosen = _sampled(newest, sample)

    def fill(ledger: Ledger) -> set[str]:
        gate = Gate(secret=b"", retention=0)
        for at in range(0, len(chosen), BATCH):
            ledger.load(gate.load(Records.of(chosen[at : at + BATCH])))
        return {key[1:].decode() for key, _, _ in chosen if key[:1] == b"u"}

    return Rows(fill)


def replayed(path: Path, settings: Settings) -> Rows:
    """Rows that the events of a file lead to: see `streams.history`."""
    limits = Limits(max_bytes=settings.max_event_bytes)

    def fill(ledger: Ledger) -> set[str]:
        keys: set[str] = set()
        for kind, records in batches(path):
            columns, _ = DECODERS[kind](records, ledger.labels, limits)
            ledger.apply(columns)
            text = columns.text.tobytes()
            keys |= {
                text[start : start + size].decode()
                for start, size in zip(
                    columns.user_start.tolist(), columns.user_size.tolist(), strict=True
                )
            }
        return keys

    return Rows(fill)


def compare(before: Policy, after: Policy, rows: Rows, settings: Settings) -> list[Difference]:
    """All changes together, then each alone."""
    held = _held(before, rows, settings)
    found = []
    for change, policy in [("all changes", after), *_changes(before, after)]:
        would = _held(policy, rows, settings)
        found.append(
            Difference(
                change,
                len(held),
                sum(bool(would[key] - held[key]) for key in held),
                sum(bool(held[key] - would[key]) for key in held),
            )
        )
    return found


def _held(policy: Policy, rows: Rows, settings: Settings) -> dict[str, set[str]]:
    """The labels, each with its match, that are held of each row."""
    ledger = Ledger(policy, horizon=ticks(settings.history), row_limit=settings.row_limit)
    held = {}
    for key in rows.fill(ledger):
        decision = ledger.decide(key) or {"throttles": []}
        held[key] = {
            f"{one['label']} {one.get('match', '')}"
            for one in decision["throttles"]
            if one["state"] != "shadow"
        }
    return held


def _changes(before: Policy, after: Policy) -> Iterator[tuple[str, Policy]]:
    """Each change by itself, made to the policy that governs."""
    old = {rule.name: rule for rule in before.rules}
    new = {rule.name: rule for rule in after.rules}
    for name, rule in old.items():
        if name not in new:
            rest = tuple(each for each in before.rules if each.name != name)
            yield f"without {name}", before.model_copy(update={"rules": rest})
        elif new[name] != rule:
            rules = tuple(new[name] if each.name == name else each for each in before.rules)
            yield f"changed {name}", before.model_copy(update={"rules": rules})
    for name, rule in new.items():
        if name not in old:
            yield f"new {name}", before.model_copy(update={"rules": (*before.rules, rule)})
    rest_changed = after.model_copy(update={"rules": before.rules, "version": before.version})
    if rest_changed != before:
        yield "what is not a rule", rest_changed


def _sampled(
    newest: dict[bytes, bytes | None], sample: int
) -> list[tuple[bytes, bytes | None, int]]:
    """The ads, and the first users up to the sample."""
    users = [key for key, value in newest.items() if key[:1] == b"u" and value is not None]
    ads = [key for key in newest if key[:1] == b"a"]
    return [(key, newest[key], 0) for key in (*ads, *users[:sample])]


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    metadata = await consumer._client.fetch_all_metadata()  # noqa: SLF001
    return metadata.partitions_for_topic(topic) or set()
