"""The demo's input: page views of the EB-NeRD sample, as the events that a producer would send."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import groupby
from typing import Any

__all__ = ["Event", "Exposure", "Page", "events_of", "read_pages"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One article shown to one person."""

    user: str
    item: str
    ts: int
    """Epoch seconds."""
    page: str
    clicked: bool

    @property
    def id(self) -> str:
        """A page view shows many articles at once, so its id alone is no exposure's."""
        return f"{self.page}-{self.item}"


Page = tuple[Exposure, ...]
"""What one page view showed: one person, one instant."""

Event = tuple[str, dict[str, Any]]
"""The topic, ``impressions`` or ``engagements``, and the JSON object."""


def read_pages() -> list[Page]:
    """All page views, in the order of their times."""
    packed = files("governor").joinpath("data", "exposures.csv.gz").read_bytes()
    rows = csv.DictReader(gzip.decompress(packed).decode().splitlines())
    exposures = sorted(map(_exposure, rows), key=lambda one: (one.ts, one.user, one.page))
    return [tuple(page) for _, page in groupby(exposures, key=lambda one: (one.user, one.page))]


def _exposure(row: dict[str, str]) -> Exposure:
    ts = datetime.fromisoformat(row["ts"]).replace(tzinfo=UTC)
    return Exposure(
        row["user_id"],
        row["item_id"],
        int(ts.timestamp()),
        row["impression_id"],
        row["click"] == "1",
    )


def events_of(page: Page) -> Iterator[Event]:
    """What a page view makes a producer send."""
    for one in page:
        yield "impressions", _impression(one)
        if one.clicked:
            yield "engagements", _click(one)


def _impression(one: Exposure) -> dict[str, Any]:
    """The impression; the article stands where an ad would have its campaign."""
    return {
        "event_id": one.id,
        "impression_id": one.id,
        "user_id": one.user,
        "ts": one.ts,
        "campaign_id": one.item,
        "channel": "news",
        "surface": "page",
    }


def _click(one: Exposure) -> dict[str, Any]:
    """The click; the sample does not say when, so it has the time of its page view."""
    return {
        "event_id": f"{one.id}-click",
        "impression_id": one.id,
        "user_id": one.user,
        "ts": one.ts,
        "type": "click",
    }
