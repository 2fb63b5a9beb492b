"""Memory written to before a measurement, and let go of as it is needed."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import scratch
from benchmarks.scratch import WrittenMemory

MB = 1 << 20


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """One of 20 MB, of which `used` are others'; the least that is left free is 2, or 4."""
    machine = SimpleNamespace(used=8 * MB, held=lambda: 0)
    for name, value in {"CHUNK": MB, "LEFT": 2 * MB, "READY": 4 * MB, "LOOK_SECONDS": 0.01}.items():
        monkeypatch.setattr(scratch, name, value)
    monkeypatch.setattr(scratch, "LIMIT", tmp_path / "memory.max")
    monkeypatch.setattr(
        "psutil.virtual_memory",
        lambda: SimpleNamespace(free=20 * MB - machine.used - machine.held()),
    )
    return machine


def test_all_but_a_rest_is_taken_and_let_go_of_as_others_need_it(machine: SimpleNamespace) -> None:
    memory = WrittenMemory()
    machine.held = lambda: len(memory._chunks) * MB
    memory.take()
    assert len(memory._chunks) == 9
    with memory:
        machine.used = 14 * MB
        deadline = time.monotonic() + 10
        while len(memory._chunks) > 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(memory._chunks) == 2
    assert not memory._chunks


def test_nothing_is_taken_where_a_limit_is_set(machine: SimpleNamespace) -> None:
    memory = WrittenMemory()
    machine.held = lambda: len(memory._chunks) * MB
    scratch.LIMIT.write_text("1073741824\n")
    assert "sets a limit" in memory.take()
    scratch.LIMIT.write_text("max\n")
    assert memory.take().startswith("0.0 GiB")
    assert len(memory._chunks) == 9
