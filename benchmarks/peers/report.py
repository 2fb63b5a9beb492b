"""What was measured, as a table, a plot and one JSON object."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.peers.harness import Delay, Recovery, Subject, Throughput
from benchmarks.peers.oracle import Verdict

__all__ = ["Results", "figures", "plot", "table"]


@dataclass
class Results:
    """Of one subject; `failed` says by measurement why there is none."""

    subject: Subject
    rolling: list[Throughput] = field(default_factory=list)
    tumbling: list[Throughput] = field(default_factory=list)
    recovery: list[Recovery] = field(default_factory=list)
    delay: list[Delay] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether every run of the rolling job gave what the oracle expects."""
        verdicts = [run.verdict for run in self.rolling]
        verdicts += [verdict for name, verdict in self.verdicts.items() if name == "rolling"]
        return all(verdict.agrees(self.subject.peer.coalesces) for verdict in verdicts)


_COLUMNS: Sequence[tuple[str, Callable[[Results], Sequence[float]], str]] = (
    ("events/s", lambda of: [run.events_per_s for run in of.rolling], ",.0f"),
    ("CPU s per million", lambda of: [run.cpu_per_million for run in of.rolling], ".1f"),
    ("peak MB", lambda of: [run.peak_bytes / 1e6 for run in of.rolling], ",.0f"),
    ("state B/user", lambda of: [run.state_bytes_per_user for run in of.rolling], ",.0f"),
    ("recovery s", lambda of: [each.seconds for each in of.recovery], ".1f"),
    ("p50 ms", lambda of: [each.p50 for each in of.delay], ",.0f"),
    ("p99 ms", lambda of: [each.p99 for each in of.delay], ",.0f"),
    ("tumbling events/s", lambda of: [run.events_per_s for run in of.tumbling], ",.0f"),
)


def table(results: Sequence[Results]) -> str:
    """Markdown: ratios first, then medians with the least and the most of the runs."""
    governor, others = _split(results)
    names = ["", "governor ÷ it", "tumbling ÷", *(name for name, _of, _form in _COLUMNS), "oracle"]
    lines = [_row(names), _row(["---", *["---:"] * (len(names) - 2), "---"])]
    for of in [governor, *sorted(others, key=_events_per_s, reverse=True)]:
        if of is None:
            continue
        if not of.rolling:
            reason = "; ".join(f"{what}: {why}" for what, why in of.failed.items())
            lines.append(_row([of.subject.name, f"left out: {reason}"]))
            continue
        ratios = [_ratio_text(governor, of, "rolling"), _ratio_text(governor, of, "tumbling")]
        spread = [_spread(values(of), form) for _name, values, form in _COLUMNS]
        lines.append(_row([of.subject.name, *ratios, *spread, _oracle(of)]))
    notes = [_notes(of) for of in results]
    return "\n".join([*lines, "", *(line for note in notes for line in note)])


def figures(results: Sequence[Results]) -> dict[str, Any]:
    """Medians and ratios; a ratio is None where one side is missing."""
    governor, others = _split(results)
    measured = [of for of in others if of.rolling]
    right = [of for of in measured if of.agrees] or measured
    best = max(right, key=_events_per_s, default=None)
    streams = [of for of in measured if of.subject.peer.name == "kafka-streams"]
    tumbling = max((of for of in others if of.tumbling), key=_tumbling_per_s, default=None)
    return {
        "governor": _medians(governor) if governor else {},
        "peers": {of.subject.name: _medians(of) for of in others},
        "best_peer": best.subject.name if best else None,
        "ratio": _ratio(governor, best, "rolling"),
        "ratio_to_kafka_streams": _ratio(
            governor, max(streams, key=_events_per_s, default=None), "rolling"
        ),
        "tumbling_ratio": _ratio(governor, tumbling, "tumbling"),
    }


