"""Categories of the IAB Content Taxonomy: by id and name, with all below them."""

from __future__ import annotations

import pytest

from governor.policy import Sensitive
from governor.taxonomy import family, nearest


@pytest.mark.parametrize("word", ["211", "Alcoholic Beverages", "alcoholic beverages"])
def test_a_category_by_id_or_name_in_any_case(word: str) -> None:
    assert family(word) == frozenset({"211", "alcoholic beverages"})


def test_all_below_belongs_to_it() -> None:
    sports = family("Sports")
    assert sports is not None
    assert {"483", "IAB17", "IAB17-12", "poker and professional gambling"} <= sports
    assert "211" not in sports


def test_an_id_means_its_category_in_every_version() -> None:
    found = family("IAB7")
    assert found is not None
    assert {"IAB7", "IAB7-1", "health & fitness"} <= found


@pytest.mark.parametrize("word", ["", "no such thing", "IAB99", "211 "])
def test_what_is_no_category(word: str) -> None:
    assert family(word) is None


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Alcohol", "Alcoholic Beverages"),
        ("Alcoholic Beverage", "Alcoholic Beverages"),
        ("Gambling", "Casinos & Gambling"),
        ("xyzzy", None),
    ],
)
def test_what_was_probably_meant(word: str, name: str | None) -> None:
    assert nearest(word) == name


def test_sensitive_covers_ids_names_and_what_is_below() -> None:
    sensitive = Sensitive.model_validate({"categories": ["Sensitive Topics", "IAB7"]})
    assert sensitive.covers("IAB7-3")
    assert sensitive.covers("AIDS/HIV")
    assert sensitive.covers("pg0WhF")
    assert not sensitive.covers("211")
    assert not sensitive.covers("shoes")
