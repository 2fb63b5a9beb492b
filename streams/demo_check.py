"""The demo's proof: every decision on the topic against `governor.oracle`, for every user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from governor.decisions import GRACE
from governor.oracle import Event, throttles
from governor.ticks import from_seconds

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
    policy: Mapping[str, Any],
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
        policy: as its file says it.
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
        due = throttles(policy, each, horizon=horizon, row_limit=row_limit)
        last = max((from_seconds(one["until"]) for one in due.values()), default=0)
        if last <= newest[partitions[user]] - GRACE:
            verdict.withdrawn += len(due)
            due = {}
        _compare(verdict, user, due, topic.get(user), str(policy.get("version")))
    for user in topic.keys() - told.keys():
        _compare(verdict, user, {}, topic[user], str(policy.get("version")))
    return verdict


def _compare(
    verdict: Verdict,
    user: str,
    due: Mapping[str, Mapping[str, Any]],
    record: Mapping[str, Any] | None,
    version: str,
) -> None:
    if record is None:
        verdict.compared += len(due)
        verdict.differences += [f"user {user}, {label}: no decision, expected {due[label]}"
                                for label in sorted(due)]  # fmt: skip
        return
    found = {one["label"]: one for one in record["throttles"]}
    verdict.compared += len(found.keys() | due.keys())
    if not due:
        verdict.differences.append(f"user {user}: a decision where none is due: {dict(record)}")
        return
    about = {"id": user, "policy": version, "curves": None}
    if about != {name: record.get(name, "absent") for name in about}:
        verdict.differences.append(f"user {user}: the record is not of {about}: {dict(record)}")
    if len(found) != len(record["throttles"]):
        verdict.differences.append(f"user {user}: a label rests twice: {dict(record)}")
    for label in sorted(found.keys() | due.keys()):
        want, have = due.get(label), found.get(label)
        if want is None or have is None or _exact(want) != _exact(have):
            verdict.differences.append(f"user {user}, {label}: expected {want}, found {have}")


_TIMES = {"from", "until", "window"}


def _exact(throttle: Mapping[str, Any]) -> dict[str, Any]:
    """The throttle with its times as whole microseconds, so that equal means equal."""
    exact = {}
    for name, value in throttle.items():
        if name in _TIMES:
            value = from_seconds(value)
        elif isinstance(value, Mapping):
            value = _exact(value)
        exact[name] = value
    return exact
