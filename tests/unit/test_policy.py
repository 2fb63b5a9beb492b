"""Policy files: what is read from a right one, and what is said about a wrong one."""

import pytest
from pydantic import ValidationError

from governor.policy import (
    MAX_BYTES,
    Cap,
    Policy,
    PolicyError,
    Spacing,
    default_text,
    duration,
    load,
    written,
)

DAY = 86_400_000_000
HORIZON = 32 * DAY

RIGHT = """\
rules:
  - {name: user-daily, cap: 20, per: user, window: 1d}
  - {name: campaign-hourly, cap: 3, per: campaign, window: 1h}
  - {name: breathing-space, spacing: 1m, per: campaign}
"""


def mistakes(text: str | bytes) -> list[str]:
    """All that is wrong with `text`, as `line N: message`."""
    with pytest.raises(PolicyError) as refused:
        load(text, horizon=HORIZON)
    assert str(refused.value).splitlines() == [str(each) for each in refused.value.mistakes]
    return [str(each) for each in refused.value.mistakes]


def limits(policy: Policy) -> list[Cap | Spacing]:
    """The rules that count exposures."""
    return [rule for rule in policy.rules if isinstance(rule, Cap | Spacing)]


def cap(**fields: object) -> str:
    """A policy of one cap, on line 2; a field that is None is left out."""
    rule = {"name": "a", "cap": "3", "per": "campaign", "window": "1d", **fields}
    body = ", ".join(f"{field}: {value}" for field, value in rule.items() if value is not None)
    return f"rules:\n  - {{{body}}}\n"


def spacing(**fields: object) -> str:
    """A policy of one spacing, on line 2."""
    return cap(**{"cap": None, "window": None, "spacing": "1m", **fields})


@pytest.mark.parametrize("kind", ["device2", "hashed_email_v1", "household", "a" * 32])
def test_a_rule_may_be_of_a_type_of_id_of_ones_own(kind: str) -> None:
    assert [rule.id for rule in load(cap(id=kind), horizon=HORIZON).rules] == [kind]


def test_rules_keep_their_order_and_become_ticks() -> None:
    policy = load(RIGHT, horizon=HORIZON)
    assert [(r.kind, r.name, r.per, r.limit, r.window) for r in limits(policy)] == [
        ("cap", "user-daily", ("user",), 20, DAY),
        ("cap", "campaign-hourly", ("campaign",), 3, 3_600_000_000),
        ("spacing", "breathing-space", ("campaign",), 1, 60_000_000),
    ]
    assert [type(rule) for rule in policy.rules] == [Cap, Cap, Spacing]


def test_a_policy_cannot_be_changed() -> None:
    policy = load(RIGHT)
    with pytest.raises(ValidationError):
        policy.version = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        policy.rules[0].shadow = True  # type: ignore[misc]


def test_the_version_is_what_the_file_says() -> None:
    assert load("version: spring 2\n" + RIGHT).version == "spring 2"
    assert load("version: 2024-01-31\n" + RIGHT).version == "2024-01-31"


def test_the_version_is_by_default_a_hash_of_the_rules_alone() -> None:
    version = load(RIGHT).version
    same = "# a comment\n" + RIGHT.replace("1d", "24h").replace("1m", "60s")
    assert len(version) == 12
    assert load(same).version == version
    assert load(RIGHT.replace("20", "21")).version != version
    assert load(RIGHT.replace("user-daily", "daily")).version != version


def test_the_default_policy_is_right_and_covers_what_people_notice() -> None:
    policy = load(default_text(), horizon=HORIZON)
    assert [(rule.kind, *rule.per) for rule in limits(policy)] == [
        ("cap", "user"),
        ("cap", "campaign"),
        ("cap", "campaign"),
        ("cap", "campaign"),
        ("spacing", "creative"),
    ]
    assert len(limits(policy)) == len(policy.rules)


@pytest.mark.parametrize(
    "text",
    [
        cap(window="32d"),
        cap(window="1m"),
        cap(cap="128"),
        cap(cap="1"),
        cap(per="brand_family"),
        spacing(spacing="1s"),
        spacing(spacing="32d"),
        "---\n" + RIGHT,
        RIGHT.replace("\n", "\r\n"),
        RIGHT.encode(),
        b"\xef\xbb\xbf" + RIGHT.encode(),
    ],
)
def test_right_at_the_edge(text: str | bytes) -> None:
    assert isinstance(load(text, horizon=HORIZON), Policy)


