"""What a row is, by definition: of all the events of one id, those that it keeps and that count.

A row is a function of the set of events, with one exception, which only the order of arrival can
settle: an engagement that comes while consent is refused is gone for good, and so is what had to
go because of an engagement that was let go later.

Where a link joins the rows of two ids, what each keeps is one row. If one of them refused consent
and the other had granted it, consent is refused as of the link.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

from governor import zones
from governor.oracle.events import Entry
from governor.oracle.ties import Rank
from governor.policy import Cap, Fatigue, Ignored, Policy, Reaction, Rule, Spacing

__all__ = ["Arrival", "Joined", "Row", "entries_of", "label_of", "matches", "rekeyed", "row_of"]

HARD_LIMIT = 1024
REQUESTS = 64
"""Requests to see less of one label that matter."""


@dataclass(frozen=True)
class Joined:
    """The row of another id comes, because of a link."""

    ts: int
    """Of the link."""
    arrivals: tuple[Arrival, ...]
    """Of the other id."""


Arrival = Entry | Joined


def entries_of(arrivals: Iterable[Arrival]) -> Iterator[Entry]:
    """All entries, those of joined rows included."""
    for one in arrivals:
        if isinstance(one, Joined):
            yield from entries_of(one.arrivals)
        else:
            yield one


def rekeyed(arrivals: Iterable[Arrival], key: str) -> tuple[Arrival, ...]:
    """The same, of another id."""
    return tuple(
        replace(one, arrivals=rekeyed(one.arrivals, key))
        if isinstance(one, Joined)
        else replace(one, key=key)
        for one in arrivals
    )


@dataclass(frozen=True)
class Row:
    """What is kept, each kind newest first, and what is known of the whole."""

    key: str
    now: int
    """The newest time of any kind."""
    horizon: int
    exposures: Sequence[Entry]
    engagements: Sequence[Entry]
    controls: Sequence[Entry]
    shown: Sequence[Entry]
    """Exposures that count: without those for which a smaller one stands."""
    engaged: Sequence[Entry]
    said: Sequence[Entry]
    """Engagements and controls that count."""
    zone: str
    refused: bool
    refused_at: int | None
    """When consent was refused; None where it was just never granted."""
    cut: int
    """The newest of what was pushed out for want of room, in ticks; -1 where nothing was."""

    @property
    def id_type(self) -> str:
        """The type of the row's id."""
        return self.key.partition("\0")[0] if "\0" in self.key else "user"

    @property
    def id(self) -> str:
        """The row's id."""
        return self.key.rpartition("\0")[2]


def label_of(per: Sequence[str], labels: Mapping[str, str]) -> str | None:
    """The label of these dimensions, if the labels have them all."""
    if per == ("user",):
        return "user"
    if len(per) == 1:
        value = labels.get(per[0])
        return None if value is None else f"{per[0]}:{value}"
    if not all(dimension in labels for dimension in per):
        return None
    return " x ".join(f"{dimension}:{labels[dimension]}" for dimension in per)


def matches(match: Mapping[str, Sequence[str]], labels: Mapping[str, str]) -> bool:
    """Whether an ad with these labels is meant."""
    return not match or all(labels.get(each) in values for each, values in match.items())


def row_of(
    arrivals: Sequence[Arrival], policy: Policy, horizon: int, row_limit: int, rank: Rank
) -> Row | None:
    """The row that these events make, in the order in which they came; None if nothing is left."""
    key = next(entries_of(arrivals)).key
    held = _Held(policy, key, horizon, row_limit, rank)
    held.take(arrivals)
    kept, now, consent = held.kept(), held.now, held.consent
    exposures = kept.exposures(held.admitted)
    engagements = kept.engagements(held.admitted)
    controls = kept.controls(held.admitted)
    if not (exposures or engagements or controls or consent.statements):
        return None
    zoned = [e for e in held.zoned if e.ts > now - horizon]
    zone = max(zoned, key=lambda e: _place(e, rank)).zone if zoned else None
    return Row(
        key,
        now,
        horizon,
        exposures,
        engagements,
        controls,
        _live(exposures),
        _live(engagements),
        _live(controls),
        zone or policy.timezone,
        consent.refused,
        consent.at,
        held.cut,
    )


