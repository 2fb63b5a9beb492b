"""What the demo shows while it runs, drawn with rich."""

from __future__ import annotations

import io
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streams.demo_sample import Exposure, Page
from streams.demo_tally import Episode, Tally
from streams.demo_words import again, clock, days_between, limit, moment, percent
from streams.demo_worker import Figures

__all__ = ["Scene", "draw", "line", "save"]

PEOPLE = 7
HELD = 6
WIDTH = 110


@dataclass
class Scene:
    """All that the view shows."""

    first: int
    """Event time at which the stream begins; epoch seconds."""
    last: int
    tally: Tally
    now: float = 0
    """Event time reached."""
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By user, the last record on the decisions topic."""
    figures: Figures = field(default_factory=Figures)
    rate: float = 0
    """Events a second that the worker handled, of late."""
    held: deque[tuple[Exposure, int, Episode]] = field(default_factory=lambda: deque(maxlen=HELD))
    """The latest that was in excess: how many times it was shown by then, and of which limit."""

    def show(self, page: Page) -> None:
        """A page view happens."""
        self.now = page[0].ts
        excess = self.tally.add(page)
        if excess:
            items = self.tally.people[page[0].user].items
            one, found = max(excess, key=lambda each: items[each[0].item])
            self.held.append((one, items[one.item], max(found, key=lambda each: each.until)))

    @property
    def resting(self) -> dict[str, list[Mapping[str, Any]]]:
        """By user, the throttles in force at the time reached, as the topic says."""
        found = {
            user: [one for one in record["throttles"] if one["until"] > self.now]
            for user, record in self.decisions.items()
        }
        return {user: throttles for user, throttles in found.items() if throttles}


def draw(scene: Scene) -> RenderableType:
    """The whole view."""
    tiles = Table.grid(expand=True, padding=0)
    for ratio in (31, 37, 38):
        tiles.add_column(ratio=ratio)
    tiles.add_row(
        _panel("Exposures", _exposures(scene), "cyan"),
        _panel("Resting now, on the topic", _resting(scene), "yellow"),
        _panel("Clicks per exposure", _rates(scene), "green"),
    )
    return Group(
        _panel("Retargeting governor: real people on a news site", _progress(scene), "blue"),
        tiles,
        _panel("The people most pursued", _people(scene), "magenta"),
        _panel(
            "After a cap was reached: what a server that asks would have held back",
            _held(scene),
            "red",
        ),
        _worker(scene),
    )


def line(scene: Scene) -> str:
    """The view in one line, where there is no terminal."""
    tally, resting = scene.tally, scene.resting
    return (
        f"{moment(scene.now)}: {tally.exposures:,} exposures; "
        f"{sum(map(len, resting.values())):,} throttles in force on {len(resting)} people; "
        f"{tally.excess:,} exposures after a cap was reached ({percent(tally.share)}); "
        f"{scene.rate:,.0f} events/s"
    )


def save(scene: Scene, file: Path) -> None:
    """Write the view as SVG that loads nothing from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(draw(scene))
    svg = console.export_svg(title="governor demo")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    file.write_text(svg.replace("Fira Code, monospace", "Fira Code, Menlo, Consolas, monospace"))


def _panel(title: str, inside: RenderableType, colour: str) -> Panel:
    return Panel(
        inside,
        title=f"[bold {colour}]{title}[/]",
        title_align="left",
        border_style=colour,
        box=box.ROUNDED,
        padding=(0, 1),
    )


def _progress(scene: Scene) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    day, days = (days_between(scene.first, until) for until in (scene.now, scene.last))
    grid.add_row(
        f"[bold]{moment(scene.now)}[/]",
        ProgressBar(
            total=scene.last - scene.first,
            completed=scene.now - scene.first,
            complete_style="blue",
            finished_style="blue",
        ),
        f"day {day} of {days}, {len(scene.tally.people)} people",
    )
    return grid


