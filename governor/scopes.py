"""What depends on the ad only, worked out once per ad and policy.

For every ad: the label it has under each selector (its *slot*), how much an exposure of it
counts, whether it is measurable, sensitive or always to be shown, and hashes of its labels. The
compiled code then never looks at a text. A new policy makes these tables anew; rows stay.

A *label* is a text, with the match of the rules that throttle it where they have one: of
``campaign:C7`` on connected TV and of ``campaign:C7`` anywhere the throttles are two.

What few rows need is made when they ask (`Wants`): the label that a control speaks of, the
campaign label of a retargeting ad, and the ad that an engagement and its exposure make together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor import zones
from governor.ads import FIELDS, TYPE_KEY, ZONE_KEY, ad_hash, grown
from governor.compiled import compiled, integer
from governor.fatigue.versions import Version
from governor.fatigue.worn import curve_for, worn
from governor.hashing import mix
from governor.policy.model import multiplied
from governor.rules import (
    CALENDARS,
    Rules,
    Scalar,
    Selector,
    Span,
    attribution_windows,
)

__all__ = [
    "ABSENT", "ALWAYS", "LABELLED", "NAMED", "SENSITIVE", "UNASKED", "UNSEEN", "Ads", "Col",
    "Scopes", "Want", "agrees", "merged_ad",
]  # fmt: skip

_FREE, _ONE = np.uint64(0), np.uint64(1)
_AD_BITS = np.uint64(24)

ALWAYS, UNSEEN, SENSITIVE, LABELLED, NAMED = 1, 2, 4, 8, 16
"""Flags of an ad: never throttled; an engagement cannot be seen; the category is sensitive; it has
labels at all; its name has been read."""

ABSENT, UNASKED = -1, -2
"""Instead of a label's number: there is none; nobody has asked for it yet."""


RETARGETING_LABEL = 0
"""The number of the label ``retargeting``: all ads marked so."""


class Want:
    """What a row's evaluation may miss."""

    NOTHING = 0
    CONTROL_LABEL = 1
    CAMPAIGN_LABEL = 2
    MERGED_AD = 3


class Col:
    """Columns of `Ads.ad`."""

    WEIGHT = 0  # of an exposure, in hundredths
    FLAGS = 1
    TYPE = 2  # number of a custom type of engagement
    ZONE = 3  # row of the periods of the zone that this stands for
    CONTROL = 4  # label that a control with these labels speaks of
    CAMPAIGN = 5  # label of the campaign, without a match
    WORDS = 6  # where the hashes of its labels begin
    WORDS_END = 7
    WINDOWS = 8  # row of `Ads.window`
    SLOTS = 9  # from here on: its slot under each selector


_FLAGS, _WORDS, _WORDS_END = Col.FLAGS, Col.WORDS, Col.WORDS_END

_FILL = (100, 0, ABSENT, ABSENT, UNASKED, UNASKED, 0, 0, 0)


class Ads(NamedTuple):
    """The tables."""

    ad: NDArray[np.int32]  # a row an ad, columns as in `Col`
    word: NDArray[np.uint64]  # hashes of ads' labels, ascending within an ad
    slot_label: NDArray[np.int32]
    label_plain: NDArray[np.int32]  # the label of the same text without a match
    label_hash: NDArray[np.uint64]
    label_start: NDArray[np.int64]
    label_text: NDArray[np.uint8]  # as in a record, from behind the label's first quote
    period_start: NDArray[np.int64]  # (zones, 4): of days, weeks, months; where they end
    period: NDArray[np.int64]  # when each period begins, in ticks
    pair: NDArray[np.uint64]  # an engagement's ad and its exposure's; open table, zero is free
    merged: NDArray[np.int32]  # the ad that their labels make
    window: NDArray[np.int64]  # see `rules.attribution_windows`; a row for all ads alike


