"""Every metric of a worker.

Base units, ``governor_`` first, never a user id as a label, every series there from the start;
besides, the ``process_`` metrics that Prometheus' clients have everywhere.
Counters and histograms are advanced by the pipeline a batch at a time; what can be read off the
ledgers is read when Prometheus asks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from governor.entries import WORDS
from governor.events import Reason
from governor.ledger import OUTCOMES
from governor.policy import Policy, default_text, load
from governor.rows import CAPACITIES
from governor.rules import CONTROL_REASONS
from streams.guards import GUARDS
from streams.home import FORWARDED
from streams.topics import EVENT_TOPICS, READ_TOPICS

__all__ = ["ALL_CAMPAIGNS", "DEPTHS", "Fatigue", "Metrics", "Snapshot", "Wear", "reference"]

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_BUCKETS = (1, 10, 100, 500, 1000, 2000, 4000, 8000, 16000, 32000)
OVERSHOOT_BUCKETS = (5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
FLUSH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

TOP_CAMPAIGNS = 50
"""Campaigns that have series of their own: the most shown ones. What leaves the list leaves
`/metrics`, so that names that come and go do not add up."""

ALL_CAMPAIGNS = "*"
"""In the place of a campaign: all of them together. No campaign's label is written so."""

DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Exposures of a person to a campaign at which curves are shown."""

ARMS = ("governed", "holdout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a worker looks like when Prometheus asks. Counts are of its live partitions, where
    nothing else is said."""

    users: int = 0
    """Rows."""
    held_back: int = 0
    """Rows that something holds back, at their partition's newest event."""
    held_back_entries: int = 0
    near_limit: float = 0.0
    """Rows of which one more exposure reaches a rolling cap; scaled up from those examined."""
    entries: int = 0
    rows: Mapping[int, int] = field(default_factory=dict)
    """By what they have room for, in entries."""
    standby_users: int = 0
    standby_entries: int = 0
    ledger_bytes: int = 0
    """Of all partitions, standbys included."""
    told_bytes: int = 0
    ads: int = 0
    overflow: int = 0
    partitions: int = 0
    """Whose rows are in memory, standbys included."""
    policy_rows_left: int = 0
    policy_refused: int = 0
    released: bool = False
    pending_events: int = 0
    changelog_lag_rows: int = 0
    recovery_remaining: int = 0
    recovery_total: int = 0
    """Changelog records that this recovery had to read at its begin, 0 between recoveries."""
    asyncio_tasks: int = 0
    threads: int = 0
    ready: bool = False
    broker_reachable: bool = True
    stalled_seconds: float = 0.0
    paused: Collection[str] = ()
    """Topics of events that are not read for the time being."""
    lag: Mapping[str, int] = field(default_factory=dict)
    """Records by topic."""
    staleness: Mapping[str, float] = field(default_factory=dict)
    """Seconds by topic."""


class Metrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self, policy: Policy, snapshot: Callable[[], Snapshot]) -> None:
        # A second series for each counter, of no use here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._rules: list[tuple[str, str]] = []
        self._events = Counter(
            "governor_events",
            "Messages read, by topic and what became of them: applied, duplicate, late (beyond "
            "the history), overflow (row full of newer ones), forwarded (to the partition of its "
            "row), erased (the person was) or rejected (a dead letter).",
            ["topic", "outcome"],
            registry=self.registry,
        )
        self._dead = Counter(
            "governor_dead_letters",
            "Messages put on the dead-letter topic, by topic they came from and reason.",
            ["topic", "reason"],
            registry=self.registry,
        )
        self._decode_errors = Counter(
            "governor_decode_errors",
            "Messages that could not be decoded as an event, by topic.",
            ["topic"],
            registry=self.registry,
        )
        self._decisions = Counter(
            "governor_decisions",
            "Throttles published, by what they rest on (a rule; opt_out, hide or consent, which "
            "people say) and state: throttled, or shadow of a rule that only shows what it would "
            "do.",
            ["rule", "state"],
            registry=self.registry,
        )
        self.records = Counter(
            "governor_decision_records",
            "Records acknowledged on the decisions topic: published, or withdrawn by a tombstone.",
            ["kind"],
            registry=self.registry,
        )
        self.rows = Counter(
            "governor_changelog_rows",
            "Rows acknowledged on the changelog topic.",
            registry=self.registry,
        )
        self.retries = Counter(
            "governor_produce_retries",
            "Record batches that Kafka did not take and that were sent again.",
            registry=self.registry,
        )
        self.changelog_read = Counter(
            "governor_changelog_read_records",
            "Changelog records read: to go live with a partition, and to stand by for others.",
            registry=self.registry,
        )
        self._batches = Histogram(
            "governor_batch_events",
            "Messages in one batch, by topic.",
            ["topic"],
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.apply_seconds = Histogram(
            "governor_apply_seconds",
            "Decoding and applying one batch.",
            buckets=FLUSH_BUCKETS,
            registry=self.registry,
        )
        self.flush_seconds = Histogram(
            "governor_flush_seconds",
            "One flush: what changed taken, its decisions sent and acknowledged. Rows follow.",
            buckets=FLUSH_BUCKETS,
            registry=self.registry,
        )
        self._guards = Counter(
            "governor_guard",
            "How often the ground was not what it was, by guard; the log says what to do.",
            ["guard"],
            registry=self.registry,
        )
        self.unreadable = Counter(
            "governor_unreadable_rows",
            "Changelog records that were skipped as they could not be read.",
            registry=self.registry,
        )
        self._snapshots = Counter(
            "governor_snapshots",
            "Snapshots of partitions: written, failed, loaded or discarded.",
            ["outcome"],
            registry=self.registry,
        )
        self._forwarded = Counter(
            "governor_forwarded",
            "Records sent to the repartition topic, by reason: misrouted (a producer's partitioner "
            "is another), identity (an id besides the user's), redirect (of a linked id), link (a "
            "linked id's row), erase (of an id that is linked).",
            ["reason"],
            registry=self.registry,
        )
        for reason in FORWARDED:
            self._forwarded.labels(reason)
        self._overshoot = _Durations(
            "governor_overshoot_seconds",
            "Exposures shown although a published decision said stop: how long after Kafka had "
            "taken it, where that is longer than GOVERNOR_OVERSHOOT_GRACE. Counted once for each "
            "id of the person that was to be spared, and for decisions that this worker published "
            "since it has the partition.",
            OVERSHOOT_BUCKETS,
        )
        self.registry.register(self._overshoot)
        self._build = Gauge(
            "governor_build_info",
            "Always 1; the labels say what runs.",
            ["version", "policy"],
            registry=self.registry,
        )
        self._policy = Gauge(
            "governor_policy_info",
            "Always 1; the label is the version of the policy that governs, as decisions name it.",
            ["policy"],
            registry=self.registry,
        )
        for topic in READ_TOPICS:
            for outcome in (*OUTCOMES, "forwarded", "erased", "rejected"):
                self._events.labels(topic, outcome)
            for reason in Reason:
                self._dead.labels(topic, str(reason))
            self._decode_errors.labels(topic)
            self._batches.labels(topic)
        self.policy(policy)
        for kind in ("published", "withdrawn"):
            self.records.labels(kind)
        for guard in GUARDS:
            self._guards.labels(guard)
        for outcome in ("written", "failed", "loaded", "discarded"):
            self._snapshots.labels(outcome)
        self._latency = _Durations(
            "governor_event_to_decision_seconds",
            "From an event's record timestamp to the acknowledgement of all decisions of its "
            "batch.",
            LATENCY_BUCKETS,
        )
        self.registry.register(self._latency)
        self.fatigue = Fatigue()
        self.registry.register(self.fatigue)
        ProcessCollector(registry=self.registry)
        self.registry.register(_State(snapshot))

    def policy(self, policy: Policy) -> None:
        """Another policy governs from now on; series of rules that are gone go with them."""
        rules = [(rule.name, "shadow" if rule.shadow else "throttled") for rule in policy.rules]
        rules += [(reason, "throttled") for reason in CONTROL_REASONS]
        for rule, state in set(self._rules) - set(rules):
            self._decisions.remove(rule, state)
        self._rules = rules
        self._tiring = {rule.name for rule in policy.rules if rule.kind == "fatigue"}
        for rule, state in rules:
            self._decisions.labels(rule, state)
        self._build.clear()
        self._build.labels(version("retargeting-governor"), policy.version).set(1)
        self._policy.clear()
        self._policy.labels(policy.version).set(1)

    def guard(self, guard: str) -> None:
        """One of `streams.guards.GUARDS` had cause to act."""
        self._guards.labels(guard).inc()

    def snapshot(self, outcome: str) -> None:
        """A partition's snapshot was written, failed, was loaded or was discarded."""
        self._snapshots.labels(outcome).inc()

    def batch(self, topic: str, size: int, outcomes: Mapping[str, int]) -> None:
        """One batch was applied."""
        self._batches.labels(topic).observe(size)
        for outcome, count in outcomes.items():
            if count:
                self._events.labels(topic, outcome).inc(count)

    def forwarded(self, reasons: Mapping[str, int]) -> None:
        """Records are on their way to the repartition topic, so many for each reason."""
        for reason, count in reasons.items():
            self._forwarded.labels(reason).inc(count)

    def dead_letter(self, topic: str, reason: Reason) -> None:
        """One message is a dead letter."""
        self._events.labels(topic, "rejected").inc()
        self._dead.labels(topic, str(reason)).inc()
        if reason is not Reason.QUARANTINED:
            self._decode_errors.labels(topic).inc()

    def overshot(self, seconds: NDArray[np.float64]) -> None:
        """Exposures came so long after a published stop that should have prevented them."""
        self._overshoot.observe(seconds)

    def published(self, by_rule: Sequence[int] | NDArray[np.int64]) -> None:
        """Throttles were acknowledged, so many of each rule in the policy's order, then of what
        people say."""
        for (rule, state), count in zip(self._rules, by_rule, strict=True):
            if count:
                self._decisions.labels(rule, state).inc(int(count))
            self.fatigue.rests += int(count) if rule in self._tiring else 0

    def decided(self, timestamps: NDArray[np.int64], now: float) -> None:
        """The decisions that these records (times in milliseconds) led to are acknowledged."""
        self._latency.observe(now - timestamps / 1000)


@dataclass(frozen=True, slots=True)
class Wear:
    """What is known of one campaign's wear, of one curve version."""

    exposures: int
    """That the curve was made of; by these the top campaigns are chosen."""
    curve: Mapping[int, tuple[float, float, float]] = field(default_factory=dict)
    """By each of `DEPTHS` that has data: engagement relative to the first exposure, and the lower
    and upper end of its interval."""
    coverage: float = math.nan
    """Share of exposures at which an engagement could have been seen."""
    identified: bool = False
    """Whether fatigue could be told from selection."""
    alarmed: bool = False
    """Whether the detector's alarm stands."""


class Fatigue(Collector):
    """Curves, alarms, coverage and rests. Set by who reads curves and settles outcomes; all of it
    has a value from the start."""

    def __init__(self) -> None:
        self._wear: dict[str, Wear] = {}
        self.alarms = 0
        """Alarms raised since the start, of all campaigns."""
        self.rests = 0
        """Rests for fatigue published since the start."""
        self._exposures = dict.fromkeys(ARMS, 0)
        self._engagements = dict.fromkeys(ARMS, 0)
        self._unmeasurable = 0
        self._campaigns = 0

    def curves(self, pooled: Wear, campaigns: Mapping[str, Wear]) -> None:
        """Take the place of all that was shown of campaigns: ``pooled`` for all together, and by
        name; only the `TOP_CAMPAIGNS` and those alarmed (as many at most) are shown."""
        order = sorted(campaigns, key=lambda name: (-campaigns[name].exposures, name))
        alarmed = [name for name in order if campaigns[name].alarmed]
        shown = dict.fromkeys((*order[:TOP_CAMPAIGNS], *alarmed[:TOP_CAMPAIGNS]))
        self._campaigns = len(campaigns)
        self._wear = {ALL_CAMPAIGNS: pooled, **{name: campaigns[name] for name in shown}}

    def settled(self, arm: str, *, exposures: int, engagements: int, unmeasurable: int) -> None:
        """Outcomes of exposures are known: of people in one of `ARMS`, so many measurable ones with
        so many engagements, and so many at which none could be seen."""
        self._exposures[arm] += exposures
        self._engagements[arm] += engagements
        self._unmeasurable += unmeasurable

    def collect(self) -> Iterator[Metric]:
        """What Prometheus asks for."""
        yield from self._counted()
        yield from self._curves()

    def _counted(self) -> Iterator[Metric]:
        yield _counter(
            "fatigue_alarms", "Alarms that a campaign wears worse than usual.", self.alarms
        )
        yield _counter("fatigue_rests", "Throttles published by rules of fatigue.", self.rests)
        yield _counter(
            "fatigue_unmeasurable_exposures",
            "Settled exposures at which no engagement could have been seen: they say nothing.",
            self._unmeasurable,
        )
        seen = (
            "Settled exposures at which an engagement could have been seen, by whether the person "
            "is governed or held out."
        )
        for name, text, counts in (
            ("exposures", seen, self._exposures),
            ("engagements", "Engagements that answer them.", self._engagements),
        ):
            family = CounterMetricFamily(f"governor_fatigue_{name}", text, labels=["arm"])
            for arm in ARMS:
                family.add_metric([arm], float(counts[arm]))
            yield family

    def _curves(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "governor_fatigue_campaigns",
            "Campaigns that have a curve.",
            value=float(self._campaigns),
        )
        wear = self._wear or {ALL_CAMPAIGNS: Wear(0)}
        for i, (name, text) in enumerate(
            (
                ("relative_engagement", "Engagement relative to a person's first exposure"),
                ("relative_engagement_low", "Lower end of its interval"),
                ("relative_engagement_high", "Upper end of its interval"),
            )
        ):
            family = GaugeMetricFamily(
                f"governor_fatigue_{name}_ratio",
                f"{text}, by depth (exposures to the campaign) of the top campaigns; NaN where no "
                'data are. The campaign "*" is all together.',
                labels=["campaign", "depth"],
            )
            for campaign, one in wear.items():
                for depth in DEPTHS:
                    value = one.curve.get(depth, (math.nan,) * 3)[i]
                    family.add_metric([campaign, str(depth)], value)
            yield family
        for name, text, value_of in (
            (
                "coverage_ratio",
                "Share of exposures at which an engagement could be seen, of the top campaigns.",
                lambda one: one.coverage,
            ),
            (
                "identified",
                "1 where fatigue can be told from selection, of the top campaigns.",
                lambda one: float(one.identified),
            ),
            (
                "alarmed",
                "1 while a campaign wears worse than usual, of the top campaigns and alarmed ones.",
                lambda one: float(one.alarmed),
            ),
        ):
            family = GaugeMetricFamily(f"governor_fatigue_{name}", text, labels=["campaign"])
            for campaign, one in wear.items():
                family.add_metric([campaign], value_of(one))
            yield family


class _Durations(Collector):
    """A histogram advanced by whole arrays.

    Args:
        name: of the metric.
        text: its help.
        buckets: their upper edges in seconds, ascending.
    """

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._edges = np.array(buckets)
        self._bounds = [*map(str, map(float, buckets)), "+Inf"]
        self._counts = np.zeros(len(self._bounds), np.int64)
        self._sum = 0.0

    def observe(self, seconds: NDArray[np.float64]) -> None:
        at = np.searchsorted(self._edges, seconds, side="left")
        self._counts += np.bincount(at, minlength=len(self._counts))
        self._sum += float(seconds.sum())

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._text)
        totals = map(float, np.cumsum(self._counts))
        family.add_metric([], list(zip(self._bounds, totals, strict=True)), self._sum)
        yield family


