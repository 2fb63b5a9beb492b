"""Consent as pipelines write it, by purpose: what somebody granted or refused.

Three spellings: booleans by purpose, a TCF v2 string, and a GPP string. Of a GPP string the
section for the European Union is read, which is a TCF string; of one that has none nothing is
known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

import iab_tcf
import msgspec

from governor.policy import Consent

__all__ = ["BadConsentError", "decode", "from_text"]

RETARGETING: Final = "retargeting"
"""The purpose that rules ask about."""

MAX_CHARACTERS: Final = 8_192
"""The longest string that is decoded; the longest in the wild are a tenth of it."""

_TCF_EU: Final = 2
"""The GPP's section of the European Union."""

_FIXED_BITS: Final = 230
"""Of a TC string, up to whether vendors are listed by ranges."""

_MOST_VENDOR_BITS: Final = 17
"""The highest vendor id, and whether vendors are listed by ranges."""

_GPP_HEADER: Final = 3
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class BadConsentError(ValueError):
    """Consent that cannot be read; what to send instead is in the message."""


def decode(said: object, policy: Consent) -> bool | None:
    """Whether retargeting is granted.

    Args:
        said: ``{"retargeting": true}``, ``{"tcf": "<TC string>"}`` or ``{"gpp": "<string>"}``, in
            this order where there are several; null is as good as none.
        policy: the purposes and the vendor that a TC string must have consent for.

    Returns:
        None when nothing is said about retargeting.

    Raises:
        BadConsentError: it is none of these, or the string cannot be decoded.
    """
    if not isinstance(said, Mapping):
        raise BadConsentError("consent is not an object: send booleans by purpose, tcf or gpp")
    if said.get(RETARGETING) is not None:
        granted = said[RETARGETING]
        if not isinstance(granted, bool):
            raise BadConsentError(f"consent.{RETARGETING} is not true or false")
        return granted
    for name, read in (("tcf", _granted_in_tcf), ("gpp", _granted_in_gpp)):
        if said.get(name) is not None:
            text = said[name]
            if not isinstance(text, str) or not 0 < len(text) <= MAX_CHARACTERS:
                raise BadConsentError(
                    f"consent.{name} is not a string of at most {MAX_CHARACTERS} characters"
                )
            return read(text, policy.purposes, policy.vendor)
    return None


def from_text(text: str) -> object:
    """What a table's column says, as `decode` takes it: ``true``, ``false``, ``1`` or ``0``, a TC
    string, a GPP string, or the JSON that events have."""
    granted = {"true": True, "1": True, "false": False, "0": False}.get(text.lower())
    if granted is not None:
        return {RETARGETING: granted}
    if text.startswith("{"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return {"gpp" if "~" in text else "tcf": text}


@lru_cache(maxsize=65_536)
def _granted_in_tcf(text: str, purposes: tuple[int, ...], vendor: int | None) -> bool:
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", text):
        raise BadConsentError("consent.tcf is not a TC string: it is not base64url")
    # Of the other segments nothing is asked, and the library takes seconds for one made to hurt.
    core = text.partition(".")[0]
    try:
        consent = iab_tcf.decode_v2(core)
    except (ArithmeticError, LookupError, OSError, ValueError) as error:
        raise BadConsentError(f"consent.tcf is not a TC string of version 2: {error}") from None
    if consent.version != 2:
        raise BadConsentError(f"consent.tcf is of version {consent.version}: send version 2")
    # What the library reads beyond the end are ones, which would be consent to everything.
    if 6 * len(core) // 8 * 8 < _bits(consent):
        raise BadConsentError("consent.tcf is cut off")
    granted = all(consent.is_purpose_allowed(purpose) for purpose in purposes)
    if vendor is None or not granted:
        return granted
    return bool(consent.is_vendor_allowed(vendor)) and not _restricted(consent, purposes, vendor)


def _restricted(consent: iab_tcf.ConsentV2, purposes: tuple[int, ...], vendor: int) -> bool:
    """Whether the publisher lets the vendor not rely on consent for one of the purposes.

    Of its restrictions, "purpose flatly not allowed" and "require legitimate interest".
    """
    return any(
        (each.is_not_allowed() or each.is_legitimate_interest_required())
        and each.purpose_id in purposes
        and each.is_in_range(vendor)
        for each in consent.pub_restriction_entries
    )


def _bits(consent: iab_tcf.ConsentV2) -> int:
    """How long the core segment is at least, by what is read of it."""
    bits = _FIXED_BITS
    if consent.is_consent_range_encoding:
        bits += _range_bits(consent.consented_vendors_range)
    else:
        bits += int(consent.max_consent_vendor_id)
    bits += _MOST_VENDOR_BITS
    if consent.is_interests_range_encoding:
        bits += _range_bits(consent.interests_vendors_range)
    else:
        bits += int(consent.max_interests_vendor_id)
    restrictions = consent.pub_restriction_entries
    return bits + 12 + sum(8 + _range_bits(each.restrictions_range) for each in restrictions)


def _range_bits(ranges: Sequence[tuple[int, int]]) -> int:
    """How long a list of ids and ranges of ids is, with its count."""
    return 12 + sum(17 if first == last else 33 for first, last in ranges)


@lru_cache(maxsize=65_536)
def _granted_in_gpp(text: str, purposes: tuple[int, ...], vendor: int | None) -> bool | None:
    header, *sections = text.split("~")
    ids = list(islice(_section_ids(header), len(sections) + 1))
    if len(ids) != len(sections):
        than = "fewer" if len(ids) < len(sections) else "more"
        raise BadConsentError(
            f"consent.gpp names {than} sections in its header than the {len(sections)} that it has"
        )
    of_id = dict(zip(ids, sections, strict=True))
    if _TCF_EU not in of_id:
        return None
    return _granted_in_tcf(of_id[_TCF_EU], purposes, vendor)


def _section_ids(header: str) -> Iterator[int]:
    """The sections that a GPP header announces.

    Six bits of type, six of version, then a range: twelve bits of count, and for each item a bit
    that says whether it is one id or a first and a last, each number in Fibonacci coding as the
    difference from the one before.
    """
    if not header or set(header) - set(_ALPHABET):
        raise BadConsentError("consent.gpp is not a GPP string: its header is not base64url")
    bits = "".join(f"{_ALPHABET.index(character):06b}" for character in header)
    if int(bits[:6], 2) != _GPP_HEADER or len(bits) < 24:
        raise BadConsentError("consent.gpp is not a GPP string: its header is of another type")
    at, last = 24, 0
    for _ in range(int(bits[12:24], 2)):
        is_range = bits[at : at + 1] == "1"
        step, at = _fibonacci(bits, at + 1)
        first = last + step
        last = first
        if is_range:
            step, at = _fibonacci(bits, at)
            last = first + step
        yield from range(first, min(last, first + len(bits)) + 1)


def _fibonacci(bits: str, at: int) -> tuple[int, int]:
    """The number whose coding begins at ``at``, and where what follows it begins."""
    end = bits.find("11", at)
    if end < 0:
        raise BadConsentError("consent.gpp is not a GPP string: its header is cut off")
    total, one, two = 0, 1, 2
    for bit in bits[at : end + 1]:
        total += one if bit == "1" else 0
        one, two = two, one + two
    return total, end + 2