class Scopes:
    """The tables of one policy, and how they grow.

    Args:
        rules: what they are worked out for.
        version: of the curves that rules of fatigue go by; None while there is none.
    """

    def __init__(self, rules: Rules, version: Version | None = None) -> None:
        self._rules = rules
        self._version = version
        self.policy = rules.policy
        self._slots: dict[tuple[int, str], int] = {}
        self._labels: dict[tuple[str, str], int] = {}
        self._zones: dict[str, int] = {}
        self._pairs = 0
        self._words = 0
        self._windows: dict[tuple[int, ...], int] = {}
        self.label_names: list[str] = []
        self.ads = Ads(
            ad=self._blank(16),
            word=np.zeros(64, np.uint64),
            slot_label=np.zeros(16, np.int32),
            label_plain=np.zeros(16, np.int32),
            label_hash=np.zeros(16, np.uint64),
            label_start=np.zeros(17, np.int64),
            label_text=np.zeros(256, np.uint8),
            period_start=np.zeros((1, len(CALENDARS) + 1), np.int64),
            period=np.zeros(0, np.int64),
            pair=np.zeros(16, np.uint64),
            merged=np.zeros(16, np.int32),
            window=np.zeros((0, 0), np.int64),
        )
        self.worn = worn(rules, version, len(self.ads.ad))
        self._windows_of({})
        self.zone(self.policy.timezone)
        self.label("retargeting", ())

    def reserve(self, ad: int) -> None:
        """Make room for an ad of which only the number is known."""
        table = self.ads.ad
        if ad >= len(table):
            longer = self._blank(2 * ad)
            longer[: len(table)] = table
            self.ads = self.ads._replace(ad=longer)
        if ad >= len(self.worn.curve):
            self.worn = self.worn._replace(curve=grown(self.worn.curve, len(self.ads.ad)))

    def learn(self, version: Version, ads: Iterable[tuple[int, Mapping[str, str]]]) -> None:
        """Go by other curves from now on.

        Args:
            version: theirs.
            ads: number and labels of every ad that has been entered.
        """
        self._version = version
        self.worn = worn(self._rules, version, len(self.ads.ad))
        for ad, labels in ads:
            self._wear(ad, labels)

    def _wear(self, ad: int, labels: Mapping[str, str]) -> None:
        """Note the curves that hold for an ad."""
        if self._version is not None and self._rules.tiring:
            self.worn.curve[ad] = [
                curve_for(self._version, each, labels) for each in self._rules.selectors
            ]

    def _blank(self, size: int) -> NDArray[np.int32]:
        blank = np.full((size, Col.SLOTS + len(self._rules.selectors)), ABSENT, np.int32)
        blank[:, : Col.SLOTS] = _FILL
        return blank

    def enter(self, ad: int, labels: Mapping[str, str]) -> None:
        """Work an ad out; `reserve` has made room for it."""
        row = self.ads.ad[ad]
        row[Col.FLAGS] = NAMED
        if ZONE_KEY in labels:
            row[Col.ZONE] = self.zone(labels[ZONE_KEY])
            return
        engagement = labels.get(TYPE_KEY)
        if engagement is not None:
            labels = {key: value for key, value in labels.items() if key != TYPE_KEY}
            row[Col.TYPE] = self._rules.custom_types.get(engagement, ABSENT)
        items = [item for item in self.policy.ads if _meets(labels, item.match.items())]
        sensitive = self.policy.sensitive
        weights = [item.weight for item in items]
        if labels:
            row[Col.FLAGS] |= LABELLED
        if any(item.priority == "always" for item in items):
            row[Col.FLAGS] |= ALWAYS
        if not all(item.measurable for item in items):
            row[Col.FLAGS] |= UNSEEN
        if sensitive and "category" in labels and sensitive.covers(labels["category"]):
            row[Col.FLAGS] |= SENSITIVE
            weights.append(sensitive.multiplier)
        row[Col.WEIGHT] = multiplied(weights) if weights else 100
        row[Col.WINDOWS] = self._windows_of(labels)
        for i, selector in enumerate(self._rules.selectors):
            exempt = row[Col.FLAGS] & ALWAYS and selector.sort != Span.REACTION
            text = None if exempt else _value(labels, selector)
            if text is not None:
                row[Col.SLOTS + i] = self._slot(i, selector, text)
        self._enter_words(ad, labels)
        self._wear(ad, labels)

    def label(self, text: str, match: Sequence[tuple[str, tuple[str, ...]]]) -> int:
        """The number of a label, new or known."""
        conditions = (
            f',"match":{json.dumps(dict(match), ensure_ascii=False, separators=(",", ":"))}'
            if match
            else ""
        )
        number = self._labels.get((text, conditions))
        if number is not None:
            return number
        plain = self.label(text, ()) if match else len(self.label_names)
        number = self._labels[text, conditions] = len(self.label_names)
        self.label_names.append(text)
        shown = f"{json.dumps(text, ensure_ascii=False)[1:]}{conditions}".encode()
        ads = self.ads
        start = int(ads.label_start[number])
        end = start + len(shown)
        if number == len(ads.label_hash):
            ads = ads._replace(
                label_hash=grown(ads.label_hash, 2 * number),
                label_plain=grown(ads.label_plain, 2 * number),
                label_start=grown(ads.label_start, 2 * number + 1),
            )
        if end > len(ads.label_text):
            ads = ads._replace(label_text=grown(ads.label_text, 2 * end))
        ads.label_text[start:end] = np.frombuffer(shown, np.uint8)
        ads.label_start[number + 1] = end
        ads.label_hash[number] = ad_hash((text + conditions).encode())
        ads.label_plain[number] = plain
        self.ads = ads
        return number

    def zone(self, name: str) -> int:
        """The row of a time zone's periods."""
        row = self._zones.get(name)
        if row is None:
            row = self._zones[name] = len(self._zones)
            used = int(self._rules.arrays.scalars[Scalar.CALENDAR])
            periods = [
                zones.boundaries(name, calendar) if used >> i & 1 else np.zeros(0, np.int64)
                for i, calendar in enumerate(CALENDARS)
            ]
            first = len(self.ads.period)
            starts = first + np.cumsum([0, *map(len, periods)])
            self.ads = self.ads._replace(
                period=np.concatenate((self.ads.period, *periods)),
                period_start=(
                    np.concatenate((self.ads.period_start, starts[None, :]))
                    if row
                    else starts[None, :].copy()
                ),
            )
        return row

    def ask_control(self, ad: int, labels: Mapping[str, str]) -> None:
        """Work out the label that a control with these labels speaks of."""
        order = [*FIELDS, *sorted(set(labels) - set(FIELDS))]
        parts = [f"{key}:{labels[key]}" for key in order if key in labels]
        number = self.label(" x ".join(parts) or "user", ())
        self.ads.ad[ad, Col.CONTROL] = number

    def ask_campaign(self, ad: int, labels: Mapping[str, str]) -> None:
        """Work out the label of an ad's campaign."""
        campaign = labels.get("campaign")
        number = ABSENT if campaign is None else self.label(f"campaign:{campaign}", ())
        self.ads.ad[ad, Col.CAMPAIGN] = number

    def pair(self, engagement: int, exposure: int, merged: int) -> None:
        """Note which ad the labels of an engagement and of its exposure make together."""
        self._pairs += 1
        if 2 * self._pairs > len(self.ads.pair):
            old = self.ads
            size = 2 * len(old.pair)
            self.ads = old._replace(pair=np.zeros(size, np.uint64), merged=np.zeros(size, np.int32))
            for i in np.flatnonzero(old.pair):
                _add_pair(self.ads, old.pair[i], int(old.merged[i]))
        # Compiled code gives whole numbers back; as one of those it would hash otherwise.
        _add_pair(self.ads, np.uint64(pair_key(engagement, exposure)), merged)

    def _slot(self, selector_number: int, selector: Selector, text: str) -> int:
        slot = self._slots.get((selector_number, text))
        if slot is None:
            label = self.label(text, selector.match)
            slot = self._slots[selector_number, text] = len(self._slots)
            if slot == len(self.ads.slot_label):
                self.ads = self.ads._replace(slot_label=grown(self.ads.slot_label, 2 * slot))
            self.ads.slot_label[slot] = label
        return slot

    @property
    def slots(self) -> int:
        """How many there are."""
        return len(self._slots)

    def _windows_of(self, labels: Mapping[str, str]) -> int:
        """The row of the attribution windows of an ad with these labels."""
        items = self.policy.attribution
        fitting = tuple(i for i, one in enumerate(items) if _meets(labels, one.match.items()))
        number = self._windows.get(fitting)
        if number is None:
            number = self._windows[fitting] = len(self._windows)
            windows = attribution_windows([items[i] for i in fitting], self._rules.custom_types)
            row = np.array([windows], np.int64)
            table = np.concatenate((self.ads.window, row)) if number else row
            self.ads = self.ads._replace(window=table)
        return number

    def _enter_words(self, ad: int, labels: Mapping[str, str]) -> None:
        words = sorted(ad_hash(f"{key}\0{value}".encode()) for key, value in labels.items())
        end = self._words + len(words)
        if end > len(self.ads.word):
            self.ads = self.ads._replace(word=grown(self.ads.word, 2 * end))
        self.ads.word[self._words : end] = np.array(words, np.uint64)
        self.ads.ad[ad, Col.WORDS : Col.WORDS_END + 1] = self._words, end
        self._words = end


