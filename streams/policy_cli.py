"""``governor policy``: check, show, push, diff and roll back; ``governor release``.

What a command needs is imported when it runs, as in `streams.cli`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import click

from streams.exchange import exchange

if TYPE_CHECKING:
    from governor.policy import Policy
    from streams.policy_diff import Difference
    from streams.policy_topic import Held, Pushed
    from streams.settings import Settings

__all__ = ["diff", "push", "release", "resume", "rollback", "show"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SAMPLE = click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=20_000,
    show_default=True,
    help="Users to compare, at most.",
)
_REPLAY = click.option(
    "--replay",
    metavar="FILE",
    type=_FILE,
    help="Compare on these events (JSON lines, or Parquet) instead of the live state.",
)


@click.command(short_help="Print what governs, what ever did, and the kill switch.")
@click.option("--version", "wanted", metavar="V", help="That version instead of the current one.")
@click.option("--json", "as_json", is_flag=True, help="The policy alone, as it can be pushed.")
def show(wanted: str | None, as_json: bool) -> None:
    """Print the policy that governs, the versions that ever did, and the kill switch."""
    settings = _settings()
    held = _held(settings)
    chosen = held.current if wanted is None else held.versions.get(wanted)
    if chosen is None:
        _fail(f"no version {wanted}: {_known(held)}" if wanted else _EMPTY)
    if as_json:
        document = json.loads(chosen.text) | {"version": chosen.version}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for version, pushed in held.versions.items():
        mark = "*" if held.current and version == held.current.version else " "
        click.echo(f"{mark} {version}  pushed {_when(pushed.pushed_at)}")
    if held.released:
        said = " everything, people's own words too" if held.switch.get("everything") else ""
        click.echo(f"kill switch: pulled {_when(held.switch.get('at', 0))}{said}")
    else:
        click.echo("kill switch: not pulled")
    click.echo(json.dumps(json.loads(chosen.text), indent=2, ensure_ascii=False))


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--confirm", is_flag=True, help="Push it whatever it does.")
@_SAMPLE
def push(file: BinaryIO, confirm: bool, sample: int) -> None:
    """Let the policy in FILE govern (- for standard input).

    Workers take it over within a second and evaluate every live row again in the background. One
    under which something rests, that does not now, for more than GOVERNOR_CONFIRM_SHARE of the
    users of a sample is pushed only with --confirm; `governor policy diff` says by which rules.

    \b
    Example:
      governor policy push policy.yaml
    """
    from streams.policy_topic import write, written
    from streams.topics import ensure_policy

    settings = _settings()
    policy = _load(file, settings)
    held = _held(settings)
    known = held.versions.get(policy.version)
    if known is not None and not known.says(policy):
        _fail(f"version {policy.version} is another policy: give this one a version of its own")
    if held.current is not None and not confirm:
        from streams.policy_diff import compare, live

        remedy = ", so there is nothing to compare with: push with --confirm"
        before = _governing(held.current, settings, remedy)
        (whole,) = compare(before, policy, exchange(settings, live(settings, sample)), settings)[:1]
        if whole.users and whole.throttled / whole.users > settings.confirm_share:
            _fail(
                f"of {whole.users} users, {whole.throttled} would be throttled more "
                f"({whole.throttled / whole.users:.1%}, above GOVERNOR_CONFIRM_SHARE="
                f"{settings.confirm_share:.1%}): nothing is pushed. See `governor policy diff`, "
                "then push it with --confirm"
            )
    exchange(settings, ensure_policy(settings))
    exchange(settings, write(settings, written(policy, held)))
    click.echo(f"version {policy.version} governs: rows are evaluated again in the background")
    click.echo("governor policy rollback takes it back", err=True)


@click.command()
@click.argument("file", type=click.File("rb"))
@_SAMPLE
@_REPLAY
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def diff(file: BinaryIO, sample: int, replay: Path | None, as_json: bool) -> None:
    """How many users each change in FILE would throttle or free.

    Compared with the policy that governs, on a sample of the rows in the changelog, at the newest
    event of each; or on events of your own. The first line is all changes together, each other
    line one change alone. A user is throttled more when something rests that did not, and freed
    when something no longer does; the same user can be both.

    \b
    Example:
      governor policy diff policy.yaml
                                 throttled more             freed
      all changes                  2,114  10.6%         37   0.2%
      changed campaign-day         1,830   9.2%          0   0.0%
      without breathing-space          0   0.0%         37   0.2%
      of 20,000 users, from spring-1 to spring-2
    """
    from streams.policy_diff import compare, live, replayed

    settings = _settings()
    policy = _load(file, settings)
    held = _held(settings)
    if held.current is None:
        _fail(_EMPTY)
    before = _governing(held.current, settings)
    rows = replayed(replay, settings) if replay else exchange(settings, live(settings, sample))
    found = compare(before, policy, rows, settings)
    if as_json:
        for one in found:
            click.echo(json.dumps(one.as_json()))
        return
    for line in _table(found):
        click.echo(line)
    click.echo(f"of {found[0].users:,} users, from {before.version} to {policy.version}")


@click.command(short_help="Let an earlier version govern again.")
@click.argument("version", required=False)
def rollback(version: str | None) -> None:
    """Let VERSION govern again; without it, the one before the current one.

    Nothing has to be confirmed: what governed before governs again at once, and rows are evaluated
    in the background. `governor policy show` lists the versions.

    \b
    Example:
      governor policy rollback
    """
    from streams.policy_topic import write, written

    settings = _settings()
    held = _held(settings)
    wanted = version or (held.current.previous if held.current else None)
    if wanted is None:
        _fail("there is no version before the current one")
    if wanted not in held.versions:
        _fail(f"no version {wanted}: {_known(held)}")
    policy = _governing(held.versions[wanted], settings)
    exchange(settings, write(settings, written(policy, held)))
    click.echo(f"version {policy.version} governs")


@click.command(short_help="Kill switch: readers release all throttles.")
@click.option("--everything", is_flag=True, help="What people asked for themselves too.")
@click.option("--undo", is_flag=True, help="Take it back: the same as `governor policy resume`.")
def release(everything: bool, undo: bool) -> None:
    """The kill switch: readers release all throttles, within a second.

    The governor goes on counting and publishing, so taking it back is as quick. What people asked
    for themselves (opt-outs, hidden ads, refused consent) stays in force without --everything.

    \b
    Example:
      governor release
      governor release --undo
    """
    _switch(released=not undo, everything=everything and not undo)


@click.command(short_help="Take the kill switch back.")
def resume() -> None:
    """Take the kill switch back: throttles hold again, within a second."""
    _switch(released=False, everything=False)


def _switch(*, released: bool, everything: bool) -> None:
    from streams.policy_topic import SWITCH, write
    from streams.topics import ensure_policy

    settings = _settings()
    now = round(datetime.now(UTC).timestamp(), 3)
    said = {"released": released, "everything": everything, "at": now}
    exchange(settings, ensure_policy(settings))
    exchange(settings, write(settings, [(SWITCH, said)]))
    click.echo("all throttles are released" if released else "throttles hold again")


def _load(file: BinaryIO, settings: Settings) -> Policy:
    from governor.policy import MAX_BYTES, PolicyError, load
    from streams.settings import ticks

    name = getattr(file, "name", "standard input")
    try:
        policy = load(
            file.read(MAX_BYTES + 1),
            horizon=ticks(settings.history),
            row_limit=settings.row_limit,
        )
    except PolicyError as error:
        for mistake in error.mistakes:
            click.echo(f"{name}, {mistake}", err=True)
        sys.exit(2)
    for warning in policy.warnings:
        click.echo(f"{name}, warning: {warning}", err=True)
    return policy


def _held(settings: Settings) -> Held:
    from streams.policy_topic import fetch

    held, _ = exchange(settings, fetch(settings))
    for text in held.unread:
        click.echo(f"warning: {text}", err=True)
    return held


def _governing(pushed: Pushed, settings: Settings, remedy: str = "") -> Policy:
    from governor.policy import PolicyError
    from streams.policy_topic import policy_of

    try:
        return policy_of(pushed, settings)
    except PolicyError as error:
        _fail(f"version {pushed.version} cannot be used with these settings{remedy}: {error}")


_EMPTY = "the policy topic is empty: start a worker, which seeds it, or push a policy"


def _table(found: Sequence[Difference]) -> Iterator[str]:
    """A line for each change, under a head."""
    wide = max(len(one.change) for one in found)
    yield f"{'':<{wide}}  {'throttled more':>16}  {'freed':>16}"
    for one in found:
        shares = [
            f"{users:>9,} {users / one.users if one.users else 0:>6.1%}"
            for users in (one.throttled, one.freed)
        ]
        yield f"{one.change:<{wide}}  {shares[0]}  {shares[1]}"


def _known(held: Held) -> str:
    return f"the topic has {', '.join(held.versions)}" if held.versions else _EMPTY


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _settings() -> Settings:
    from streams.cli import settings_of_environment

    return settings_of_environment()


def _fail(why: str) -> NoReturn:
    raise click.ClickException(why)
