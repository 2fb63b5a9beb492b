"""The short forms of `make chaos` and `make soak`, and of the benchmark of takeovers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deployment import ROOT

pytestmark = pytest.mark.slow


def last_line(folder: Path, module: str, *arguments: str) -> dict[str, Any]:
    """What a program prints last, when it ends well."""
    with (folder / "output").open("w+b") as output:
        finished = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            timeout=600,
            check=False,
        )
    printed = (folder / "output").read_text()
    assert finished.returncode == 0, printed[-20_000:]
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def test_after_twenty_faults_nothing_is_wrong(tmp_path: Path) -> None:
    options = ("--faults", "20", "--events", "100000", "--folder", str(tmp_path))
    found = last_line(tmp_path, "benchmarks.chaos", *options)
    assert found["differences"] == 0
    assert found["events"] >= 100_000
    assert found["faults"] >= 20
    inside = sum(count for kind, count in found["by_class"].items() if "in a flush" in kind)
    assert 2 * inside >= found["faults"]
    assert len(found["by_class"]) == 11


def test_two_minutes_of_the_same_load_leave_nothing_behind(tmp_path: Path) -> None:
    found = last_line(tmp_path, "benchmarks.soak", "--seconds", "120")
    assert found.keys() == {"rss_growth_ratio", "tasks_growth", "threads_growth", "fds_growth"}


def test_what_a_killed_worker_had_is_served_again_as_soon_as_promised(tmp_path: Path) -> None:
    """The program judges; its exit status is that of the slowest takeover."""
    found = last_line(tmp_path, "benchmarks.takeover", "--runs", "2")
    assert found["runs"] == 2
