"""Tables of ads: what compiled code asks for is found where it was put."""

from __future__ import annotations

from governor.ledger import Ledger
from governor.policy import load
from governor.scopes import merged_ad

RULES = "rules:\n  - {name: bought, reaction: conversion, per: campaign, rest: 1d}\n"
NUMBER = 40


def test_every_pair_of_an_engagement_and_its_exposure_is_found_at_once() -> None:
    """One that is not is asked for again and again, and the table doubles each time."""
    ledger = Ledger(load(RULES, horizon=None), horizon=10**15)
    labels, scopes = ledger.labels, ledger.scopes
    exposures = [labels.load(b'{"campaign":"C%d"}' % n) for n in range(NUMBER)]
    engagements = [labels.load(b'{"creative":"K%d"}' % n) for n in range(NUMBER)]
    for engagement in engagements:
        for exposure in exposures:
            assert merged_ad(scopes.ads, engagement, exposure) == -1
            merged = labels.merged(engagement, exposure)
            scopes.pair(engagement, exposure, merged)
            assert merged_ad(scopes.ads, engagement, exposure) == merged
    assert len(scopes.ads.pair) <= 4 * NUMBER**2
