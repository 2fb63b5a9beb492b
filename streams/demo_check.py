"""The demo's proof: every decision on the topic against `governor.oracle`, for every user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from governor.decisions import GRACE
from governor.oracle import Oracle, compare
from governor.policy import Policy
from governor.ticks import from_seconds
from streams.demo_sample import Event

__all__ = ["Verdict", "check"]


@dataclass
class Verdict:
    """What the comparison found."""

    users: int = 0
    compared: int = 0
    """Throttles, on the topic or due there."""
    withdrawn: int = 0
    """Throttles that had run out for everybody, and are rightly on the topic no more."""
    differences: list[str] = field(default_factory=list)
    """One for each throttle or record that differs."""

    @property
    def status(self) -> int:
        """The exit status."""
        return 1 if self.differences else 0

    def __str__(self) -> str:
        return (
            f"oracle: {self.users} users, {self.compared} throttles compared, "
            f"{len(self.differences)} differ"
        )


def check(
    policy: Policy,
    events: Mapping[str, Iterable[Event]],
    partitions: Mapping[str, int],
    topic: Mapping[str, Mapping[str, Any]],
    *,
    horizon: int,
    row_limit: int,
) -> Verdict:
    """Compare the decisions with what the events and the policy say.

    A decision is withdrawn when its last ``until`` is an hour behind the newest event of its
    partition; that is the only reason for which one may, and must, be absent.

    Args:
        policy: what the worker was given.
        events: by user, all that the worker was given.
        partitions: by user, where they were sent.
        topic: by user, the last record on the decisions topic, where it is no tombstone.
        horizon: the worker's history, in ticks.
        row_limit: the worker's.
    """
    told = {user: list(each) for user, each in events.items()}
    newest: dict[int, int] = {}
    for user, each in told.items():
        ts = max(from_seconds(event["ts"]) for _, event in each)
        newest[partitions[user]] = max(ts, newest.get(partitions[user], 0))
    verdict = Verdict(users=len(told))
    for user, each in told.items():
        oracle = Oracle(policy, horizon=horizon, row_limit=row_limit)
        for kind, event in each:
            oracle.add(kind.removesuffix("s"), event)
        due = oracle.decide(user)
        throttles = due["throttles"] if due else []
        if all(_ended(one, newest[partitions[user]]) for one in throttles):
            verdict.withdrawn += len(throttles)
            due = None
        _compare(verdict, user, due, topic.get(user), policy.version)
    for user in topic.keys() - told.keys():
        _compare(verdict, user, None, topic[user], policy.version)
    return verdict


def _ended(throttle: Mapping[str, Any], watermark: int) -> bool:
    """Whether a throttle has run out for everybody."""
    until = throttle["until"]
    return until is not None and from_seconds(until) <= watermark - GRACE


def _compare(
    verdict: Verdict,
    user: str,
    due: dict[str, Any] | None,
    record: Mapping[str, Any] | None,
    version: str,
) -> None:
    labels = {one["label"] for each in (due, record) if each for one in each["throttles"]}
    verdict.compared += len(labels)
    said = {"policy": version, "curves": None, "id": user}
    found = None
    if record is not None:
        if said != {name: record.get(name, "absent") for name in said}:
            verdict.differences.append(f"user {user}: the record is not of {said}: {dict(record)}")
        found = {
            name: record[name] for name in ("id", "id_type", "arm", "throttles") if name in record
        }
        if not due:
            verdict.differences.append(f"user {user}: a decision where none is due: {found}")
            return
    verdict.differences += [f"user {user}, {difference}" for difference in compare(due, found)]
