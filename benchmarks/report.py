"""Writes the tables of docs/performance.md and its plots from the newest results.

    python -m benchmarks.report

Each table stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``; the prose around them
is written by hand. A section that was not measured yet is left as it is. The table of the peers
comes from what `make bench-peers` left.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import growth, latency, plots, rates, stages
from benchmarks.history import PEERS, Figure, Record, newest, number

__all__ = ["main"]

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    """Write docs/performance.md and docs/bench-*.svg."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="also from quick runs")
    record = newest(quick=parser.parse_args().quick)
    if record is None:
        raise SystemExit("nothing is measured yet: run make bench")
    page = DOCS / "performance.md"
    text = page.read_text()
    for name, table in TABLES.items():
        try:
            content = table(record)
        except KeyError as missing:
            print(f"{name}: left as it is, {missing} is not measured")
            continue
        text = _between(text, name, content)
    for name, plot in PLOTS.items():
        try:
            (DOCS / name).write_text(plot(record))
        except KeyError as missing:
            print(f"{name}: left as it is, {missing} is not measured")
    if (found := PEERS / "table.md").exists():
        shutil.copy(PEERS / "plot.svg", DOCS / "bench-peers.svg")
        image = "![Impressions a second of the governor and its peers](bench-peers.svg)"
        text = _between(text, "peers", f"{image}\n\n{found.read_text().rstrip()}")
    page.write_text(text)


def _between(text: str, name: str, content: str) -> str:
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    found = re.subn(
        rf"{re.escape(begin)}.*{re.escape(end)}",
        lambda _: f"{begin}\n{content}\n{end}",
        text,
        flags=re.DOTALL,
    )
    if found[1] != 1:
        raise SystemExit(f"docs/performance.md must have {begin} and {end} once")
    return found[0]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _machine(record: Record) -> str:
    of = record.machine
    day = f"{record.started[:4]}-{record.started[4:6]}-{record.started[6:8]}"
    return (
        f"Measured on {day}{' with small loads (--quick)' if record.quick else ''}: {of['cpu']}, "
        f"{of['cores']} cores, {of['memory_gb']:.0f} GB; {of['system']}, "
        f"Python {of['python']}, Kafka {of['kafka']}, Faust {of['faust-streaming']}, "
        f"aiokafka {of['aiokafka']}, NumPy {of['numpy']}, numba {of['numba']}."
    )


def _summary(record: Record) -> str:
    of = record.figures
    best = of["throughput/4 rules/uniform"]
    users = _grown(record, "growth/users", growth.USERS)
    campaigns = _grown(record, "growth/campaigns", growth.CAMPAIGNS)
    rows = [
        ["events/s, four caps, one core", best.spread, "`--only throughput`"],
        ["of what a bare consumer reads", _ratio(best, of["throughput/bare consumer"]), "same"],
        ["p50 / p99 at half load, ms", _two(of, "latency/50%/p50", "latency/50%/p99"),
         "`--only latency`"],
        ["bytes a user, ten exposures", of["memory/user"].spread, "`--only memory`"],
        ["rows/s loaded, one core", of["recovery/domain"].spread, "`--only recovery`"],
        ["cost of an event, most users ÷ fewest", users, "`--only growth`"],
        ["cost of an event, most campaigns ÷ fewest", campaigns, "same"],
    ]  # fmt: skip
    return _table(["", "median (least–most)", "`python -m benchmarks` …"], rows)


def _throughput(record: Record) -> str:
    of = record.figures
    base = of["throughput/4 rules/uniform"]
    rows = [
        [rules, *(_with_ratio(of[f"throughput/{rules}/{users}"], base) for users in rates.USERS)]
        for rules in rates.POLICIES
    ]
    ceiling = of["throughput/bare consumer"]
    rows.append(["a consumer that drops all", _with_ratio(ceiling, base), ""])
    return _table(["events/s (÷ four rules, uniform)", *rates.USERS], rows)


def _latency(record: Record) -> str:
    of = record.figures
    rows = [
        [
            f"{percent}%",
            f"{record.facts['latency'][str(percent)]['events_per_s']:,}",
            of[f"latency/{percent}%/p50"].spread,
            of[f"latency/{percent}%/p99"].spread,
            number(record.facts["latency"][str(percent)]["producer_late_p99_ms"]),
        ]
        for percent in latency.LOADS
    ]
    head = ["load", "events/s", "p50 ms", "p99 ms", "producer late, p99 ms"]
    capacity = of["latency/capacity"].spread
    return f"{_table(head, rows)}\n\nCapacity under this policy: {capacity} events/s."


def _memory(record: Record) -> str:
    of = record.figures
    rows = [
        ["a user with ten exposures, process", f"{of['memory/user'].spread} bytes"],
        ["of it the ledger's arrays", f"{of['memory/user, arrays only'].spread} bytes"],
        ["the process before the first event", f"{of['memory/base'].spread} MB"],
    ]
    return _table(["", ""], rows)


