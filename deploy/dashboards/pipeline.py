"""*Pipeline*: lag, latency, recovery, memory, dead letters."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.dashboards.panels import Look, Panel, bars, begin, figure, graph

__all__ = ["pipeline"]

J = 'job=~"$job"'
R = "[$__rate_interval]"


def pipeline() -> Dashboard:
    """The dashboard."""
    board = begin("Pipeline", "How events become decisions: lag, latency, recovery, memory.")
    board = board.with_row(Row("Flow"))
    board = board.with_panel(_lag()).with_panel(_outcomes()).with_panel(_flush())
    board = board.with_panel(_batches()).with_panel(_pending()).with_panel(_writes())
    board = board.with_row(Row("Recovery"))
    board = board.with_panel(_recovery()).with_panel(_recovered()).with_panel(_guards())
    board = board.with_panel(_held()).with_panel(_entries()).with_panel(_reaches())
    board = board.with_row(Row("Memory"))
    board = board.with_panel(_memory()).with_panel(_rows()).with_panel(_overflow())
    board = board.with_row(Row("What is no event"))
    return board.with_panel(_dead()).with_panel(_paused()).with_panel(_forwarded())


def _lag() -> Panel:
    return graph(
        Look(
            title="Lag",
            description="Records of each topic that are not applied, flushed and acknowledged.",
            queries={"{{topic}}": f"sum by (topic) (governor_consumer_lag_records{{{J}}})"},
            runbook="decisions-late",
        )
    )


def _outcomes() -> Panel:
    return graph(
        Look(
            title="What became of events",
            description="Messages a second by outcome. Duplicates are what at-least-once delivery "
            "brings; late ones lie before all that rows remember.",
            unit="cps",
            queries={"{{outcome}}": f"sum by (outcome) (rate(governor_events_total{{{J}}}{R}))"},
        )
    )


def _flush() -> Panel:
    def quantile(name: str) -> str:
        buckets = f"sum by (le) (rate(governor_{name}_seconds_bucket{{{J}}}{R}))"
        return f"histogram_quantile(0.99, {buckets})"

    return graph(
        Look(
            title="Apply and flush",
            description="Seconds that 99% of batches take to be decoded and applied, and of "
            "flushes until Kafka has acknowledged decisions. Slow flushes: look at the brokers.",
            unit="s",
            queries={"apply": quantile("apply"), "flush": quantile("flush")},
            warn=1,
            alarm=5,
            runbook="decisions-late",
        )
    )


def _batches() -> Panel:
    return graph(
        Look(
            title="Events a batch",
            description="Larger batches cost less an event; they grow by themselves under load.",
            queries={
                "{{topic}}": f"sum by (topic) (rate(governor_batch_events_sum{{{J}}}{R})) "
                f"/ (sum by (topic) (rate(governor_batch_events_count{{{J}}}{R})) > 0)"
            },
        )
    )


def _pending() -> Panel:
    return graph(
        Look(
            title="On the way to Kafka",
            description="Events applied whose decisions and rows are not acknowledged yet, and "
            "rows not in the changelog yet. At GOVERNOR_MAX_PENDING_EVENTS reading waits.",
            queries={
                "events": f"sum(governor_pending_events{{{J}}})",
                "rows": f"sum(governor_changelog_lag_rows{{{J}}})",
            },
            runbook="decisions-late",
        )
    )


def _writes() -> Panel:
    return graph(
        Look(
            title="Written",
            description="Rows and decisions acknowledged a second; retries are batches that Kafka "
            "did not take the first time.",
            unit="cps",
            queries={
                "rows": f"sum(rate(governor_changelog_rows_total{{{J}}}{R}))",
                "{{kind}}": f"sum by (kind) (rate(governor_decision_records_total{{{J}}}{R}))",
                "retries": f"sum(rate(governor_produce_retries_total{{{J}}}{R}))",
            },
        )
    )


def _recovery() -> Panel:
    return graph(
        Look(
            title="Recovery",
            description="Share of the changelog that each worker has read of what it needs before "
            "it goes live; 1 when it is done.",
            unit="percentunit",
            queries={
                "{{instance}}": f"min by (instance) (governor_recovery_progress_ratio{{{J}}})"
            },
            warn=1,
            alarm=0.01,
            low_is_bad=True,
            runbook="recovery-stuck",
            most=1,
        )
    )


def _recovered() -> Panel:
    return graph(
        Look(
            title="Rows to read",
            description="Changelog records still to be read before going live, and how many a "
            "second are read, standbys included.",
            queries={
                "to read": f"sum(governor_recovery_remaining_records{{{J}}})",
                "read a second": f"sum(rate(governor_changelog_read_records_total{{{J}}}{R}))",
            },
            runbook="recovery-stuck",
        )
    )


def _held() -> Panel:
    return graph(
        Look(
            title="People in memory",
            description="Ids with a row, in live partitions and in copies of other workers'. "
            "Without copies a partition that loses its owner first has its rows read anew.",
            queries={
                "live": f"sum(governor_users{{{J}}})",
                "copies": f"sum(governor_standby_users{{{J}}})",
            },
        )
    )


def _entries() -> Panel:
    return graph(
        Look(
            title="Entries in memory",
            description="Exposures, engagements and controls that rows hold, in live partitions "
            "and in copies of other workers'. Memory and the changelog grow with them.",
            queries={
                "live": f"sum(governor_exposures_held{{{J}}})",
                "copies": f"sum(governor_standby_exposures_held{{{J}}})",
            },
        )
    )


def _reaches() -> Panel:
    return figure(
        Look(
            title="Workers that reach Kafka",
            description="None: Kafka is away, decisions wait, and nothing is lost.",
            queries={"workers": f"sum(governor_broker_reachable{{{J}}})"},
            warn=1,
            low_is_bad=True,
            runbook="not-progressing",
        )
    )


def _guards() -> Panel:
    return bars(
        Look(
            title="Guards",
            description="How often the ground was not what it was, by guard, in the time range "
            "shown; the worker's log says what to do.",
            queries={
                "{{guard}}": f"sum by (guard) (increase(governor_guard_total{{{J}}}[$__range])) > 0"
            },
        )
    )


def _memory() -> Panel:
    return graph(
        Look(
            title="Memory",
            description="Bytes of the ledgers' arrays, of what is remembered of published stops, "
            "and resident in all; of all workers together.",
            unit="bytes",
            queries={
                "resident": f"sum(process_resident_memory_bytes{{{J}}})",
                "ledgers": f"sum(governor_ledger_bytes{{{J}}})",
                "stops": f"sum(governor_told_bytes{{{J}}})",
            },
        )
    )


def _rows() -> Panel:
    return bars(
        Look(
            title="Rows by size",
            description="Rows by the entries that one has room for.",
            queries={"{{room}}": f"sort_desc(sum by (room) (governor_rows{{{J}}}) > 0)"},
        )
    )


def _overflow() -> Panel:
    return graph(
        Look(
            title="Overflow",
            description="Share of events that push another out of a full row: answers about it "
            "could be wrong. A few are bots; many: raise GOVERNOR_ROW_LIMIT.",
            unit="percentunit",
            queries={
                "overflow": f"sum(rate(governor_overflow_total{{{J}}}{R})) "
                f'/ (sum(rate(governor_events_total{{{J}, outcome="applied"}}{R})) > 0)'
            },
            warn=0.001,
            alarm=0.01,
            runbook="ledger-overflow",
        )
    )


def _dead() -> Panel:
    return graph(
        Look(
            title="Dead letters",
            description="Messages a second that are no events, by topic and reason.",
            unit="cps",
            queries={
                "{{topic}}: {{reason}}": "sum by (topic, reason) "
                f"(rate(governor_dead_letters_total{{{J}}}{R})) > 0"
            },
            runbook="dead-letters",
        )
    )


def _paused() -> Panel:
    return figure(
        Look(
            title="Topics held back",
            description="Topics that are not read because too many of their messages are no "
            "events.",
            queries={"topics": f"sum(max by (topic) (governor_paused{{{J}}}))"},
            alarm=1,
            runbook="dead-letters",
        )
    )


def _forwarded() -> Panel:
    return graph(
        Look(
            title="Sent on inside",
            description="Records a second that belong to another partition, by reason. Many "
            "misrouted ones: give producers keys and Kafka's default partitioner.",
            unit="cps",
            queries={"{{reason}}": f"sum by (reason) (rate(governor_forwarded_total{{{J}}}{R}))"},
        )
    )
