"""People with several ids: what links and erasures do beyond one row, by definition.

An id's events go to the id that it has become. A link brings what the id had to the known one; an
id follows the earliest of its links, and of links that form a cycle the latest is refused. An
erasure of an id marks it, so that nothing up to its time comes in again, and goes on to the ids
that became it and to the one that it became, whose links are gone with it.

Where links and erasures of the same people come at nearly the same time, the outcome may depend on
which of them came first: who compares with something that took them in another order tries both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from governor.oracle import Oracle
from governor.oracle.events import Entry, RejectedError, decode
from governor.oracle.rows import Joined, rekeyed
from governor.policy import Policy

__all__ = ["Link", "People"]


class Link(NamedTuple):
    """One id became another. Links are ordered by their time; of one time by their events."""

    ts: int
    event_id: str
    id: str
    """The key of the id that became another."""
    to: str


class People:
    """Rows of people by their ids. ``add`` takes events in the order in which they come."""

    def __init__(self, policy: Policy, *, horizon: int, row_limit: int) -> None:
        self.oracle = Oracle(policy, horizon=horizon, row_limit=row_limit)
        """Its rows are those of ids that are nobody else's."""
        self.links: dict[str, Link] = {}
        """What each id has become."""
        self.origins: dict[str, set[str]] = defaultdict(set)
        """The ids that became this one."""
        self.erased: dict[str, int] = {}
        """Up to when nothing of an id comes in."""

    def add(self, topic: str, value: bytes | Mapping[str, Any]) -> str | None:
        """Take an event in; the reason code if it is a dead letter, which changes nothing."""
        policy = self.oracle.policy
        try:
            entries = decode(topic, value, policy.consent)
        except RejectedError as rejection:
            return rejection.reason
        if self.oracle.excluded(entries):
            return None
        for e in entries:
            self._take(e)
        return None

    def root(self, key: str) -> str:
        """The id that an id has become, over any number of links."""
        while key in self.links:
            key = self.links[key].to
        return key

    def _take(self, e: Entry) -> None:
        if e.ts <= self.erased.get(e.key, -1):
            return
        kind = e.type if e.topic == "control" else ""
        if kind == "erase":
            self._erase(e.key, e.ts)
        elif kind == "link":
            self._link(Link(e.ts, e.event_id, e.key, e.to or ""))
        elif e.key in self.links:
            self._take(replace(e, key=self.links[e.key].to))
        else:
            self.oracle.rows[e.key].append(e)

    def _erase(self, key: str, until: int) -> None:
        if until <= self.erased.get(key, -1):
            return
        self.erased[key] = until
        link = self.links.pop(key, None)
        others = self.origins.pop(key, set()) | ({link.to} if link else set())
        self.oracle.erase(key, until)
        for other in sorted(others):
            self._erase(other, until)

    def _link(self, link: Link) -> None:
        known = self.links.get(link.id)
        if known is not None and known <= link:
            return
        self.links[link.id] = link
        origins = {link.id} | self.origins.pop(link.id, set())
        path = [link]
        while (following := self.links.get(path[-1].to)) and following not in path:
            path.append(following)
            origins.add(following.id)
        if following is not None:
            # Round a cycle: its latest link is refused, and its id is the one that all become.
            latest = max(path[path.index(following) :])
            del self.links[latest.id]
            home = latest.id
        else:
            home = path[-1].to
        self._bring(link.id, home, origins - {home}, path)

    def _bring(self, key: str, home: str, origins: set[str], path: list[Link]) -> None:
        """What an id had comes to the one at the end of its links, unless that one was erased."""
        self.origins[home] |= origins
        if moved := self.oracle.rows.pop(key, []):
            at = max(each.ts for each in path)
            self.oracle.rows[home].append(Joined(at, rekeyed(moved, home)))
        until = self.erased.get(home, -1)
        for each in path:
            if each.ts <= until:
                self._erase(each.id, until)
