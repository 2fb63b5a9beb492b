"""``governor deadletters``: list dead letters and put their messages back.

What a command needs is imported when it runs, as in `streams.cli`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from streams.moments import moment

if TYPE_CHECKING:
    from streams.requeue import Filter
    from streams.settings import Settings

__all__ = ["deadletters"]

_STATUSES = "Exit status: 0 it went well, 1 it failed, 2 a mistake in the command line or settings."


@click.group()
def deadletters() -> None:
    """Look at messages that were no events, and put them back."""


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which dead letters are meant."""
    topics = click.Choice(["impressions", "engagements", "controls"])
    for option in (
        click.option(
            "--until", metavar="TIME", callback=moment, help="Only messages from before this time."
        ),
        click.option(
            "--since",
            metavar="TIME",
            callback=moment,
            help="Only messages from this time on: 2026-03-01T12:00Z, or 6h for so long ago.",
        ),
        click.option("--partition", type=click.IntRange(0), help="Only those of this partition."),
        click.option("--topic", type=topics, multiple=True, help="Only those of this topic."),
        click.option("--reason", multiple=True, help="Only those with this reason."),
    ):
        command = option(command)
    return command


def _wanted(
    settings: Settings,
    reason: tuple[str, ...],
    topic: tuple[str, ...],
    partition: int | None,
    since: float | None,
    until: float | None,
) -> Filter:
    from governor.events import Reason
    from streams.requeue import Filter

    if unknown := set(reason) - {str(each) for each in Reason}:
        known = ", ".join(sorted(str(each) for each in Reason))
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: reasons are {known}")
    return Filter(reason, tuple(map(settings.topic, topic)), partition, since, until)


@deadletters.command(epilog=_STATUSES)
@_filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, whole.")
def show(limit: int, as_json: bool, **filters: Any) -> None:
    """List dead letters: reason, where the message came from, and how it begins.

    \b
    Example:
      governor deadletters show --reason milliseconds --since 6h
    """
    from streams import requeue
    from streams.cli import settings_of_environment

    settings = settings_of_environment()
    found = asyncio.run(requeue.read(settings, _wanted(settings, **filters)))
    found.sort(key=lambda one: float(one.letter["timestamp"]))
    for one in found[-limit:]:
        if as_json:
            where = {"letter_partition": one.partition, "letter_offset": one.offset}
            click.echo(json.dumps({"requeued": None, **one.letter, **where}))
        else:
            mark = " (put back)" if one.requeued else ""
            click.echo(f"{one.letter['reason']}  {one.source}{mark}  {one.letter['detail']}")
            click.echo(f"    {one.preview}")
    click.echo(f"{min(limit, len(found))} of {len(found)} dead letters", err=True)


@deadletters.command("requeue", epilog=_STATUSES)
@_filters
@click.option("--dry-run", is_flag=True, help="Say what would be put back, and do nothing.")
def put_back(dry_run: bool, **filters: Any) -> None:
    """Put the messages of dead letters back into their topics and partitions.

    For when the reason is gone: a setting was wrong, a fault of ours is mended. A message that is
    still no event becomes a dead letter again. Each letter is put back once; what was counted
    before does not count twice.

    \b
    Example:
      governor deadletters requeue --reason quarantined --dry-run
    """
    from streams import requeue
    from streams.cli import settings_of_environment

    settings = settings_of_environment()
    found = asyncio.run(requeue.read(settings, _wanted(settings, **filters)))
    obstacles = Counter(one.obstacle for one in found)
    if dry_run:
        click.echo(f"{obstacles.pop('', 0)} of {len(found)} messages would be put back")
    else:
        count = asyncio.run(requeue.requeue(settings, found, time.time()))
        click.echo(f"{count} of {len(found)} messages put back")
        obstacles.pop("", None)
    for obstacle, number in obstacles.items():
        click.echo(f"{number} left: each {obstacle}")
