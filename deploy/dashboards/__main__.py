"""``python -m deploy.dashboards [FOLDER]``: write the dashboards as Grafana reads them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards.fatigue import fatigue
from deploy.dashboards.overview import overview
from deploy.dashboards.pipeline import pipeline
from deploy.dashboards.policy import policy

FOLDER = Path(__file__).parents[1] / "grafana" / "dashboards"


def write(folder: Path) -> None:
    """One file a dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in (overview, fatigue, pipeline, policy):
        text = json.dumps(make().build(), cls=JSONEncoder, indent=1, sort_keys=True)
        (folder / f"{make.__name__}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
