"""The ads that one partition has seen, by number.

A label is one value of one dimension, written ``campaign:C7``; the dimension ``user`` has the one
label ``user``, all ads. An *ad* is a whole set of labels, as events carry them. Rows refer to ads
by a small number that holds inside one partition of one worker, and, in the changelog, by a hash
of the canonical label set, so that neither depends on the order in which ads were first seen.
Time zones are kept the same way: a zone is an ad of one label that no event can have.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor import zones
from governor.ads import (
    MAX_ADS,
    TYPE_KEY,
    ZONE_KEY,
    Ad,
    ad_hash,
    ad_of_labels,
    canonical,
    grown,
)
from governor.compiled import compiled, integer
from governor.fatigue.versions import Version
from governor.hashing import hash_bytes
from governor.policy import Consent
from governor.scopes import Scopes

__all__ = ["AdTable", "Labels", "add_ad", "find_ad"]

_FREE = np.uint64(0)
_ONE = np.uint64(1)
NO_LABELS = ad_of_labels({})


class AdTable(NamedTuple):
    """Numbers of ads by a hash of their labels' bytes; a power of two of slots, zero is free."""

    key: NDArray[np.uint64]
    ad: NDArray[np.int64]


class TooManyAdsError(Exception):
    """More distinct label sets in one partition than an exposure can refer to."""


class Labels:
    """The ads and labels that one partition has seen.

    Number 0 is the ad without labels.

    Args:
        scopes: what is worked out for each ad as soon as its name is known.
    """

    def __init__(self, scopes: Scopes | None = None) -> None:
        self.scopes = scopes
        self.known: dict[Ad, int] = {}
        self.table = AdTable(np.zeros(256, np.uint64), np.zeros(256, np.int64))
        self._entered = 0
        self._by_hash: dict[int, int] = {}
        self._zones: dict[str, int] = {}
        self.zone_table = AdTable(np.zeros(2048, np.uint64), np.zeros(2048, np.int64))
        self.ad_hash: NDArray[np.uint64] = np.zeros(16, np.uint64)
        self.ad_names: list[bytes | None] = []
        self.waiting: list[int] = []
        """Ads whose names the changelog does not have yet."""
        self.load(canonical(NO_LABELS))

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
            self.waiting.append(number)
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
            if self.scopes is not None:
                self.scopes.enter(number, json.loads(name))
        return number

    def adopt(self, name: bytes) -> int:
        """The same for a name that this partition's changelog may not have."""
        number = self.load(name)
        self.waiting.append(number)
        return number

    def zone(self, name: str) -> int:
        """The number of what stands for a time zone, -1 for one that does not exist."""
        number = self._zones.get(name)
        if number is None:
            number = -1
            if zones.known(name):
                number = self.intern(ad_of_labels({ZONE_KEY: name}))
                self._zones[name] = number
        return number

    def enter_zone(self, name: str) -> int:
        """The same, that `governor.scan` shall find by the hash of the name if it exists.

        There are some six hundred, so the table never fills up.
        """
        number = self.zone(name)
        text = np.frombuffer(name.encode(), np.uint8)
        key = np.uint64(hash_bytes(text, 0, len(text)))
        if number >= 0 and find_ad(self.zone_table, key) < 0:
            add_ad(self.zone_table, key, number)
        return number

    @property
    def consent(self) -> Consent:
        """What the policy takes for consent to retargeting."""
        return self.scopes.policy.consent if self.scopes is not None else Consent()

    def labels_of(self, ad: int) -> dict[str, str]:
        """The labels of an ad whose name is known."""
        labels: dict[str, str] = json.loads(self.ad_names[ad] or b"{}")
        return labels

    def merged(self, engagement: int, exposure: int) -> int:
        """The ad that an engagement's labels make with its exposure's, its own going first.

        Rows never refer to it, so its name need not be written.
        """
        labels = self.labels_of(exposure) | self.labels_of(engagement)
        labels.pop(TYPE_KEY, None)
        return self.load(canonical(ad_of_labels(labels)))

    def govern(self, scopes: Scopes) -> None:
        """Work every ad out anew, for another policy."""
        self.scopes = scopes
        for number, name in enumerate(self.ad_names):
            scopes.reserve(number)
            if name is not None:
                scopes.enter(number, json.loads(name))

    def learn(self, version: Version) -> None:
        """Note for every ad the curves that it goes by from now on."""
        if self.scopes is not None:
            known = ((i, name) for i, name in enumerate(self.ad_names) if name is not None)
            self.scopes.learn(version, ((i, json.loads(name)) for i, name in known))

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
                self.ad_hash = grown(self.ad_hash, 2 * number)
            if self.scopes is not None:
                self.scopes.reserve(number)
            self.ad_hash[number] = hashed
            self.ad_names.append(None)
            self._by_hash[hashed] = number
        return number

    @property
    def unnamed(self) -> int:
        """Ads that rows speak of and whose names have not come."""
        return self.ad_names.count(None)

    def unwritten(self) -> list[tuple[int, bytes]]:
        """Hash and name of every ad interned since the last call, for the changelog."""
        ads, self.waiting = self.waiting, []
        return [(int(self.ad_hash[ad]), self.ad_names[ad] or b"") for ad in ads]


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
