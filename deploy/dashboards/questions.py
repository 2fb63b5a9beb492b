"""What the dashboards ask of Prometheus, and a Prometheus to ask it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Prometheus", "QueryError", "Question", "Series", "filled", "questions"]

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"

Sample = tuple[Mapping[str, str], float]
"""Labels and a value."""

Series = tuple[Mapping[str, str], list[tuple[float, float]]]
"""Labels, and values by time in epoch seconds."""


class QueryError(Exception):
    """Prometheus cannot answer; says why."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query of one panel."""

    dashboard: str
    panel: str
    kind: str
    """timeseries, stat or bargauge."""
    unit: str
    legend: str
    expression: str


def questions(folder: Path = FOLDER) -> Iterator[Question]:
    """All of them, in the order in which they stand."""
    for name in ("overview", "fatigue", "pipeline", "policy"):
        for panel in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                unit = panel["fieldConfig"]["defaults"]["unit"]
                yield Question(
                    name,
                    panel["title"],
                    panel["type"],
                    unit,
                    target["legendFormat"],
                    target["expr"],
                )


def filled(expression: str, *, window: float, job: str = ".*", campaign: str = ".*") -> str:
    """An expression with Grafana's variables filled in.

    Args:
        expression: of a panel.
        window: seconds that rates and increases are of.
        job: a regular expression.
        campaign: likewise.
    """
    duration = f"{round(1000 * window)}ms"
    values = {"__rate_interval": duration, "__range": duration, "job": job, "campaign": campaign}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expression)


class Prometheus:
    """The HTTP API of a server.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of one answer.

        Raises:
            QueryError: it does not answer, or refuses the query.
        """
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(f"{parameters}: {error.read().decode()}") from error
        except OSError as error:
            raise QueryError(f"{self.url} does not answer: {error}") from error

    def now(
        self, expression: str, at: float | None = None
    ) -> list[tuple[Mapping[str, str], float]]:
        """Labels and values at an instant."""
        moment = {} if at is None else {"time": f"{at:.3f}"}
        result = self.ask("query", query=expression, **moment)["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def over(self, expression: str, begin: float, end: float, step: float) -> list[Series]:
        """Labels and values over a time."""
        asked = {"start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        result = self.ask("query_range", query=expression, **asked)["result"]
        return [
            (one["metric"], [(float(at), float(value)) for at, value in one["values"]])
            for one in result
        ]
