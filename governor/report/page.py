"""The report as one HTML file, which loads nothing: style, script-free, plots inline."""

from __future__ import annotations

import math
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from governor.replay.tallying import Findings
from governor.report import plots, sentences

__all__ = ["page"]


def page(found: Findings, title: str) -> str:
    """The whole page."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": _share, "count": "{:,}".format}
    text = files("governor.report").joinpath("page.html.j2").read_text("utf-8")
    return environment.from_string(text).render(
        title=title,
        found=found,
        log=sentences.of_log(found),
        policies=[
            {"of": one, "text": sentences.of_policy(one), "rules": Markup(plots.rules(one))}
            for one in found.policies
        ],
        campaigns=[
            {
                "of": one,
                "name": plots.name_of(one.label),
                "text": sentences.of_campaign(one),
                "plot": Markup(plots.curve(one)),
            }
            for one in found.campaigns
        ],
        advice=sentences.advice(found),
        frontier=Markup(
            plots.frontier(found.frontier, found.policies, found.frontier_rule)
            if found.frontier or found.policies
            else ""
        ),
        coverage=Markup(plots.coverage(found.campaigns)),
        people=[{"of": one, "plot": Markup(plots.timeline(one))} for one in found.people],
    )


def _share(value: float) -> str:
    return f"{value:.0%}" if math.isfinite(value) else "–"
