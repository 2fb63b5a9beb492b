"""The tests notice when the compiled loops are wrong: see :mod:`tests.mutations`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import governor
import tests
from tests.mutations import MUTATIONS, Mutation

GOVERNOR, TESTS = (Path(str(package.__file__)).parent for package in (governor, tests))
DEADLINE = 300
"""Seconds; a mutation may make a loop endless, which is noticed too."""


def replay(package: Path) -> subprocess.CompletedProcess[str] | None:
    """The fixed cases against a copy of the package; None if it does not come to an end."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.mutations"]
    environment = os.environ | {
        "PYTHONPATH": str(package.parent),
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        return subprocess.run(
            command,
            cwd=package.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None


def copy_to(folder: Path) -> Path:
    """The package and its tests, alone in a folder."""
    ignored = shutil.ignore_patterns("__pycache__", "conftest.py", "integration", ".hypothesis")
    shutil.copytree(TESTS, folder / "tests", ignore=ignored)
    return Path(shutil.copytree(GOVERNOR, folder / "governor", ignore=ignored))


def names(mutation: Mutation) -> str:
    return f"{mutation.file}-{mutation.why}"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=names)
def test_fragment_occurs_once(mutation: Mutation) -> None:
    source = (GOVERNOR / mutation.file).read_text("utf-8")
    times = source.count(mutation.fragment)
    assert times == 1, (
        f"governor/{mutation.file} has the fragment {mutation.fragment!r} {times} times: "
        "the code has changed; write the mutation in tests/mutations.py anew"
    )
    assert mutation.replacement not in ("", mutation.fragment)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without a mutation the replay passes; if not, its failures would say nothing."""
    done = replay(copy_to(tmp_path_factory.mktemp("sound")))
    assert done is not None, f"the replay does not end within {DEADLINE} s"
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=names)
def test_mutation_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    package = copy_to(tmp_path)
    file = package / mutation.file
    source = file.read_text("utf-8")
    assert mutation.fragment in source, f"no longer in {mutation.file}: {mutation.fragment!r}"
    file.write_text(source.replace(mutation.fragment, mutation.replacement), "utf-8")
    done = replay(package)
    assert done is None or done.returncode == 1, f"no test notices that {mutation.why}"
    assert done is None or "SyntaxError" not in done.stderr
