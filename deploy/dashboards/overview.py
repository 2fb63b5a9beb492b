"""*Overview*: is it healthy, what does it hold back, is it obeyed."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.dashboards.panels import Look, Panel, begin, figure, graph

__all__ = ["overview"]

J = 'job=~"$job"'
R = "[$__rate_interval]"


def overview() -> Dashboard:
    """The dashboard."""
    board = begin("Overview", "Is it healthy, what does it hold back, is it obeyed?")
    board = board.with_row(Row("Is it healthy?"))
    for panel in _health():
        board = board.with_panel(panel)
    board = board.with_panel(_traffic()).with_panel(_staleness()).with_panel(_latency())
    board = board.with_row(Row("What does it hold back?"))
    board = board.with_panel(_people()).with_panel(_held_back()).with_panel(_near())
    board = board.with_row(Row("Is it obeyed?"))
    return board.with_panel(_overshoot()).with_panel(_how_late()).with_panel(_against())


def _health() -> list[Panel]:
    return [
        figure(
            Look(
                title="Workers ready",
                description="Workers that have their partitions and the rows of them. Below the "
                "number that was started: look at the runbook.",
                queries={"ready": f"sum(governor_ready{{{J}}})"},
                warn=1,
                low_is_bad=True,
                runbook="not-progressing",
                width=6,
                height=4,
            )
        ),
        figure(
            Look(
                title="Standing still",
                description="For how long the worker that is worst has done nothing although "
                "something was due. After GOVERNOR_STALL_TIMEOUT its /healthz fails.",
                unit="s",
                queries={"seconds": f"max(governor_stalled_seconds{{{J}}})"},
                warn=30,
                alarm=60,
                runbook="not-progressing",
                width=6,
                height=4,
            )
        ),
        figure(
            Look(
                title="Alerts that fire",
                description="Alerts of deploy/prometheus/rules.yaml; each has a runbook.",
                queries={
                    "alerts": f'count(ALERTS{{alertstate="firing", alertname=~"Governor.*", {J}}}) '
                    "or vector(0)"
                },
                warn=1,
                alarm=1,
                width=6,
                height=4,
            )
        ),
        figure(
            Look(
                title="Policy",
                description="The version that governs, as decisions name it; more than one only "
                "while workers take a new one over.",
                queries={"{{policy}}": f"count by (policy) (governor_policy_info{{{J}}})"},
                width=6,
                height=4,
            ),
            text=True,
        ),
    ]


def _traffic() -> Panel:
    return graph(
        Look(
            title="Events",
            description="Messages read a second, by topic.",
            unit="cps",
            queries={"{{topic}}": f"sum by (topic) (rate(governor_events_total{{{J}}}{R}))"},
        ),
        stacked=True,
    )


def _staleness() -> Panel:
    return graph(
        Look(
            title="How far behind",
            description="The age of the newest record dealt with, where others wait, by topic. "
            "While it is high, people are shown what they should not be shown any more.",
            unit="s",
            queries={"{{topic}}": f"max by (topic) (governor_staleness_seconds{{{J}}})"},
            warn=10,
            alarm=60,
            runbook="decisions-late",
        )
    )


def _latency() -> Panel:
    buckets = f"sum by (le) (rate(governor_event_to_decision_seconds_bucket{{{J}}}{R}))"
    return graph(
        Look(
            title="From event to decision",
            description="From a record's timestamp to the acknowledgement of the decisions that it "
            "led to.",
            unit="s",
            queries={
                "half": f"histogram_quantile(0.5, {buckets})",
                "99%": f"histogram_quantile(0.99, {buckets})",
            },
            warn=5,
            alarm=30,
            runbook="decisions-late",
        )
    )


def _people() -> Panel:
    return graph(
        Look(
            title="People held back",
            description="Share of people whom something holds back now. It changes with policy "
            "and traffic; when it falls to nothing, or doubles, somebody is called.",
            unit="percentunit",
            queries={
                "held back": f"sum(governor_throttled_users{{{J}}}) "
                f"/ (sum(governor_users{{{J}}}) > 0)"
            },
            runbook="throttled-share",
            most=1,
        )
    )


def _held_back() -> Panel:
    return graph(
        Look(
            title="Share of traffic held back",
            description="The same, people weighted by the exposures that they had: what of the "
            "traffic belongs to people who are held back from something.",
            unit="percentunit",
            queries={
                "held back": f"sum(governor_throttled_exposures_held{{{J}}}) "
                f"/ (sum(governor_exposures_held{{{J}}}) > 0)"
            },
            runbook="throttled-share",
            most=1,
        )
    )


def _near() -> Panel:
    return graph(
        Look(
            title="People near a limit",
            description="People who reach a cap with their next exposure. It rises before the "
            "share that is held back does.",
            unit="short",
            queries={"near": f"sum(governor_near_limit_users{{{J}}})"},
        )
    )


def _overshoot() -> Panel:
    return graph(
        Look(
            title="Shown against a decision",
            description="Share of impressions shown although Kafka had held a decision that said "
            "stop for longer than GOVERNOR_OVERSHOOT_GRACE. Above one percent: an ad server does "
            "not read decisions, or does not obey them.",
            unit="percentunit",
            queries={
                "overshoot": f"sum(rate(governor_overshoot_seconds_count{{{J}}}{R})) "
                f'/ (sum(rate(governor_events_total{{{J}, topic="impressions", '
                f'outcome="applied"}}{R})) > 0)'
            },
            warn=0.005,
            alarm=0.01,
            runbook="overshoot-rising",
        )
    )


def _how_late() -> Panel:
    buckets = f"sum by (le) (rate(governor_overshoot_seconds_bucket{{{J}}}{R}))"
    return graph(
        Look(
            title="How long after it",
            description="How long after the decision these exposures came. Seconds: a cache that "
            "is refreshed too seldom. Hours: a server that does not read decisions at all.",
            unit="s",
            queries={
                "half": f"histogram_quantile(0.5, {buckets})",
                "95%": f"histogram_quantile(0.95, {buckets})",
            },
            runbook="overshoot-rising",
        )
    )


def _against() -> Panel:
    return figure(
        Look(
            title="Exposures against a decision",
            description="In the time range shown.",
            queries={
                "exposures": f"sum(increase(governor_overshoot_seconds_count{{{J}}}[$__range]))"
            },
            runbook="overshoot-rising",
        )
    )
