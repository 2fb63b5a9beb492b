"""Pictures of the dashboards, drawn from what a Prometheus answers to their own queries.

``python -m deploy.dashboards.pictures URL SECONDS FOLDER [NAME...]`` draws the last so many seconds
of some dashboards, or of all.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deploy.dashboards.questions import FOLDER, Prometheus, filled

__all__ = ["NAMES", "draw"]

NAMES = ("overview", "fatigue", "pipeline", "policy")

COLUMNS, CELL_WIDTH, CELL_HEIGHT = 24, 0.58, 0.27
"""Of Grafana's grid, and inches of one cell."""
STEPS = 150
MOST_LINES = 9
COLOURS = ("#73BF69", "#F2CC0C", "#5794F2", "#FF9830", "#F2495C", "#8AB8FF", "#B877D9", "#C4A000")
INK, PAPER, PANEL, FAINT = "#D8D9DA", "#111217", "#181B1F", "#2C3235"
DPI = 80


def draw(
    server: Prometheus, begin: float, end: float, folder: Path, names: Iterable[str] = NAMES
) -> None:
    """Draw some dashboards of a time in epoch seconds, one PNG each."""
    mpl.rcParams["font.size"] = 7.5
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        board = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        _draw_board(board, server, begin, end).savefig(
            folder / f"{name}.png", dpi=DPI, facecolor=PAPER
        )


def _draw_board(board: Mapping[str, Any], server: Prometheus, begin: float, end: float) -> Figure:
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    figure = Figure(figsize=(COLUMNS * CELL_WIDTH, rows * CELL_HEIGHT))
    for panel in board["panels"]:
        place = panel["gridPos"]
        top = 1 - place["y"] / rows
        if panel["type"] == "row":
            figure.text(
                0.006, top - 0.6 / rows, panel["title"], color=INK, weight="bold", va="center"
            )
            continue
        left, width = place["x"] / COLUMNS, place["w"] / COLUMNS
        height = place["h"] / rows
        _frame(figure, panel["title"], left, top, width, height, rows)
        inner = (left + 0.04, top - height + 2.0 / rows, width - 0.052, height - 3.4 / rows)
        axes = figure.add_axes(inner, facecolor=PANEL)
        _draw_panel(axes, panel, server, begin, end)
    return figure


def _frame(
    figure: Figure, title: str, left: float, top: float, width: float, height: float, rows: int
) -> None:
    gap = 0.15 / rows
    axes = figure.add_axes(
        (left + 0.002, top - height + gap, width - 0.004, height - 2 * gap), facecolor=PANEL
    )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    figure.text(left + 0.008, top - 0.75 / rows, title, color=INK, va="center")


def _draw_panel(
    axes: Axes, panel: Mapping[str, Any], server: Prometheus, begin: float, end: float
) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(colors=INK, length=0, labelsize=6.5)
    if panel["type"] == "timeseries":
        _draw_lines(axes, panel, server, begin, end)
    elif panel["type"] == "stat":
        _draw_number(axes, panel, server, begin, end)
    else:
        _draw_bars(axes, panel, server, begin, end)


def _draw_lines(
    axes: Axes, panel: Mapping[str, Any], server: Prometheus, begin: float, end: float
) -> None:
    lines = []
    for target in panel["targets"]:
        expression = filled(target["expr"], window=max(4.0, (end - begin) / 40))
        for labels, points in server.over(expression, begin, end, (end - begin) / STEPS):
            sound = [(at - begin, value) for at, value in points if math.isfinite(value)]
            if sound:
                lines.append((_legend(target["legendFormat"], labels), sound))
    lines.sort(key=lambda line: -max(value for _, value in line[1]))
    for i, (legend, points) in enumerate(lines[:MOST_LINES]):
        colour = COLOURS[i % len(COLOURS)]
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=colour, linewidth=1, label=legend)
        axes.fill_between(xs, ys, color=colour, alpha=0.08)
    axes.set_xlim(0, end - begin)
    axes.set_ylim(bottom=0)
    if not lines:
        _say_nothing(axes)
        return
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] and step["value"] < axes.get_ylim()[1]:
            axes.axhline(step["value"], color="#F2495C", linewidth=0.7, linestyle="--")
    axes.grid(color=FAINT, linewidth=0.5)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0f} s")
    axes.yaxis.set_major_formatter(lambda y, _: _written(y, unit))
    axes.locator_params(axis="y", nbins=5)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=5,
        fontsize=6,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        columnspacing=1,
    )


def _draw_number(
    axes: Axes, panel: Mapping[str, Any], server: Prometheus, begin: float, end: float
) -> None:
    axes.axis("off")
    (target,) = panel["targets"]
    found = server.now(filled(target["expr"], window=end - begin), end)
    if not found:
        _say_nothing(axes)
        return
    defaults = panel["fieldConfig"]["defaults"]
    if panel["options"]["textMode"] == "name":
        text = ", ".join(sorted(_legend(target["legendFormat"], labels) for labels, _ in found))
        colour = COLOURS[0]
    else:
        value = found[0][1]
        text, colour = _written(value, defaults["unit"]), COLOURS[0]
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is None or value >= step["value"]:
                colour = {"green": COLOURS[0], "red": COLOURS[4]}.get(step["color"], step["color"])
    axes.text(0.45, 0.5, text, color=colour, fontsize=20, ha="center", va="center")


def _draw_bars(
    axes: Axes, panel: Mapping[str, Any], server: Prometheus, begin: float, end: float
) -> None:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    bars = [
        (_legend(target["legendFormat"], labels), value)
        for target in panel["targets"]
        for labels, value in server.now(filled(target["expr"], window=end - begin), end)
        if math.isfinite(value)
    ]
    axes.set_xticks([])
    if not bars:
        axes.set_yticks([])
        _say_nothing(axes)
        return
    if all(name.isdigit() for name, _ in bars):
        bars.sort(key=lambda bar: int(bar[0]))
    bars = bars[:MOST_LINES][::-1]
    names, numbers = [name for name, _ in bars], [value for _, value in bars]
    axes.barh(range(len(bars)), numbers, color=COLOURS[0], height=0.75, alpha=0.55)
    axes.set_yticks([])
    axes.set_xlim(0, 1.05 * max(*numbers, 1e-9))
    for i, (name, value) in enumerate(zip(names, numbers, strict=True)):
        axes.text(0, i, f" {name}: {_written(value, unit)}", color="white", va="center")
    axes.set_ylim(-0.6, max(len(bars), 4) - 0.4)


def _say_nothing(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(
        0.5, 0.5, "nothing yet", color="#6E7177", ha="center", va="center", transform=axes.transAxes
    )


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern)


def _written(value: float, unit: str) -> str:
    """A value as Grafana writes it, or nearly."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 and value else f"{value:.3g} s"
    suffix = {"cps": "/s"}.get(unit, "")
    scales: tuple[tuple[float, str], ...] = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    if unit == "bytes":
        scales = ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))
    for size, letter in scales:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}{suffix}"
    return f"{value:.3g}{suffix}"


if __name__ == "__main__":
    url, seconds, into, *chosen = sys.argv[1:]
    moment = time.time()
    draw(Prometheus(url), moment - float(seconds), moment, Path(into), chosen or NAMES)
