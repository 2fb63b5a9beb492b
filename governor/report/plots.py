"""Plots as inline SVG. Colours are classes, so that the page's style sheet decides on them.

A plot is some 360 units wide, about as many pixels as a phone shows, so that its texts are
readable there and on a desk alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from governor.fatigue.curves import Depth
from governor.replay.tallying import CampaignFound, Frontier, PolicyFound, Watched
from governor.report.moments import named

__all__ = ["coverage", "curve", "frontier", "rules", "timeline"]

WIDTH, HEIGHT = 360.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 12.0, 36.0


@dataclass
class Axes:
    """A plot with linear axes."""

    x_from: float
    x_to: float
    y_from: float
    y_to: float
    height: float = HEIGHT
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Where a value lies."""
        span = (self.x_to - self.x_from) or 1.0
        return LEFT + (value - self.x_from) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies; those outside are drawn at the edge."""
        span = (self.y_to - self.y_from) or 1.0
        part = min(1.0, max(0.0, (value - self.y_from) / span))
        return self.height - BOTTOM - part * (self.height - TOP - BOTTOM)

    def grid(
        self,
        xs: Iterable[tuple[float, str]],
        ys: Iterable[tuple[float, str]],
        x_title: str,
        y_title: str,
    ) -> None:
        """Lines, numbers and titles."""
        for value, text in ys:
            at = self.y(value)
            self.add(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" '
                     f'y2="{at:.1f}"/>')  # fmt: skip
            self.text(LEFT - 5, at + 4, text, "end")
        for value, text in xs:
            self.text(self.x(value), self.height - BOTTOM + 15, text, "middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 4, x_title, "middle", "title")
        middle = (self.height - BOTTOM + TOP) / 2
        self.add(
            f'<text class="title" text-anchor="middle" '
            f'transform="translate(10 {middle:.0f}) rotate(-90)">{escape(y_title)}</text>'
        )

    def add(self, part: str) -> None:
        """Add an element."""
        self.parts.append(part)

    def text(self, x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> None:
        """Add a text."""
        self.add(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
                 f"{escape(text)}</text>")  # fmt: skip

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """Add a line, interrupted where a value is not finite."""
        path, pen = [], "M"
        for x, y in points:
            if math.isfinite(y):
                path.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        if path:
            self.add(f'<path class="{kind}" d="{" ".join(path)}"/>')

    def band(self, points: Sequence[tuple[float, float, float]], kind: str) -> None:
        """Add the area between a low and a high line."""
        some = [point for point in points if math.isfinite(point[1]) and math.isfinite(point[2])]
        if len(some) > 1:
            upper = [f"{self.x(x):.1f} {self.y(high):.1f}" for x, _, high in some]
            lower = [f"{self.x(x):.1f} {self.y(low):.1f}" for x, low, _ in reversed(some)]
            self.add(f'<path class="{kind}" d="M{" L".join(upper + lower)} Z"/>')

    def dots(self, points: Iterable[tuple[float, float, str]], kind: str, radius: float) -> None:
        """Add dots, each with a text that shows when it is pointed at."""
        for x, y, told in points:
            if math.isfinite(y):
                self.add(f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" '
                         f'r="{radius}"><title>{escape(told)}</title></circle>')  # fmt: skip

    def svg(self, described: str) -> str:
        """The whole, with what it shows in words for those who do not see it."""
        return (
            f'<svg viewBox="0 0 {WIDTH:.0f} {self.height:.0f}" role="img" '
            f'aria-label="{escape(described)}">{"".join(self.parts)}</svg>'
        )


def curve(campaign: CampaignFound) -> str:
    """What the n-th exposure gives relative to the first: estimate, band, naive, and the truth."""
    lines = [one for one in campaign.depths if one.exposures > 0]
    if not lines:
        return ""
    last = lines[-1].depth
    highest = [1.0, *(one.estimate for one in lines), *campaign.truth]
    highest += [one.naive for one in lines if math.isfinite(one.naive) and one.exposures >= 100]
    top = min(3.0, max(1.2, 1.1 * max(one for one in highest if math.isfinite(one))))
    plot = Axes(1, max(2, last), 0, top)
    step = 0.25 if top <= 1.5 else 0.5
    plot.grid(
        ((one.depth, _depth(one.depth, last)) for one in lines),
        ((k * step, f"{k * step:.0%}") for k in range(int(top / step) + 1)),
        "exposure of a person to the campaign",
        "engagement, first = 100%",
    )
    kind = "" if campaign.identified else " unsure"
    plot.band([(one.depth, one.low, one.high) for one in lines], f"band{kind}")
    plot.line([(1, 1.0), (last, 1.0)], "one")
    plot.line([(one.depth, one.naive) for one in lines], "naive")
    if campaign.truth:
        plot.line(list(enumerate(campaign.truth[:last], 1)), "truth")
    plot.line([(one.depth, one.estimate) for one in lines], f"estimate{kind}")
    told = ((one.depth, one.estimate, _told(one, last)) for one in lines)
    plot.dots(told, f"dot{kind}", 3)
    return plot.svg(f"Engagement with {campaign.label} by exposure, relative to the first")


def _told(one: Depth, last: int) -> str:
    return (
        f"exposure {_depth(one.depth, last)}: {one.estimate:.0%} of the first "
        f"({one.low:.0%} to {one.high:.0%}); naive {_percent(one.naive)}; "
        f"{one.exposures:,} exposures, {one.engagements:,} engagements"
    )


def _depth(depth: int, last: int) -> str:
    return f"{depth}+" if depth == last and last >= 12 else str(depth)


def _percent(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "unknown"


def frontier(points: Sequence[Frontier], policies: Sequence[PolicyFound], rule: str) -> str:
    """Exposures held back against engagements kept, of caps and of policies."""
    caps = [
        (one.held / max(1, one.exposures), 1 - one.lost / max(1, one.engagements), one.cap)
        for one in points
    ]
    mine = [(one.saved, 1 - one.cost, one.name) for one in policies]
    xs = [x for x, _, _ in caps] + [x for x, _, _ in mine]
    ys = [y for _, y, _ in caps] + [y for _, y, _ in mine]
    right = min(1.0, max([0.1, *xs]) * 1.08)
    bottom = max(0.0, min([0.9, *ys]) - 0.05)
    bottom = math.floor(bottom * 10) / 10
    plot = Axes(0, right, bottom, 1, height=260)
    plot.grid(
        ((right * k / 4, f"{right * k / 4:.0%}") for k in range(5)),
        ((bottom + (1 - bottom) * k / 4, f"{bottom + (1 - bottom) * k / 4:.0%}") for k in range(5)),
        "exposures held back",
        "engagements kept, at least",
    )
    plot.line([(0, 1), (right, max(bottom, 1 - right))], "one")
    plot.line([(x, y) for x, y, _ in sorted(caps)], "caps")
    told = ((x, y, f"{rule.format(n)}: {x:.0%} held back, {y:.1%} kept") for x, y, n in caps)
    plot.dots(told, "cap", 2.5)
    last = -99.0
    for x, y, cap in sorted(caps, reverse=True):
        if abs(plot.x(x) - last) > 14:
            last = plot.x(x)
            plot.text(last - 4, plot.y(y) + 12, str(cap), "end", "small")
    for k, (x, y, name) in enumerate(mine):
        plot.dots([(x, y, f"{name}: {x:.1%} held back, {y:.1%} kept")], f"policy p{k % 4}", 6)
        near = plot.x(x) > WIDTH - 110
        plot.text(plot.x(x) + (-9 if near else 9), plot.y(y) - 7, name, "end" if near else "start",
                  "name")  # fmt: skip
    return plot.svg("Exposures held back against engagements kept")


def rules(policy: PolicyFound) -> str:
    """What each rule held back, alone and together with others."""
    shown = [one for one in policy.rules if one.exposures]
    if not shown:
        return ""
    most = max(one.exposures for one in shown)
    height = 26.0 * len(shown) + 8
    parts = []
    for k, one in enumerate(shown):
        y = 26.0 * k + 6
        wide = one.exposures / most * 200
        alone = one.alone / most * 200
        told = (
            f"{one.name}: {one.exposures:,} exposures, {one.alone:,} of them by nothing else; "
            f"{one.engagements:,} engagements"
        )
        parts.append(
            f'<g><title>{escape(told)}</title><rect class="with" x="120" y="{y:.0f}" '
            f'width="{wide:.1f}" height="16" rx="2"/><rect class="alone" x="120" y="{y:.0f}" '
            f'width="{alone:.1f}" height="16" rx="2"/><text x="114" y="{y + 12:.0f}" '
            f'text-anchor="end">{escape(_short(one.name, 17))}{"*" if one.shadow else ""}</text>'
            f'<text x="{126 + wide:.0f}" y="{y + 12:.0f}">{one.exposures:,}</text></g>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH + 40:.0f} {height:.0f}" role="img" aria-label="Exposures held '
        f'back by rule">{"".join(parts)}</svg>'
    )


def coverage(campaigns: Sequence[CampaignFound]) -> str:
    """The share of exposures that could be answered visibly, by campaign."""
    height = 22.0 * len(campaigns) + 6
    parts = []
    for k, one in enumerate(campaigns):
        y = 22.0 * k + 4
        parts.append(
            f'<rect class="with" x="120" y="{y:.0f}" width="200" height="12" rx="2"/>'
            f'<rect class="alone" x="120" y="{y:.0f}" width="{200 * one.coverage:.1f}" '
            f'height="12" rx="2"/><text x="114" y="{y + 10:.0f}" text-anchor="end">'
            f"{escape(_short(name_of(one.label), 17))}</text>"
            f'<text x="326" y="{y + 10:.0f}">{one.coverage:.0%}</text>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="Measurable share of '
        f'exposures by campaign">{"".join(parts)}</svg>'
    )


def timeline(person: Watched) -> str:
    """One person's exposures in time: shown, held back, engaged with."""
    begin, end = person.shown[0].at, person.shown[-1].at
    span = max(end - begin, 60.0)
    plot = Axes(begin - span * 0.03, end + span * 0.03, 0, 1, height=92)
    form = "%d %b" if span > 2 * 86_400 else "%H:%M"
    for k in range(4):
        at = begin + span * k / 3
        told = named(at, form)
        plot.text(plot.x(at), 86, told, ("start", "middle", "middle", "end")[k], "small")
    plot.add(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="70" y2="70"/>')
    for text, y in (("shown", 24), ("held", 50)):
        plot.text(LEFT - 5, y + 4, text, "end", "small")
    for one in person.shown:
        told = named(one.at, "%d %b %H:%M")
        why = f"held back by {', '.join(one.why)}" if one.held else "shown"
        told = f"{told}: {why}{', engaged with' if one.engaged else ''}"
        kind = ("held" if one.held else "shown") + (" engaged" if one.engaged else "")
        y = 50 if one.held else 24
        plot.add(f'<circle class="{kind}" cx="{plot.x(one.at):.1f}" cy="{y}" r="5">'
                 f"<title>{escape(told)}</title></circle>")  # fmt: skip
    return plot.svg(f"Exposures of person {person.id}")


def name_of(label: str) -> str:
    """A label as people say it."""
    return "all ads together" if label == "all" else label.partition(":")[2]


def _short(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"
