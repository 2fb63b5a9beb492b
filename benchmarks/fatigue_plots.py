"""The plots of docs/fatigue.md: `make docs-plots` writes them as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from governor.fatigue.curves import Depth
from governor.fatigue.exposures import past
from governor.fatigue.frailty import estimate
from governor.simulation.worlds import SCENARIOS, generate

__all__ = ["main"]

_SHOWN: Final = ("throttled after five ignored", "tired, heavy and throttled", "recency recovery")
_WIDTH, _HEIGHT, _MOST = 560, 320, 10
_LEFT, _BOTTOM = 44, 36


def main() -> None:
    """A plot of each scenario that the page shows: seed 1, beside the page."""
    folder = Path(__file__).parent.parent / "docs" / "fatigue"
    folder.mkdir(exist_ok=True)
    for name in _SHOWN:
        world = next(each for each in SCENARIOS if each.name == name)
        simulated = generate(world, 1)
        log = simulated.exposures
        before = past(log, "creative")
        lines = [
            each
            for each in estimate(
                log, "creative", 0, now=int(log.ts.max()), before=before
            ).curve.depths
            if each.depth <= _MOST
        ]
        own = log.creative == 0
        truth = [float(simulated.left[own & (before.depth == d.depth)].mean()) for d in lines]
        file = folder / f"{name.replace(', ', '-').replace(' ', '-')}.svg"
        file.write_text(_plot(name, lines, truth))
        print(file.relative_to(folder.parent.parent))


def _plot(name: str, lines: list[Depth], truth: list[float]) -> str:
    high = max(1.2, min(3.0, max(max(d.naive for d in lines), max(d.high for d in lines))))

    def x(depth: float) -> float:
        return _LEFT + (depth - 1) * (_WIDTH - _LEFT - 20) / (_MOST - 1)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - min(value, high) * (_HEIGHT - _BOTTOM - 50) / high

    def path(values: list[float]) -> str:
        return " ".join(f"{x(d.depth):.1f},{y(v):.1f}" for d, v in zip(lines, values, strict=True))

    band = path([d.high for d in lines]).split(" ")
    band += reversed(path([d.low for d in lines]).split(" "))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
    )
    out = [
        head,
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="12" y="20" font-size="14" font-weight="bold">{name}</text>',
    ]
    out.extend(
        f'<line x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
        f'stroke="#ddd"/><text x="12" y="{y(value) + 4:.1f}">{value:.1f}</text>'
        for value in np.arange(0.0, high + 0.01, 0.5)
    )
    out.extend(
        f'<text x="{x(depth) - 3:.1f}" y="{_HEIGHT - 18}">{depth}</text>'
        for depth in range(1, _MOST + 1)
    )
    out.append(f'<text x="{_WIDTH / 2 - 60:.0f}" y="{_HEIGHT - 4}">exposure of a person</text>')
    out.append(f'<polygon points="{" ".join(band)}" fill="#4477aa" fill-opacity="0.25"/>')
    for at, (label, colour, values, dash) in enumerate(
        (
            ("naive", "#ee6677", [d.naive for d in lines], "5 3"),
            ("estimate, 95% band", "#4477aa", [d.estimate for d in lines], ""),
            ("truth", "#222222", truth, "2 3"),
        )
    ):
        out.append(
            f'<polyline points="{path(values)}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/>'
            f'<text x="{_LEFT + 8 + 150 * at}" y="40" fill="{colour}">{label}</text>'
        )
    return "\n".join([*out, "</svg>\n"])


if __name__ == "__main__":
    main()
