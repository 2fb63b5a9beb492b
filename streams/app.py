"""The Faust app: agents that hand batches to the ledger, and the services around them.

``governor worker`` runs it; so does ``faust -A streams.app worker``, which finds ``app`` here.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import faust
import numpy as np
from aiokafka.structs import TopicPartition
from faust.auth import SASLCredentials, SSLCredentials
from faust.types import TP, EventT, StreamT
from numpy.typing import NDArray

from governor.events import Limits
from governor.fatigue.sampling import Shares
from governor.fatigue.versions import Version
from governor.gate import Gate
from governor.ledger import Ledger
from governor.policy import Fatigue, Policy
from governor.rows import CAPACITIES
from governor.ticks import SECOND
from governor.told import Told
from streams import failpoints, guards, heap, logs, repartition, topics
from streams.aggregator import Aggregator
from streams.bookmarks import Bookkeeper
from streams.canary import ingest_warily
from streams.deadletters import letters
from streams.doubt import Doubt, Offsets
from streams.health import Health, Phase
from streams.holdback import Holdback
from streams.home import Home
from streams.live_curves import LiveCurves
from streams.live_policy import LivePolicy
from streams.metrics import Metrics, Snapshot
from streams.observer import Observer
from streams.outbox import Outbox
from streams.pipeline import ingest, warm_up
from streams.purge import Purge
from streams.reader import committed
from streams.recovery import Tables
from streams.repartition import Forwarder
from streams.settings import Settings, load_settings, read_policy, ticks
from streams.snapshots import Snapshots
from streams.store import Store
from streams.topology import Topic, Topology
from streams.transport import RecordsSchema
from streams.watch import Progress, Watch
from streams.web import Web

__all__ = ["Governor", "create", "spare_collector"]

log = logging.getLogger(__name__)

QUEUED_BATCHES = 4
"""Fetches that wait in front of an agent; each is up to a megabyte."""

SURVEYED_ROWS = 2_000
"""Rows whose entries a scrape looks at, spread over all; some microseconds each."""

LAST_FLUSH_SECONDS = 5.0
"""How long a stop waits for rows that no event has touched; what is left is evaluated again."""

TOLD_ROWS = 20
"""Unreadable rows that are told one by one."""


class Governor(faust.App):
    """A Faust app with a ledger, an outbox and metrics.

    Made by `create`; `prepare` is what must have happened before it starts.
    """

    # What Faust logs through this class is Faust's.
    logger = logging.getLogger("faust.app")

    def __init__(self, settings: Settings, policy: Policy, **options: Any) -> None:
        super().__init__(settings.group, **options)
        self.settings = settings
        self.policy = policy
        self._rows_skipped = 0
        self._ended_by: guards.Remedy | None = None
        self.limits = Limits(
            max_future=ticks(settings.max_future),
            max_age=ticks(settings.max_age),
            max_bytes=settings.max_event_bytes,
        )
        self.ledgers = self.Table(
            "ledger",
            store="ledger://rows",
            key_type=bytes,
            value_type=bytes,
            schema=RecordsSchema(),
            changelog_topic=self._topic("ledger"),
            options={
                "make": self.empty_ledger,
                "gate": self.empty_gate,
                "told": self.nothing_told,
                "take_over": self.take_over,
                "restore": self.restore if settings.snapshots else None,
                "skipped": self._row_skipped if settings.unreadable_rows == "skip" else None,
            },
        )
        self.metrics = Metrics(policy, self.snapshot)
        self.snapshots = Snapshots(
            Path(settings.snapshots) if settings.snapshots else None,
            settings.topic("ledger"),
            settings.snapshot_interval.total_seconds(),
            self.metrics.snapshot,
            self.tripped,
        )
        self.forwarder = Forwarder(settings)
        most = 2 * settings.max_pending_events  # batches may overshoot it
        self.version: Version | None = None
        self.observer = Observer(settings, self.live_ledgers, self._drained)
        doubt = Doubt(self._ends, self._committed, self._decided, most)
        self.outbox = Outbox(
            settings, self.store, self.forwarder, self.metrics, self.snapshots, doubt, self.observer
        )
        self.purge = Purge(settings, self.repartitioned)
        self.topology: Mapping[str, Topic] = {}
        self.health = Health(self.phase, settings.stall_timeout.total_seconds())
        self.keeper = Bookkeeper(
            self._written, settings.crash_attempts, settings.max_pending_events, self.tripped
        )
        self.holdback = Holdback(
            settings, self.limits, lambda: self.consumer, self.health.paused, self.tripped
        )
        self.watch = Watch(
            settings, lambda: self.topology, self.progress, self.health, self.metrics, self.crash
        )
        self.server = Web(settings.metrics_host, settings.metrics_port, self.metrics, self.health)
        self.live_policy = LivePolicy(
            settings, policy, self.govern_by, self.live_ledgers, self.outbox.flushed
        )
        self.live_curves = LiveCurves(settings, self.learn, self.observe)
        self.aggregator = Aggregator(
            settings,
            lambda: self.policy,
            self._aggregates,
            self.outbox.write,
            self.metrics,
            self._people,
        )
        for kind in (*topics.EVENT_TOPICS, repartition.TOPIC):
            self._govern(kind)

    def empty_ledger(self) -> Ledger:
        """A ledger under this app's policy, curves and settings."""
        ledger = Ledger(
            self.policy,
            horizon=ticks(self.settings.history),
            row_limit=self.settings.row_limit,
        )
        if self.version is not None:
            ledger.learn(self.version)
        if self.observer.on:
            ledger.observe(self.observer.shares, self.observer.marks)
        return ledger

    def empty_gate(self) -> Gate:
        """What stands in front of such a ledger."""
        return Gate(
            secret=self.settings.erasure_key.get_secret_value().encode(),
            retention=ticks(self.settings.input_retention),
        )

    def nothing_told(self) -> Told:
        """What readers were told of such a ledger before it was there."""
        return Told(ticks(self.settings.overshoot_grace))

    def store(self) -> Store:
        """The ledgers of this worker's partitions."""
        store: Store = self.ledgers.data
        return store

    def repartitioned(self) -> dict[TopicPartition, int]:
        """Offsets committed in this worker's partitions of the repartition topic."""
        topic, consumer = self.settings.topic(repartition.TOPIC), self._consumer
        return {} if consumer is None else consumer.committed(topic)

    def live_ledgers(self) -> dict[int, Ledger]:
        """Those whose events this worker applies."""
        return self.store().live()

    async def govern_by(self, policy: Policy) -> None:
        """Let another policy govern, from between two flushes on."""
        async with self.outbox.between_flushes():
            self.policy = policy
            self.metrics.policy(policy)
            for ledger in self.store().ledgers.values():
                ledger.set_policy(policy)

    async def learn(self, version: Version) -> None:
        """Go by other curves, from between two flushes on."""
        async with self.outbox.between_flushes():
            self.version = version
            for ledger in self.store().ledgers.values():
                ledger.learn(version)
        if any(isinstance(rule, Fatigue) for rule in self.policy.rules):
            self.live_policy.again()

    def observe(self, shares: Shares) -> None:
        """Observe these people from now on."""
        self.observer.observe(shares)
        for ledger in self.store().ledgers.values() if self.observer.on else ():
            ledger.observe(shares, self.observer.marks)

    def _aggregates(self) -> bool:
        """Whether this worker makes the curves."""
        return 0 in self.live_ledgers()

    def _people(self) -> int:
        """How many people there are, if other partitions have as many as those of this worker."""
        live = self.live_ledgers().values()
        rows = sum(map(len, live))
        return rows * self.conf.topic_partitions // len(live) if live else 0

    async def _drained(self) -> set[int]:
        """The live partitions of which all that is there has been applied and acked."""
        live = set(self.live_ledgers())
        if not live or self._consumer is None:
            return set()
        ends = await self._highwaters(topics.READ_TOPICS, live)
        done = self._consumer.done()
        waiting = {
            partition
            for (topic, partition), end in ends.items()
            if done.get(TP(topic, partition), 0) < end
        }
        return live - waiting

    async def take_over(self, partitions: Iterable[int]) -> None:
        """Be the only worker that writes these partitions."""
        await self.outbox.take_over(partitions)

    def on_init_dependencies(self) -> list[Any]:
        """Services that start with the app; the outbox before anything is read."""
        mine = [self.server, self.forwarder, self.outbox, self.watch, self.holdback]
        after = [self.live_policy, self.purge, self.live_curves, self.aggregator]
        return [self.observer, *mine, *super().on_init_dependencies(), *after]

    async def on_first_start(self) -> None:
        """Wait for Kafka, see to the topics, compile meanwhile: all before joining the group.

        Whoever asks meanwhile is answered: a worker that waits for Kafka is alive.
        """
        heap.share_one_heap()
        await self.server.maybe_start()
        warming = asyncio.ensure_future(asyncio.to_thread(self._warm_up))
        try:
            await topics.until_reachable(self.settings, self.health.away)
            self.health.away("")
            partitions = await topics.ensure(self.settings)
            self.conf.topic_partitions = partitions
            await self._survey(partitions)
            await self.live_policy.begin()
            await self.live_curves.begin()
            seconds = round(await warming, 3)
            spare_collector()
            heap.keep_freed()
            log.info("compiled", extra={"seconds": seconds, "partitions": partitions})
        except BaseException:
            warming.cancel()  # it ends with the process
            raise

    def _warm_up(self) -> float:
        """Compile, or load what was compiled before; the seconds that it took."""
        started = time.perf_counter()
        warm_up(self.empty_ledger(), self.empty_gate())
        return time.perf_counter() - started

    async def _survey(self, partitions: int) -> None:
        """Refuse a ground that would make answers wrong; note what it looks like now."""
        ledger = self.settings.topic("ledger")
        events = [self.settings.topic(kind) for kind in topics.EVENT_TOPICS]
        async with asyncio.timeout(60), Topology(self.settings) as topology:
            await guards.check(topology, self.settings)
            for text in topics.unfit(
                self.settings,
                await topology.configuration([ledger, self.settings.topic("decisions")]),
            ):
                self.tripped("topic_settings", text)
            read = [self.settings.topic(kind) for kind in topics.READ_TOPICS]
            found = await topology.topics([*read, ledger])
            begins = await topology.begins([ledger])
        self.keeper.know(
            {name: found[name].id for name in events},
            found[ledger].id,
            partitions,
            {tp.partition: begin for tp, begin in begins.items()},
        )
        self.snapshots.know(found[ledger].id)
        self.topology = found

    async def restore(self, partitions: Iterable[int]) -> Mapping[int, tuple[Ledger, Gate, int]]:
        """Ledgers and gates from snapshots, and the changelog offsets they go to."""
        name = self.settings.topic("ledger")
        async with asyncio.timeout(60), Topology(self.settings) as topology:
            begins, ends = await topology.begins([name]), await topology.ends([name])
        found = {}
        for partition in partitions:
            ledger, gate = self.empty_ledger(), self.empty_gate()
            tp = TopicPartition(name, partition)
            offset = await asyncio.to_thread(
                self.snapshots.load, partition, ledger, gate, begins[tp], ends[tp]
            )
            if offset is not None:
                found[partition] = ledger, gate, offset
        return found

    def tripped(self, guard: str, text: str) -> None:
        """Say and count that the ground is not what it was; the worker goes on."""
        self.metrics.guard(guard)
        log.warning("%s", text, extra={"guard": guard})

    def ended_by(self, reason: BaseException) -> guards.Remedy:
        """Why the worker stops: what it was first told. The guard is counted once."""
        if self._ended_by is None:
            self._ended_by = guards.remedy(reason)
            self.health.stopped = self._ended_by.text
            if self._ended_by.guard:
                self.metrics.guard(self._ended_by.guard)
        return self._ended_by

    def _crash(self, reason: BaseException) -> None:
        # Also when it is one of the services that crashed, whose own method does not know of ours.
        self.ended_by(reason)
        super()._crash(reason)

    def _row_skipped(self, text: str) -> None:
        self.metrics.unreadable.inc()
        self._rows_skipped += 1
        if self._rows_skipped <= TOLD_ROWS:
            more = "; more of them are only counted" if self._rows_skipped == TOLD_ROWS else ""
            log.error("skipped (GOVERNOR_UNREADABLE_ROWS): %s%s", text, more)

    def _written(self, partition: int) -> int | None:
        return self.store().persisted_offset(TP(self.settings.topic("ledger"), partition))

    def _new_consumer(self) -> Any:
        consumer = super()._new_consumer()
        consumer.keeper = self.keeper
        # What comes sooner would wait for the next flush.
        consumer.interval = self.settings.flush_interval.total_seconds()
        return consumer

    def phase(self) -> Phase:
        """Where the worker is on its way to its partitions."""
        if not self.topology:
            return Phase("starting")
        if remaining := self.tables.recovery.remaining:
            return Phase("recovering", remaining=remaining)
        if self.rebalancing or not self.tables.actives_ready:
            return Phase("joining")
        return Phase("running", partitions=len({tp.partition for tp in self._read()}))

    def progress(self) -> Progress:
        """How far the worker is, for the watch."""
        phase = self.phase()
        return Progress(
            read=self._read(),
            recovered=self.store().read_so_far,
            due=phase.remaining + self.outbox.events + (phase.name == "joining"),
        )

    def _read(self) -> Mapping[Any, int]:
        done = {} if self._consumer is None else self._consumer.done()
        changelogs = self.tables.changelog_topics
        return {tp: offset for tp, offset in done.items() if tp.topic not in changelogs}

    def _topic(self, name: str) -> Any:
        return self.topic(
            self.settings.topic(name), schema=RecordsSchema(), key_type=None, value_type=None
        )

    def _govern(self, kind: str) -> None:
        """An agent for one topic of events."""

        async def govern(stream: StreamT[Any]) -> AsyncIterator[None]:
            async for event in stream.noack().events():
                try:
                    await self.handle(kind, event)
                except Exception as error:
                    # Faust would restart the agent only, and go on behind the failed batch.
                    await self.crash(error)
                    raise
                yield

        self.agent(self._topic(kind), name=kind)(govern)

    def home(self, partition: int) -> Home:
        """One of this worker's partitions."""
        store, count = self.store(), self.conf.topic_partitions
        return Home(
            partition,
            count,
            store.ledger(partition),
            store.gate(partition),
            told=store.told(partition),
        )

    async def handle(self, kind: str, event: EventT) -> None:
        """Apply one message's records and hand it to the outbox."""
        message: Any = event.message
        whole = message.fetch.took()
        if self.holdback.holds(kind, message):
            return
        records = message.value
        home = self.home(message.partition)
        started = time.perf_counter()
        if self.keeper.suspicious(message.tp, message.first_offset):
            ingested = await ingest_warily(kind, home, records, self.limits)
        else:
            ingested = ingest(kind, home, records, self.limits)
        if self.holdback.refuses(kind, message, ingested):
            return
        self.metrics.apply_seconds.observe(time.perf_counter() - started)
        self.metrics.batch(kind, len(records), ingested.outcomes)
        self.metrics.forwarded(home.forwarded)
        for late in home.late:
            self.metrics.overshot(late / SECOND)
        self.observer.erased(home.erased)
        for one in ingested.rejected:
            self.metrics.dead_letter(kind, one.reason)
        dead = letters(message.topic, message.partition, records, ingested.rejected)
        # Where it ends is all that its ack needs. What it brought would lie there until then.
        event.value = message.value = None
        await self.outbox.add(event, records.timestamp, dead, home.forwards.take(), whole=whole)

    def snapshot(self) -> Snapshot:
        """What `Metrics` reads when Prometheus asks."""
        store = self.store()
        live, ledgers = store.live(), list(store.ledgers.values())
        sizes = [ledger.describe() for ledger in live.values()]
        surveys = [ledger.survey(SURVEYED_ROWS // len(live)) for ledger in live.values()]
        return Snapshot(
            users=sum(size["users"] for size in sizes),
            held_back=sum(one.held_back for one in surveys),
            held_back_entries=sum(one.held_back_entries for one in surveys),
            near_limit=sum(
                one.near * size["users"] / max(1, one.examined)
                for one, size in zip(surveys, sizes, strict=True)
            ),
            entries=sum(size["entries"] for size in sizes),
            rows=_added(one.rows for one in surveys),
            standby_users=sum(map(len, ledgers)) - sum(map(len, live.values())),
            standby_entries=sum(one.entries for one in ledgers)
            - sum(size["entries"] for size in sizes),
            ledger_bytes=sum(ledger.nbytes for ledger in ledgers),
            told_bytes=sum(told.nbytes for told in store.tolds.values()),
            ads=sum(size["ads"] for size in sizes),
            overflow=sum(size["overflow"] for size in sizes),
            partitions=len(ledgers),
            policy_rows_left=self.live_policy.rows_left,
            policy_refused=self.live_policy.refused,
            released=self.live_policy.released,
            pending_events=self.outbox.events,
            changelog_lag_rows=sum(ledger.dirty for ledger in ledgers) + self.outbox.rows_in_flight,
            recovery_remaining=self.tables.recovery.remaining,
            recovery_total=self.tables.recovery.total,
            asyncio_tasks=len(asyncio.all_tasks()),
            threads=threading.active_count(),
            ready=self.health.ready,
            broker_reachable=not self.health.unreachable,
            stalled_seconds=self.health.stalled,
            paused=self.health.paused.keys(),
            lag={kind: self._lag(self.settings.topic(kind)) for kind in topics.READ_TOPICS},
            staleness=self._staleness(),
        )

    def _staleness(self) -> dict[str, float]:
        """Seconds by topic: how old the newest record is that was acked, where others wait."""
        now, consumer = time.time(), self._consumer
        if consumer is None:
            return {}
        found = {}
        for kind in topics.READ_TOPICS:
            behind = consumer.behind(self.settings.topic(kind))
            ages = (now - self.outbox.newest(tp) for tp in behind)
            found[kind] = max(0.0, *ages) if behind else 0.0
        return found

    async def _ends(self, partitions: Iterable[int]) -> Offsets:
        return await self._highwaters(topics.READ_TOPICS, partitions)

    async def _decided(self, partitions: Iterable[int]) -> Offsets:
        return await self._highwaters(("decisions",), partitions)

    async def _highwaters(self, names: Iterable[str], partitions: Iterable[int]) -> Offsets:
        tps = [TP(self.settings.topic(name), p) for name in names for p in partitions]
        ends = await self.consumer.highwaters(*tps)
        return {(tp.topic, tp.partition): end or 0 for tp, end in ends.items()}

    async def _committed(self, partitions: Iterable[int]) -> Offsets:  # noqa: ARG002 - of all
        return await committed(self.settings, map(self.settings.topic, topics.READ_TOPICS))

    def _lag(self, topic: str) -> int:
        consumer = self._consumer
        return consumer.lag(topic) if consumer is not None else 0

    async def _consumer_wait_empty(self, consumer: Any, logger: Any) -> None:
        """Before partitions go, and before a stop: what was begun is flushed and acked."""
        with self.outbox.hurrying():
            await super()._consumer_wait_empty(consumer, logger)
            if self.should_stop and not self.crashed:
                await self._finish()

    async def _finish(self) -> None:
        """Before a stop: rows that are being evaluated again are flushed, for snapshots hold none
        that are not in the changelog. Where they cannot be, there are no snapshots."""
        await self.live_policy.stop()
        flush = asyncio.ensure_future(self.outbox.flush())
        if not (await asyncio.wait((flush,), timeout=LAST_FLUSH_SECONDS))[0]:
            flush.cancel()
            log.warning("Kafka does not take what is left to write: stopping without snapshots")
            return
        if error := flush.exception():
            # Faust would go on stopping, and end as if all had been written.
            await self.crash(error)
        if not self.crashed:  # nor was the flush before this one
            await self.snapshots.finish(self.store().live(), self.store().gate, self._written)

    def _on_rebalance_when_stopped(self) -> None:
        """Do nothing. Faust closes the consumer here, from a loop that is not the consumer's, and
        the stop that is under way then leaves out what it would do: above all, leave the group."""

    async def crashed_or_stopped(self) -> None:
        """Return when the app has crashed or stopped."""
        events = [asyncio.ensure_future(one.wait()) for one in (self._crashed, self._stopped)]
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()

    def _create_directories(self) -> None:
        """Nothing is kept on disk."""


def _added(rows: Iterable[NDArray[np.int64]]) -> dict[int, int]:
    """Rows by what they have room for."""
    total = np.zeros(len(CAPACITIES), np.int64)
    for each in rows:
        total += each
    return dict(zip(CAPACITIES.tolist(), total.tolist(), strict=True))


def spare_collector() -> None:
    """Have Python's garbage collector pass over all that is there by now.

    Modules and compiled functions are some hundred thousand objects that stay; each full collection
    went through them, and held the loop still for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def create(settings: Settings) -> Governor:
    """The app for these settings."""
    failpoints.arm(settings.failpoints)
    timeout = settings.session_timeout.total_seconds()
    policy = read_policy(settings)
    for warning in policy.warnings:
        log.warning("the policy, %s", warning)
    return Governor(
        settings,
        policy,
        broker="governor://" + ";".join(settings.broker.split(",")),
        broker_credentials=_credentials(settings),
        broker_session_timeout=timeout,
        # Others learn of a rebalance with their next one.
        broker_heartbeat_interval=min(1.0, timeout / 4),
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        store="memory://",
        stream_buffer_maxsize=QUEUED_BATCHES,
        # A rebalance and a stop wait until the outbox has acked what was begun.
        stream_wait_empty=True,
        TableManager=Tables,
        table_standby_replicas=settings.standbys,
        topic_allow_declare=False,
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        web_enabled=False,
        # For Faust's own command; `governor worker` sees to it before.
        logging_config=logs.configuration(settings),
        autodiscover=False,
    )


def _credentials(settings: Settings) -> SASLCredentials | SSLCredentials | None:
    context: ssl.SSLContext | None = topics.connection(settings).get("ssl_context")
    if settings.security_protocol.startswith("SASL"):
        return SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    if settings.security_protocol == "SSL":
        return SSLCredentials(context)
    return None


def __getattr__(name: str) -> Any:
    """``app``, made from the environment when it is first asked for."""
    if name == "app":
        made = globals()["app"] = create(load_settings(os.environ))
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
