"""Ways to break the compiled loops, each of which some test must notice.

``python -m tests.mutations`` replays the golden cases, bad input and a fixed set of random
streams against whatever ``governor`` it finds on its path and fails at the first wrong answer.
``tests/unit/test_mutations.py`` runs that over copies of the package with one mutation each, as
plain Python (``NUMBA_DISABLE_JIT=1``), which spares compiling every one of them.
"""

from __future__ import annotations

from typing import NamedTuple


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
        "ledger.py",
        "now <= ticks_of(entry[0, 0]) - horizon",
        "now < ticks_of(entry[0, 0]) - horizon",
        "an event exactly one horizon late is taken in",
    ),
    Mutation(
        "ledger.py",
        "now <= ticks_of(entry[0, 0]) - horizon",
        "now <= ticks_of(entry[0, 0]) + horizon",
        "the horizon lies ahead",
    ),
    Mutation(
        "ledger.py",
        "ticks_of(entry[kept - 1, 0]) <= now - horizon",
        "ticks_of(entry[kept - 1, 0]) < now - horizon",
        "an entry exactly one horizon old is kept",
    ),
    Mutation(
        "ledger.py",
        "if at == 0:\n        while kept",
        "if at == 1:\n        while kept",
        "the newest event prunes nothing",
    ),
    Mutation(
        "ledger.py",
        "same_kind, oldest = 0, -1",
        "same_kind, oldest = 1, -1",
        "a row holds one entry less than its limit",
    ),
    Mutation(
        "ledger.py",
        "if kind_of(entry[i, 0]) == kind_of(new[0]):",
        "if kind_of(entry[i, 0]) <= kind_of(new[0]):",
        "engagements push exposures out",
    ),
    Mutation(
        "ledger.py",
        "if oldest < at:",
        "if oldest <= at:",
        "a full row refuses what is just newer than its oldest",
    ),
    Mutation(
        "ledger.py",
        "for i in range(oldest, kept - 1):",
        "for i in range(oldest, kept - 2):",
        "pushing an entry out loses the last one of the row",
    ),
    Mutation(
        "ledger.py",
        "entry[i, word] = entry[i + 1, word]",
        "entry[i + 1, word] = entry[i, word]",
        "pushing an entry out copies the wrong way",
    ),
    # ---- where an entry goes
    Mutation(
        "ledger.py",
        "if at < length and order == 0:",
        "if at < length and order == 2:",
        "the same event again counts again",
    ),
    Mutation(
        "ledger.py",
        "for i in range(kept, at, -1):",
        "for i in range(kept - 1, at, -1):",
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
        "if i != at and twins(entry[i], entry[at]):",
        "if twins(entry[i], entry[at]):",
        "every entry is its own twin",
    ),
    Mutation(
        "ledger.py",
        "if kept < length and any_shadowed",
        "if kept > length and any_shadowed",
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
        "ledger.py",
        "(exposure[i] & _EXPOSURE_BITS)",
        "(event[i] & _EXPOSURE_BITS)",
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
        "ledger.py",
        "if outcome[i] == APPLIED:",
        "if outcome[i] != DROPPED:",
        "a duplicate makes its row dirty",
    ),
    Mutation(
        "ledger.py",
        "if ts[i] > table.state[_NEWEST]:",
        "if ts[i] < table.state[_NEWEST]:",
        "the watermark does not move",
    ),
    Mutation(
        "rows.py",
        "if not flags_of(rows.header[row, 1]) & DIRTY:",
        "if flags_of(rows.header[row, 1]) & USED:",
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
        "ids[id_used + i] = rows.ids[first + i]",
        "ids[id_used + i] = rows.ids[i]",
        "users lose their ids when rows are moved together",
    ),
    # ---- rules
    Mutation(
        "decisions.py",
        "if ts <= now - longest:",
        "if ts <= now - longest + 1:",
        "the oldest tick of the longest window is not looked at",
    ),
    Mutation(
        "decisions.py",
        "!= EXPOSURE or shadowed(entry[i, 0]):",
        "!= EXPOSURE:",
        "what is shadowed counts",
    ),
    Mutation(
        "decisions.py",
        "if kind_of(entry[i, 0]) != EXPOSURE or",
        "if kind_of(entry[i, 0]) < EXPOSURE or",
        "clicks count as exposures",
    ),
    Mutation(
        "decisions.py",
        "== rules.limit[rule]:",
        "== rules.limit[rule] + 1:",
        "a cap allows one more",
    ),
    Mutation(
        "decisions.py",
        "until = ts + rules.window[rule]",
        "until = ts - rules.window[rule]",
        "until lies before the exposure",
    ),
    Mutation(
        "decisions.py",
        "if until > now:",
        "if until >= now:",
        "a throttle holds at its until",
    ),
    Mutation(
        "decisions.py",
        "scratch.start[found] = scratch.newest[label]",
        "scratch.start[found] = ts",
        "from is the time of the exposure that leaves the window",
    ),
    Mutation(
        "decisions.py",
        "scratch.round[0] += 1",
        "scratch.round[0] += 0",
        "counts go on from one user to the next",
    ),
    Mutation(
        "decisions.py",
        "for rule in range(rules.first[dimension], rules.first[dimension + 1]):",
        "for rule in range(rules.first[dimension] + 1, rules.first[dimension + 1]):",
        "the first rule of a dimension is left out",
    ),
    # ---- what is published
    Mutation(
        "decisions.py",
        "when = mix(np.uint64(scratch.start[k]), np.uint64(scratch.until[k]))",
        "when = mix(np.uint64(scratch.start[k]), np.uint64(scratch.start[k]))",
        "a change of until alone is not published",
    ),
    Mutation(
        "decisions.py",
        "if digest != table.header[row, 2]:",
        "if digest != _NONE:",
        "unchanged decisions are published again, and none is withdrawn",
    ),
    Mutation(
        "decisions.py",
        "table.header[row, 2] = digest",
        "table.header[row, 2] = _NONE",
        "what was published is forgotten",
    ),
    Mutation(
        "decisions.py",
        "if last <= watermark - _GRACE:",
        "if last < watermark - _GRACE:",
        "what has run out by everybody's clock stays for a tick",
    ),
    Mutation(
        "decisions.py",
        "if newest <= watermark - 2 * horizon:",
        "if newest <= watermark - horizon:",
        "rows are forgotten after one horizon",
    ),
    Mutation(
        "decisions.py",
        "until = max(until, scratch.until[j])",
        "until = min(until, scratch.until[j])",
        "the laxest rule wins",
    ),
    Mutation(
        "decisions.py",
        "rules.sorted_at[number]) >= 0:",
        "rules.sorted_at[number]) > 0:",
        "a reason is left out",
    ),
    Mutation(
        "decisions.py",
        "for number in range(len(rules.limit)):\n        rule = rules.sorted_at[number]",
        "for number in range(len(rules.limit)):\n        rule = number",
        "evidence of rules sorted by dimension under names in the policy's order",
    ),
    Mutation(
        "decisions.py",
        "if ticks_of(entry[i, 0]) <= now - rules.window[rule]:",
        "if ticks_of(entry[i, 0]) < now - rules.window[rule]:",
        "evidence counts an exposure that has left the window",
    ),
    Mutation(
        "decisions.py",
        "while rules.first[dimension + 1] <= rule:",
        "while rules.first[dimension + 1] < rule:",
        "evidence counts in another dimension",
    ),
    Mutation(
        "decisions.py",
        "EXPOSURE and not shadowed(entry[i, 0])",
        "EXPOSURE",
        "evidence counts what is shadowed",
    ),
    Mutation(
        "decisions.py",
        "while value >= power:",
        "while value > power:",
        "ten is written with one digit",
    ),
    Mutation(
        "decisions.py",
        "for i in range(6):",
        "for i in range(5):",
        "the first decimal of a time is lost",
    ),
    Mutation(
        "decisions.py",
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
        "ticks[0] > now + times.max_future",
        "ticks[0] > now + times.max_age",
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
        "if spans[field, 1] > max_id:",
        "if spans[field, 1] > 2 * max_id:",
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
        "ads[k] = order[where]",
        "ads[k] = where",
        "exposures are read back as those of another ad",
    ),
    Mutation(
        "rowcodec.py",
        "table.header[row, 2] = _get64(buffer, begin + 4)",
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
        "rowcodec.py",
        "held[kind] < row_limit",
        "held[kind] <= row_limit",
        "a lower row limit keeps one entry more",
    ),
    Mutation(
        "rowcodec.py",
        "if ticks_of(entry[i, 0]) > oldest and",
        "if ticks_of(entry[i, 0]) >= oldest and",
        "a shorter horizon keeps an entry exactly that old",
    ),
    Mutation(
        "rowcodec.py",
        "if ran_out or newest",
        "if newest",
        "the sweep withdraws nothing",
    ),
)

TOO_SLOW_IN_PYTHON = {"test_a_row_filled_with_every_kind_goes_on"}


def replay(examples: int = 40) -> None:
    """Golden cases, bad input, then streams against the oracle; raises at the first difference."""
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.invariants import (
        answers_as_oracle,
        order_does_not_matter,
        replay_changes_nothing,
        survives_restart,
        topic_says_what_is_decided,
    )
    from tests.unit import test_bad_input, test_golden
    from tests.unit.test_exactness import Case, cases

    for name, test in vars(test_golden).items():
        if name.startswith("test_") and name not in TOO_SLOW_IN_PYTHON:
            test()
    for value, reason in test_bad_input.BAD.values():
        if len(value or b"") < 2000:
            test_bad_input.test_the_neighbours_of_a_bad_message_count("impression", value, reason)

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
            answers_as_oracle(engine, expected)
        backwards.feed(*case.events[::-1])
        order_does_not_matter(engine, backwards, case.users)
        topic_says_what_is_decided(engine, case.users)
        replay_changes_nothing(engine, case.events)
        survives_restart(engine, case.users, case.events)

    stream()


if __name__ == "__main__":
    replay()
