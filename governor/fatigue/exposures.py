"""What was shown to the people who are observed, and whether they answered: one column a fact.

Everything that the estimate asks about the past of an exposure (its depth, how long ago the one
before was, how active the person was elsewhere) is computed from these columns alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from governor.compiled import compiled
from governor.ticks import SECOND

__all__ = [
    "DAY",
    "DIMENSIONS",
    "LOOK_BACK",
    "NEVER",
    "Exposures",
    "Past",
    "concatenate",
    "from_columns",
    "past",
]

DAY: Final = 86_400 * SECOND
"""Ticks in a day."""

NEVER: Final = -1
"""In a column of times: did not happen. In a column of names: has none."""

LOOK_BACK: Final = 7 * DAY
"""How long before somebody's first exposure to an ad their other exposures are counted."""

_LEAST_KNOWN: Final = DAY
"""Who was observed for less than this before an ad's first exposure has no activity known."""

DIMENSIONS: Final = ("creative", "campaign", "category", "user")
"""What curves are estimated for, from the finest on; ``user`` is all ads together."""


@dataclass(frozen=True)
class Exposures:
    """Exposures of sampled people, sorted by (person, ts); arrays of one length, not to be changed.

    Every exposure that was made is here, also those that no engagement could have followed
    visibly: they tire people like others. A person is observed whole or not at all.

    Attributes:
        person: hash of the person, uint64.
        ts: when it was shown, ticks, int64.
        campaign, creative, category: int32 indices into the lists of names, `NEVER` for none.
        measurable: an engagement could have been seen (viewable, consented, a fitting surface).
        engaged: an engagement was seen. Ignored where not measurable.
        engaged_at: when, ticks, or `NEVER`; not before ``ts``.
        settled: the attribution window has passed, so that ``engaged`` is final. An exposure that
            is neither settled nor engaged is pending.
        campaigns, creatives, categories: the names.
    """

    person: NDArray[np.uint64]
    ts: NDArray[np.int64]
    campaign: NDArray[np.int32]
    creative: NDArray[np.int32]
    category: NDArray[np.int32]
    measurable: NDArray[np.bool_]
    engaged: NDArray[np.bool_]
    engaged_at: NDArray[np.int64]
    settled: NDArray[np.bool_]
    campaigns: tuple[str, ...]
    creatives: tuple[str, ...]
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ts)

    def labels(self, dimension: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """The column of one of `DIMENSIONS` and its names; everything is one label of ``user``."""
        if dimension == "user":
            return np.zeros(len(self), np.int32), ("all",)
        column = {"creative": self.creative, "campaign": self.campaign, "category": self.category}
        names = {
            "creative": self.creatives,
            "campaign": self.campaigns,
            "category": self.categories,
        }
        return column[dimension], names[dimension]

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Exposures:
        """Some of the exposures, in their order; choose whole people."""
        columns: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _COLUMNS}
        return replace(self, **columns)


_COLUMNS: Final = (
    "person", "ts", "campaign", "creative", "category",
    "measurable", "engaged", "engaged_at", "settled",
)  # fmt: skip


def from_columns(
    person: ArrayLike,
    ts: ArrayLike,
    *,
    campaign: ArrayLike,
    engaged: ArrayLike,
    campaigns: Sequence[str],
    creative: ArrayLike | None = None,
    creatives: Sequence[str] = (),
    category: ArrayLike | None = None,
    categories: Sequence[str] = (),
    measurable: ArrayLike | None = None,
    engaged_at: ArrayLike | None = None,
    settled: ArrayLike | None = None,
) -> Exposures:
    """Exposures in any order, sorted; what is not given is none, measurable and settled.

    An engagement that is told for a time before its exposure (a clock that was wrong) counts as
    simultaneous. Where no time is given it is the exposure's.

    Raises:
        ValueError: for columns of different lengths, or an index without a name.
    """
    when = np.asarray(ts, np.int64)
    size = len(when)
    who = np.asarray(person, np.uint64)
    order = np.lexsort((when, who))
    answered = np.asarray(engaged, np.bool_)
    at = when if engaged_at is None else np.asarray(engaged_at, np.int64)
    at = np.where(answered, np.maximum(at, when) if len(at) == size else at, np.int64(NEVER))
    columns: dict[str, NDArray[Any]] = {
        "person": who,
        "ts": when,
        "campaign": np.asarray(campaign, np.int32),
        "creative": _or_constant(creative, NEVER, size, np.int32),
        "category": _or_constant(category, NEVER, size, np.int32),
        "measurable": _or_constant(measurable, True, size, np.bool_),
        "engaged": answered,
        "engaged_at": at,
        "settled": _or_constant(settled, True, size, np.bool_),
    }
    wrong = [name for name, column in columns.items() if len(column) != size]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not as long as ts, which has {size} elements")
    names = {"campaign": campaigns, "creative": creatives, "category": categories}
    for name, known in names.items():
        if size and not NEVER <= columns[name].min() <= columns[name].max() < len(known):
            raise ValueError(f"{name}: an index outside the {len(known)} names")
    return Exposures(
        **{name: column[order] for name, column in columns.items()},
        campaigns=tuple(campaigns),
        creatives=tuple(creatives),
        categories=tuple(categories),
    )


