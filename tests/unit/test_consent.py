"""Consent in its three spellings: what is granted, and what cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest

from governor.consent import BadConsentError, decode
from governor.policy import Consent

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ANY = Consent()
OURS = Consent(vendor=755)


def tc_string(
    purposes: set[int],
    vendors: set[int] | None = None,
    *,
    ranges: bool = False,
    version: int = 2,
    restrictions: Sequence[tuple[int, int, int, int]] = (),
) -> str:
    """A TC string with these purposes consented to, and these vendors.

    ``restrictions`` are the publisher's: purpose, type, and the first and last vendor concerned.
    """
    vendors = vendors or set()
    bits = f"{version:06b}" + "0" * 36 * 2 + "0" * 12 * 2 + "0" * 6 + "0" * 12 + "0" * 12
    bits += f"{4:06b}" + "0" * 2 + "0" * 12
    bits += "".join("01"[purpose in purposes] for purpose in range(1, 25))
    bits += "0" * 24 + "0" + "0" * 12
    most = max(vendors, default=0)
    bits += f"{most:016b}" + "01"[ranges]
    if ranges:
        bits += f"{len(vendors):012b}" + "".join(f"0{vendor:016b}" for vendor in sorted(vendors))
    else:
        bits += "".join("01"[vendor in vendors] for vendor in range(1, most + 1))
    bits += f"{0:016b}0" + f"{len(restrictions):012b}"
    for purpose, kind, first, last in restrictions:
        bits += f"{purpose:06b}{kind:02b}{1:012b}1{first:016b}{last:016b}"
    bits += "0" * (-len(bits) % 24)
    return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


@pytest.mark.parametrize(
    ("said", "granted"),
    [
        ({"retargeting": True}, True),
        ({"retargeting": False}, False),
        ({"retargeting": False, "tcf": tc_string({1, 3, 4})}, False),
        ({"measurement": True}, None),
        ({}, None),
        ({"retargeting": None, "tcf": None, "gpp": None}, None),
        ({"retargeting": None, "tcf": tc_string({1, 3, 4})}, True),
        ({"tcf": tc_string({1, 3, 4})}, True),
        ({"tcf": tc_string({1, 3})}, False),
        ({"tcf": tc_string(set())}, False),
        ({"tcf": tc_string({1, 3, 4}) + ".YAAAAAAAAAA"}, True),
        ({"tcf": tc_string({1, 3, 4}) + ".A"}, True),  # only the core segment is read
        ({"gpp": "DBABMA~" + tc_string({1, 3, 4})}, True),
        ({"gpp": "DBABMA~" + tc_string({1, 4})}, False),
        ({"gpp": "DBACNYA~" + tc_string({1, 3, 4}) + "~1YNN"}, True),
        ({"gpp": "DBABTA~1YNN"}, None),
    ],
)
def test_what_is_said_of_retargeting(said: dict[str, object], granted: bool | None) -> None:
    assert decode(said, ANY) is granted


@pytest.mark.parametrize("ranges", [False, True])
def test_our_vendor_must_be_among_those_consented_to(ranges: bool) -> None:
    assert decode({"tcf": tc_string({1, 3, 4}, {2, 755}, ranges=ranges)}, OURS) is True
    assert decode({"tcf": tc_string({1, 3, 4}, {2, 756}, ranges=ranges)}, OURS) is False
    assert decode({"tcf": tc_string({1, 3}, {755}, ranges=ranges)}, OURS) is False


NOT_ALLOWED, CONSENT_ONLY, INTEREST_ONLY = 0, 1, 2


@pytest.mark.parametrize(
    ("restriction", "granted"),
    [
        ((3, NOT_ALLOWED, 755, 755), False),
        ((3, NOT_ALLOWED, 700, 800), False),
        ((3, INTEREST_ONLY, 755, 755), False),
        ((3, CONSENT_ONLY, 755, 755), True),
        ((3, NOT_ALLOWED, 700, 754), True),
        ((2, NOT_ALLOWED, 755, 755), True),
    ],
)
def test_what_the_publisher_does_not_let_our_vendor_do_is_not_granted(
    restriction: tuple[int, int, int, int], granted: bool
) -> None:
    others = [(4, NOT_ALLOWED, 1, 2), (9, INTEREST_ONLY, 755, 755)]
    said = {"tcf": tc_string({1, 3, 4}, {2, 755}, restrictions=[*others, restriction])}
    assert decode(said, OURS) is granted
    assert decode(said, ANY) is True


def test_restrictions_that_are_cut_off_are_not_overlooked() -> None:
    whole = tc_string({1, 3, 4}, {755}, restrictions=[(3, NOT_ALLOWED, 700, 800)] * 4)
    for length in range(len(whole) - 4 * 9, len(whole) - 4):
        with pytest.raises(BadConsentError):
            decode({"tcf": whole[:length]}, OURS)


def test_purposes_are_the_policys() -> None:
    said = {"tcf": tc_string({1, 3})}
    assert decode(said, Consent(purposes=(1, 3))) is True
    assert decode(said, Consent(purposes=(2,))) is False


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (True, "not an object"),
        ("CO5VTlWO5VTlW", "not an object"),
        ({"retargeting": "yes"}, "retargeting is not true or false"),
        ({"tcf": 7}, "tcf is not a string"),
        ({"tcf": ""}, "tcf is not a string"),
        ({"tcf": "C" * 9_000}, "at most 8192"),
        ({"tcf": "C!"}, "not base64url"),
        ({"tcf": "é"}, "not base64url"),
        ({"tcf": "C"}, "tcf is"),
        ({"tcf": tc_string({1}, version=1)}, "version 1: send version 2"),
        ({"gpp": "hello~x"}, "another type"),
        ({"gpp": "~"}, "not base64url"),
        ({"gpp": "DBABMA"}, "more sections in its header than the 0 that it has"),
        ({"gpp": "DBABMA~x~y"}, "fewer sections in its header than the 2 that it has"),
        ({"gpp": "DBAB~x"}, "cut off"),
    ],
)
def test_what_cannot_be_read_is_told(said: object, told: str) -> None:
    with pytest.raises(BadConsentError, match=told):
        decode(said, ANY)


def test_a_string_that_is_cut_off_grants_nothing() -> None:
    """Read beyond its end, every bit would look like consent."""
    for whole in (
        tc_string({1, 3, 4}, {755}),
        tc_string({1, 3, 4}, {2, 700, 755}, ranges=True),
    ):
        assert decode({"tcf": whole}, OURS) is True
        for length in chain(range(1, 38), range(38, len(whole) - 10)):
            with pytest.raises(BadConsentError):
                decode({"tcf": whole[:length]}, OURS)
