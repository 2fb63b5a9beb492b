"""The demo's arithmetic, its words, and that its check can fail."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from governor.oracle import Oracle
from governor.policy import duration, load
from streams.demo import HISTORY, ROW_LIMIT, policy_text
from streams.demo_check import Verdict, check
from streams.demo_sample import Exposure, Page, events_of, read_pages
from streams.demo_summary import examples, summary
from streams.demo_tally import Tally
from streams.demo_view import Scene, line, save
from streams.demo_words import again, clock, limit, moment, sentence, span
from streams.demo_worker import figures

HORIZON = duration(HISTORY)
RULES = load(
    """
    rules:
      - {name: site, cap: 4, per: user, window: 1h}
      - {name: pause, spacing: 1m, per: campaign}
      - {name: daily, cap: 2, per: campaign, window: 1d}
    """,
    horizon=HORIZON,
).rules
DAILY = RULES[2:]
T0 = 1_677_146_400
"""23 Feb 2023 10:00 UTC."""


def page(at: int, *items: str, user: str = "u", clicked: str = "") -> Page:
    """A page view so many seconds after the beginning."""
    return tuple(Exposure(user, item, T0 + at, f"p{at}", item == clicked) for item in items)


def tally(*pages: Page, rules: Any = DAILY, obey: bool = False) -> Tally:
    counted = Tally(rules, obey=obey)
    for one in pages:
        counted.add(one)
    return counted


# --- The sample ---------------------------------------------------------------------------------


def test_the_sample_is_whole_and_in_order() -> None:
    pages = read_pages()
    exposures = [one for each in pages for one in each]
    assert (len(pages), len(exposures)) == (1046, 10_848)
    assert len({one.user for one in exposures}) == 38
    assert len({one.item for one in exposures}) == 1403
    assert len({one.id for one in exposures}) == len(exposures)
    assert [each[0].ts for each in pages] == sorted(each[0].ts for each in pages)
    assert all(len({(one.ts, one.user) for one in each}) == 1 for each in pages)


def test_the_demos_policy_never_needs_more_than_a_row_holds() -> None:
    """Else its answers, and the check, would depend on what a full row lets go."""
    policy = load(policy_text(), horizon=HORIZON, row_limit=ROW_LIMIT)
    longest = max(rule.window for rule in Tally(policy.rules).rules) // 1_000_000
    assert longest <= HORIZON // 1_000_000
    times: dict[str, list[int]] = {}
    for each in read_pages():
        mine = times.setdefault(each[0].user, [])
        mine += [one.ts for one in each]
        assert sum(ts > mine[-1] - HORIZON // 1_000_000 for ts in mine) <= ROW_LIMIT


def test_a_page_view_becomes_impressions_and_a_click() -> None:
    events = list(events_of(page(0, "A", "B", clicked="B")))
    assert [topic for topic, _ in events] == ["impressions", "impressions", "engagements"]
    assert events[1][1]["impression_id"] == events[2][1]["impression_id"] == "p0-B"
    assert len({event["event_id"] for _, event in events}) == 3


# --- The arithmetic -----------------------------------------------------------------------------


def test_exposures_before_and_after_a_cap() -> None:
    counted = tally(
        page(0, "A", "B", clicked="A"),
        page(60, "A"),  # the second of two a day: the cap is reached, this one is not in excess
        page(120, "A", "B", clicked="B"),
        page(180, "A", clicked="A"),
    )
    assert (counted.exposures, counted.clicks) == (6, 3)
    assert (counted.excess, counted.excess_clicks) == (2, 1)
    assert counted.rate_before == 2 / 4
    assert counted.rate_after == 1 / 2
    assert counted.share == 2 / 6
    assert counted.people["u"].items == {"A": 4, "B": 2}


def test_at_until_an_exposure_is_not_in_excess() -> None:
    first = page(0, "A"), page(60, "A")
    assert tally(*first, page(86_399, "A")).excess == 1
    assert tally(*first, page(86_400, "A")).excess == 0


def test_one_page_view_is_one_instant() -> None:
    counted = tally(page(0, *"ABCDEF"), page(30, "G"), rules=RULES[:1])
    assert counted.excess == 1


def test_people_do_not_count_for_each_other() -> None:
    counted = tally(page(0, "A"), page(1, "A", user="v"), page(2, "A"), page(3, "A", user="v"))
    assert counted.excess == 0


def test_an_exposure_in_excess_of_two_rules_counts_once_and_for_each() -> None:
    counted = tally(page(0, "A"), page(61, "A"), page(62, "A", clicked="A"), rules=RULES)
    assert counted.excess == 1
    assert counted.excess_by_rule == {"pause": 1, "daily": 1}
    assert counted.excess_clicks_by_rule == {"pause": 1, "daily": 1}


def test_what_is_held_back_counts_towards_no_cap() -> None:
    pages = [page(at, "A") for at in (0, 30, 60, 90)]
    assert tally(*pages, rules=RULES[1:2]).excess == 3
    assert tally(*pages, rules=RULES[1:2], obey=True).excess == 2


def test_an_episode_tells_what_happened() -> None:
    counted = tally(*(page(hour * 3600, "A") for hour in range(5)))
    (episode,) = counted.episodes
    assert (episode.shown, episode.excess) == (5, 3)
    assert sentence(episode) == (
        "user u saw article A 5 times in 4 hours; the cap of 2 a day was reached on 23 Feb 11:00; "
        "free again on 24 Feb 13:00."
    )


def test_an_episode_ends_when_it_is_free_again() -> None:
    counted = tally(*(page(at, "A") for at in (0, 60, 86_460, 86_461)))
    assert [one.reached - T0 for one in counted.episodes] == [60, 86_461]


def test_the_tally_agrees_with_the_oracle_on_the_sample() -> None:
    """Before each page view, an exposure is in excess just when the oracle's throttle says so."""
    policy = load(policy_text(), horizon=HORIZON, row_limit=ROW_LIMIT)
    counted, oracle = Tally(policy.rules), Oracle(policy, horizon=HORIZON, row_limit=ROW_LIMIT)
    looked = 0
    for each in (one for one in read_pages() if one[0].user == "44038"):
        resting = (oracle.decide("44038") or {"throttles": []})["throttles"]
        due = {one["label"] for one in resting if one["until"] > each[0].ts}
        excess = {one.item for one, _ in counted.add(each)}
        expected = {one.item for one in each if {"user", f"campaign:{one.item}"} & due}
        assert excess == expected
        for topic, event in events_of(each):
            assert oracle.add(topic.removesuffix("s"), event) is None
        looked += len(expected)
    assert looked > 30


