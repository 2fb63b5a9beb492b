"""Ads: whole sets of labels, as events carry them, and their one spelling."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FIELDS",
    "MAX_ADS",
    "TYPE_KEY",
    "ZONE_KEY",
    "Ad",
    "ad_hash",
    "ad_of_labels",
    "canonical",
    "grown",
]

FIELDS = ("campaign", "creative", "advertiser", "category", "channel", "surface", "segment")
"""Label dimensions that are fields of an event (``campaign_id`` and so on), in the order of the
tuples given to `governor.labels.Labels.intern`; custom labels follow as a tuple of pairs."""

MAX_ADS = 1 << 24
"""An exposure holds its ad in 24 bits."""

TYPE_KEY = "\0type"
"""Stands among the labels of an engagement for a type that is a text of the sender's. No label of
an event has a NUL."""

ZONE_KEY = "\0zone"
"""The one label of what stands for a time zone."""

Ad = tuple[
    str | None, str | None, str | None, str | None, str | None, str | None, str | None, object
]
"""Values of `FIELDS`, then custom labels as ``((key, value), ...)`` sorted by key, or None."""


def ad_of_labels(labels: Mapping[str, str]) -> Ad:
    """The ad that has these labels."""
    custom = tuple(sorted(item for item in labels.items() if item[0] not in FIELDS))
    return cast(Ad, (*(labels.get(field) for field in FIELDS), custom or None))


def canonical(ad: Ad) -> bytes:
    """The one spelling of a label set: JSON, keys sorted, absent ones left out."""
    *values, custom = ad
    labels = dict(cast(tuple[tuple[str, str], ...], custom or ()))
    labels |= {field: value for field, value in zip(FIELDS, values, strict=True) if value}
    return json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def ad_hash(name: bytes) -> int:
    """64 bits of BLAKE2b, never zero."""
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") or 1


def grown(array: NDArray[Any], size: int, fill: int = 0) -> NDArray[Any]:
    """A copy of ``array`` with ``size`` rows, the new ones filled."""
    out = np.full((size, *array.shape[1:]), fill, array.dtype)
    out[: len(array)] = array
    return out