def _meets(labels: Mapping[str, str], match: Iterable[tuple[str, tuple[str, ...]]]) -> bool:
    return all(labels.get(key) in values for key, values in match)


def _value(labels: Mapping[str, str], selector: Selector) -> str | None:
    """The text of an ad's label under a selector, or None."""
    if not _meets(labels, selector.match):
        return None
    if selector.per == ("user",):
        return "user"
    parts = []
    for dimension in selector.per:
        value = labels.get(dimension)
        if value is None:
            return None
        parts.append(f"{dimension}:{value}")
    return " x ".join(parts)


@compiled
def pair_key(engagement: int, exposure: int) -> np.uint64:
    """Two ads as one number that is never zero."""
    return ((np.uint64(engagement) << _AD_BITS) | np.uint64(exposure)) + _ONE


@compiled
def _add_pair(ads: Ads, key: np.uint64, merged: int) -> None:
    mask = np.uint64(len(ads.pair) - 1)
    at = mix(key, _ONE) & mask
    while ads.pair[at] != _FREE:
        at = (at + _ONE) & mask
    ads.pair[at] = key
    ads.merged[at] = merged


@compiled
def merged_ad(ads: Ads, engagement: int, exposure: int) -> int:
    """The ad of an engagement with its exposure's labels beside its own; -1 where unknown."""
    if not ads.ad[engagement, _FLAGS] & LABELLED:
        return exposure
    key = pair_key(engagement, exposure)
    mask = np.uint64(len(ads.pair) - 1)
    at = mix(key, _ONE) & mask
    while ads.pair[at] != _FREE:
        if ads.pair[at] == key:
            return integer(ads.merged[at])
        at = (at + _ONE) & mask
    return -1


@compiled
def agrees(ads: Ads, engagement: int, exposure: int) -> bool:
    """Whether the exposure has every label that the engagement names."""
    at, end = ads.ad[exposure, _WORDS], ads.ad[exposure, _WORDS_END]
    for i in range(ads.ad[engagement, _WORDS], ads.ad[engagement, _WORDS_END]):
        while at < end and ads.word[at] < ads.word[i]:
            at += 1
        if at == end or ads.word[at] != ads.word[i]:
            return False
    return True