def _or_constant(
    column: ArrayLike | None, value: object, size: int, dtype: type[np.generic]
) -> NDArray[Any]:
    return np.full(size, value, dtype) if column is None else np.asarray(column, dtype)


def concatenate(parts: Sequence[Exposures]) -> Exposures:
    """Exposures of several sources as one, names united; a person in two sources is one person.

    Raises:
        ValueError: for no parts at all.
    """
    if not parts:
        raise ValueError("concatenate: no exposures given")
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _COLUMNS}
    names: dict[str, tuple[str, ...]] = {}
    for dimension in ("campaign", "creative", "category"):
        lists = [part.labels(dimension)[1] for part in parts]
        names[dimension] = tuple(dict.fromkeys(name for each in lists for name in each))
        place = {name: i for i, name in enumerate(names[dimension])}
        # The last element stands for no name: it is where the index -1 points.
        moved = [np.array([*(place[name] for name in each), NEVER], np.int32) for each in lists]
        columns[dimension] = np.concatenate(
            [to[part.labels(dimension)[0]] for to, part in zip(moved, parts, strict=True)]
        )
    return from_columns(
        **columns,
        campaigns=names["campaign"],
        creatives=names["creative"],
        categories=names["category"],
    )


class Past(NamedTuple):
    """What went before each exposure under the labels of one dimension, an element an exposure.

    Attributes:
        depth: the person's how-manieth exposure to the label, from 1; 0 where it has no label.
        gap: ticks since the one before, or `NEVER`.
        course: which (person, label) it belongs to: 0, 1, ...; `NEVER` where it has no label.
        order: indices of the exposures with a label, sorted by (course, ts).
        start: where each course begins in ``order``, and where the last one ends.
        before: a course's exposures a day to other labels in the `LOOK_BACK` before its first;
            nan where the person was observed for less than a day before.
        elsewhere: a course's exposures a day to other labels over all the time that is observed.
    """

    depth: NDArray[np.int32]
    gap: NDArray[np.int64]
    course: NDArray[np.int64]
    order: NDArray[np.int64]
    start: NDArray[np.int64]
    before: NDArray[np.float64]
    elsewhere: NDArray[np.float64]


def past(exposures: Exposures, dimension: str = "campaign", since: int | None = None) -> Past:
    """What went before each exposure.

    Args:
        since: from when on people are observed, ticks; the earliest exposure by default.
    """
    codes, _ = exposures.labels(dimension)
    labelled = np.flatnonzero(codes >= 0)
    # The exposures are sorted by (person, ts) already, and the sort is stable.
    order = labelled[np.lexsort((codes[labelled], exposures.person[labelled]))]
    person, code = exposures.person[order], codes[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (person[1:] != person[:-1]) | (code[1:] != code[:-1])
    start = np.append(np.flatnonzero(new), len(order)).astype(np.int64)
    begins = int(exposures.ts.min()) if since is None and len(exposures) else since or 0
    ends = int(exposures.ts.max()) if len(exposures) else 0
    depth = np.zeros(len(exposures), np.int32)
    gap = np.full(len(exposures), NEVER, np.int64)
    course = np.full(len(exposures), NEVER, np.int64)
    before = np.empty(len(start) - 1)
    elsewhere = np.empty(len(start) - 1)
    _look_back(
        exposures.person, exposures.ts, order, start, begins, ends,
        depth, gap, course, before, elsewhere,
    )  # fmt: skip
    return Past(depth, gap, course, order, start, before, elsewhere)


@compiled
def _look_back(
    person: NDArray[np.uint64],
    ts: NDArray[np.int64],
    order: NDArray[np.int64],
    start: NDArray[np.int64],
    begins: int,
    ends: int,
    depth: NDArray[np.int32],
    gap: NDArray[np.int64],
    course: NDArray[np.int64],
    before: NDArray[np.float64],
    elsewhere: NDArray[np.float64],
) -> None:
    days = max((ends - begins) / DAY, 1.0)
    first_of_person, last_of_person = 0, -1
    for c in range(len(start) - 1):
        head = order[start[c]]
        if not first_of_person <= head <= last_of_person:
            first_of_person = head
            while first_of_person > 0 and person[first_of_person - 1] == person[head]:
                first_of_person -= 1
            last_of_person = head
            while last_of_person + 1 < len(ts) and person[last_of_person + 1] == person[head]:
                last_of_person += 1
        for place in range(start[c], start[c + 1]):
            i = order[place]
            depth[i] = place - start[c] + 1
            course[i] = c
            if place > start[c]:
                gap[i] = ts[i] - ts[order[place - 1]]
        own = start[c + 1] - start[c]
        elsewhere[c] = (last_of_person - first_of_person + 1 - own) / days
        known = min(ts[head] - begins, LOOK_BACK)
        if known < _LEAST_KNOWN:
            before[c] = np.nan
            continue
        # Nothing of the label lies before its first exposure, so all that does is of others.
        seen, i = 0, head - 1
        while i >= first_of_person and ts[i] >= ts[head] - LOOK_BACK:
            seen += 1 if ts[i] < ts[head] else 0
            i -= 1
        before[c] = seen / (known / DAY)
