"""Labels and ads: what an exposure is *of*.

A label is one value of one dimension, written ``campaign:C7``; the dimension ``user`` has the one
label ``user``, all ads. An *ad* is a whole set of labels, as events carry them. Rows refer to ads
by a small number that holds inside one partition of one worker, and, in the changelog, by a hash
of the canonical label set, so that neither depends on the order in which ads were first seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, integer

__all__ = ["FIELDS", "MAX_ADS", "Ad", "AdTable", "Labels", "add_ad", "find_ad"]

FIELDS = ("campaign", "creative", "advertiser", "category", "channel", "surface", "segment")
"""Label dimensions that are fields of an event (``campaign_id`` and so on), in the order of the
tuples given to `Labels.intern`; custom labels follow as a tuple of pairs."""

_FREE = np.uint64(0)
_ONE = np.uint64(1)

MAX_ADS = 1 << 24
"""An exposure holds its ad in 24 bits."""

Ad = tuple[
    str | None, str | None, str | None, str | None, str | None, str | None, str | None, object
]
"""Values of `FIELDS`, then custom labels as ``((key, value), ...)`` sorted by key, or None."""


class AdTable(NamedTuple):
    """Numbers of ads by a hash of their labels' bytes; a power of two of slots, zero is free."""

    key: NDArray[np.uint64]
    ad: NDArray[np.int64]


class TooManyAdsError(Exception):
    """More distinct label sets in one partition than an exposure can refer to."""


class Labels:
    """The ads and labels that one partition has seen.

    Args:
        dimensions: those that the policy's rules speak of, ``user`` among them or not.
    """

    def __init__(self, dimensions: Sequence[str]) -> None:
        self.dimensions = tuple(dimensions)
        self.known: dict[Ad, int] = {}
        self.table = AdTable(np.zeros(256, np.uint64), np.zeros(256, np.int64))
        self._entered = 0
        self._by_hash: dict[int, int] = {}
        self._label_ids: dict[str, int] = {}
        self.ad_hash: NDArray[np.uint64] = np.zeros(16, np.uint64)
        self.ad_label: NDArray[np.int32] = np.full((16, len(self.dimensions)), -1, np.int32)
        self.ad_names: list[bytes | None] = []
        self.label_hash: NDArray[np.uint64] = np.zeros(16, np.uint64)
        self.label_text: NDArray[np.uint8] = np.zeros(256, np.uint8)
        self.label_start: NDArray[np.int64] = np.zeros(17, np.int64)
        self.label_names: list[str] = []
        self._unwritten: list[int] = []

    def __len__(self) -> int:
        return len(self.ad_names)

    @property
    def missing(self) -> int:
        """Ads that rows refer to and whose names have not been read yet."""
        return sum(name is None for name in self.ad_names)

    def intern(self, ad: Ad) -> int:
        """The number of an ad, new or known."""
        number = self.known.get(ad)
        if number is None:
            name = canonical(ad)
            number = self.load(name)
            self._unwritten.append(number)
            self.known[ad] = number
        return number

    def enter(self, key: int, ad: Ad) -> int:
        """The number of an ad, new or known, that `governor.scan` shall find by this key."""
        number = self.intern(ad)
        self._entered += 1
        if 2 * self._entered > len(self.table.key):
            small = self.table
            size = 2 * len(small.key)
            self.table = AdTable(np.zeros(size, np.uint64), np.zeros(size, np.int64))
            for i in np.flatnonzero(small.key):
                add_ad(self.table, small.key[i], int(small.ad[i]))
        add_ad(self.table, np.uint64(key), number)
        return number

    def load(self, name: bytes) -> int:
        """The number of the ad with this canonical name."""
        number = self.reserve(ad_hash(name))
        if self.ad_names[number] is None:
            self.ad_names[number] = name
            labels = json.loads(name)
            for column, dimension in enumerate(self.dimensions):
                value = "" if dimension == "user" else labels.get(dimension)
                if value is not None:
                    self.ad_label[number, column] = self._label(dimension, value)
        return number

    def reserve(self, hashed: int) -> int:
        """The number of the ad with this hash; its name may follow."""
        number = self._by_hash.get(hashed)
        if number is None:
            number = len(self.ad_names)
            if number >= MAX_ADS:
                raise TooManyAdsError(
                    f"{MAX_ADS} distinct label sets in one partition: a label carries a value "
                    "that is different for nearly every event; remove it from the events' labels"
                )
            if number == len(self.ad_hash):
                self.ad_hash = _grown(self.ad_hash, 2 * number)
                self.ad_label = _grown(self.ad_label, 2 * number, fill=-1)
            self.ad_hash[number] = hashed
            self.ad_names.append(None)
            self._by_hash[hashed] = number
        return number

    def unwritten(self) -> list[tuple[int, bytes]]:
        """Hash and name of every ad interned since the last call, for the changelog."""
        ads, self._unwritten = self._unwritten, []
        return [(int(self.ad_hash[ad]), self.ad_names[ad] or b"") for ad in ads]

    def _label(self, dimension: str, value: str) -> int:
        text = dimension if dimension == "user" else f"{dimension}:{value}"
        number = self._label_ids.get(text)
        if number is None:
            number = self._label_ids[text] = len(self.label_names)
            self.label_names.append(text)
            escaped = json.dumps(text, ensure_ascii=False)[1:-1].encode()
            start = int(self.label_start[number])
            end = start + len(escaped)
            if number == len(self.label_hash):
                self.label_hash = _grown(self.label_hash, 2 * number)
                self.label_start = _grown(self.label_start, 2 * number + 1)
            if end > len(self.label_text):
                self.label_text = _grown(self.label_text, 2 * end)
            self.label_text[start:end] = np.frombuffer(escaped, np.uint8)
            self.label_start[number + 1] = end
            self.label_hash[number] = ad_hash(text.encode())
        return number


@compiled
def find_ad(table: AdTable, key: np.uint64) -> int:
    """The ad's number, or -1."""
    mask = np.uint64(len(table.key) - 1)
    at = key & mask
    while table.key[at] != _FREE:
        if table.key[at] == key:
            return integer(table.ad[at])
        at = (at + _ONE) & mask
    return -1


@compiled
def add_ad(table: AdTable, key: np.uint64, ad: int) -> None:
    """Add an ad that the table does not know; the caller keeps it half empty."""
    mask = np.uint64(len(table.key) - 1)
    at = key & mask
    while table.key[at] != _FREE:
        at = (at + _ONE) & mask
    table.key[at] = key
    table.ad[at] = ad


def canonical(ad: Ad) -> bytes:
    """The one spelling of a label set: JSON, keys sorted, absent ones left out."""
    *values, custom = ad
    labels = dict(cast(tuple[tuple[str, str], ...], custom or ()))
    labels |= {field: value for field, value in zip(FIELDS, values, strict=True) if value}
    return json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def ad_hash(name: bytes) -> int:
    """64 bits of BLAKE2b, never zero."""
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") or 1


def _grown(array: NDArray, size: int, fill: int = 0) -> NDArray:  # type: ignore[type-arg]
    out = np.full((size, *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out
