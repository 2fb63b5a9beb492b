"""Recovery and the store under it, with changelogs that do not come as they should.

What Kafka does is in tests/integration/test_takeover.py; here a reader says what no broker could
be made to say at will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import pytest
from faust.types import TP

from governor.events import Limits
from governor.gate import Gate
from governor.ledger import Ledger
from governor.policy import default_text, load
from governor.records import Records
from governor.told import Told
from streams import recovery
from streams.home import Home
from streams.pipeline import ingest
from streams.recovery import ChangelogError, Recovery
from streams.settings import Settings
from streams.store import Store
from streams.transport import Fetched

SETTINGS = Settings()
TOPIC = SETTINGS.topic("ledger")
EVENT = b'{"event_id":"e","user_id":"u","ts":1,"campaign_id":"c"}'

OTHER = EVENT.replace(b'"u"', b'"v"')


def new_ledger() -> Ledger:
    return Ledger(load(default_text().encode()), horizon=10**15)


def new_gate() -> Gate:
    return Gate(secret=b"", retention=10**15)


def rows() -> Records:
    """The changelog of one user: the ad's name, then the row."""
    ledger = new_ledger()
    take_in(ledger, b"u", EVENT)
    return ledger.take(0).changelog


def take_in(ledger: Ledger, user: bytes, event: bytes) -> None:
    """Apply one impression."""
    records = Records.of([(user, event, 1000)])
    ingest("impressions", Home(0, 1, ledger, new_gate()), records, Limits())


class App:
    """What recovery and the store ask of the app."""

    settings = SETTINGS
    consumer_generation_id = 1

    def __init__(self, actives: set[int], fetches: list[tuple[int, Fetched]], end: int) -> None:
        self.crashed: list[BaseException] = []
        self.taken_over: list[set[int]] = []
        self.actives = actives
        self.assignor = self
        self.metrics = self
        self.changelog_read = self
        table = SimpleNamespace(name="ledger", changelog_topic_name=TOPIC)
        options = {"make": new_ledger, "gate": new_gate, "told": Told, "take_over": self.take_over}
        self._store = Store("ledger://rows", self, table, options=options)
        self.recovery = Recovery(self)
        self.recovery._reader = Reader(fetches, end)  # type: ignore[assignment]
        self.recovery._connected.set()

    def store(self) -> Store:
        return self._store

    def inc(self, count: int) -> None:
        self.read = count

    def assigned_actives(self) -> set[TP]:
        return {TP(TOPIC, partition) for partition in self.actives}

    async def take_over(self, partitions: Iterable[int]) -> None:
        self.taken_over.append(set(partitions))

    async def crash(self, error: BaseException) -> None:
        self.crashed.append(error)


class Reader:
    """Has these fetches, one after the other, of changelogs from 0 to ``end``."""

    def __init__(self, fetches: list[tuple[int, Fetched]], end: int) -> None:
        self.fetches = fetches
        self.end = end

    async def extent(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        return dict.fromkeys(partitions, (0, self.end))

    def read_from(self, positions: object) -> None:
        pass

    async def fetch(self) -> Iterator[tuple[int, Fetched]]:
        return iter([self.fetches.pop(0)] if self.fetches else [])


async def recover(app: App) -> None:
    await app.recovery._follow({0}, set(), generation=0)


def failure(*fetches: tuple[int, Fetched], end: int, position: int | None = None) -> str:
    """Why recovering partition 0 fails."""

    async def run() -> str:
        app = App({0}, list(fetches), end)
        if position is not None:
            app.store().begin(0, position)
        await recover(app)
        (error,) = app.crashed
        assert isinstance(error, ChangelogError)
        return str(error)

    return asyncio.run(run())


def test_a_gap_between_fetches_is_not_stepped_over() -> None:
    assert "offset 7 on came where those from 0" in failure((0, Fetched(rows(), 7, 9, 0)), end=9)


def test_no_progress_while_kafka_answers_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "STALL_SECONDS", -1.0)
    told = failure(end=5)
    assert "0 (at 0 of 5)" in told
    assert "Kafka answers" in told


def test_a_changelog_shorter_than_what_was_read_of_it_is_told() -> None:
    assert "holds offsets 0 to 5, but this worker has read it up to 8" in failure(end=5, position=8)


def test_rows_without_the_names_of_their_ads_do_not_go_live() -> None:
    found = rows()
    nameless = found.select(slice(1, None))
    assert len(nameless) == len(found) - 1
    assert "the names of 1 ads" in failure((0, Fetched(nameless, 0, 5, 0)), end=5)


def test_partitions_that_leave_and_rows_that_were_not_flushed_are_forgotten() -> None:
    async def run() -> None:
        app = App({0, 1}, [], 0)
        store = app.store()
        for partition in range(3):
            store.begin(partition, 0)
            store.load(partition, rows(), 2)
        take_in(store.ledger(1), b"v", OTHER)
        await store.on_rebalance({TP(TOPIC, 0), TP(TOPIC, 1)}, set(), set())
        assert set(store.ledgers) == {0}
        assert [store.position(partition) for partition in range(3)] == [2, None, None]
        assert app.taken_over == [{0, 1}]

    asyncio.run(run())
