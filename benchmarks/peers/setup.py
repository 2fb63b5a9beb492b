"""Install the peers from the package registries into the user's cache folder.

    python -m benchmarks.peers.setup [name ...]

Versions are pinned by each peer. What cannot be installed is named with its reason, and the
harness leaves it out with the same reason.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.registry import cache, peers

__all__ = ["main", "venv", "venv_python"]


def venv_python(cache: Path, name: str) -> Path:
    """The interpreter of the environment that `venv` makes."""
    return cache / name / "venv" / "bin" / "python"


def venv(cache: Path, name: str, requirements: Path) -> str | None:
    """An environment with exactly these requirements; None, or why there is none.

    It is made anew when the requirements, or this interpreter, are others than last time.

    Args:
        cache: the folder of all peers.
        name: the peer's.
        requirements: a file that pins everything, what is needed by others too.
    """
    folder = cache / name / "venv"
    stamp = folder / ".ready"
    wanted = hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        # Nothing is left to resolve, which for some takes longer than to install them.
        [*install, "--disable-pip-version-check", "--no-deps", "--requirement", str(requirements)],
    ):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = (ran.stderr or ran.stdout).strip().splitlines() or ["no message"]
            return f"what {requirements.name} pins cannot be installed: {lines[-1]}"
    stamp.write_text(wanted)
    return None


def main() -> None:
    """Set up the peers named on the command line, or all."""
    known = peers()
    names = sys.argv[1:] or list(known)
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no such peer: {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names:
        print(f"{name:<24} ...", flush=True)
        reason = known[name].setup(cache())
        print(f"{name:<24} {'ready' if reason is None else reason}", flush=True)


if __name__ == "__main__":
    main()
