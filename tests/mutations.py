"""Ways to break the compiled loops, each of which some test must notice.

``python -m tests.mutations`` replays the cases worked out by hand, bad input and a fixed set of
random streams against whatever ``governor`` it finds on its path and fails at the first wrong
answer.
``tests/unit/test_mutations.py`` runs that over copies of the package with one mutation each, as
plain Python (``NUMBA_DISABLE_JIT=1``), which spares compiling every one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Mutation(NamedTuple):
    file: str
    """In ``governor/``."""
    fragment: str
    """Occurs once in the file."""
    replacement: str
    why: str
    """What the mutation makes of the code."""


MUTATIONS: tuple[Mutation, ...] = (
    # ---- what is kept
    Mutation(
        "applying.py",
        "ts <= newest_of(entry, length) - horizon:\n        return LATE",
        "ts < newest_of(entry, length) - horizon:\n        return LATE",
        "an event exactly one horizon late is taken in",
    ),
    Mutation(
        "applying.py",
        "ts <= newest_of(entry, length) - horizon:\n        return LATE",
        "ts <= newest_of(entry, length) + horizon:\n        return LATE",
        "the horizon lies ahead",
    ),
    Mutation(
        "applying.py",
        "ticks_of(entry[kept - 1, 0]) <= oldest:",
        "ticks_of(entry[kept - 1, 0]) < oldest:",
        "an entry exactly one horizon old is kept",
    ),
    Mutation(
        "applying.py",
        "if simple and at == 0:",
        "if simple and at == 1:",
        "the newest event prunes nothing",
    ),
    Mutation(
        "kept.py",
        "if (needed or rank < row_limit) and kept < HARD_LIMIT:\n            kept += 1\n"
        "        else:\n            scratch.mark[i] = _OVERFLOW\n        rank += 1\n\n\n"
        "@compiled\ndef _keep_engagements",
        "if (needed or rank < row_limit - 1) and kept < HARD_LIMIT:\n"
        "            kept += 1\n        else:\n            scratch.mark[i] = _OVERFLOW\n"
        "        rank += 1\n\n\n@compiled\ndef _keep_engagements",
        "a row holds one entry less than its limit",
    ),
    Mutation(
        "kept.py",
        "            elif kind_of(entry[i, 0]) == EXPOSURE:\n                exposures += 1",
        "            elif kind_of(entry[i, 0]) <= ENGAGEMENT:\n                exposures += 1",
        "engagements push exposures out",
    ),
    Mutation(
        "kept.py",
        "    if exposures > row_limit:",
        "    if exposures >= row_limit + 2:",
        "a full row refuses what is just newer than its oldest",
    ),
    Mutation(
        "kept.py",
        "    for i in range(bare):\n        if scratch.mark[i] == _KEEP:\n            for word",
        "    for i in range(bare - 1):\n        if scratch.mark[i] == _KEEP:\n            for word",
        "pushing an entry out loses the last one of the row",
    ),
    Mutation(
        "kept.py",
        "        if scratch.mark[i] == _KEEP:\n            for word in range(WORDS):\n"
        "                entry[kept, word] = entry[i, word]",
        "        if scratch.mark[i] == _KEEP:\n            for word in range(WORDS):\n"
        "                entry[i, word] = entry[kept, word]",
        "pushing an entry out copies the wrong way",
    ),
    Mutation(
        "kept.py",
        "if (needed or i < row_limit) and kept < HARD_LIMIT:",
        "if (needed or i < row_limit - 1) and kept < HARD_LIMIT:",
        "a row of exposures holds one entry less than its limit",
    ),
    Mutation(
        "kept.py",
        "needed = crowded and _needed(",
        "needed = not crowded and _needed(",
        "a row crowded by exposures forgets what a rule asks about",
    ),
    Mutation(
        "kept.py",
        "                    entry[kept, word] = entry[i, word]\n            seen |=",
        "                    entry[i, word] = entry[kept, word]\n            seen |=",
        "pushing an exposure out copies the wrong way",
    ),
    Mutation(
        "kept.py",
        "if kept < bare and shadowed(seen):",
        "if kept < bare and not shadowed(seen):",
        "what lost its twin to the limit stays shadowed",
    ),
    # ---- where an entry goes
    Mutation(
        "applying.py",
        "if at < bare and order == 0:",
        "if at < bare and order == 2:",
        "the same event again counts again",
    ),
    Mutation(
        "applying.py",
        "for i in range(length, at, -1):",
        "for i in range(length - 1, at, -1):",
        "an insertion overwrites an entry",
    ),
    Mutation(
        "entries.py",
        "return 1 if ticks_a < ticks_b else -1",
        "return 1 if ticks_a > ticks_b else -1",
        "the newest entry stands last",
    ),
    Mutation(
        "entries.py",
        "return 1 if a[1] < b[1] else -1",
        "return 1",
        "events of one time stand in the order of arrival",
    ),
    Mutation(
        "entries.py",
        "return 1 if content_a < content_b else -1",
        "return 1",
        "of two contents of one time the last to arrive counts",
    ),
    # ---- what counts
    Mutation(
        "entries.py",
        "if i < at:\n                entry[i, 0] |= _SHADOW",
        "if i > at:\n                entry[i, 0] |= _SHADOW",
        "of two contents the larger counts",
    ),
    Mutation(
        "entries.py",
        "if alike and kind_of(entry[i, 0]) == kind and i != at:",
        "if alike and kind_of(entry[i, 0]) == kind:",
        "every entry is its own twin",
    ),
    Mutation(
        "applying.py",
        "if dropped and any_shadowed(entry, bare):",
        "if not dropped and any_shadowed(entry, bare):",
        "what an entry shadowed stays shadowed when the entry is gone",
    ),
    Mutation(
        "entries.py",
        "for j in range(i + 1, length):",
        "for j in range(i + 2, length):",
        "the next smaller entry is not looked at",
    ),
    Mutation(
        "entries.py",
        "entry[i, 0] &= ~_SHADOW",
        "entry[i, 0] |= _SHADOW",
        "shadows are cast and never lifted",
    ),
    Mutation(
        "entries.py",
        "if shadowed(entry[i, 0]):\n            return True",
        "if shadowed(entry[i, 0]):\n            return False",
        "shadows are not looked for",
    ),
    Mutation(
        "applying.py",
        "(exposure & _EXPOSURE_BITS)",
        "(event & _EXPOSURE_BITS)",
        "impression ids mean nothing",
    ),
    Mutation(
        "entries.py",
        "if kind_of(a[0]) != kind_of(b[0]):\n        return False",
        "if kind_of(a[0]) < 0:\n        return False",
        "a click hides the exposure of the same event id",
    ),
    Mutation(
        "entries.py",
        "if a[1] == b[1]:\n        return True",
        "if a[1] == b[1]:\n        return False",
        "two contents of one event count both",
    ),
    # ---- bookkeeping
    Mutation(
        "applying.py",
        "changed = became == APPLIED",
        "changed = became != DROPPED",
        "a duplicate makes its row dirty",
    ),
    Mutation(
        "applying.py",
        "table.state[_NEWEST] = max(table.state[_NEWEST], ts)",
        "table.state[_NEWEST] = min(table.state[_NEWEST], ts)",
        "the watermark does not move",
    ),
    Mutation(
        "rows.py",
        "rows.header[row, 1] &= ~np.uint64(RECHECK)\n"
        "    if not flags_of(rows.header[row, 1]) & DIRTY:",
        "rows.header[row, 1] &= ~np.uint64(RECHECK)\n    if flags_of(rows.header[row, 1]) & USED:",
        "a row stands in the dirty list twice",
    ),
    Mutation(
        "rows.py",
        "rows.state[_ENTRIES] += length - length_of(header0)",
        "rows.state[_ENTRIES] += length",
        "entries are counted more than once",
    ),
    Mutation(
        "rows.py",
        "rows.free[size_class] = start + 1",
        "rows.free[size_class] = start + 2",
        "a freed run is handed out one entry off",
    ),
    Mutation(
        "rows.py",
        "((at - home) & mask) >= ((at - hole) & mask)",
        "((at - home) & mask) > ((at - hole) & mask)",
        "removing a row hides another",
    ),
    Mutation(
        "rows.py",
        "state[_FREE_ROW] = row + 1",
        "state[_FREE_ROW] = row",
        "a removed row's neighbour is handed out",
    ),
    Mutation(
        "rows.py",
        "used += CAPACITIES[size_class]",
        "used += length - 1",
        "rows moved together overlap",
    ),
    Mutation(
        "rows.py",
        "rows.ids[used + i] = rows.ids[first + i]",
        "rows.ids[used + i] = rows.ids[i]",
        "users lose their ids when rows are moved together",
    ),
    # ---- rules
    Mutation(
        "counting.py",
        "        if ts <= oldest:",
        "        if ts <= oldest + 1:",
        "the oldest tick of the longest window is not looked at",
    ),
    Mutation(
        "counting.py",
        "        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):\n"
        "            continue\n        ad = ad_of(entry[i, 2])\n        weight",
        "        if kind_of(entry[i, 0]) != EXPOSURE:\n            continue\n"
        "        ad = ad_of(entry[i, 2])\n        weight",
        "what is shadowed counts",
    ),
    Mutation(
        "counting.py",
        "        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):\n"
        "            continue\n        ad = ad_of(entry[i, 2])\n        weight",
        "        if kind_of(entry[i, 0]) < EXPOSURE or shadowed(entry[i, 0]):\n"
        "            continue\n        ad = ad_of(entry[i, 2])\n        weight",
        "clicks count as exposures",
    ),
    Mutation(
        "counting.py",
        ">= rules.ordered[rule, _THRESHOLD]",
        ">= rules.ordered[rule, _THRESHOLD] + 100",
        "a cap allows one more",
    ),
    Mutation(
        "counting.py",
        "until = ts + window",
        "until = ts - window",
        "until lies before the exposure",
    ),
    Mutation(
        "counting.py",
        "if until <= it[_NOW]:",
        "if until < it[_NOW]:",
        "a throttle holds at its until",
    ),
    Mutation(
        "counting.py",
        "one[_FROM] = scratch.slot[slot, _NEWEST]",
        "one[_FROM] = ts",
        "from is the time of the exposure that leaves the window",
    ),
    Mutation(
        "evaluation.py",
        "scratch.round[0] += 1",
        "scratch.round[0] += 0",
        "counts go on from one user to the next",
    ),
    Mutation(
        "counting.py",
        "scratch.slot[slot, _NEXT] = rules.first[selector]",
        "scratch.slot[slot, _NEXT] = rules.first[selector] + 1",
        "the first rule of a dimension is left out",
    ),
    # ---- what is published
    Mutation(
        "evaluation.py",
        "mix(np.uint64(one[_FROM]), np.uint64(one[_UNTIL]))",
        "mix(np.uint64(one[_FROM]), np.uint64(one[_FROM]))",
        "a change of until alone is not published",
    ),
    Mutation(
        "taking.py",
        "if again or digest != table.header[row, 2]:",
        "if again or digest != np.uint64(0):",
        "unchanged decisions are published again, and none is withdrawn",
    ),
    Mutation(
        "taking.py",
        "table.header[row, 2] = digest",
        "table.header[row, 2] = np.uint64(0)",
        "what was published is forgotten",
    ),
    Mutation(
        "taking.py",
        "if last <= watermark - _GRACE:",
        "if last < watermark - _GRACE:",
        "what has run out by everybody's clock stays for a tick",
    ),
    Mutation(
        "decisions.py",
        "> watermark - 2 * horizon:",
        "> watermark - horizon:",
        "rows are forgotten after one horizon",
    ),
    Mutation(
        "encoding.py",
        "until = max(until, scratch.found[k, _UNTIL])",
        "until = min(until, scratch.found[k, _UNTIL])",
        "the laxest rule wins",
    ),
    Mutation(
        "encoding.py",
        "while end < found and _same(rules, scratch, first, end):",
        "while end + 1 < found and _same(rules, scratch, first, end):",
        "a reason is left out",
    ),
    Mutation(
        "encoding.py",
        "selector = rules.rule[rule, _SELECTOR]",
        "selector = rule",
        "evidence of rules sorted by dimension under names in the policy's order",
    ),
    Mutation(
        "counting.py",
        "if ticks_of(entry[i, 0]) <= oldest:",
        "if ticks_of(entry[i, 0]) < oldest:",
        "evidence counts an exposure that has left the window",
    ),
    Mutation(
        "counting.py",
        "if ads.ad[ad_of(entry[i, 2]), _SLOTS + selector] == slot:\n            exposures",
        "if ads.ad[ad_of(entry[i, 2]), _SLOTS] == slot:\n            exposures",
        "evidence counts in another dimension",
    ),
    Mutation(
        "counting.py",
        "or shadowed(entry[i, 0]):\n            continue\n        if ads.ad[ad_of(entry[i, 2])",
        "or False:\n            continue\n        if ads.ad[ad_of(entry[i, 2])",
        "evidence counts what is shadowed",
    ),
    Mutation(
        "jsontext.py",
        "while value >= power:",
        "while value > power:",
        "ten is written with one digit",
    ),
    Mutation(
        "jsontext.py",
        "for i in range(6):",
        "for i in range(5):",
        "the first decimal of a time is lost",
    ),
    Mutation(
        "jsontext.py",
        "byte < 0x20 or byte == 0x22 or",
        "byte < 0x20 or",
        "a quote in a user id ends the string",
    ),
    # ---- reading
    Mutation(
        "scan.py",
        "ticks[0] = sign * value",
        "ticks[0] = sign * value + 1",
        "times are read one tick late",
    ),
    Mutation(
        "scan.py",
        "if spans[_IMPRESSION, 1] > 0:",
        "if spans[_IMPRESSION, 1] > 36:",
        "short impression ids are not read",
    ),
    Mutation(
        "scan.py",
        "found.what[i] = kind << TYPE_SHIFT",
        "found.what[i] = 0",
        "the kind of an exposure is not read",
    ),
    Mutation(
        "scan.py",
        "key ^ np.uint64(field)",
        "key",
        "a creative is taken for an advertiser of the same name",
    ),
    Mutation(
        "scan.py",
        "byte < 0x20 or byte >= 0x80 or byte == _BACKSLASH",
        "byte < 0x20 or byte >= 0x80",
        "escapes are taken as they stand",
    ),
    Mutation(
        "scan.py",
        "byte < 0x20 or byte >= 0x80 or byte == _BACKSLASH",
        "byte >= 0x80 or byte == _BACKSLASH",
        "control characters are let through",
    ),
    Mutation(
        "scan.py",
        "ticks[0] >= now + times.max_future",
        "ticks[0] >= now + times.max_age",
        "events of the future are let in",
    ),
    Mutation(
        "scan.py",
        "return _blank(buffer, at + 1, end) == end",
        "return _blank(buffer, at + 1, end) <= end",
        "what stands behind the object is not looked at",
    ),
    Mutation(
        "scan.py",
        "if spans[field, 1] > max_id and field != _TZ:",
        "if spans[field, 1] > 2 * max_id and field != _TZ:",
        "ids may be twice as long",
    ),
    # ---- the changelog
    Mutation(
        "rowcodec.py",
        "table.arena[i, 2] >> _AD_BITS)",
        "table.arena[i, 2])",
        "impression ids are not read back",
    ),
    Mutation(
        "rowcodec.py",
        "ads_of_row[k] = order[where]",
        "ads_of_row[k] = where",
        "exposures are read back as those of another ad",
    ),
    Mutation(
        "rowcodec.py",
        "table.header[row, 2] = word_at(buffer, begin + 4)",
        "table.header[row, 2] = _NONE",
        "a restart forgets what was published",
    ),
    Mutation(
        "rowcodec.py",
        "out[at + 2], out[at + 3] = length & 0xFF, length >> 8",
        "out[at + 2], out[at + 3] = length & 0xFF, 0",
        "rows of more than 255 entries are cut",
    ),
    Mutation(
        "applying.py",
        "bare == length and bare <= row_limit and",
        "bare == length and bare <= row_limit + 1 and",
        "a lower row limit keeps one entry more",
    ),
    Mutation(
        "applying.py",
        "ticks_of(entry[bare - 1, 0]) > oldest\n    for",
        "ticks_of(entry[bare - 1, 0]) >= oldest\n    for",
        "a shorter horizon keeps an entry exactly that old",
    ),
    Mutation(
        "rowcodec.py",
        "if ran_out or is_idle",
        "if is_idle",
        "the sweep withdraws nothing",
    ),
    # ---- reactions, controls, the calendar
    Mutation(
        "reactions.py",
        "streak[_BEGIN] <= ts < streak[_REST_END]:",
        "streak[_BEGIN] <= ts <= streak[_REST_END]:",
        "an exposure as a rest ends is disobedience",
    ),
    Mutation(
        "reactions.py",
        "if shown <= ts - within:",
        "if shown < ts - within:",
        "an engagement answers an exposure as old as the attribution window",
    ),
    Mutation(
        "reactions.py",
        "rest = rules.ordered[rule, _WINDOW] << (level - 1)",
        "rest = rules.ordered[rule, _WINDOW] << level",
        "the first rest is twice as long",
    ),
    Mutation(
        "reactions.py",
        "streak[_COUNT], streak[_REST] = 0, 0",
        "streak[_COUNT] = 0",
        "an answer leaves the rest in force",
    ),
    Mutation(
        "reactions.py",
        "if ts + rest > it[_NOW] and",
        "if ts + rest >= it[_NOW] and",
        "a reaction holds at its until",
    ),
    Mutation(
        "controls.py",
        "if kind == OPT_OUT and _is_last(entry, ads, i, label):",
        "if kind == OPT_OUT:",
        "an opt-in ends no opt-out",
    ),
    Mutation(
        "controls.py",
        "if kind == HIDE and ts + rules.scalars[_HIDE_FOR] > now and",
        "if kind == HIDE and ts + rules.scalars[_HIDE_FOR] >= now and",
        "a hiding holds at its until",
    ),
    Mutation(
        "situation.py",
        "if later > 0 or",
        "if later >= 0 or",
        "of a grant and a refusal at one time the grant always wins",
    ),
    Mutation(
        "situation.py",
        "if converted > now - rules.scalars[_CUSTOMER_FOR]:",
        "if converted >= now - rules.scalars[_CUSTOMER_FOR]:",
        "a customer is one a tick too long",
    ),
    Mutation(
        "counting.py",
        "if ts < scratch.period[calendar - 1, 1]:",
        "if ts <= scratch.period[calendar - 1, 1]:",
        "an exposure as a day begins is of the day before",
    ),
    Mutation(
        "counting.py",
        "_LESS_OFTEN_FOR] > at\n",
        "_LESS_OFTEN_FOR] >= at\n",
        "a request to see less holds a tick too long",
    ),
    Mutation(
        "kept.py",
        "needed = needed or scratch.slot[slot, _SEEN] < rules.need[selector]",
        "needed = needed",
        "a crowded row forgets what a rule asks about",
    ),
)

TOO_SLOW_IN_PYTHON = {"test_a_row_filled_with_every_kind_goes_on"}


def replay(examples: int = 40) -> None:
    """Cases by hand, bad input, then streams against the oracle; raises at the first difference."""
    from hypothesis import HealthCheck, Phase, given, reject, settings

    from tests.fuzz.cases import case
    from tests.fuzz.mixes import MIXES
    from tests.fuzz.running import run
    from tests.invariants import (
        answers_as_oracle,
        order_does_not_matter,
        replay_changes_nothing,
        survives_restart,
        topic_says_what_is_decided,
    )
    from tests.oracle import TooManyOrdersError
    from tests.unit import test_bad_input, test_golden, test_rules
    from tests.unit.test_exactness import Case, cases

    for name, test in vars(test_golden).items():
        if name.startswith("test_") and name not in TOO_SLOW_IN_PYTHON:
            test()
    for value, reason in test_bad_input.BAD.values():
        if len(value or b"") < 2000:
            test_bad_input.test_the_neighbours_of_a_bad_message_count("impression", value, reason)

    for name, test in vars(test_rules).items():
        if name.startswith("test_"):
            for values in _parametrized(test):
                test(**values)
    for seed in range(2 * len(MIXES)):
        run(case(seed, MIXES[seed % len(MIXES)], users=4, most=16))

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(within_two_horizons=True))
    def stream(case: Case) -> None:
        engine, backwards, expected = case.engine(), case.engine(), case.oracle()
        for batch in case.batches:
            engine.feed(*batch)
            for topic, event in batch:
                expected.add(topic, event)
            try:
                answers_as_oracle(engine, expected)
            except TooManyOrdersError:
                reject()
        backwards.feed(*case.events[::-1])
        order_does_not_matter(engine, backwards, case.users)
        topic_says_what_is_decided(engine, case.users)
        replay_changes_nothing(engine, case.events)
        survives_restart(engine, case.users, case.events)

    stream()


def _parametrized(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each run of a test that takes no fixture."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    axes = []
    for mark in marks:
        names, rows = mark.args
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
        axes.append(
            [dict(zip(names, row if len(names) > 1 else [row], strict=True)) for row in rows]
        )
    for chosen in itertools.product(*axes):
        yield {name: value for one in chosen for name, value in one.items()}


if __name__ == "__main__":
    replay()
