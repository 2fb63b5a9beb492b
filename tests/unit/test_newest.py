"""The newest record of each key, of records that are not written yet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.newest import newest
from governor.records import Records

keys = st.one_of(st.none(), st.binary(max_size=3), st.binary(min_size=60, max_size=70))
values = st.one_of(st.none(), st.binary(max_size=8))
parts_of_records = st.lists(
    st.lists(st.tuples(keys, values, st.integers(0, 9)), max_size=20), min_size=1, max_size=5
)


def listed(parts: list[Records]) -> list[list[tuple[bytes | None, bytes | None, int]]]:
    return [[(p.key(i), p.value(i), int(p.timestamp[i])) for i in range(len(p))] for p in parts]


@given(parts_of_records)
def test_leaves_of_each_key_what_comes_last(
    parts: list[list[tuple[bytes | None, bytes | None, int]]],
) -> None:
    last = {
        key: (number, i) for number, part in enumerate(parts) for i, (key, _, _) in enumerate(part)
    }
    left = [
        [one for i, one in enumerate(part) if one[0] is None or last[one[0]] == (number, i)]
        for number, part in enumerate(parts)
    ]
    assert listed(newest(list(map(Records.of, parts)))) == left


@pytest.mark.parametrize("people", [1, 1000])
def test_finds_its_way_among_many(people: int) -> None:
    parts = [
        Records.of([(b"u%d" % (i % people), b"%d" % n, 0) for i in range(3000)]) for n in (1, 2)
    ]
    first, second = newest(parts)
    assert len(first) == 0
    assert {second.key(i): second.value(i) for i in range(len(second))} == {
        b"u%d" % i: b"2" for i in range(people)
    }
    assert len(second) == people
