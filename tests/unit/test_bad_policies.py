"""Wrong policies in the whole language: each mistake is told with its line and its remedy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from governor.policy import PolicyError, load
from governor.policy.durations import DAY

HORIZON = 32 * DAY

BLOCK = "rules:\n  - name: a\n    cap: 3\n    per: user\n"
"""A rule without its time, on lines 2 to 4."""

CAP = "{name: a, cap: 3, per: campaign, window: 1d}"


def rule(**fields: object) -> str:
    """A policy of one rule, on line 2, in flow style."""
    return rules({"name": "a", **fields})


def rules(*each: dict[str, object]) -> str:
    """A policy of these rules, from line 2 on, one a line."""
    return "rules:\n" + "".join(f"  - {json.dumps(fields)}\n" for fields in each)


def with_section(section: str) -> str:
    """A right rule on line 2, and from line 3 on the section."""
    return f"rules:\n  - {CAP}\n{section}"


def cap(name: str = "a", **fields: object) -> dict[str, object]:
    return {"name": name, "cap": 3, "per": "campaign", "window": "1d", **fields}


def ignored(number: int = 5, rest: str = "1d", **fields: object) -> dict[str, object]:
    reaction = {"ignored": number, **fields}
    return {"name": "a", "reaction": reaction, "per": "campaign", "rest": rest}


def written(*said: dict[str, Any] | str) -> str:
    """A policy of rules, and of sections that are text."""
    sections = "".join(one for one in said if isinstance(one, str))
    return rules(*(one for one in said if isinstance(one, dict))) + sections


WRONG: dict[str, tuple[str, int, str, str]] = {
    # What a rule is about.
    "user in a combination": (
        rules(cap(per="user x campaign")),
        2,
        "per 'user x campaign' combines user",
        "write campaign",
    ),
    "a dimension twice": (
        rules(cap(per="campaign x campaign")),
        2,
        "names a dimension twice",
        "write campaign",
    ),
    "four dimensions": (
        rules(cap(per="campaign x channel x surface x segment")),
        2,
        "combines more than three",
        "write campaign x channel x surface",
    ),
    "a mistyped dimension in a combination": (
        rules(cap(per="campaign x chanel")),
        2,
        "'chanel' is not a dimension",
        "did you mean channel?",
    ),
    "an asterisk between dimensions": (
        rules(cap(per="campaign * channel")),
        2,
        "is not a dimension",
        "write one of user",
    ),
    "lifecycle as a dimension": (
        rules(cap(per="lifecycle")),
        2,
        "is a person's state",
        "write match: {lifecycle: [prospect]}",
    ),
    "a list of dimensions": (rules(cap(per=["campaign"])), 2, "(a list) is not", "write one of"),
    "a mistyped type of id": (
        rules(cap(id="houshold")),
        2,
        "id 'houshold' is not a type of id",
        "did you mean household?",
    ),
    "a type of id in capitals": (rules(cap(id="IDFA")), 2, "is not a type of id", "a-z, 0-9 and _"),
    "a reserved name": (rules(cap("hide")), 2, "'hide' is the name of", "write hide-rule"),
    # Matches.
    "an empty match": (rules(cap(match={})), 2, "match is empty", "or remove it"),
    "a match that is a word": (rules(cap(match="ctv")), 2, "match 'ctv' is not a", "{channel:"),
    "a match on a mistyped dimension": (
        rules(cap(match={"chanel": "ctv"})),
        2,
        "chanel 'chanel' is not a dimension",
        "did you mean channel?",
    ),
    "a match on user": (rules(cap(match={"user": "u1"})), 2, "user cannot be matched", "exclude"),
    "a match on a number": (
        rules(cap(match={"campaign": 7})),
        2,
        "campaign 7 is not text",
        "in quotes, such as '7'",
    ),
    "a match without a value": (rules(cap(match={"campaign": []})), 2, "has no value", "write one"),
    "a match on an unknown state": (
        rules(cap(match={"lifecycle": ["lead"]})),
        2,
        "lifecycle 'lead' is unknown",
        "write prospect, engaged, customer or lapsed",
    ),
    "a match on its own line": (
        BLOCK + "    window: 1h\n    match:\n      channel: [ctv]\n      segment: 9\n",
        8,
        "segment 9 is not text",
        "in quotes",
    ),
    # Caps.
    "a calendar of hours": (
        rules(cap(window=None, calendar="hour")),
        2,
        "calendar 'hour' is no calendar period",
        "write day, week or month",
    ),
    "a calendar that is a list": (
        rules(cap(window=None, calendar=["day"])),
        2,
        "calendar (a list) is no calendar period",
        "write day, week or month",
    ),
    "a calendar that is a mapping": (
        BLOCK + "    calendar:\n      day: 1\n",
        5,
        "calendar (a mapping) is no calendar period",
        "write day, week or month",
    ),
    "a calendar with a window": (
        BLOCK + "    window: 1d\n    calendar: day\n",
        6,
        "has both window and calendar",
        "remove one",
    ),
    "a month beyond the history": (
        rules({"name": "a", "cap": 3, "per": "user", "calendar": "month"}).replace("a", "a"),
        2,
        "calendar 'month' looks further back than the history of 31d",
        "set GOVERNOR_HISTORY to 32d",
    ),
    "an unknown count": (
        rules(cap(count="seen")),
        2,
        "count 'seen' is unknown",
        "write rendered or viewable",
    ),
    "shadow in words": (rules(cap(shadow="yes")), 2, "shadow 'yes' is not true", "write true"),
    "a cap with a rest": (
        rules(cap(rest="1d")),
        2,
        "a cap has no rest",
        "write its time as window",
    ),
    # Reactions.
    "a reaction without a rest": (
        rule(reaction="click", per="campaign"),
        2,
        "rest is missing",
        "write rest: 14d",
    ),
    "a reaction with a window": (
        rule(reaction="click", per="campaign", rest="1d", window="1d"),
        2,
        "a reaction has no window",
        "write its time as rest",
    ),
    "a mistyped type of engagement": (
        rule(reaction="convertion", per="campaign", rest="1d"),
        2,
        "reaction 'convertion' is not a type of engagement",
        "did you mean conversion?",
    ),
    "a reaction to a number": (
        rule(reaction=5, per="campaign", rest="1d"),
        2,
        "reaction 5 is not a type",
        "write click",
    ),
    "a rest beyond the history": (
        rule(reaction="click", per="campaign", rest="60d"),
        2,
        "rest '60d' looks further back than the history of 32d",
        "set GOVERNOR_HISTORY to 60d",
    ),
    "a rest that is negative": (
        rule(reaction="click", per="campaign", rest="-1d"),
        2,
        "rest '-1d' is negative",
        "write a duration",
    ),
    "ignored without a number": (
        rule(reaction={"within": "1d"}, per="campaign", rest="1d"),
        2,
        "ignored is missing",
        "write reaction: {ignored: 5}",
    ),
    "ignored nothing": (rules(ignored(0)), 2, "ignored 0 is out of bounds", "write 1 to 1024"),
    "ignored with an unknown field": (
        rules(ignored(level=3)),
        2,
        "unknown field 'level' in reaction",
        "did you mean levels?",
    ),
    "too many levels": (rules(ignored(1, levels=17)), 2, "levels 17 is out of", "write 1 to 16"),
    "more ignored than rows hold": (
        rules(ignored(40, levels=4)),
        2,
        "ignored 40 times 4 levels asks about 160",
        "raise GOVERNOR_ROW_LIMIT to 160",
    ),
    "a rest that doubles beyond the history": (
        rules(ignored(5, rest="14d")),
        2,
        "rest of a lasts 113d at level 4",
        "set GOVERNOR_HISTORY to 113d",
    ),
    "fatigue as a word": (
        rule(fatigue="yes", per="campaign"),
        2,
        "fatigue is not a",
        "{floor: 0.4",
    ),
    "a floor of one": (
        rule(fatigue={"floor": 1}, per="campaign"),
        2,
        "floor 1 is out of bounds",
        "more than 0 and less than 1",
    ),
    "a full that is no more than the floor": (
        rule(fatigue={"floor": 0.5, "full": 0.5}, per="campaign"),
        2,
        "full 0.5 is not above the floor of 0.5",
        "raise full",
    ),
    "a coin's probability": (
        rule(fatigue={"probability": 0.5}, per="campaign"),
        2,
        "probability 0.5 is out of bounds",
        "more than 0.5",
    ),
    "two kinds of rule": (
        rule(cap=3, per="campaign", window="1d", reaction="click"),
        2,
        "both cap and reaction",
        "write two rules",
    ),
    # Rules against each other.
    "a day's cap in a month's": (
        rules(
            {"name": "a", "cap": 5, "per": "user", "calendar": "month"},
            {"name": "b", "cap": 5, "per": "user", "calendar": "day"},
        ),
        3,
        "b can never be the first to fire: a on line 2",
        "remove one",
    ),
    "the same scope in another order": (
        rules(cap(per="campaign x channel"), cap("b", per="channel x campaign", cap=4)),
        3,
        "b can never be the first to fire",
        "remove one",
    ),
    "the same match in another order": (
        rules(
            cap(match={"channel": ["web", "ctv"], "segment": "x"}),
            cap("b", match={"segment": ["x"], "channel": ["ctv", "web"]}, window="1h"),
        ),
        3,
        "b can never be the first to fire",
        "remove one",
    ),
    "a rest within a rest": (
        rules(
            {"name": "a", "reaction": "hide", "per": "creative", "rest": "10d"},
            {"name": "b", "reaction": "hide", "per": "creative", "rest": "9d"},
        ),
        3,
        "b can never be the first to fire: a on line 2",
        "remove one",
    ),
    "the same fatigue, less sure": (
        rules(
            {"name": "a", "fatigue": {"floor": 0.4, "probability": 0.9}, "per": "campaign"},
            {"name": "b", "fatigue": {"floor": 0.4, "probability": 0.8}, "per": "campaign"},
        ),
        2,
        "a can never be the first to fire: b on line 3",
        "remove one",
    ),
    "the same ignored twice": (
        rules(ignored(2), ignored(2) | {"name": "b"}),
        3,
        "b can never be the first to fire",
        "remove one",
    ),
    # Ads.
    "a weight of nothing": (
        with_section("ads:\n  - {match: {channel: ctv}, weight: 0}\n"),
        4,
        "weight 0 is out of bounds",
        "write 0.01 to 1000",
    ),
    "a weight that is too fine": (
        with_section("ads:\n  - {match: {channel: ctv}, weight: 0.333}\n"),
        4,
        "weight 0.333 is finer than hundredths",
        "write 0.33",
    ),
    "a weight in quotes": (
        with_section("ads:\n  - {match: {channel: ctv}, weight: '2'}\n"),
        4,
        "weight '2' is text",
        "write 2 without quotes",
    ),
    "an ad that matches nothing": (
        with_section("ads:\n  - {weight: 2}\n"),
        4,
        "match is missing in ads",
        "write match: {channel",
    ),
    "an ad of which nothing is said": (
        with_section("ads:\n  - {match: {channel: ctv}}\n"),
        4,
        "the item of ads changes nothing",
        "write weight: 2",
    ),
    "an ad for customers": (
        with_section("ads:\n  - {match: {lifecycle: customer}, weight: 2}\n"),
        4,
        "lifecycle says nothing about an ad",
        "in a rule's match",
    ),
    "a priority that is high": (
        with_section("ads:\n  - {match: {channel: ctv}, priority: high}\n"),
        4,
        "priority 'high' is unknown",
        "write always",
    ),
    "ads as a mapping": (
        with_section("ads: {weight: 2}\n"),
        3,
        "ads (a mapping)",
        "write one such",
    ),
    "ads that are empty": (with_section("ads: []\n"), 3, "ads is an empty list", "or remove it"),
    "an ad that is a word": (with_section("ads: [ctv]\n"), 3, "ads is not a mapping", "match: ..."),
    "weights that need more than a row holds": (
        rules(cap(cap=100)) + "ads:\n  - {match: {channel: web}, weight: 0.05}\n",
        2,
        "cap 100 may take 2000 exposures where each weighs 0.05",
        "raise the weights",
    ),
    # Sensitive categories.
    "an unknown category": (
        with_section("sensitive: {categories: [Alcohol]}\n"),
        3,
        "'Alcohol' is no category of the IAB Content Taxonomy",
        "did you mean 'Alcoholic Beverages'?",
    ),
    "a mistyped category": (
        with_section(
            "sensitive:\n  categories:\n    - Casinos & Gambling\n    - Alcoholic Beverage\n"
        ),
        6,
        "'Alcoholic Beverage' is no category",
        "did you mean 'Alcoholic Beverages'?",
    ),
    "an unknown id of a category": (
        with_section("sensitive: {categories: [99999]}\n"),
        3,
        "is no category",
        "write one of its names or ids",
    ),
    "a multiplier below one": (
        with_section("sensitive: {categories: ['211'], multiplier: 0.5}\n"),
        3,
        "multiplier 0.5 is out of bounds",
        "write 1 to 100",
    ),
    "sensitive without categories": (
        with_section("sensitive: {multiplier: 2}\n"),
        3,
        "categories is missing in sensitive",
        "write categories:",
    ),
    "sensitive left empty": (with_section("sensitive:\n"), 3, "says nothing", "or remove it"),
    "a rest beyond the history for sensitive categories": (
        rule(reaction="click", per="campaign", rest="20d")
        + "sensitive: {categories: ['211'], multiplier: 2}\n",
        2,
        "rest of a lasts 40d in sensitive categories (2 times)",
        "set GOVERNOR_HISTORY to 40d",
    ),
    # Times and zones.
    "an unknown zone": (
        with_section("timezone: Middle/Earth\n"),
        3,
        "timezone 'Middle/Earth' is not a time zone",
        "write one such as Europe/Berlin",
    ),
    "a mistyped zone": (
        with_section("timezone: Europe/Berln\n"),
        3,
        "is not a time zone",
        "did you mean Europe/Berlin?",
    ),
    "a zone by its city": (
        with_section("timezone: New York\n"),
        3,
        "is not a time zone",
        "did you mean America/New_York?",
    ),
    "an offset for a zone": (with_section("timezone: +2\n"), 3, "2 is not a time zone", "Europe/"),
    "quiet hours at 25:00": (
        with_section("quiet_hours:\n  - {name: n, from: '25:00', to: '07:00'}\n"),
        4,
        "from '25:00' is not a time of day",
        "write one such as '22:00'",
    ),
    "quiet hours that are none": (
        with_section("quiet_hours:\n  - {name: n, from: '07:00', to: '07:00'}\n"),
        4,
        "are the same time",
        "write two",
    ),
    "quiet hours without an end": (
        with_section("quiet_hours:\n  - {name: n, from: '07:00'}\n"),
        4,
        "to is missing in quiet_hours",
        "write to: '07:00'",
    ),
    "quiet hours of one name": (
        with_section(
            "quiet_hours:\n  - {name: n, from: '07:00', to: '08:00'}\n"
            "  - {name: n, from: '09:00', to: '10:00'}\n"
        ),
        5,
        "name 'n' is used on line 4 too",
        "write another",
    ),
    # Who.
    "a share of 105%": (
        with_section("holdout: {share: 105%}\n"),
        3,
        "share '105%' is out of bounds",
        "write 0% to 100%",
    ),
    "a share of 5": (with_section("holdout: {share: 5}\n"), 3, "share 5 is out of", "0 to 1"),
    "a negative share": (with_section("holdout: {share: -1%}\n"), 3, "out of bounds", "0% to 100%"),
    "a share that is too fine": (
        with_section("holdout: {share: 0.001%}\n"),
        3,
        "finer than 0.01%",
        "fewer decimals",
    ),
    "a share in words": (
        with_section("holdout: {share: some}\n"),
        3,
        "share 'some'",
        "write one such as 5% or 0.05",
    ),
    "shares of more than all": (
        with_section("holdout: {share: 60%, ungoverned: 50%}\n"),
        3,
        "more than everybody together",
        "lower one",
    ),
    "a salt that is a number": (
        with_section("holdout: {share: 5%, salt: 2026}\n"),
        3,
        "salt 2026 is not text",
        "in quotes, such as '2026'",
    ),
    "excluded ids that are numbers": (
        with_section("exclude: {ids: [7]}\n"),
        3,
        "ids 7 is not text",
        "in quotes",
    ),
    "an excluded prefix of nothing": (
        with_section("exclude:\n  prefixes:\n    - ''\n"),
        5,
        "prefixes '' is no value",
        "such as test-",
    ),
    "a lifecycle beyond the history": (
        rules(cap(match={"lifecycle": "prospect"})),
        2,
        "lifecycle of a looks back 180d",
        "set GOVERNOR_HISTORY to 180d",
    ),
    "an unknown state's time": (
        with_section("lifecycle: {lapsed: 30d}\n"),
        3,
        "unknown field 'lapsed' in lifecycle",
        "remove it (known are engaged, customer)",
    ),
    # Controls and consent.
    "an unknown control": (
        with_section("controls: {less-often: 90d}\n"),
        3,
        "unknown field 'less-often' in controls",
        "did you mean less_often?",
    ),
    "a control without a unit": (
        with_section("controls: {hide: 90}\n"),
        3,
        "hide 90 has no unit",
        "90d",
    ),
    "purposes that are names": (
        with_section("consent: {purposes: [ads]}\n"),
        3,
        "purposes 'ads' is not a whole number",
        "write one from 1 to 24",
    ),
    "a vendor of zero": (
        with_section("consent: {vendor: 0}\n"),
        3,
        "vendor 0 is out of bounds",
        "write 1 to 65535",
    ),
    "consent as a word": (with_section("consent: required\n"), 3, "not a mapping", "required: ..."),
    "an unknown section": (
        with_section("quite_hours: []\n"),
        3,
        "unknown field 'quite_hours'",
        "did you mean quiet_hours?",
    ),
    # Not plain YAML.
    "a bomb of aliases": (
        "a: &a [x, x]\nb: &b [*a, *a]\nrules: [*b, *b]\n",
        2,
        "alias *a is refused",
        "write its value out",
    ),
    "an alias that is long": (
        f"rules: *{'a' * 100_000}\n",
        1,
        "alias *aaaa",
        "write its value out",
    ),
    "a tag that is not printable": ("rules: !%0a%07 x\n", 1, "tag !", "is refused: remove it"),
    "a tab in a section": (with_section("ads:\n\t- {}\n"), 4, "a tab stands", "with spaces"),
    "a field twice in a section": (
        with_section("holdout:\n  share: 5%\n  share: 6%\n"),
        5,
        "'share' was given on line 4 already",
        "write it once",
    ),
}


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 40


@pytest.mark.parametrize("case", WRONG)
def test_the_mistake_is_told_with_its_line_and_remedy(case: str) -> None:
    text, line, what, remedy = WRONG[case]
    horizon = 31 * DAY if case == "a month beyond the history" else HORIZON
    with pytest.raises(PolicyError) as refused:
        load(text, horizon=horizon)
    found = refused.value.mistakes
    assert any(
        one.line == line and what in one.message and remedy in one.message for one in found
    ), str(refused.value)
    assert all(str(one).isprintable() and len(str(one)) < 300 for one in found)


def test_mistakes_of_all_sections_are_told_at_once() -> None:
    text = """\