# --- The words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a moment"),
        (1, "1 second"),
        (75, "75 seconds"),
        (60, "1 minute"),
        (7199, "120 minutes"),
        (9 * 3600, "9 hours"),
        (3 * 86400 + 5, "3 days"),
    ],
)
def test_spans(seconds: int, words: str) -> None:
    assert span(seconds) == words


def test_limits_and_times_in_words() -> None:
    assert [limit(rule) for rule in Tally(RULES).rules] == ["4 an hour", "1 a minute", "2 a day"]
    assert [again(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
    )
    assert clock(T0) == "23 Feb 10:00"
    assert moment(T0) == "Thu 23 Feb 2023 10:00 UTC"


def test_the_summary_has_the_figures() -> None:
    pages = [page(at, "A", "B", clicked="A" if at < 2 else "") for at in range(5)]
    text = "\n".join(summary(tally(*pages), tally(*pages, obey=True), 1))
    assert "10 exposures of 2 articles to 1 people in 1 days, 2 clicks." in text
    assert "6 exposures (60.0%) came after a cap was reached." in text
    assert "up to that point: 50.0%, after it: 0.0%." in text
    assert "6 after 2 a day of one article, click rate 0.0%" in text
    assert "user u: 10 exposures, 6 after a cap" in text


def test_examples_are_of_different_people_and_never_of_spacings() -> None:
    pages = [page(at, "A", user=user) for at in range(6) for user in "uvw"]
    chosen = examples(tally(*sorted(pages, key=lambda one: one[0].ts), rules=RULES))
    assert len({one.user for one in chosen}) == 3
    assert {one.rule.kind for one in chosen} == {"cap"}


def test_the_view_is_drawn_from_its_first_moment_to_its_last(tmp_path: Path) -> None:
    scene = Scene(T0, T0 + 400, tally(), now=T0)
    save(scene, tmp_path / "empty.svg")
    for at in range(0, 400, 10):
        scene.show(page(at, "A", "B"))
    scene.decisions["u"] = {"throttles": [{"label": "campaign:A", "until": T0 + 1000.0}]}
    save(scene, tmp_path / "full.svg")
    svg = (tmp_path / "full.svg").read_text()
    assert svg.startswith("<svg")
    assert "url(http" not in svg
    assert "1 throttles in force on 1 people" in line(scene)


def test_figures_are_read_from_the_metrics() -> None:
    read = figures(
        'governor_events_total{topic="impressions",outcome="applied"} 90\n'
        'governor_events_total{topic="impressions",outcome="duplicate"} 10\n'
        "governor_pending_events 3\n"
        "governor_changelog_lag_rows 4\n"
        'governor_decision_records_total{kind="published"} 7\n'
        'governor_event_to_decision_seconds_bucket{le="0.05"} 60\n'
        'governor_event_to_decision_seconds_bucket{le="0.1"} 98\n'
        'governor_event_to_decision_seconds_bucket{le="+Inf"} 100\n'
    )
    assert (read.events, read.applied, read.pending, read.published) == (100, 90, 7, 7)
    assert (read.half, read.most) == (0.05, float("inf"))


# --- The check ----------------------------------------------------------------------------------

POLICY = load(
    """
    version: v1
    rules:
      - {name: daily, cap: 2, per: campaign, window: 1d}
    """
)
PAGES = [page(0, "A", "B"), page(60, "A"), page(90, "B"), page(5, "A", user="v")]


def checked(topic: dict[str, Any], *more: Page) -> Verdict:
    events: dict[str, list[Any]] = {}
    for each in (*PAGES, *more):
        events.setdefault(each[0].user, []).extend(events_of(each))
    partitions = dict.fromkeys(events, 0)
    return check(POLICY, events, partitions, topic, horizon=HORIZON, row_limit=ROW_LIMIT)


@pytest.fixture
def topic() -> dict[str, Any]:
    """What the topic ought to hold: A and B rest for u, nothing for v."""
    oracle = Oracle(POLICY, horizon=HORIZON, row_limit=ROW_LIMIT)
    for each in PAGES[:3]:
        for kind, event in events_of(each):
            oracle.add(kind.removesuffix("s"), event)
    due = oracle.decide("u")
    assert due is not None
    return {"u": due | {"policy": "v1", "curves": None, "decided_at": 5.5}}


def test_a_right_topic_passes(topic: dict[str, Any]) -> None:
    verdict = checked(topic)
    assert str(verdict) == "oracle: 2 users, 2 throttles compared, 0 differ"
    assert verdict.status == 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("throttles", 0, "until"), T0 + 86_400.000001),
        (("throttles", 0, "from"), T0),
        (("throttles", 1, "reasons"), []),
        (("throttles", 1, "remaining"), 1),
        (("throttles", 0, "evidence", "daily", "exposures"), 3),
        (("throttles", 0, "label"), "campaign:C"),
        (("id",), "w"),
        (("policy",), "v2"),
    ],
)
def test_a_tampered_record_is_told(topic: dict[str, Any], path: Any, value: object) -> None:
    wrong = copy.deepcopy(topic)
    at = wrong["u"]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    verdict = checked(wrong)
    assert verdict.status == 1
    assert verdict.differences[0].startswith("user u")
    assert str(verdict).startswith("oracle: 2 users, ")
    assert not str(verdict).endswith(" 0 differ")


def test_a_missing_decision_is_told() -> None:
    verdict = checked({})
    assert (verdict.compared, len(verdict.differences), verdict.status) == (2, 3, 1)


def test_a_superfluous_decision_is_told(topic: dict[str, Any]) -> None:
    assert checked(topic | {"v": topic["u"] | {"id": "v"}}).status == 1
    assert checked(topic | {"stranger": topic["u"] | {"id": "stranger"}}).status == 1


def test_a_missing_throttle_is_told(topic: dict[str, Any]) -> None:
    topic["u"]["throttles"].pop()
    assert len(checked(topic).differences) == 1


def test_what_ran_out_for_everybody_must_be_withdrawn(topic: dict[str, Any]) -> None:
    """The last until is 86 400 s after the first page view; an hour later it has to go."""
    late = page(86_400 + 3_600, "Z", user="v")
    early = page(86_400 + 3_599, "Z", user="v")
    assert checked({}, late).status == 0
    assert checked({}, late).withdrawn == 2
    assert checked(topic, late).status == 1
    assert checked(topic, early).status == 0
    assert checked({}, early).status == 1