class _State(Collector):
    """What is read off the worker when Prometheus asks."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        state = self._snapshot()
        yield from _people(state)
        yield from _memory(state)
        yield from _work(state)
        yield from _by_topic(state)


def _people(state: Snapshot) -> Iterator[Metric]:
    yield _gauge("users", "Ids with a row: users, and devices or households by name.", state.users)
    yield _gauge(
        "throttled_users",
        "Ids that a throttle holds back at their partition's newest event; shadows do not count.",
        state.held_back,
    )
    yield _gauge(
        "near_limit_users",
        "Ids that reach a rolling cap with one more exposure; estimated where there are many.",
        state.near_limit,
    )
    yield _gauge(
        "exposures_held", "Exposures, engagements and controls held in rows.", state.entries
    )
    yield _gauge(
        "throttled_exposures_held",
        "Those of ids that a throttle holds back: the share of traffic that is held back.",
        state.held_back_entries,
    )
    yield _gauge(
        "policy_rows_left",
        "Rows still to be evaluated under the policy that governs.",
        state.policy_rows_left,
    )
    yield _gauge(
        "released",
        "1 while the kill switch is pulled, and readers release throttles.",
        state.released,
    )
    yield _counter(
        "policy_refused",
        "Versions on the policy topic that cannot be used here; the one before goes on.",
        state.policy_refused,
    )
    yield _counter(
        "overflow",
        "Entries dropped because a row was full: answers about them could be wrong.",
        state.overflow,
    )


def _memory(state: Snapshot) -> Iterator[Metric]:
    yield _gauge(
        "ledger_bytes", "Bytes of the ledgers' arrays, standbys included.", state.ledger_bytes
    )
    yield _gauge(
        "told_bytes",
        "Bytes of what is remembered of published stops, for overshoot.",
        state.told_bytes,
    )
    yield _gauge("ads", "Distinct label sets, summed over partitions.", state.ads)
    yield _gauge(
        "standby_users", "Ids in copies of other workers' partitions.", state.standby_users
    )
    yield _gauge(
        "standby_exposures_held",
        "Exposures, engagements and controls in copies of other workers' partitions.",
        state.standby_entries,
    )
    rows = GaugeMetricFamily(
        "governor_rows", "Rows by size class: the entries that one has room for.", labels=["room"]
    )
    taken = GaugeMetricFamily(
        "governor_row_bytes", "Bytes of these rows' entries, unused ones included.", labels=["room"]
    )
    for room in CAPACITIES.tolist():
        count = state.rows.get(room, 0)
        rows.add_metric([str(room)], float(count))
        taken.add_metric([str(room)], float(count * room * WORDS * 8))
    yield rows
    yield taken


def _work(state: Snapshot) -> Iterator[Metric]:
    for name, text, value in (
        (
            "partitions",
            "Partitions whose ledger is in memory, standbys included.",
            state.partitions,
        ),
        (
            "pending_events",
            "Events applied whose decisions and rows are not acknowledged yet.",
            state.pending_events,
        ),
        (
            "changelog_lag_rows",
            "Rows changed and not acknowledged by the changelog yet.",
            state.changelog_lag_rows,
        ),
        (
            "recovery_remaining_records",
            "Changelog records still to be read before going live.",
            state.recovery_remaining,
        ),
        (
            "recovery_progress_ratio",
            "Share of its changelog records that the present recovery has read; 1 without one.",
            1 - state.recovery_remaining / max(state.recovery_total, state.recovery_remaining, 1),
        ),
        ("asyncio_tasks", "Tasks of the worker's event loop.", state.asyncio_tasks),
        ("threads", "Threads that Python knows of.", state.threads),
        (
            "ready",
            "1 when /readyz says so: Kafka answers, partitions and rows are there.",
            state.ready,
        ),
        (
            "broker_reachable",
            "1 when Kafka answered the last time that the worker asked.",
            state.broker_reachable,
        ),
        (
            "stalled_seconds",
            "For how long nothing has been done although something was due.",
            state.stalled_seconds,
        ),
    ):
        yield _gauge(name, text, value)


def _by_topic(state: Snapshot) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "governor_consumer_lag_records",
        "Records in the topic that are not applied, flushed and acknowledged yet.",
        labels=["topic"],
    )
    staleness = GaugeMetricFamily(
        "governor_staleness_seconds",
        "How old the newest record is that was dealt with, where others wait; of the partition "
        "that is furthest behind, 0 when none waits.",
        labels=["topic"],
    )
    for topic in READ_TOPICS:
        lag.add_metric([topic], float(state.lag.get(topic, 0)))
        staleness.add_metric([topic], float(state.staleness.get(topic, 0.0)))
    paused = GaugeMetricFamily(
        "governor_paused",
        "1 for a topic that is not read because too many of its messages are no events.",
        labels=["topic"],
    )
    for topic in EVENT_TOPICS:
        paused.add_metric([topic], float(topic in state.paused))
    yield from (lag, staleness, paused)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"governor_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(f"governor_{name}", text)
    family.add_metric([], float(value))
    return family


def reference() -> str:
    """``docs/metrics.md``: every metric of a worker, as Markdown."""
    metrics = Metrics(load(default_text()), Snapshot)
    lines = [
        "# Metrics",
        "",
        "All that a worker serves at `/metrics`, besides the `process_` metrics that every client",
        "of Prometheus has. Generated from `streams/metrics.py` by `make metrics-table`;",
        "`make check` fails when it differs. Times are in seconds and sizes in bytes. No label",
        "ever holds an id of a person. A worker has at most 5,000 series, however many campaigns",
        "come and go; each is there from the start.",
        "",
        "| Metric | Kind | Labels | Meaning |",
        "| --- | --- | --- | --- |",
    ]
    families = sorted(metrics.registry.collect(), key=lambda one: one.name)
    lines += [_row(family) for family in families if family.name.startswith("governor_")]
    return "\n".join(lines) + "\n"


def _row(family: Metric) -> str:
    names = dict.fromkeys(name for one in family.samples for name in one.labels if name != "le")
    labels = ", ".join(f"`{name}`" for name in names)
    name = family.name + ("_total" if family.type == "counter" else "")
    text = family.documentation.replace("|", "\\|").replace("*", "\\*")
    return f"| `{name}` | {family.type} | {labels} | {text} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