def plot(results: Sequence[Results]) -> str:
    """SVG: bars of events a second, the rolling job over the tumbling one."""
    governor, others = _split(results)
    bars = [of for of in [governor, *sorted(others, key=_events_per_s, reverse=True)] if of]
    bars = [of for of in bars if of.rolling]
    most = max([1.0, *(max(_events_per_s(of), _tumbling_per_s(of)) for of in bars)])
    height = 60 + 44 * len(bars)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" '
            'font-family="sans-serif" font-size="13">'
        ),
        f'<rect width="860" height="{height}" fill="#ffffff"/>',
        (
            '<text x="12" y="22" font-size="15" font-weight="bold">'
            "Impressions per second on one core</text>"
        ),
        (
            '<text x="12" y="40" fill="#555555">'
            "dark: three in a rolling hour, per user and campaign; "
            "light: count per user and minute</text>"
        ),
    ]
    for number, of in enumerate(bars):
        top = 54 + 44 * number
        dark, light = ("#1b6e4f", "#9fd3bd") if of is governor else ("#44546a", "#b8c2cf")
        parts.append(f'<text x="12" y="{top + 20}">{escape(of.subject.name)}</text>')
        for offset, value, colour in (
            (0, _events_per_s(of), dark),
            (17, _tumbling_per_s(of), light),
        ):
            width = 520 * value / most
            parts.append(
                f'<rect x="200" y="{top + offset}" width="{width:.1f}" height="15" '
                f'fill="{colour}"/>'
            )
            if value:
                parts.append(
                    f'<text x="{206 + width:.1f}" y="{top + offset + 12}" font-size="12">'
                    f"{value:,.0f}</text>"
                )
    return "\n".join([*parts, "</svg>\n"])


def _split(results: Sequence[Results]) -> tuple[Results | None, list[Results]]:
    governor = next((of for of in results if of.subject.peer.name == "governor"), None)
    return governor, [of for of in results if of is not governor]


def _events_per_s(of: Results) -> float:
    return statistics.median(run.events_per_s for run in of.rolling) if of.rolling else 0.0


def _tumbling_per_s(of: Results) -> float:
    return statistics.median(run.events_per_s for run in of.tumbling) if of.tumbling else 0.0


def _ratio(governor: Results | None, peer: Results | None, job: str) -> float | None:
    rate = _events_per_s if job == "rolling" else _tumbling_per_s
    if governor is None or peer is None or not rate(governor) or not rate(peer):
        return None
    return round(rate(governor) / rate(peer), 2)


def _ratio_text(governor: Results | None, peer: Results, job: str) -> str:
    ratio = _ratio(governor, peer, job)
    return "" if ratio is None else f"{ratio:.2f}"


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    median = format(statistics.median(values), form)
    if len(values) == 1:
        return median
    return f"{median} ({format(min(values), form)}–{format(max(values), form)})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _oracle(of: Results) -> str:
    return "agrees" if of.agrees else "differs (below)"


def _notes(of: Results) -> list[str]:
    """Settings, deviations and what went wrong, a line each."""
    peer = of.subject.peer
    lines = [f"- {of.subject.name} {peer.version}: {peer.settings}"]
    if peer.share < 1:
        lines.append(f"  - given {peer.share:.0%} of the load")
    lines += [f"  - {job}: {text}" for job, text in peer.deviations.items()]
    verdicts = [(f"check, {job}", verdict) for job, verdict in of.verdicts.items()]
    verdicts += [("rolling run", run.verdict) for run in of.rolling]
    verdicts += [("tumbling run", run.verdict) for run in of.tumbling]
    verdicts += [("after SIGKILL", each.verdict) for each in of.recovery]
    lines += [f"  - {what}: {verdict}" for what, verdict in verdicts if verdict.faults]
    lines += [f"  - {what} not measured: {why}" for what, why in of.failed.items()]
    return lines


def _medians(of: Results) -> Mapping[str, Any]:
    keys = (
        "events_per_s",
        "cpu_seconds_per_million",
        "peak_mb",
        "state_bytes_per_user",
        "recovery_s",
        "p50_ms",
        "p99_ms",
        "tumbling_events_per_s",
    )
    found: dict[str, Any] = {}
    for key, (_name, values, _form) in zip(keys, _COLUMNS, strict=True):
        if runs := values(of):
            found[key] = round(statistics.median(runs), 1)
    if of.rolling:
        found["oracle_agrees"] = of.agrees
    if of.failed:
        found["failed"] = of.failed
    return found
