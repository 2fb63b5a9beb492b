"""Plots as SVG, written by hand: stacked bars, and lines over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["lines", "stacked"]

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#bbbbbb")
WIDTH = 860


def stacked(title: str, unit: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """A bar a key, split into the parts of its mapping; all have the same parts."""
    most = max(sum(parts.values()) for parts in bars.values())
    names = list(next(iter(bars.values())))
    height = 84 + 58 * len(bars)
    out = _opened(title, height)
    x = 12.0
    for name, colour in zip(names, COLOURS, strict=False):
        out.append(f'<rect x="{x:.0f}" y="38" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17:.0f}" y="48.5">{escape(name)}</text>')
        x += 40 + 7.5 * len(name)
    for i, (bar, parts) in enumerate(bars.items()):
        top = 70 + 58 * i
        total = sum(parts.values())
        out.append(
            f'<text x="12" y="{top + 10}" font-weight="bold">{escape(bar)}: '
            f"{total:.2f} {escape(unit)}</text>"
        )
        x = 12.0
        for value, colour in zip(parts.values(), COLOURS, strict=False):
            width = (WIDTH - 24) * max(value, 0.0) / most
            out.append(
                f'<rect x="{x:.1f}" y="{top + 18}" width="{width:.1f}" height="24" '
                f'fill="{colour}"/>'
            )
            if width > 34:
                out.append(
                    f'<text x="{x + width / 2:.1f}" y="{top + 35}" text-anchor="middle">'
                    f"{value:.2f}</text>"
                )
            x += width
    return _closed(out)


def lines(title: str, unit: str, series: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """A panel a series beside each other: medians over a logarithmic axis, with the spread.

    A series maps what grows to the values measured there; the first value is drawn as 1.
    """
    height, gap = 264, 16
    width = (WIDTH - gap * (len(series) + 1)) / len(series)
    out = _opened(title, height)
    most = max(
        max(values) / _middle(next(iter(points.values())))
        for points in series.values()
        for values in points.values()
    )
    top_value = max(1.5, math.ceil(most * 4) / 4)
    top, bottom = 86, height - 40

    def y(value: float) -> float:
        return bottom - (bottom - top) * value / top_value

    for i, (name, points) in enumerate(series.items()):
        left = gap + i * (width + gap)
        base = _middle(next(iter(points.values())))
        low, high = math.log(min(points)), math.log(max(points))
        out.append(
            f'<text x="{left:.0f}" y="52" font-weight="bold">{escape(name)}</text>'
            f'<text x="{left:.0f}" y="65" fill="#555555" font-size="11">'
            f"1 is {base:,.3g} {escape(unit)}</text>"
        )
        step = 0.5
        for k in range(int(top_value / step) + 1):
            out.append(
                f'<line x1="{left:.0f}" x2="{left + width:.0f}" y1="{y(k * step):.1f}" '
                f'y2="{y(k * step):.1f}" stroke="#dddddd"/>'
                f'<text x="{left:.0f}" y="{y(k * step) - 3:.1f}" fill="#777777" font-size="10">'
                f"{k * step:g}</text>"
            )
        path = []
        for at, values in points.items():
            share = (math.log(at) - low) / (high - low) if high > low else 0.5
            x = left + 34 + share * (width - 68)
            path.append(f"{x:.1f},{y(_middle(values) / base):.1f}")
            out.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y(min(values) / base):.1f}" '
                f'y2="{y(max(values) / base):.1f}" stroke="#4477aa" stroke-width="5" '
                'stroke-opacity="0.4"/>'
                f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle" font-size="11">'
                f"{_short(at)}</text>"
            )
        out.append(
            f'<polyline points="{" ".join(path)}" fill="none" stroke="#4477aa" stroke-width="2"/>'
        )
    return _closed(out)


def _short(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if count >= size and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _opened(title: str, height: int) -> list[str]:
    return [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]


def _closed(out: list[str]) -> str:
    return "\n".join([*out, "</svg>\n"])