class _Held:
    """What an id's row has, arrival by arrival."""

    def __init__(self, policy: Policy, key: str, horizon: int, row_limit: int, rank: Rank) -> None:
        self._new = partial(_Held, policy, key, horizon, row_limit, rank)
        self._keep = partial(_Kept, policy, key, horizon, row_limit, rank)
        self._horizon = horizon
        self.consent = _Consent(policy.consent.required, rank)
        self.admitted: list[Entry] = []
        self.zoned: list[Entry] = []
        self._erased = -1
        self._cut = -1

    @property
    def cut(self) -> int:
        """The newest time of what there was no room for; -1 where there was for all."""
        oldest, kept = self.now - self._horizon, set(self.kept().all(self.admitted))
        pushed = [e.ts for e in self.admitted if e not in kept and e.ts > oldest]
        cut = max([*pushed, self._cut], default=-1)
        return cut if cut > oldest else -1

    @property
    def now(self) -> int:
        """The newest time of any kind."""
        stated = [ts for ts, _, _ in self.consent.statements]
        # Where somebody was is still known of an engagement that had to go.
        return max([*stated, *(e.ts for e in (*self.admitted, *self.zoned))], default=0)

    def kept(self) -> _Kept:
        """What it has room for by now."""
        return self._keep(self.now)

    def take(self, arrivals: Iterable[Arrival]) -> None:
        """All of these, one after the other."""
        for one in arrivals:
            if isinstance(one, Joined):
                other = self._new()
                other.take(one.arrivals)
                self._join(other, one.ts)
            elif one.topic == "control" and one.type == "erase":
                self._erase(one.ts)
            elif one.ts > self._erased and not (one.topic == "control" and one.type == "link"):
                self._enter(one)

    def _enter(self, e: Entry) -> None:
        kept_out = self.consent.keeps_out(e)
        if not kept_out and not (e.topic == "control" and e.type == "consent"):
            self.admitted.append(e)
        said = not kept_out and (e.type != "consent" or e.consent is not None)
        if said and e.zone is not None and zones.known(e.zone):
            self.zoned.append(e)
        if e.consent is not None:
            kept = self.kept()
            self.consent.state(e)
            self._keep_out(kept)

    def _keep_out(self, kept: _Kept) -> None:
        """Let go of engagements that consent no longer covers, and of what had no room before."""
        out = self.consent.keeps_out
        if any(map(out, self.admitted)):
            self._cut = self.cut
            self.admitted = [e for e in kept.all(self.admitted) if not out(e)]
            self.zoned = [e for e in self.zoned if e.ts > kept.now - self._horizon]

    def _erase(self, until: int) -> None:
        self._erased = max(self._erased, until)
        self.consent.forget(self._erased)
        self._cut = self._cut if self._cut > self._erased else -1
        self.admitted = [e for e in self.admitted if e.ts > self._erased]
        self.zoned = [e for e in self.zoned if e.ts > self._erased]

    def _join(self, other: _Held, at: int) -> None:
        kept, theirs = self.kept(), other.kept().all(other.admitted)
        cut = max(self.cut, other.cut)
        self.consent.join(other.consent, at)
        self._keep_out(kept)
        self.admitted += [e for e in theirs if not self.consent.keeps_out(e)]
        self.zoned += other.zoned
        self._cut = max(self._cut, cut)
        self._erase(self._erased)


def _place(e: Entry, rank: Rank) -> tuple[int, float]:
    return e.ts, rank.get(e, 0)


def _live(newest_first: Sequence[Entry]) -> list[Entry]:
    """Those that count: no smaller one has the same event id, or, shown, the impression id."""
    counting: list[Entry] = []
    event_ids: set[str] = set()
    impression_ids: set[str | None] = set()
    for e in reversed(newest_first):
        again = e.topic == "impression" and e.impression_id in impression_ids
        if e.event_id not in event_ids and not again:
            counting.append(e)
        event_ids.add(e.event_id)
        impression_ids |= {e.impression_id} - {None}
    return counting[::-1]


class _Consent:
    """What was said about consent, so far."""

    def __init__(self, required: bool, rank: Rank) -> None:
        self.required = required
        self.rank = rank
        self.statements: list[tuple[int, float, bool]] = []
        """Time, what breaks ties, and whether it was granted."""

    def state(self, e: Entry) -> None:
        self.statements.append((*_place(e, self.rank), bool(e.consent)))

    def forget(self, until: int) -> None:
        self.statements = [one for one in self.statements if one[0] > until]

    def join(self, other: _Consent, at: int) -> None:
        """Take in another id's; where one refuses and the other grants, refuse as of ``at``."""
        words = {self._word(), other._word()}
        self.statements += other.statements
        if words == {True, False}:
            self.statements.append((at, inf, False))

    def _newest(self, granted: bool) -> tuple[int, float] | None:
        said = [(ts, rank) for ts, rank, was in self.statements if was is granted]
        return max(said, default=None)

    def _word(self) -> bool | None:
        """The last word; None where there was none."""
        grant, refusal = self._newest(True), self._newest(False)
        if grant is None or refusal is None:
            return None if grant == refusal else refusal is None
        return grant >= refusal

    @property
    def refused(self) -> bool:
        word = self._word()
        return self.required if word is None else not word

    @property
    def at(self) -> int | None:
        refusal = self._newest(False)
        return refusal[0] if refusal else None

    def keeps_out(self, e: Entry) -> bool:
        late = self.at is not None and e.ts <= self.at
        return e.topic == "engagement" and (self.refused or late)


