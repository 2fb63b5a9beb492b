"""A real Prometheus for a test: it scrapes workers, and knows the rules, quicker than in life."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from deploy.dashboards.pictures import draw
from deploy.dashboards.questions import Prometheus, QueryError, Sample
from tests.integration.deployment import ROOT, Deployment, Metrics, free_port, wait_for

RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"

FASTER = 60
"""By how much windows and waits of the rules are shortened: five minutes are five seconds."""
SECONDS_FASTER = 6
"""By how much limits in seconds are: of a minute's delay ten seconds are left, which a machine that
others use needs by itself only once in a while."""
SCRAPE = 2.0
LEAST_FOR = 6 * SCRAPE
"""Some scrapes may fail on such a machine."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def needed(program: str = "prometheus") -> str:
    """The path of a program of Debian's package; skips the test where there is none."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} on this machine (Debian: apt-get install prometheus)")
    return found


def quickened(text: str) -> str:
    """The rules, with every window, wait and limit in seconds shortened."""

    def seconds(duration: str) -> float:
        return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", duration))

    def window(found: re.Match[str]) -> str:
        return f"[{round(1000 * max(4 * SCRAPE, seconds(found[1]) / FASTER))}ms]"

    rules: dict[str, Any] = yaml.safe_load(text)
    for group in rules["groups"]:
        group["interval"] = "500ms"
        for rule in group["rules"]:
            expression = re.sub(r"\[(\w+)\]", window, rule["expr"])
            rule["expr"] = re.sub(
                r"(_seconds\)) > (\d+)",
                lambda found: f"{found[1]} > {int(found[2]) / SECONDS_FASTER}",
                expression,
            )
            if "for" in rule:
                rule["for"] = f"{round(1000 * max(LEAST_FOR, seconds(rule['for']) / FASTER))}ms"
    return yaml.safe_dump(rules)


class Server(Prometheus):
    """Prometheus' process, which ends with the block.

    Args:
        folder: for what it keeps.
        target: host and port of the worker that it scrapes, as the job ``governor``.
    """

    def __init__(self, folder: Path, target: str) -> None:
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}")
        folder.mkdir()
        (folder / "rules.yaml").write_text(quickened(RULES.read_text()))
        configuration = {
            "global": {
                "scrape_interval": f"{round(1000 * SCRAPE)}ms",
                "scrape_timeout": f"{round(1000 * SCRAPE)}ms",
                "evaluation_interval": "500ms",
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "governor", "static_configs": [{"targets": [target]}]}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    needed(),
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        try:
            wait_for(self._answers, "answer of Prometheus", 60)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        try:
            return bool(self.ask("query", query="vector(1)")["result"])
        except QueryError:
            return False

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        alerts = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def fired(self, since: float) -> set[str]:
        """Names of all that fired at any time since then."""
        window = round(time.time() - since) + 1
        found = self.now(f'count_over_time(ALERTS{{alertstate="firing"}}[{window}s])')
        return {labels["alertname"] for labels, _ in found}

    def wait_until_firing(self, *names: str, seconds: float = 90) -> None:
        wait_for(lambda: set(names) <= self.firing(), f"alert {names}", seconds)

    def wait_until_quiet(self, *names: str, seconds: float = 150) -> None:
        """Wait until none of these fires; without names, none at all."""

        def quiet() -> bool:
            firing = self.firing()
            return not (firing & set(names) if names else firing)

        wait_for(quiet, f"end of {names or self.firing()}", seconds)

    def scraped_since(self, moment: float) -> None:
        """Wait until the worker has been scraped again after this moment."""

        def newer() -> bool:
            found = self.now("timestamp(governor_ready)")
            return bool(found) and found[0][1] > moment

        wait_for(newer, "scrape", 60)


@contextmanager
def scraping(folder: Path, port: int) -> Iterator[Server]:
    """A Prometheus that scrapes a worker on this port."""
    with Server(folder / "prometheus", f"127.0.0.1:{port}") as server:
        yield server


@contextmanager
def world(
    folder: Path, bootstrap: str, name: str, policy: str, **settings: str
) -> Iterator[tuple[Deployment, Server]]:
    """A deployment whose workers serve their metrics on one port, and what scrapes them."""
    needed()
    port = free_port()
    settings["metrics_port"] = str(port)
    deployment = Deployment(bootstrap, name, folder, (), partitions=4, **settings)
    (folder / "policy.yaml").write_text(policy)
    deployment.create_event_topics()
    try:
        with scraping(folder, port) as server:
            yield deployment, server
    finally:
        deployment.end()


def pictured(server: Server, began: float, *names: str) -> None:
    """Draw dashboards, where PICTURES names a folder for them: `make pictures`."""
    if folder := os.environ.get("PICTURES"):
        draw(server, began, time.time(), Path(folder), names)


Values = dict[tuple[tuple[str, str], ...], float]
"""By labels."""


def values(found: list[Sample]) -> Values:
    return {
        tuple(sorted((name, text) for name, text in labels.items() if name != "__name__")): value
        for labels, value in found
    }


def by(label: str, numbers: Mapping[str, float]) -> Values:
    return {((label, name),): float(number) for name, number in numbers.items()}


def scraped(server: Server, at: float) -> Metrics:
    """All that Prometheus got of the worker in one scrape."""
    found = Metrics("")
    for labels, value in server.now('{job="governor"}', at):
        own = {k: v for k, v in labels.items() if k not in ("__name__", "job", "instance")}
        found.samples[labels["__name__"], frozenset(own.items())] = value
    return found
