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
    """One of 20 MB, of which `used` are others' and 4 are to be free."""
    machine = SimpleNamespace(used=8 * MB, held=lambda: 0)
    for name, value in {"CHUNK": MB, "READY": 4 * MB, "LOOK_SECONDS": 0.01}.items():
        monkeypatch.setattr(scratch, name, value)
    monkeypatch.setattr(scratch, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(scratch, "CGROUPS", tmp_path)
    monkeypatch.setattr(
        "psutil.virtual_memory",
        lambda: SimpleNamespace(total=20 * MB, free=20 * MB - machine.used - machine.held()),
    )
    return machine


def test_all_but_a_rest_is_taken_and_let_go_of_as_others_need_it(machine: SimpleNamespace) -> None:
    memory = WrittenMemory()
    machine.held = lambda: len(memory._chunks) * MB
    memory.take()
    assert len(memory._chunks) == 8
    with memory:
        machine.used = 14 * MB
        deadline = time.monotonic() + 10
        while len(memory._chunks) > 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(memory._chunks) == 2
    assert not memory._chunks


@pytest.mark.parametrize(
    ("group", "file"),
    [
        ("0::/a/b", "memory.max"),
        ("0::/a/b", "a/memory.max"),
        ("3:cpu:/c\n4:memory:/a/b", "memory/a/b/memory.limit_in_bytes"),
        ("4:memory:/elsewhere", "memory/memory.limit_in_bytes"),
    ],
)
def test_nothing_is_taken_where_a_limit_is_set(
    machine: SimpleNamespace, tmp_path: Path, group: str, file: str
) -> None:
    memory = WrittenMemory()
    machine.held = lambda: len(memory._chunks) * MB
    scratch.CGROUP.write_text(f"{group}\n")
    limit = tmp_path / file
    limit.parent.mkdir(parents=True, exist_ok=True)
    limit.write_text(f"{19 * MB}\n")
    assert "has a limit" in memory.take()
    assert not memory._chunks
    limit.write_text(f"{2**63 - 4096}\n")
    assert memory.take().startswith("0.0 GiB")
    assert len(memory._chunks) == 8


def test_what_the_system_does_not_give_is_not_taken(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = WrittenMemory()
    machine.held = lambda: 0
    monkeypatch.setattr(scratch, "CHUNK", 1 << 62)
    machine.used = -(1 << 63)
    assert memory.take().startswith("0.0 GiB")
