"""``governor access``, ``governor erase`` and ``governor backfill``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streams.exchange import exchange

if TYPE_CHECKING:
    from governor.policy import Policy
    from streams.settings import Settings

__all__ = ["access", "backfill", "erase"]


def _ids(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    if not values:
        return {}
    from governor.policy import ID_TYPE_NAMES, is_other_id_type

    ids = {}
    for value in values:
        kind, equals, text = value.partition("=")
        if not (kind and equals and text):
            raise click.BadParameter(f"{value!r} is not TYPE=VALUE: write one such as device=d1")
        if not is_other_id_type(kind):
            raise click.BadParameter(
                f"{kind!r} is no type of other ids: write {ID_TYPE_NAMES}; a user id goes to --user"
            )
        ids[kind] = text
    return ids


_USER = click.option("--user", required=True, metavar="U", help="The person's user id.")
_ID = click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="TYPE=VALUE",
    callback=_ids,
    help="Another id of theirs; as often as needed.",
)


@click.command()
@_USER
@_ID
def access(user: str, ids: dict[str, str]) -> None:
    """Print, as JSON, all that is held of a person.

    The rows of their ids and of the ids linked with them, their decisions, and what mentions them
    among the dead letters and on the repartition topic. It reads whole partitions, so it takes a
    while on a large deployment.

    \b
    Example:
      governor access --user u7 --id device=d1 > u7.json
    """
    from streams import privacy

    settings = _settings()
    policy = _policy(settings)
    found = exchange(settings, privacy.access(settings, policy, privacy.Person(user, ids)))
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@click.command(short_help="Erase a person: all that is held of their ids.")
@_USER
@_ID
@click.option("--wait/--no-wait", default=True, help="Wait until workers have applied it.")
def erase(user: str, ids: dict[str, str], wait: bool) -> None:
    """Erase a person: what is held of all the ids given, and of the ids linked with them.

    Rows and decisions go within a second, dead letters that mention them are withdrawn, and a
    keyed hash keeps replays from bringing back what was before. It cannot be undone.

    Rows of ids that are not given and not linked stay: a household's belongs to others too. The
    events on the input topics go with those topics' retention. `governor access` shows what is
    held, before and after.

    \b
    Example:
      governor erase --user u7 --id device=d1
      erased: user u7, device d1, and what was linked with them; 2 dead letters withdrawn
    """
    from streams import privacy

    settings = _settings()
    asked_for = privacy.Person(user, ids)
    done = exchange(settings, privacy.erase(settings, asked_for, round(time.time(), 6)))
    if wait and not exchange(settings, privacy.until_erased(settings)):
        raise click.ClickException(
            f"the erasure is on {settings.topic('controls')}, but no worker has applied it within "
            f"{privacy.PATIENCE_SECONDS:.0f} s: it holds as soon as one runs, also for what came "
            "before. Is a worker up, and is GOVERNOR_GROUP that of the workers?"
        )
    named = ", ".join([f"user {user}", *(f"{kind} {value}" for kind, value in ids.items())])
    letters = f"{done['dead_letters']} dead letter{'s' * (done['dead_letters'] != 1)} withdrawn"
    said = "erased" if wait else "to be erased by the workers"
    click.echo(f"{said}: {named}, and what was linked with them; {letters}")


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--topic", metavar="NAME", help="Read this topic instead of files.")
@click.option("--since", metavar="TIME", help="Of the topic, from this ISO time on.")
@click.option("--until", metavar="TIME", help="Of the topic, up to this ISO time.")
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Of files: which column holds a field, such as user_id=uid or ts=time:ms.",
)
@click.option("--wait/--no-wait", default=True, help="Wait until workers have applied it all.")
def backfill(
    files: tuple[Path, ...],
    topic: str | None,
    since: str | None,
    until: str | None,
    mapping: tuple[str, ...],
    wait: bool,
) -> None:
    """Fill the ledger from history before going live.

    FILES hold events as the topics do, one a line (JSON, plain or .gz) or a row (.parquet, .csv):
    those with a `type` are engagements or controls, or a field `topic` says what they are. They
    are written to the input topics, where running workers apply them; a second time changes
    nothing.
    At the end it says which rules look further back than the history goes.

    \b
    Example:
      governor backfill october.jsonl.gz november.jsonl.gz
    """
    from streams import backfill as filling
    from streams.history import HistoryError
    from streams.mapping import mapped
    from streams.settings import ticks
    from streams.topics import TopicError

    if bool(files) == bool(topic):
        raise click.UsageError("give FILES, or --topic")
    if (since or until) and not topic:
        raise click.UsageError("--since and --until are for --topic")
    settings = _settings()

    def say(text: str) -> None:
        click.echo(text, err=True)

    async def run() -> filling.Filled:
        history = filling.from_files(files, mapped(mapping))
        if topic:
            span = filling.Span(
                topic,
                filling.moment(since) if since else None,
                filling.moment(until) if until else None,
            )
            history = filling.from_topic(settings, span)
        filled = await filling.fill(settings, history, say)
        if wait:
            say(f"{filled.events:,} events written: waiting for the workers")
            await filling.until_applied(settings, say)
        return filled

    filled = exchange(settings, run(), HistoryError, TopicError, ValueError)
    click.echo(f"{filled.events:,} events {'applied' if wait else 'written'}")
    if filled.oldest <= filled.newest:
        policy, horizon = _policy(settings), ticks(settings.history)
        for text in filling.unknown(policy, filled.oldest, time.time(), horizon):
            click.echo(text)


def _policy(settings: Settings) -> Policy:
    """What governs, by these settings."""
    from streams.policy_topic import fetch, governing

    held, _ = exchange(settings, fetch(settings))
    policy = governing(held, settings)
    for text in held.unread:
        click.echo(f"warning: {text}", err=True)
    return policy


def _settings() -> Settings:
    from streams.cli import settings_of_environment

    return settings_of_environment()
