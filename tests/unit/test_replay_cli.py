"""``governor replay`` and ``governor simulate``: figures, reports, and what goes wrong."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from streams.cli import main

T0 = 1_790_000_000
POLICY = """
rules:
  - {name: two-a-week, cap: 2, per: campaign, window: 1w}
  - {name: never, cap: 120, per: user, window: 1d}
"""
VOID = {"meta", "line", "circle", "path", "rect", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that every element is closed, and gathers what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and not (tag in ("li", "p") and self.open[-1] != tag):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of(path: Path) -> Page:
    """The page, which must load nothing from anywhere."""
    text = path.read_text("utf-8")
    found = Page(text)
    assert found.loads == []
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|<script", text)
    assert "{{" not in text
    assert "nan" not in re.sub("<[^>]*>", "", text).lower().split()
    return found


def governor(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def log(path: Path, rows: Iterator[str]) -> Path:
    path.write_text("user_id,ts,campaign_id,click\n" + "".join(f"{row}\n" for row in rows))
    return path


def usual(people: int = 40, times: int = 6) -> Iterator[str]:
    """Everyone is shown C once a day, and every third is shown <D> as often; some click."""
    for n in range(people * times):
        user, day = n % people, n // people
        ts = T0 + day * 86_400 + user
        yield f"u{user},{ts},C,{int((user + day) % 5 == 0)}"
        if user % 3 == 0:
            yield f"u{user},{ts + 60},<D> & co,{int(day == 0)}"


@pytest.fixture(name="policy")
def _policy(tmp_path: Path) -> Path:
    path = tmp_path / "weekly.yaml"
    path.write_text(POLICY)
    return path


def test_figures_are_printed_and_written(tmp_path: Path, policy: Path) -> None:
    path = log(tmp_path / "log.csv", usual())
    html, figures = tmp_path / "report.html", tmp_path / "report.json"
    result = governor(
        "replay", str(path), "--policy", str(policy), "--html", str(html), "--json", str(figures)
    )
    assert result.exit_code == 0, result.output
    # Two of six are shown to each of 40 people for C, and to each of 14 for D.
    assert "would have held back 216 of 324 exposures (66.7%)" in result.output
    found = json.loads(figures.read_text())
    (one,) = found["policies"]
    assert (one["held"], one["people_held"]) == (216, 40)
    # Of C 48 clicks, 16 of them on the first two days; of D 14, all on the first.
    assert (one["engagements"], one["lost"]) == (62, 32)
    assert one["campaigns"] == {"C": [240, 160, 48, 32], "<D> & co": [84, 56, 14, 0]}
    by_depth = found["campaigns"][1]["depths"]
    # The last day's exposures are not settled when the log ends.
    assert [row["exposures"] for row in by_depth if row["exposures"]] == [40] * 5
    assert [row["engagements"] for row in by_depth if row["exposures"]] == [8] * 5
    page = page_of(html)
    assert page.tags.count("svg") >= 5
    assert "<D> & co" in page.words
    assert "216 of 324" in page.words


def test_two_policies_are_compared(tmp_path: Path, policy: Path) -> None:
    tight = tmp_path / "daily.yaml"
    tight.write_text("rules: [{name: once, cap: 1, per: user, window: 30d}]")
    path = log(tmp_path / "log.csv", usual())
    arguments = ("replay", str(path), "--policy", str(policy), "--policy", str(tight))
    result = governor(*arguments, "--json", "-", "--sweep", "none")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["policies"]] == ["weekly", "daily"]
    assert [one["held"] for one in found["policies"]] == [216, 284]
    assert found["frontier"] == []


def test_people_are_told_by_hashes_only(tmp_path: Path, policy: Path) -> None:
    rows = (row.replace("u", "somebody@example-", 1) for row in usual())
    path = log(tmp_path / "log.csv", rows)
    html = tmp_path / "report.html"
    result = governor("replay", str(path), "--policy", str(policy), "--html", str(html))
    assert result.exit_code == 0
    assert "somebody" not in html.read_text() + result.output
    assert re.search(r"Person [0-9a-f]{8}", html.read_text())


def test_wrong_columns_say_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("uid,time,item\nu,1,C\n")
    result = governor("replay", str(path))
    assert result.exit_code == 1
    assert "write --map user_id=uid" in result.output
    assert "columns found: uid, time, item" in result.output
    result = governor("replay", str(path), "--map", "user=uid")
    assert result.exit_code == 1
    assert "did you mean user_id" in result.output


def test_an_empty_log_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("")
    assert "is empty" in governor("replay", str(path)).output
    path.write_text("user_id,ts,campaign_id\n")
    result = governor("replay", str(path))
    assert result.exit_code == 1
    assert "the log is empty" in result.output


def test_bad_times_are_counted_and_told(tmp_path: Path, policy: Path) -> None:
    path = log(tmp_path / "log.csv", iter([*usual(5, 2), "u,never,C,0", "v,,C,0", f"w,{T0}000,C,"]))
    result = governor("replay", str(path), "--policy", str(policy), "--sweep", "none")
    assert result.exit_code == 0
    assert "2 rows left out" in result.output
    assert "write --map ts=COLUMN:ms" in result.output
    path = log(tmp_path / "log.csv", iter(["u,never,C,0"]))
    result = governor("replay", str(path), "--policy", str(policy))
    assert result.exit_code == 1
    assert "no row of 1 is an event" in result.output


def test_files_or_topics_but_not_both_or_neither(tmp_path: Path) -> None:
    assert governor("replay").exit_code == 2
    path = log(tmp_path / "log.csv", usual(2, 1))
    assert governor("replay", str(path), "--topic", "t").exit_code == 2
    assert governor("replay", str(path), "--since", "2026-01-01").exit_code == 2
    assert governor("replay", str(path), "--sweep", "campaign").exit_code == 2
    assert "no unit" in governor("replay", str(path), "--window", "7").output


def test_a_policy_that_cannot_be_used_says_why(tmp_path: Path, policy: Path) -> None:
    path = log(tmp_path / "log.csv", usual(2, 1))
    policy.write_text("rules: [{name: a, cap: 1, per: user, window: 90d}]")
    result = governor("replay", str(path), "--policy", str(policy))
    assert result.exit_code == 1
    assert "90d" in result.output


def odd_logs() -> dict[str, list[str]]:
    """Logs that no sound system writes."""
    plain = list(usual(60, 4))
    endless = [f"bot,{T0 + n},C,0" for n in range(3000)]
    flood = [f"bot,{T0 + n},C,1" for n in range(3000)]
    return {
        "a campaign that nobody answers": [f"{row.rsplit(',', 1)[0]},0" for row in plain],
        "a campaign that all answer": [f"{row.rsplit(',', 1)[0]},1" for row in plain],
        "impressions without end": plain + endless,
        "a flood of clicks by one person": plain + flood,
        "one exposure": [f"u,{T0},C,0"],
        "all at one instant": [f"u{n % 9},{T0},C,{n % 2}" for n in range(300)],
    }


@pytest.mark.parametrize("name", list(odd_logs()))
def test_odd_logs_give_finite_curves_and_are_told(name: str, tmp_path: Path, policy: Path) -> None:
    path = log(tmp_path / "log.csv", iter(odd_logs()[name]))
    html = tmp_path / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = governor(
            "replay", str(path), "--policy", str(policy), "--html", str(html), "--json", "-",
            "--sweep", "none",
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    _check_finite(found["campaigns"])
    page_of(html)
    said = " ".join(found["warnings"])
    expected = {
        "a campaign that nobody answers": "has no engagement in",
        "a campaign that all answer": "every exposure of campaign:C was engaged with",
        "impressions without end": "of all exposures",
        "a flood of clicks by one person": "of all engagements",
    }
    assert expected.get(name, "") in said


def _check_finite(campaigns: list[dict[str, Any]]) -> None:
    for campaign in campaigns:
        wear = np.array(campaign["wear"], np.float64)
        assert np.isfinite(wear).all()
        assert (wear[:, 1] <= wear[:, 2]).all()
        assert (wear[:, 2] <= wear[:, 3]).all()
        for row in campaign["depths"]:
            if row["exposures"]:
                assert np.isfinite([row["low"], row["estimate"], row["high"]]).all()


def test_clicks_that_answer_nothing_are_told(tmp_path: Path, policy: Path) -> None:
    shown = log(tmp_path / "shown.csv", usual(20, 3))
    clicks = tmp_path / "clicks.csv"
    lines = [f"u1,{T0 + n},nowhere-{n}" for n in range(30)]
    clicks.write_text("user_id,ts,impression_id\n" + "\n".join(lines) + "\n")
    result = governor(
        "replay", str(shown), "--engagements", str(clicks), "--policy", str(policy),
        "--sweep", "none",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "30 engagements answer no exposure" in result.output
    assert "too few engagements to learn whether people tire" in result.output


def test_engagements_before_their_exposures_are_told(tmp_path: Path, policy: Path) -> None:
    path = tmp_path / "log.csv"
    lines = [f"u{n},{T0 + 100},C,{T0 + n}" for n in range(20)]
    path.write_text("user_id,ts,campaign_id,click_ts\n" + "\n".join(lines) + "\n")
    result = governor("replay", str(path), "--policy", str(policy), "--sweep", "none")
    assert result.exit_code == 0, result.output
    assert "20 engagements bear a time before their exposure" in result.output


def test_simulated_people_are_told_with_the_truth(tmp_path: Path, policy: Path) -> None:
    html = tmp_path / "report.html"
    result = governor(
        "simulate", "--people", "300", "--policy", str(policy), "--html", str(html), "--json", "-"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    ungoverned, governed = found["campaigns"]
    truth = [one for one in ungoverned["truth"] if one is not None]
    assert truth[0] > truth[4] > truth[8] > 0
    assert governed["exposures"] < ungoverned["exposures"]
    (one,) = found["policies"]
    assert one["held"] == ungoverned["exposures"] - governed["exposures"]
    page = page_of(html)
    assert "truth" in page.words
    assert "1970" not in page.words
    # A cap of two in a week by the ad server itself does what the governor's rule does.
    cap = next(each for each in found["frontier"] if each["cap"] == 2)
    assert (cap["held"], cap["lost"]) == (one["held"], one["lost"])


def test_worlds_are_listed_and_checked() -> None:
    listed = governor("simulate", "--world", "list")
    assert "recency recovery" in listed.output
    assert governor("simulate", "--world", "nowhere").exit_code == 2
