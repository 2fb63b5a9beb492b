"""Figures of one run in one JSON file, and the last few runs beside each other."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from streams.broker import KAFKA

__all__ = ["FOLDER", "PEERS", "Figure", "Record", "load", "newest", "runs"]

FOLDER = Path(__file__).parent / "results"
PEERS = Path(__file__).parents[1] / "build" / "bench-peers"
"""Where `make bench-peers` leaves its table, plot and figures."""

KEPT = 30
"""Runs that are kept."""

_MORE_IS_BETTER = ("events/s", "rows/s", "records/s")


@dataclass(frozen=True)
class Figure:
    """One thing measured, once or several times."""

    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def more_is_better(self) -> bool:
        return self.unit in _MORE_IS_BETTER

    def __str__(self) -> str:
        return f"{number(self.median)} {self.unit}"

    @property
    def spread(self) -> str:
        """Median, and the least and the most where there are several."""
        if len(self.values) == 1:
            return number(self.median)
        least, most = number(min(self.values)), number(max(self.values))
        return f"{number(self.median)} ({least}–{most})"


def number(value: float) -> str:
    """Three digits at least, and thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@dataclass
class Record:
    """What one run found: figures by name, such as ``throughput/4 rules/uniform``."""

    started: str
    quick: bool
    machine: Mapping[str, Any]
    figures: dict[str, Figure] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """What a reader needs to know besides: loads, sizes, rates achieved."""
    most: int | None = None
    """How often anything is repeated at most."""

    @classmethod
    def begin(cls, *, quick: bool, most: int | None = None) -> Record:
        """An empty record of now and here."""
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return cls(started, quick, _machine(), most=most)

    def times(self, wanted: int) -> range:
        """To go through as often as something is repeated."""
        return range(1 if self.quick else min(wanted, self.most or wanted))

    def add(
        self, name: str, unit: str, values: float | Iterable[float], *, tell: bool = True
    ) -> None:
        """Note a figure, or more values of one already there, and say so."""
        new = (values,) if isinstance(values, int | float) else tuple(values)
        before = self.figures[name].values if name in self.figures else ()
        self.figures[name] = Figure(unit, (*before, *map(float, new)))
        if tell:
            print(f"  {name:<48} {Figure(unit, tuple(map(float, new)))}", flush=True)

    def median(self, name: str) -> float | None:
        """The median of a figure, if it is there."""
        return self.figures[name].median if name in self.figures else None

    def save(self) -> Path:
        """Write it among the others; the oldest go."""
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{self.started}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        for old in runs()[:-KEPT]:
            old.unlink()
        return path


def load(path: Path) -> Record:
    """A record that was saved."""
    saved = json.loads(path.read_text())
    saved["figures"] = {
        name: Figure(figure["unit"], tuple(figure["values"]))
        for name, figure in saved["figures"].items()
    }
    return Record(**saved)


def runs() -> list[Path]:
    """The runs that are there, oldest first."""
    return sorted(FOLDER.glob("2*Z.json"))


def newest(*, quick: bool) -> Record | None:
    """Of every section the newest run that has it whole; quick runs only if ``quick``."""
    merged: Record | None = None
    for path in reversed(runs()):
        record = load(path)
        if record.quick and not quick:
            continue
        if merged is None:
            merged = Record(record.started, record.quick, record.machine)
        taken = {name.split("/")[0] for name in merged.figures}
        merged.figures |= {
            name: figure
            for name, figure in record.figures.items()
            if name.split("/")[0] not in taken
        }
        merged.facts = {**record.facts, **merged.facts}
    return merged


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "kafka": KAFKA.rsplit(":", 1)[1],
        **{name: version(name) for name in ("faust-streaming", "aiokafka", "numpy", "numba")},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
