"""The image without Docker: its Dockerfile's steps in clean folders, and then its command.

    make rehearse

Each stage gets a folder that is mounted as /opt, and a new /tmp, in a mount namespace of its own;
this machine's own files stand for the base image. The steps are read from `deploy/Dockerfile`, so
what is rehearsed is what Docker would do. Then the last stage's command runs as its user, with
nothing of the root writable, against a real Kafka, until its own health check answers and it is
ready, and is stopped as Docker would stop it. It needs Linux, and root or user namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from checks.linters import ROOT
from streams.broker import Cluster

__all__ = ["Instruction", "Stage", "main", "stages"]

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
WAIT_SECONDS = 180.0
PATH = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"
_TMP, _OPT = Path("/tmp"), Path("/opt")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a Dockerfile, continuations joined."""

    name: str
    """In capitals."""
    rest: str

    @property
    def words(self) -> list[str]:
        """The rest in the exec form, a list in JSON, or split as a shell would."""
        if self.rest.startswith("["):
            return [str(one) for one in json.loads(self.rest)]
        return shlex.split(self.rest)


@dataclass
class Stage:
    """What stands between two lines FROM."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    """Of `run`: what ENV and ARG have set so far."""

    def last(self, name: str) -> Instruction:
        """The instruction of this name that holds; ends the program where there is none."""
        found = [one for one in self.instructions if one.name == name]
        if not found:
            raise SystemExit(f"rehearse: the Dockerfile has no {name} in its last stage")
        return found[-1]


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile."""
    found: list[Stage] = []
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in kept.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        one = Instruction(name.upper(), rest.strip())
        if one.name == "FROM":
            named = re.search(r"\sAS\s+(\S+)$", one.rest, re.IGNORECASE)
            found.append(Stage(named[1] if named else str(len(found))))
        else:
            found[-1].instructions.append(one)
    return found