TWO = """\
rules:
  - {{name: a, cap: {}, per: {}, window: {}}}
  - {{name: b, cap: {}, per: {}, window: {}}}
"""

WRONG = {
    # Not a policy at all.
    "empty": ("", "line 1: the file is empty: write rules:"),
    "only a comment": ("# nothing\n", "line 1: the file is empty: write rules:"),
    "only a marker": ("---\n", "line 1: the file is empty: write rules:"),
    "a list": ("\n- a\n", "line 2: the file is not a mapping: begin with rules:"),
    "a word": ("hello", "line 1: the file is not a mapping: begin with rules:"),
    "not YAML": ("rules: [\n", "line 2: not YAML", "mend the indentation"),
    "a quote left open": ('rules:\n  - {name: "a}\n', "line 3: not YAML", "quote"),
    "a tab": ("rules:\n\t- {}\n", "line 2: a tab", "indent with spaces"),
    "two documents": (RIGHT + "---\n" + RIGHT, "line 5: a second document", "remove '---'"),
    "not UTF-8": (b"version: a\nname: \xff\n", "line 2: not UTF-8: save the file as UTF-8"),
    "UTF-16": (RIGHT.encode("utf-16"), "line 1: not UTF-8: save the file as UTF-8"),
    "a control character": ("version: a\n\x07", "line 2: character U+0007", "remove it"),
    "a lone surrogate": ("version: \ud800", "line 1: character U+D800", "remove it"),
    "too large": ("#" * (MAX_BYTES + 1), "line 1: the file has more than 1048576 bytes", "shorten"),
    "too large in UTF-8": ("#" + "é" * (MAX_BYTES // 2), "line 1: the file has more than 1048576"),
    "nested": ("rules: " + "[" * 9999, "line 1: nested deeper than 16", "flat list"),
    "an anchor": (RIGHT.replace("- {", "- &x {", 1), "line 2: anchor &x", "remove it"),
    "an alias": ("rules:\n  - &x {}\n  - *x\n", "line 3: alias *x", "write its value out"),
    "a tag": ("rules: !!python/object:os.system x", "line 1: tag tag:yaml.org", "remove it"),
    "a key that is a list": (RIGHT + "? [a]\n: 1\n", "line 5: a field's name is not text"),
    # The top level.
    "no rules": ("version: a\n", "line 1: rules is missing: write rules:"),
    "an empty list": ("version: a\nrules: []\n", "line 2: rules has no rule: write at least one"),
    "rules left empty": ("rules:\n", "line 1: rules (empty) is not a list: write one rule a line"),
    "rules as a mapping": ("rules: {a: 1}\n", "line 1: rules (a mapping) is not a list"),
    "too many rules": (
        "rules:\n" + "  - {}\n" * 65,
        "line 1: rules has 65 rules: write at most 64",
    ),
    "an unknown top field": (
        RIGHT + "rule: 3\n",
        "line 5: unknown field 'rule': did you mean rules?",
    ),
    "a merge key": (RIGHT + "<<: 3\n", "line 5: unknown field '<<': remove it"),
    "rules twice": (RIGHT + "rules: []\n", "line 5: 'rules' was given on line 1", "write it once"),
    "a version that is a number": (
        "version: 1.5\n" + RIGHT,
        "line 1: version 1.5 is not text",
        "quotes",
    ),
    "an empty version": ("version:\n" + RIGHT, "line 1: version (empty) is not text", "quotes"),
    "a blank version": ("version: ' '\n" + RIGHT, "line 1: version ' ' is no version", "1 to 64"),
    "a long version": (f"version: {'v' * 65}\n" + RIGHT, "line 1: version 'vvvv", "1 to 64"),
    # A rule.
    "a rule that is a word": (
        "rules:\n  - a\n",
        "line 2: rule 'a' is not a mapping: write one such as",
    ),
    "a rule left empty": ("rules:\n  -\n", "line 2: rule (empty) is not a mapping"),
    "an unknown field": (cap(windw="1d"), "line 2: unknown field 'windw': did you mean window?"),
    "a field of no rule": (
        cap(colour="red"),
        "line 2: unknown field 'colour': remove it (known are",
    ),
    "a field in capitals": (
        cap(Window="1d"),
        "line 2: unknown field 'Window': did you mean window?",
    ),
    "a field twice": (cap(x="1, x: 2"), "line 2: 'x' was given on line 2", "write it once"),
    "both kinds": (cap(spacing="1m"), "line 2: the rule has both cap and spacing: write two rules"),
    "neither kind": (cap(cap=None), "line 2: the rule has neither cap nor spacing: write cap: 3"),
    "a spacing with a window": (
        spacing(window="1d"),
        "line 2: a spacing has no window",
        "remove window",
    ),
    # Names.
    "no name": (cap(name=None), "line 2: name is missing: write name: user-daily"),
    "a name left empty": (cap(name=""), "line 2: name (empty) is not text: write a name"),
    "a name that is a number": (cap(name="12"), "line 2: name 12 is not text: write a name"),
    "a name with a space": (
        cap(name="User Daily"),
        "line 2: name 'User Daily'",
        "write user-daily",
    ),
    "a name that begins with a hyphen": (cap(name="-a"), "line 2: name '-a'", "write a"),
    "a long name": (cap(name="n" * 64), "line 2: name 'nnn", "at most 63"),
    # Dimensions.
    "no dimension": (cap(per=None), "line 2: per is missing: write per: campaign"),
    "a dimension in capitals": (
        cap(per="Campaign"),
        "line 2: per 'Campaign'",
        "did you mean campaign?",
    ),
    "a dimension mistyped": (cap(per="campain"), "line 2: per 'campain'", "did you mean campaign?"),
    "an event's field": (
        cap(per="campaign_id"),
        "line 2: per 'campaign_id'",
        "did you mean campaign?",
    ),
    "a dimension that is a number": (
        cap(per="7"),
        "line 2: per 7 is not a dimension: write one of user",
    ),
    "a key that is too long": (cap(per="k" * 33), "line 2: per 'kkk", "custom label"),
    "a key with a hyphen": (cap(per="brand-x"), "line 2: per 'brand-x'", "custom label"),
    # Limits.
    "a negative cap": (cap(cap="-3"), "line 2: cap -3 is less than 1: write how many"),
    "a cap of nothing": (cap(cap="0"), "line 2: cap 0 is less than 1: write how many"),
    "true for a number": (
        cap(cap="true"),
        "line 2: cap true is not a whole number: write how many",
    ),
    "yes for a number": (cap(cap="yes"), "line 2: cap 'yes' is not a whole number: write how many"),
    "a fraction": (cap(cap="2.0"), "line 2: cap 2.0 is not a whole number: write how many"),
    "a cap in quotes": (cap(cap="'3'"), "line 2: cap '3' is text: write 3 without quotes"),
    "an octal cap": (cap(cap="010"), "line 2: cap '010' is text: write 10 without"),
    "a cap left empty": (cap(cap=""), "line 2: cap (empty) is not a whole number: write how many"),
    "a cap above what is kept": (
        cap(cap="129"),
        "line 2: cap 129",
        "raise GOVERNOR_ROW_LIMIT to 129",
    ),
    "a cap that no row keeps": (cap(cap="5000"), "line 2: cap 5000", "write 128 or less"),
    "a huge cap": (cap(cap="9" * 5000), "line 2: cap '999", "is not a whole number"),
    # Durations.
    "no window": (cap(window=None), "line 2: window is missing: write window: 1d"),
    "a window without a unit": (
        cap(window="90"),
        "line 2: window 90 has no unit: write 90s, 90m, 90h, 90d or 90w",
    ),
    "a window in quotes without a unit": (cap(window="'90'"), "line 2: window '90' has no unit"),
    "a window in base 60": (cap(window="'1:30'"), "line 2: window '1:30' is not a duration"),
    "a window in words": (cap(window="1 day"), "line 2: window '1 day' is not a", "such as 1d"),
    "a window in capitals": (cap(window="2H"), "line 2: window '2H' is not a", "such as 2h"),
    "two units": (cap(window="1d12h"), "line 2: window '1d12h' is not a duration", "one unit"),
    "a negative window": (cap(window="-1d"), "line 2: window '-1d' is negative: write"),
    "a window of nothing": (cap(window="0s"), "line 2: window '0s' is too short: write 1m or more"),
    "a short window": (cap(window="59s"), "line 2: window '59s' is too short: write 1m or more"),
    "a long window": (cap(window="367d"), "line 2: window '367d' is too long: write 366d or less"),
    "a window left empty": (cap(window=""), "line 2: window (empty) is not a duration: write one"),
    "a window that is true": (
        cap(window="true"),
        "line 2: window true is not a duration: write one",
    ),
    "a window that is a list": (cap(window="[1d]"), "line 2: window (a list) is not a duration"),
    "a window finer than a tick": (
        cap(window="60.0000001s"),
        "finer than a microsecond: write fewer",
    ),
    "a window beyond the history": (
        cap(window="33d"),
        "line 2: window '33d' looks further back than the history of 32d",
        "set GOVERNOR_HISTORY to 33d",
    ),
    "a short spacing": (spacing(spacing="500ms"), "line 2: spacing '500ms' is too short: write 1s"),
    "a spacing beyond the history": (
        spacing(spacing="5w"),
        "line 2: spacing '5w'",
        "GOVERNOR_HISTORY",
    ),
    "a spacing without a unit": (
        spacing(spacing="60"),
        "line 2: spacing 60 has no unit: write 60s",
    ),
    # Rules against each other.
    "a name used twice": (
        cap(name="a") + "  - {name: a, spacing: 1m, per: user}\n",
        "line 3: name 'a' is used on line 2 too: write another",
    ),
    "a cap implied by the one before": (
        TWO.format(3, "user", "1d", 4, "user", "1h"),
        "line 3: b can never be the first to fire: a on line 2",
        "remove one",
    ),
    "a cap implied by the one after": (
        TWO.format(4, "user", "1h", 4, "user", "2h"),
        "line 2: a can never be the first to fire: b on line 3",
    ),
    "the same cap twice": (TWO.format(3, "user", "24h", 3, "user", "1d"), "line 3: b can never"),
    "a spacing implied by another": (
        "rules:\n  - {name: a, spacing: 2m, per: user}\n  - {name: b, spacing: 1m, per: user}\n",
        "line 3: b can never be the first to fire: a on line 2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_with_its_line_and_remedy(case: str) -> None:
    text, *told = WRONG[case]
    found = mistakes(text)
    fragments = [str(each) for each in told]
    assert any(all(each in line for each in fragments) for line in found), "\n".join(found)
    assert all(line.isprintable() and len(line) < 300 for line in found)


SINGLE = {
    "neither kind",
    "a spacing with a window",
    "both kinds",
    "no name",
    "a window without a unit",
    "a name used twice",
    "a cap implied by the one before",
    "the same cap twice",
    "a version that is a number",
    "rules twice",
    "an empty list",
    "too many rules",
}


@pytest.mark.parametrize("case", sorted(SINGLE))
def test_one_mistake_is_told_once(case: str) -> None:
    assert len(mistakes(WRONG[case][0])) == 1


def test_all_mistakes_are_told_at_once_in_the_order_of_lines() -> None:
    text = """\
verson: 3
rules:
  - name: a
    cap: true
    per: campain
    window: 90
    name: b
  - {name: a, cap: 5, per: user, window: 1d}
  - {name: c, cap: 9, per: user, window: 1h}
"""
    assert [line.partition(" ")[2][:12] for line in mistakes(text)] == [
        "1: unknown f",
        "4: cap true ",
        "5: per 'camp",
        "6: window 90",
        "7: 'name' wa",
        "8: name 'a' ",
        "9: c can nev",
    ]


@pytest.mark.parametrize(
    "text",
    [
        TWO.format(3, "user", "1h", 4, "user", "1d"),
        TWO.format(3, "user", "1d", 4, "campaign", "1h"),
        TWO.format(4, "user", "1d", 3, "user", "1h"),
    ],
)
def test_caps_that_can_both_fire_first_stand_together(text: str) -> None:
    assert len(load(text).rules) == 2


def test_without_a_horizon_only_the_longest_window_bounds() -> None:
    assert limits(load(cap(window="366d")))[0].window == 366 * DAY


def test_the_row_limit_bounds_caps() -> None:
    assert limits(load(cap(cap="200"), row_limit=200))[0].limit == 200
    with pytest.raises(PolicyError, match="write 16 or less, or raise GOVERNOR_ROW_LIMIT to 17"):
        load(cap(cap="17"), row_limit=16)


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("25ms", 25_000),
        ("60s", 60_000_000),
        ("1.5h", 5_400_000_000),
        ("0.000001s", 1),
        ("2w", 14 * DAY),
        ("0s", 0),
    ],
)
def test_durations_are_exact(text: str, ticks: int) -> None:
    assert duration(text) == ticks


@pytest.mark.parametrize(
    ("ticks", "text"),
    [(0, "0s"), (1, "0.001ms"), (25_000, "25ms"), (90_000_000, "90s"), (14 * DAY, "14d")],
)
def test_durations_are_written_as_they_are_read(ticks: int, text: str) -> None:
    assert written(ticks) == text
    assert duration(text) == ticks