timezone: Nowhere
rules:
  - {name: a, cap: 0, per: user, window: 1d}
  - {name: b, reaction: {ignored: x}, per: user, rest: 1d}
sensitive: {categories: [Nothing like it]}
holdout: {share: 2}
consent: {vendor: many}
"""
    with pytest.raises(PolicyError) as refused:
        load(text, horizon=HORIZON)
    assert [one.line for one in refused.value.mistakes] == [1, 3, 4, 5, 6, 7]


WARNED: dict[str, tuple[dict[str, Any] | str, ...]] = {
    "a cap that a spacing leaves no room for": (
        cap(cap=5, window="1h"),
        {"name": "b", "spacing": "20m", "per": "campaign"},
        "line 2: a will not fire while b on line 3 is obeyed, which leaves room for 3",
    ),
    "a cap that another leaves no room for": (
        cap(cap=3, window="1h"),
        cap("b", cap=100, window="1d"),
        "line 3: b will not fire while a on line 2 is obeyed, which leaves room for 72",
    ),
    "a spacing within a cap of one": (
        cap(cap=1, window="1h"),
        {"name": "b", "spacing": "20m", "per": "campaign"},
        "line 3: b will not fire while a on line 2 is obeyed",
    ),
    "a cap within a wider one": (
        cap(cap=3),
        cap("b", cap=3, match={"channel": "web"}),
        "line 3: b will not fire before a on line 2, which covers more",
    ),
    "an ignored within one that rests longer": (
        ignored(2, rest="2d"),
        ignored(2, rest="1d") | {"name": "b"},
        "line 3: b will not fire while a on line 2 is obeyed: remove one of them",
    ),
    "a cap within a spacing": (
        {"name": "a", "spacing": "2h", "per": "campaign"},
        cap("b", cap=1, window="1h"),
        "line 3: b will not fire before a on line 2, which covers more",
    ),
    "viewable ones within rendered ones": (
        cap(cap=3),
        cap("b", cap=3, count="viewable"),
        "line 3: b will not fire before a on line 2, which covers more",
    ),
    "a cap that another leaves no room for where ads weigh": (
        cap(cap=1, window="1d"),
        cap("b", cap=8, window="2d"),
        "ads: [{match: {channel: ctv}, weight: 3}]\n",
        "line 3: b will not fire while a on line 2 is obeyed, which leaves room for a weight of 7",
    ),
    "lapsed within the history": (
        cap(match={"lifecycle": "lapsed"}),
        "lifecycle: {engaged: 1d, customer: 32d}\n",
        "line 2: nobody is ever lapsed",
    ),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_is_allowed_and_hardly_meant_is_warned_about(case: str) -> None:
    *said, told = WARNED[case]
    warnings = [str(one) for one in load(written(*said), horizon=HORIZON).warnings]
    assert any(one.startswith(str(told)) for one in warnings), warnings


WEIGHTY = "ads: [{match: {channel: ctv}, weight: 2}]\n"
SENSITIVE = "sensitive: {categories: ['211'], multiplier: 4}\n"

QUIET: dict[str, tuple[dict[str, object] | str, ...]] = {
    "a stricter one in shadow": (cap(cap=3, shadow=True), cap("b", cap=4)),
    "other ids": (cap(cap=3), cap("b", cap=4, id="household")),
    "other counts": (cap(cap=3, count="viewable"), cap("b", cap=4)),
    "other labels": (cap(cap=3), cap("b", cap=4, per="creative")),
    "a longer window": (cap(cap=3, window="1h"), cap("b", cap=4)),
    "calendar and rolling": (
        cap(cap=3),
        {"name": "b", "cap": 4, "per": "campaign", "calendar": "week"},
    ),
    "a spacing past a calendar's midnight": (
        {"name": "a", "cap": 1, "per": "campaign", "calendar": "day"},
        {"name": "b", "spacing": "20m", "per": "campaign"},
    ),
    "a day of 25 hours": (
        {"name": "a", "cap": 75, "per": "campaign", "calendar": "day"},
        {"name": "b", "spacing": "20m", "per": "campaign"},
    ),
    "months of 28 days": (
        {"name": "a", "cap": 1, "per": "campaign", "calendar": "month"},
        cap("b", cap=3, window="29d"),
    ),
    "two that weigh as much as a cap": (
        cap(cap=5, window="1h"),
        {"name": "b", "spacing": "20m", "per": "campaign"},
        WEIGHTY,
    ),
    "a sensitive one that weighs as much as a cap": (
        cap(cap=1),
        cap("b", cap=4, window="2d"),
        SENSITIVE,
    ),
    "a spacing that is longer for sensitive ads": (
        cap(cap=1, window="1h"),
        {"name": "b", "spacing": "20m", "per": "campaign"},
        SENSITIVE,
    ),
    "fatigue at another floor": (
        {"name": "a", "fatigue": {"floor": 0.5}, "per": "campaign"},
        {"name": "b", "fatigue": {"floor": 0.4}, "per": "campaign"},
    ),
    "a spacing that leaves room": (
        cap(cap=3, window="1h"),
        {"name": "b", "spacing": "20m", "per": "campaign"},
    ),
}


@pytest.mark.parametrize("case", QUIET)
def test_rules_that_each_say_something_stand_together(case: str) -> None:
    assert load(written(*QUIET[case]), horizon=HORIZON).warnings == ()