def _recovery(record: Record) -> str:
    of, facts = record.figures, record.facts["recovery"]
    rows = [
        ["`Ledger.load`, ten exposures a row", f"{of['recovery/domain'].spread} rows/s"],
        ["bare consumer of the changelog", f"{of['recovery/bare consumer'].spread} records/s"],
        [
            f"start to ready, {facts['rows']:,} rows in {facts['records']:,} records",
            f"{of['recovery/start with rows'].spread} s",
        ],
        ["start to ready, no rows", f"{of['recovery/start of an empty worker'].spread} s"],
    ]
    return _table(["", ""], rows)


def _growth(record: Record) -> str:
    of = record.figures
    blocks = []
    for what, sizes in (("users", growth.USERS), ("campaigns", growth.CAMPAIGNS)):
        there = [size for size in sizes if f"growth/{what}/{size}" in of]
        if not there:
            raise KeyError(f"growth/{what}")
        base = of[f"growth/{what}/{there[0]}"]
        rows = [
            [f"{size:,}", _with_ratio(of[f"growth/{what}/{size}"], base)]
            + [number(of[f"growth/{what}/{size}/{part}"].median) for part in _PARTS]
            for size in there
        ]
        blocks.append(_table([what, "CPU µs an event (÷ first)", *_PARTS], rows))
    return "\n\n".join(blocks)


_PARTS = ("decode", "apply", "take")


def _growth_broker(record: Record) -> str:
    of = record.figures
    blocks = []
    for what, sizes in (("partitions", growth.PARTITIONS), ("payload", growth.PAYLOADS)):
        base = of[f"growth-broker/{what}/{sizes[0]}"]
        rows = [
            [f"{size:,}", _with_ratio(of[f"growth-broker/{what}/{size}"], base)] for size in sizes
        ]
        title = "payload, bytes" if what == "payload" else what
        blocks.append(_table([title, "events/s (÷ first)"], rows))
    return "\n\n".join(blocks)


def _stages(record: Record) -> str:
    of = record.figures
    rows = []
    for stage, meaning in stages.STAGES.items():
        cells = []
        for policy in stages.POLICIES:
            whole = of[f"stages/{policy}/all"].median
            spent = of[f"stages/{policy}/{stage}"].median
            cells.append(f"{spent:.2f} ({spent / whole:.0%})")
        rows.append([f"{stage}: {meaning}", *cells])
    rows.append(["all", *(number(of[f"stages/{name}/all"].median) for name in stages.POLICIES)])
    used = [f"{one['core_used']:.2f}" for one in record.facts["stages"].values()]
    rows.append(["of the core used", *used])
    return _table(["CPU µs an event", *stages.POLICIES], rows)


def _with_ratio(figure: Figure, base: Figure) -> str:
    return f"{figure.spread}, {_ratio(figure, base)}"


def _ratio(figure: Figure, base: Figure) -> str:
    return f"×{figure.median / base.median:.2f}"


def _two(of: dict[str, Figure], one: str, other: str) -> str:
    return f"{number(of[one].median)} / {number(of[other].median)}"


def _grown(record: Record, name: str, sizes: Sequence[int]) -> str:
    there = [record.figures[key] for size in sizes if (key := f"{name}/{size}") in record.figures]
    if not there:
        raise KeyError(name)
    return _ratio(there[-1], there[0])


def _growth_plot(record: Record) -> str:
    of = record.figures
    series: dict[str, dict[int, Sequence[float]]] = {
        f"{what} (domain)": {
            size: of[key].values for size in sizes if (key := f"growth/{what}/{size}") in of
        }
        for what, sizes in (("users", growth.USERS), ("campaigns", growth.CAMPAIGNS))
    }
    for what, sizes in (("partitions", growth.PARTITIONS), ("payload", growth.PAYLOADS)):
        series[f"{what} (through Kafka)"] = {
            size: [1e6 / rate for rate in of[f"growth-broker/{what}/{size}"].values]
            for size in sizes
        }
    return plots.lines("Cost of an event as things grow", "µs an event", series)


def _stages_plot(record: Record) -> str:
    bars = {
        policy: {
            stage: record.figures[f"stages/{policy}/{stage}"].median for stage in stages.STAGES
        }
        for policy in stages.POLICIES
    }
    return plots.stacked("Where the CPU time of an event goes", "µs an event", bars)


TABLES: dict[str, Callable[[Record], str]] = {
    "machine": _machine,
    "summary": _summary,
    "throughput": _throughput,
    "latency": _latency,
    "memory": _memory,
    "recovery": _recovery,
    "growth": _growth,
    "growth-broker": _growth_broker,
    "stages": _stages,
}
PLOTS: dict[str, Callable[[Record], str]] = {
    "bench-growth.svg": _growth_plot,
    "bench-stages.svg": _stages_plot,
}


if __name__ == "__main__":
    main()
