"""*Policy*: what each rule does, shadow against live."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.dashboards.panels import Look, Panel, bars, begin, figure, graph

__all__ = ["policy"]

J = 'job=~"$job"'
R = "[$__rate_interval]"


def policy() -> Dashboard:
    """The dashboard."""
    board = begin("Policy", "What each rule does, and what rules in shadow would do.")
    board = board.with_row(Row("What governs"))
    for panel in _governs():
        board = board.with_panel(panel)
    board = board.with_row(Row("What rules do"))
    board = board.with_panel(_live()).with_panel(_shadow())
    board = board.with_panel(_of_all()).with_panel(_both()).with_panel(_records())
    board = board.with_row(Row("What people say"))
    return board.with_panel(_said()).with_panel(_controls())


def _governs() -> list[Panel]:
    return [
        figure(
            Look(
                title="Version",
                description="As decisions name it; more than one only while workers take a new "
                "one over.",
                queries={"{{policy}}": f"count by (policy) (governor_policy_info{{{J}}})"},
                width=6,
                height=4,
            ),
            text=True,
        ),
        figure(
            Look(
                title="Rows still to evaluate",
                description="Under the version that governs; until then their decisions are those "
                "of the version before.",
                queries={"rows": f"sum(governor_policy_rows_left{{{J}}})"},
                warn=1,
                width=6,
                height=4,
            )
        ),
        figure(
            Look(
                title="Versions refused",
                description="On the policy topic, and of no use to workers; in the time range "
                "shown. The one before goes on: push one that can be used.",
                queries={
                    "refused": f"max(increase(governor_policy_refused_total{{{J}}}[$__range]))"
                },
                alarm=1,
                width=6,
                height=4,
            )
        ),
        figure(
            Look(
                title="Kill switch",
                description="1 while it is pulled: readers release what rules hold back. "
                "governor release --undo takes it back.",
                queries={"pulled": f"max(governor_released{{{J}}})"},
                alarm=1,
                width=6,
                height=4,
            )
        ),
    ]


def _by_rule(state: str) -> str:
    return f'sum by (rule) (rate(governor_decisions_total{{{J}, state="{state}"}}{R}))'


def _live() -> Panel:
    return graph(
        Look(
            title="Throttles, by rule",
            description="Published a second by rules that act; one throttle may rest on several.",
            unit="cps",
            queries={"{{rule}}": _by_rule("throttled")},
            width=12,
        )
    )


def _shadow() -> Panel:
    return graph(
        Look(
            title="What shadows would do",
            description="Throttles a second of rules in shadow: they are published with factor 1 "
            "and hold nobody back.",
            unit="cps",
            queries={"{{rule}}": _by_rule("shadow")},
            width=12,
        )
    )


def _of_all() -> Panel:
    return bars(
        Look(
            title="Throttles since the workers started",
            description="By rule and state: what each does compared with the others. A rule that "
            "does nothing is idle or made idle by a stricter one.",
            queries={
                "{{rule}}, {{state}}": "sort_desc(sum by (rule, state) "
                f"(governor_decisions_total{{{J}}}))"
            },
        )
    )


def _both() -> Panel:
    return graph(
        Look(
            title="Shadow against live",
            description="All rules that act and all in shadow.",
            unit="cps",
            queries={"{{state}}": f"sum by (state) (rate(governor_decisions_total{{{J}}}{R}))"},
        )
    )


def _records() -> Panel:
    return graph(
        Look(
            title="Decisions",
            description="Records a second on the decisions topic: published, or withdrawn because "
            "nothing holds any more.",
            unit="cps",
            queries={
                "{{kind}}": f"sum by (kind) (rate(governor_decision_records_total{{{J}}}{R}))"
            },
        )
    )


def _said() -> Panel:
    return graph(
        Look(
            title="Throttles that people asked for",
            description="Opt-outs, hidden ads and refused consent, published a second. Many more "
            "than usual: look at what was launched.",
            unit="cps",
            queries={
                "{{rule}}": f"sum by (rule) (rate(governor_decisions_total{{{J}, "
                f'rule=~"opt_out|hide|consent"}}{R}))'
            },
            width=12,
        )
    )


def _controls() -> Panel:
    return graph(
        Look(
            title="Controls",
            description="What came a second on the topic of controls, by what became of it.",
            unit="cps",
            queries={
                "{{outcome}}": "sum by (outcome) "
                f'(rate(governor_events_total{{{J}, topic="controls"}}{R}))'
            },
            width=12,
        )
    )
