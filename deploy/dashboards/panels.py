"""What the dashboards are made of: one look, and the same variables and links on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

__all__ = ["Look", "Panel", "bars", "begin", "figure", "graph"]

Panel = Builder[model.Panel]

P = TypeVar("P", stat.Panel, timeseries.Panel, bargauge.Panel)

RUNBOOKS = "/public/runbooks"
"""Where docs/runbooks is served; the dashboards have it as the variable `runbooks`.

In deploy/compose.yaml Grafana itself serves it; `make runbooks AT=...` puts another address here.
"""

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, RED = "green", "#EAB839", "red"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What every panel says of itself."""

    title: str
    description: str
    """What it shows, and what to do when it is not as it should be."""
    unit: str = "short"
    queries: Mapping[str, str]
    """Expressions by the legend of their series."""
    warn: float | None = None
    alarm: float | None = None
    """From here on it is yellow, and red. Where `low_is_bad`, below."""
    low_is_bad: bool = False
    runbook: str | None = None
    width: int = 8
    height: int = 8
    most: float | None = None

    @property
    def thresholds(self) -> Builder[model.ThresholdsConfig]:
        """The colours."""
        if self.low_is_bad:
            steps = [(None, RED), (self.alarm, YELLOW), (self.warn, GREEN)]
        else:
            steps = [(None, GREEN), (self.warn, YELLOW), (self.alarm, RED)]
        return (
            build.ThresholdsConfig()
            .mode(model.ThresholdsMode.ABSOLUTE)
            .steps(
                [
                    model.Threshold(value=value, color=colour)
                    for i, (value, colour) in enumerate(steps)
                    if i == 0 or value is not None
                ]
            )
        )

    @property
    def links(self) -> list[Builder[model.DashboardLink]]:
        """The runbook, where there is one."""
        if self.runbook is None:
            return []
        link = build.DashboardLink(f"Runbook: {self.runbook}")
        url = f"${{runbooks}}/{self.runbook}.md"
        return [link.type(model.DashboardLinkType.LINK).url(url).target_blank(True)]


def _described(panel: P, look: Look) -> P:
    panel = (
        panel.title(look.title)
        .description(look.description)
        .datasource(SOURCE)
        .unit(look.unit)
        .thresholds(look.thresholds)
        .links(look.links)
        .span(look.width)
        .height(look.height)
        .no_value("nothing yet")
        .min(0)
    )
    if look.most is not None:
        panel = panel.max(look.most)
    return panel


def _queries(look: Look) -> list[Dataquery]:
    return [
        Dataquery().expr(expression).legend_format(legend).ref_id(letter)
        for letter, (legend, expression) in zip(ascii_uppercase, look.queries.items(), strict=False)
    ]


def graph(look: Look, *, stacked: bool = False) -> timeseries.Panel:
    """Lines over time."""
    panel = _described(timeseries.Panel(), look).line_width(1).fill_opacity(30 if stacked else 8)
    legend = common.VizLegendOptions().show_legend(True)
    panel = panel.legend(
        legend.display_mode(common_model.LegendDisplayMode.LIST)
        .placement(common_model.LegendPlacement.BOTTOM)
        .calcs([])
    )
    if stacked:
        mode = common.StackingConfig().mode(common_model.StackingMode.NORMAL)
        panel = panel.stacking(mode)
    if look.warn is not None or look.alarm is not None:
        style = common.GraphThresholdsStyleConfig()
        panel = panel.thresholds_style(style.mode(common_model.GraphTresholdsStyleMode.DASHED))
    return panel.targets([query.range() for query in _queries(look)])


def figure(look: Look, *, text: bool = False) -> stat.Panel:
    """The present value, large; with ``text`` the name of the series instead."""
    panel = _described(stat.Panel(), look).graph_mode(common_model.BigValueGraphMode.NONE)
    panel = panel.color_mode(common_model.BigValueColorMode.VALUE)
    if text:
        panel = panel.text_mode(common_model.BigValueTextMode.NAME)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.targets([query.instant() for query in _queries(look)])


def bars(look: Look) -> bargauge.Panel:
    """The present values as bars, one a series."""
    panel = _described(bargauge.Panel(), look)
    panel = panel.orientation(common_model.VizOrientation.HORIZONTAL)
    panel = panel.display_mode(common_model.BarGaugeDisplayMode.BASIC)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.targets([query.instant() for query in _queries(look)])


def begin(name: str, description: str, *, campaign: bool = False) -> build.Dashboard:
    """A dashboard without panels: variables, and links to the others."""
    dashboard = (
        build.Dashboard(f"Governor: {name}")
        .uid(f"governor-{name.lower()}")
        .description(description)
        .tags(["governor", "generated"])
        .readonly()
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("Governor")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["governor"])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            build.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(_labels("job", "Job", "governor_build_info", "job"))
    )
    if campaign:
        metric = "governor_fatigue_coverage_ratio"
        dashboard = dashboard.with_variable(_labels("campaign", "Campaign", metric, "campaign"))
    runbooks = build.ConstantVariable("runbooks").label("Runbooks").value(RUNBOOKS)
    return dashboard.with_variable(runbooks)


def _labels(name: str, label: str, metric: str, of: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {of})")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
    )