def _facts(rows: list[tuple[str, str]]) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(justify="right", style="bold", no_wrap=True, width=7)
    grid.add_column(ratio=1, no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid


def _exposures(scene: Scene) -> Table:
    tally = scene.tally
    return _facts(
        [
            (f"{tally.exposures:,}", "so far"),
            (f"{tally.excess:,}", f"after a cap ([bold]{percent(tally.share)}[/])"),
            (f"{tally.clicks:,}", "clicks"),
        ]
    )


def _resting(scene: Scene) -> Table:
    resting = scene.resting
    labels = [one["label"] for throttles in resting.values() for one in throttles]
    site = labels.count("user")
    return _facts(
        [
            (f"{len(labels):,}", "throttles in force"),
            (f"{len(resting):,}", "people who rest"),
            (f"{site:,}", "from the whole site"),
        ]
    )


def _rates(scene: Scene) -> RenderableType:
    tally = scene.tally
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, width=14)
    grid.add_column(justify="right", style="bold", no_wrap=True, ratio=1)
    top = max(tally.rate_before, tally.rate_after)
    for name, rate, colour in (
        ("before a cap", tally.rate_before, "green"),
        ("after it", tally.rate_after, "red"),
    ):
        grid.add_row(name, _bar(rate, top, 14, colour), percent(rate))
    return Group(grid, Text("partly selection: see the summary", style="dim", no_wrap=True))


def _bar(value: float, top: float, width: int, colour: str) -> Text:
    """A bar in eighths of a character."""
    eighths = round(8 * width * value / top) if top else 0
    return Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style=colour)


def _people(scene: Scene) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    table.add_column("user", style="bold", no_wrap=True)
    for heading in ("exposures", "clicks", "after a cap"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, width=10)
    table.add_column("article most shown", no_wrap=True)
    table.add_column("rests from", no_wrap=True, ratio=1)
    people = sorted(scene.tally.people.values(), key=lambda one: (-one.excess, -one.exposures))
    most = max((one.excess for one in people), default=0)
    resting = scene.resting
    for person in people[:PEOPLE]:
        item, times = person.items.most_common(1)[0]
        table.add_row(
            person.user,
            f"{person.exposures:,}",
            f"{person.clicks:,}",
            f"{person.excess:,}",
            _bar(person.excess, most, 10, "magenta"),
            f"{item}, {times} times",
            _rests(resting.get(person.user, [])),
        )
    for _ in range(PEOPLE - len(people)):
        table.add_row("")
    return table


def _rests(throttles: list[Mapping[str, Any]]) -> Text:
    if not throttles:
        return Text("nothing", style="dim")
    last = clock(max(one["until"] for one in throttles))
    if any(one["label"] == "user" for one in throttles):
        return Text("the whole site", style="bold yellow")
    articles = "1 article" if len(throttles) == 1 else f"{len(throttles)} articles"
    return Text(f"{articles}, until {last}", style="yellow")


def _held(scene: Scene) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1), header_style="dim")
    table.add_column("at", justify="right", no_wrap=True, width=12)
    table.add_column("user", style="bold", no_wrap=True)
    table.add_column("was shown", no_wrap=True)
    table.add_column("the cap of", no_wrap=True)
    table.add_column("was reached", justify="right", no_wrap=True)
    table.add_column("free again", justify="right", no_wrap=True, style="yellow")
    for one, times, episode in scene.held:
        table.add_row(
            clock(one.ts),
            one.user,
            f"{one.item} for the {again(times)} time",
            limit(episode.rule),
            clock(episode.reached),
            clock(episode.until),
        )
    for _ in range(HELD - len(scene.held)):
        table.add_row("")
    return table


def _worker(scene: Scene) -> Text:
    figures = scene.figures
    parts = [
        f"{scene.rate:,.0f} events/s",
        f"{figures.published:,} decisions out, {figures.withdrawn:,} withdrawn",
    ]
    if figures.half is not None and figures.most is not None:
        parts.append(
            f"event to decision: 50% in {1000 * figures.half:,.0f} ms, "
            f"99% in {1000 * figures.most:,.0f} ms"
        )
    return Text("  worker: " + " · ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")
