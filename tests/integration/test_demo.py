"""`governor demo` as a newcomer runs it: with a broker and a worker of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "streams.cli", "demo"]
LONGEST = 280.0


@pytest.mark.slow
def test_the_demo_proves_itself_and_ends(tmp_path: Path) -> None:
    svg = tmp_path / "demo.svg"
    ended = subprocess.run(
        [*COMMAND, "--svg", str(svg)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONGEST,
    )
    assert ended.returncode == 0, ended.stdout
    (verdict,) = re.findall(r"^oracle: .*$", ended.stdout, re.MULTILINE)
    found = re.fullmatch(r"oracle: 38 users, (\d+) throttles compared, 0 differ", verdict)
    assert found, verdict
    assert int(found[1]) > 100
    assert "10,848 exposures of 1,403 articles to 38 people" in ended.stdout
    assert len(re.findall(r"the cap of .* was reached on ", ended.stdout)) == 3
    assert svg.read_text().startswith("<svg")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_of_it(number: signal.Signals) -> None:
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if "starting a worker" in line:
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        said = lines.read()
    assert process.wait(LONGEST) == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert len(children) >= 2
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert gone
