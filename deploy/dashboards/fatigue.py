"""*Fatigue*: curves, alarms, coverage, rests, holdout."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.dashboards.panels import Look, Panel, bars, begin, figure, graph

__all__ = ["fatigue"]

J = 'job=~"$job"'
C = f'{J}, campaign=~"$campaign"'
R = "[$__rate_interval]"
F = "governor_fatigue"


def fatigue() -> Dashboard:
    """The dashboard."""
    board = begin(
        "Fatigue",
        "How ads wear: engagement by the number of exposures, and what was done about it. The "
        'campaign "*" is all together.',
        campaign=True,
    )
    board = board.with_row(Row("Wear"))
    board = board.with_panel(_curve()).with_panel(_over_time())
    board = board.with_row(Row("What is done about it"))
    board = board.with_panel(_alarmed()).with_panel(_alarms()).with_panel(_rests())
    board = board.with_row(Row("What it rests on"))
    board = board.with_panel(_coverage()).with_panel(_arms()).with_panel(_identified())
    return board.with_panel(_campaigns())


def _curve() -> Panel:
    return bars(
        Look(
            title="Engagement by depth",
            description="Engagement at a person's n-th exposure to a campaign, relative to the "
            "first, selection taken out: the mean of the campaigns chosen. 1 is no wear.",
            unit="percentunit",
            queries={
                "{{depth}}": f"sort_desc(avg by (depth) "
                f"({F}_relative_engagement_ratio{{{C}}} >= 0))"
            },
            width=12,
            most=1.5,
        )
    )


def _over_time() -> Panel:
    deep = f'{{{C}, depth="8"}}'
    return graph(
        Look(
            title="Engagement at the eighth exposure",
            description="Relative to the first, with the interval in which it lies; by campaign. "
            "Falling curves wear faster than they did.",
            unit="percentunit",
            queries={
                "{{campaign}}": f"max by (campaign) ({F}_relative_engagement_ratio{deep})",
                "{{campaign}}, at least": f"max by (campaign) "
                f"({F}_relative_engagement_low_ratio{deep})",
                "{{campaign}}, at most": f"max by (campaign) "
                f"({F}_relative_engagement_high_ratio{deep})",
            },
            width=12,
        )
    )


def _alarmed() -> Panel:
    return bars(
        Look(
            title="Campaigns that wear worse than usual",
            description="Those whose alarm stands.",
            queries={"{{campaign}}": f'max by (campaign) ({F}_alarmed{{{C}, campaign!="*"}}) == 1'},
            alarm=1,
            runbook="fatigue-alarm",
        )
    )


def _alarms() -> Panel:
    return figure(
        Look(
            title="Alarms",
            description="Raised in the time range shown, of all campaigns.",
            queries={"alarms": f"sum(increase({F}_alarms_total{{{J}}}[$__range]))"},
            alarm=1,
            runbook="fatigue-alarm",
        )
    )


def _rests() -> Panel:
    return graph(
        Look(
            title="Rests",
            description="Throttles published a second because a person tires of something.",
            unit="cps",
            queries={"rests": f"sum(rate({F}_rests_total{{{J}}}{R}))"},
        )
    )


def _coverage() -> Panel:
    return graph(
        Look(
            title="Coverage",
            description="Share of exposures at which an engagement could have been seen. What is "
            "not seen is neither a success nor a failure: low coverage makes curves of less.",
            unit="percentunit",
            queries={"{{campaign}}": f"max by (campaign) ({F}_coverage_ratio{{{C}}} >= 0)"},
            warn=0.5,
            alarm=0.2,
            low_is_bad=True,
            runbook="coverage-collapsed",
            most=1,
        )
    )


def _arms() -> Panel:
    return graph(
        Look(
            title="Engagement, governed and held out",
            description="Engagements an exposure of people whom soft rules govern and of those "
            "held out from them. Governed people should engage more: what they are spared did "
            "nothing.",
            unit="percentunit",
            queries={
                "{{arm}}": f"sum by (arm) (rate({F}_engagements_total{{{J}}}{R})) "
                f"/ (sum by (arm) (rate({F}_exposures_total{{{J}}}{R})) > 0)"
            },
        )
    )


def _identified() -> Panel:
    return figure(
        Look(
            title="Curves that can be told from selection",
            description="Share of the campaigns chosen. Of the others no method could tell whether "
            "people tire or those who engage leave.",
            unit="percentunit",
            queries={
                "identified": f'avg(max by (campaign) ({F}_identified{{{C}, campaign!="*"}}))'
            },
            width=4,
        )
    )


def _campaigns() -> Panel:
    return figure(
        Look(
            title="Campaigns with a curve",
            description="Only the fifty that are shown most have series of their own.",
            queries={"campaigns": f"max({F}_campaigns{{{J}}})"},
            width=4,
        )
    )