class Rehearsal:
    """The steps of all stages, run one after the other; inside of the mount namespace.

    Args:
        folder: empty; what the stages make goes there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workdir = _OPT
        self.steps = 0

    def build(self, found: list[Stage]) -> None:
        """Run all steps; /opt is the last stage's afterwards."""
        for stage in found:
            stage.environment = {**_reaching(), "PATH": PATH, "HOME": str(_TMP)}
            _mount("--bind", self._new(stage), _OPT)
            _mount("-t", "tmpfs", "tmpfs", _TMP)
            self._workdir = _OPT
            for instruction in stage.instructions:
                self._run(stage, instruction)

    def _new(self, stage: Stage) -> Path:
        (self._folder / stage.name).mkdir(mode=0o755)
        return self._folder / stage.name

    def _run(self, stage: Stage, one: Instruction) -> None:
        if one.name == "RUN":
            self._say(one)
            subprocess.run(
                ["sh", "-c", one.rest], cwd=self._workdir, env=stage.environment, check=True
            )
        elif one.name == "ENV":
            for word in one.words:
                name, _, value = word.partition("=")
                stage.environment[name] = Template(value).safe_substitute(stage.environment)
        elif one.name == "ARG":
            name, _, value = one.rest.partition("=")
            stage.environment.setdefault(name, value)
        elif one.name == "WORKDIR":
            self._workdir = Path(one.rest)
            self._workdir.mkdir(parents=True, exist_ok=True)
        elif one.name == "COPY":
            self._say(one)
            self._copy(one.words)
        elif one.name not in ("USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            raise SystemExit(f"rehearse: what is {one.name}? Teach checks/rehearsal.py")

    def _copy(self, words: list[str]) -> None:
        origin = self._folder / "context"
        if words[0].startswith("--from="):
            origin = self._folder / words.pop(0).removeprefix("--from=")
        *sources, target = words
        for source in sources:
            # Another stage's files are below its folder, as that was mounted as /opt.
            at = origin / source.removeprefix("/opt/")
            to = self._workdir / target
            if at.is_dir():
                shutil.copytree(at, to, symlinks=True, dirs_exist_ok=True)
            else:
                shutil.copy2(at, to / at.name if target.endswith("/") else to)

    def _say(self, one: Instruction) -> None:
        self.steps += 1
        print(f"rehearse: {one.name} {' '.join(one.rest.split())[:110]}", flush=True)


def _reaching() -> dict[str, str]:
    """What of the environment says how to reach the package index."""
    known = "PIP_", "SSL_CERT", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"
    return {name: at for name, at in os.environ.items() if name.upper().startswith(known)}


def context(folder: Path) -> None:
    """Copy to ``folder/context`` what the Dockerfile's ignore file lets Docker see."""
    let = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert let[0] == "*", "an ignore file that begins with everything"
    for name in (line.removeprefix("!") for line in let if line.startswith("!")):
        at, to = ROOT / name, folder / "context" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if at.is_dir():
            shutil.copytree(at, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(at, to)


def _let_all_read_the_interpreter(folder: Path) -> None:
    """Mount it anew where it lies in the home of one user, which the image's user cannot enter."""
    prefix = Path(sys.base_prefix).resolve()
    closed = [each for each in reversed(prefix.parents) if not each.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return
    kept = folder / "python"
    kept.mkdir()
    _mount("--bind", prefix, kept)
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", closed[0])
    prefix.mkdir(parents=True)
    _mount("--bind", kept, prefix)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _close(writable: set[Path]) -> None:
    """Let nothing be written but below these, and devices and processes."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point.parts[1:2] in (("proc",), ("dev",), ("sys",)) or point in writable:
            continue
        # One that is hidden below another cannot be reached, nor be written.
        subprocess.run(
            ["mount", "-o", "remount,bind,ro", point], check=False, stderr=subprocess.DEVNULL
        )


class Container:
    """The last stage's command, as Docker would run it with a read-only root."""

    def __init__(self, stage: Stage, settings: Mapping[str, str]) -> None:
        self._environment = {**stage.environment, **settings}
        user, _, group = stage.last("USER").rest.partition(":")
        self._as = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups",
                    "--no-new-privs"] if os.geteuid() == 0 else []  # fmt: skip
        health = re.search(r"CMD\s+(\[.*\])$", stage.last("HEALTHCHECK").rest)
        assert health is not None, "HEALTHCHECK in the exec form"
        self._health = [str(one) for one in json.loads(health[1])]
        command = [*stage.last("ENTRYPOINT").words, *stage.last("CMD").words]
        self.process = subprocess.Popen([*self._as, *command], env=self._environment, cwd="/")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command beside it, as `docker exec` would."""
        return subprocess.run(
            [*self._as, *command], env=self._environment, cwd="/",
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def until(self, what: str, *command: str) -> None:
        """Wait until a command succeeds."""
        deadline, done = time.monotonic() + WAIT_SECONDS, None
        while self.process.poll() is None and time.monotonic() < deadline:
            if (done := self.run(*command)).returncode == 0:
                print(f"rehearse: {what}", flush=True)
                return
            time.sleep(1)
        why = "" if done is None else done.stderr[-2000:]
        raise SystemExit(f"rehearse: not {what}: worker {self.process.poll()}\n{why}")

    def until_healthy(self) -> None:
        """Wait until the image's own health check succeeds."""
        self.until("the health check answers", *self._health)

    def stop(self) -> int:
        """As `docker stop` does; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def inside(folder: Path, bootstrap: str) -> None:
    """All of it, in the mount namespace."""
    found = stages(DOCKERFILE.read_text())
    context(folder)
    _let_all_read_the_interpreter(folder)
    rehearsal = Rehearsal(folder)
    rehearsal.build(found)
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", _TMP)
    _close({_TMP})
    container = Container(found[-1], {"GOVERNOR_BROKER": bootstrap, "GOVERNOR_METRICS_PORT": PORT})
    try:
        container.until_healthy()
        asks = "import urllib.request as http; http.urlopen('http://127.0.0.1:%s%s', timeout=4)"
        container.until("the worker is ready", "python", "-c", asks % (PORT, "/readyz"))
        if (
            container.run(
                "sh", "-c", "touch /opt/governor/x || touch /x || touch /var/x"
            ).returncode
            == 0
        ):
            raise SystemExit("rehearse: the root can be written")
        compiled = _compiled(Path("/opt/governor/compiled")), _compiled(_TMP / "compiled")
        if not compiled[0] or compiled[0] != compiled[1]:
            more = sorted(compiled[1] - compiled[0])[:5]
            raise SystemExit(f"rehearse: the worker compiled at its start: {more}")
        if (status := container.stop()) != 0:
            raise SystemExit(f"rehearse: the worker ended with status {status}")
    finally:
        if container.process.poll() is None:
            container.process.kill()
    print(
        f"rehearse: ok: {rehearsal.steps} steps, a worker that answers, writes nothing outside of "
        f"/tmp and compiled none of its {len(compiled[0])} functions"
    )


PORT = "18123"


def _compiled(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*.nbc")}


@contextlib.contextmanager
def _clean() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-", dir="/var/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Start a broker, and do the rest in a mount namespace of its own; the exit status."""
    namespace = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        namespace.append("--map-root-user")
    if subprocess.run([*namespace, "true"], check=False).returncode:
        print("rehearse: this machine allows no mount namespaces: run it as root", file=sys.stderr)
        return 1
    with _clean() as folder, Cluster(progress=print) as cluster:
        command = [sys.executable, "-m", "checks.rehearsal", str(folder), cluster.bootstrap]
        return subprocess.run([*namespace, *command], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) == 3:
        inside(Path(sys.argv[1]), sys.argv[2])
    else:
        sys.exit(main())
