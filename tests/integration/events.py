"""Events of one person at a time, as the tests of links, erasure and policies send them."""

from __future__ import annotations

from typing import Any

from tests.integration.deployment import Event
from tests.integration.scenario import T0

__all__ = ["control", "shown"]


def shown(user: str, at: float, campaign: str = "C1", **fields: Any) -> Event:
    """An exposure, so many seconds after `T0`."""
    event = {"event_id": f"{user} {at}", "user_id": user, "ts": T0 + at, "campaign_id": campaign}
    return "impressions", event | fields


def control(kind: str, user: str, at: float, **fields: Any) -> Event:
    """What somebody says, so many seconds after `T0`."""
    event = {"event_id": f"{kind} {user} {at}", "user_id": user, "ts": T0 + at, "type": kind}
    return "controls", event | fields
