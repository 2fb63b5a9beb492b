"""What ``governor verify`` prints: for a person who was woken by it, or for a machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from streams.verdict import Difference, Verdict

__all__ = ["Ticker", "as_json", "as_text"]

SHOWN = 20
"""Differences that are printed unless asked for more."""


class Ticker:
    """Says on standard error how far it is: one line, or off a terminal one every ten seconds."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()
        self._records = 0
        self._terminal = sys.stderr.isatty()

    def __call__(self, doing: str, records: int) -> None:
        """So many more records were read."""
        self._records += records
        now = time.monotonic()
        if now - self._told < (0.2 if self._terminal else 10.0):
            return
        self._told = now
        rate = self._records / (now - self._began)
        line = f"{doing}: {self._records:,} records, {rate:,.0f}/s"
        click.echo(f"\r{line:<100}" if self._terminal else line, err=True, nl=not self._terminal)

    def end(self) -> None:
        """Leave the line empty."""
        if self._terminal:
            click.echo("\r" + " " * 100 + "\r", err=True, nl=False)


def as_json(verdict: Verdict, seconds: float) -> str:
    """One object; every difference is in it."""
    return json.dumps(
        {
            "policy": verdict.policy,
            "events": verdict.events,
            "rejected": verdict.rejected,
            "users": verdict.users,
            "judged": verdict.judged,
            "throttles": verdict.throttles,
            "rows": verdict.rows,
            "decisions": verdict.decisions,
            "overdue": verdict.overdue,
            "not_judged": dict(verdict.skipped),
            "policies": dict(verdict.policies),
            "seconds": round(seconds, 1),
            "differences": len(verdict.differences),
            "found": [one.as_json() for one in verdict.differences],
        }
    )


def as_text(verdict: Verdict, seconds: float, shown: int = SHOWN) -> Iterator[str]:
    """Lines: the differences, what was not judged, and the sum last."""
    for one in verdict.differences[:shown]:
        yield from _difference(one)
    if len(verdict.differences) > shown:
        yield f"... and {len(verdict.differences) - shown:,} more: --limit shows more, --json all"
    for reason, users in verdict.skipped.most_common():
        yield f"not judged: {users:,} users: {reason}"
    others = {name: count for name, count in verdict.policies.items() if name != verdict.policy}
    if others:
        named = ", ".join(f"{name} ({count:,})" for name, count in sorted(others.items()))
        yield (
            f"note: decisions name other policies than today's {verdict.policy}: {named}. They "
            "change when their user is next seen, and may differ until then"
        )
    if verdict.overdue:
        yield f"note: {verdict.overdue:,} decisions have run out and await the sweep"
    yield (
        f"verify: {verdict.events:,} events ({verdict.rejected:,} more rejected), "
        f"{verdict.judged:,} of {verdict.users:,} users judged, {verdict.throttles:,} throttles, "
        f"{verdict.rows:,} rows, {seconds:.0f} s: {len(verdict.differences):,} differences"
    )


def _difference(one: Difference) -> Iterator[str]:
    about = f", {one.label}" if one.label is not None else ""
    yield f"DIFFERENT {one.what} of user {one.user}{about}"
    yield f"  in        {one.place}"
    yield f"  expected  {_said(one.expected)}"
    yield f"  found     {_said(one.found)}"
    newest = f", the newest at {one.newest}" if one.newest is not None else ""
    yield f"  because   {one.events} events{newest}"


def _said(value: Any) -> str:
    """A throttle, or what counts in a row, in words."""
    if value is None:
        return "nothing"
    if "label" not in value:
        return ", ".join(
            f"{'?' if count is None else count} {topic}" for topic, count in value.items()
        )
    return (
        f"{value['state']} (factor {value['factor']}) from {_time(value['from'])} "
        f"until {_time(value['until'])} by {', '.join(value['reasons'])}"
    )


def _time(seconds: float) -> str:
    return f"{seconds:.6f} ({datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}Z)"