@dataclass(frozen=True)
class _Kept:
    """What a row has room for: the newest, and what may still be asked about."""

    policy: Policy
    key: str
    horizon: int
    row_limit: int
    rank: Rank
    now: int

    def all(self, admitted: Sequence[Entry]) -> list[Entry]:
        """What is kept of every kind."""
        return [
            *self.exposures(admitted),
            *self.engagements(admitted),
            *self.controls(admitted),
        ]

    def exposures(self, admitted: Iterable[Entry]) -> list[Entry]:
        recent = self._recent(admitted, "impression")
        if len(recent) <= self.row_limit:
            return recent
        wanted = set(recent[: self.row_limit])
        for rule in self._rules():
            if isinstance(rule, Cap | Spacing | Ignored | Fatigue):
                classes: dict[str, list[Entry]] = defaultdict(list)
                for e in recent:
                    label = label_of(rule.per, e.labels)
                    if label and matches(rule.match, e.labels) and not _always(self.policy, e):
                        classes[label].append(e)
                for members in classes.values():
                    wanted |= set(members[: self._need(rule)])
        return [e for e in recent if e in wanted][:HARD_LIMIT]

    def engagements(self, admitted: Iterable[Entry]) -> list[Entry]:
        recent = self._recent(admitted, "engagement")
        if len(recent) <= self.row_limit:
            return recent
        wanted = set(recent[: self.row_limit])
        wanted |= set([e for e in recent if e.type == "conversion"][:1])
        for rule in self._rules():
            if isinstance(rule, Reaction):
                newest: dict[str, Entry] = {}
                for e in recent:
                    label = label_of(rule.per, e.labels)
                    if label and e.type == rule.type and matches(rule.match, e.labels):
                        newest.setdefault(label, e)
                wanted |= set(newest.values())
        return [e for e in recent if e in wanted][:HARD_LIMIT]

    def controls(self, admitted: Iterable[Entry]) -> list[Entry]:
        every = sorted(
            {e for e in admitted if e.topic == "control"},
            key=lambda e: _place(e, self.rank),
            reverse=True,
        )
        recent = [e for e in every if e.ts > self.now - self.horizon]
        wanted = set(recent[: self.row_limit])
        alike: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for e in every:
            alike[e.label, "opt" if e.type in ("opt_out", "opt_in") else e.type].append(e)
        for (_, sort), members in alike.items():
            if sort == "opt":
                wanted.add(members[0])
            elif sort == "hide":
                wanted |= {e for e in members[:1] if e.ts + self.policy.controls.hide > self.now}
            elif sort == "less_often":
                lasts = self.policy.controls.less_often
                wanted |= {e for e in members[:REQUESTS] if e.ts + lasts > self.now}
        return [e for e in every if e in wanted][:HARD_LIMIT]

    def _recent(self, admitted: Iterable[Entry], topic: str) -> list[Entry]:
        found = {e for e in admitted if e.topic == topic and e.ts > self.now - self.horizon}
        return sorted(found, key=lambda e: _place(e, self.rank), reverse=True)

    def _rules(self) -> list[Any]:
        id_type = self.key.partition("\0")[0] if "\0" in self.key else "user"
        return [rule for rule in self.policy.rules if rule.id == id_type]

    def _need(self, rule: Rule) -> int:
        if isinstance(rule, Cap):
            lightest = min((ad.weight for ad in self.policy.ads), default=100)
            return -(-100 * rule.limit // min(lightest, 100))
        if isinstance(rule, Fatigue):
            return rule.needed
        return rule.ignored * rule.levels if isinstance(rule, Ignored) else 1


def _always(policy: Policy, e: Entry) -> bool:
    return any(ad.priority == "always" and matches(ad.match, e.labels) for ad in policy.ads)
