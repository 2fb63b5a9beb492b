"""What several flushes changed, as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.changes import as_one
from governor.records import Records

Change = tuple[bytes, bytes | None, int]

tails = st.one_of(st.binary(max_size=2), st.binary(min_size=60, max_size=70))
keys = st.tuples(st.sampled_from([b"a", b"u", b"e", b"r", b"o"]), tails).map(b"".join)
values = st.one_of(st.none(), st.binary(max_size=8))
flushes = st.lists(
    st.lists(st.tuples(keys, values, st.integers(0, 9)), max_size=20), min_size=1, max_size=5
)


def listed(parts: list[Records]) -> list[Change]:
    return [
        (part.key(i) or b"", part.value(i), int(part.timestamp[i]))
        for part in parts
        for i in range(len(part))
    ]


@given(flushes)
def test_names_come_first_then_the_newest_rows_then_what_is_said_of_them(
    parts: list[list[Change]],
) -> None:
    changes = [change for part in parts for change in part]
    last = {key: i for i, (key, _, _) in enumerate(changes)}
    rows = [one for i, one in enumerate(changes) if one[0][:1] == b"u" and last[one[0]] == i]
    names = [one for one in changes if one[0][:1] == b"a"]
    others = [one for one in changes if one[0][:1] not in (b"a", b"u")]
    found = listed(as_one(list(map(Records.of, parts))))
    assert found == ([*names, *rows, *others] if len(parts) > 1 else changes)


@given(flushes)
def test_every_beginning_has_the_row_before_it_says_that_somebody_is_gone(
    parts: list[list[Change]],
) -> None:
    found = listed(as_one([Records.of(part) for part in [[], *parts]]))
    kinds = [key[:1] for key, _, _ in found]
    marks = [i for i, kind in enumerate(kinds) if kind in (b"e", b"r", b"o")]
    assert b"u" not in kinds[min(marks, default=0) if marks else len(kinds) :]


@pytest.mark.parametrize("people", [1, 1000])
def test_finds_its_way_among_many(people: int) -> None:
    parts = [
        Records.of([(b"u%d" % (i % people), b"%d" % n, 0) for i in range(3000)]) for n in (1, 2)
    ]
    found = listed(as_one(parts))
    assert sorted(found) == sorted((b"u%d" % i, b"2", 0) for i in range(people))
