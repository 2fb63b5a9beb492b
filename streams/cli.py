"""The command ``governor``.

What a command needs is imported when it runs: the domain brings a compiler, and ``--help``
should not wait for it.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from streams.deadletters_cli import deadletters
from streams.moments import moment
from streams.person_cli import access, backfill, erase
from streams.policy_cli import diff, push, release, resume, rollback, show
from streams.replay_cli import replay, simulate

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["main", "settings_of_environment"]

_STATUSES = """\
Exit status: 0 all went well, 1 it failed while it ran, 2 a mistake in the settings, the policy
or the command line (all mistakes are on standard error).
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_STATUSES,
)
@click.version_option(package_name="retargeting-governor", message="governor %(version)s")
def main() -> None:
    """Say, per person and ad, when retargeting should stop, until when, and why.

    The governor reads impressions, engagements and controls from Kafka and publishes one
    decision record per person on a compacted topic. It is set by GOVERNOR_* environment
    variables (`governor config`) and by a policy file (`governor policy check`).

    \b
    Try it, with a Kafka of its own:
      governor demo
    Run it on your Kafka:
      GOVERNOR_BROKER=kafka-1:9092,kafka-2:9092 governor worker
    """


@main.command(epilog=_STATUSES)
@click.option("--markdown", "form", flag_value="markdown", help="The table of the README.")
@click.option("--json", "form", flag_value="json", help="One JSON list of objects.")
def config(form: str | None) -> None:
    """Print every setting: its value, default, meaning and source.

    A setting is an environment variable. Durations are a number and a unit (ms, s, m, h, d or
    w). Secrets are never printed. --markdown leaves out values and sources and reads no
    environment.
    """
    from streams.settings import Settings, described

    if form == "markdown":
        click.echo("| Setting | Default | Meaning |")
        click.echo("| --- | --- | --- |")
        for row in described(Settings()):
            default = f"`{row['default']}`" if row["default"] else ""
            click.echo(f"| `{row['setting']}` | {default} | {row['meaning']} |")
        return
    rows = described(settings_of_environment())
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in rows[0]:
        table.add_column(column, no_wrap=column == "setting", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    # Off a terminal there is no width to fit, and a row in one line is easier to search.
    Console(width=None if sys.stdout.isatty() else 250).print(table)


def _ticks(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from governor.policy import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@main.group()
def policy() -> None:
    """Work with policies: check files, see and change what governs."""


@policy.command(
    short_help="List all mistakes in a policy file.",
    epilog="Exit status: 0 the policy can be used, 2 it cannot (every mistake, with its line, is "
    "on standard error).",
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--history",
    envvar="GOVERNOR_HISTORY",
    default="32d",
    callback=_ticks,
    show_default=True,
    show_envvar=True,
    help="How far back the workers remember; no rule may look further.",
)
@click.option(
    "--row-limit",
    envvar="GOVERNOR_ROW_LIMIT",
    default=128,
    type=click.IntRange(8, 1024),
    show_default=True,
    show_envvar=True,
    help="Exposures that the workers keep of a user; no cap may be higher.",
)
def check(file: BinaryIO, history: int, row_limit: int) -> None:
    """Check the policy in FILE (- for standard input) and list all its mistakes.

    \b
    A policy:
      rules:
        - {name: user-daily, cap: 20, per: user, window: 1d}
        - {name: campaign-hourly, cap: 3, per: campaign, window: 1h}
        - {name: breathing-space, spacing: 1m, per: campaign}

    \b
    A right one, and a wrong one:
      $ governor policy check policy.yaml
      ok: 3 rules, version 08749c8a8d4f
      $ governor policy check wrong.yaml
      wrong.yaml, line 2: window 90 has no unit: write 90s, 90m, 90h, 90d or 90w
      wrong.yaml, line 3: unknown field 'cpa': did you mean cap?

    `version: some text` names the policy in every decision; without it a hash of the rules does.
    """
    from governor.policy import MAX_BYTES, PolicyError, load

    name = getattr(file, "name", "standard input")
    try:
        checked = load(file.read(MAX_BYTES + 1), horizon=history, row_limit=row_limit)
    except PolicyError as error:
        for mistake in error.mistakes:
            click.echo(f"{name}, {mistake}", err=True)
        sys.exit(2)
    for warning in checked.warnings:
        click.echo(f"{name}, {warning} (a warning)", err=True)
    rules = "1 rule" if len(checked.rules) == 1 else f"{len(checked.rules)} rules"
    click.echo(f"ok: {rules}, version {checked.version}")


@main.command(epilog=_STATUSES)
@click.option(
    "--nodes",
    type=click.Choice(["1", "3"]),
    default="1",
    show_default=True,
    help="Brokers in the cluster; with three, one can be lost.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="Port of the first; the others take the next ones. Without it, any that are free.",
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to keep the data in, and to go on from. Without it, a temporary one.",
)
def broker(nodes: str, port: int | None, data: Path | None) -> None:
    """Run a real Apache Kafka on this machine, for development.

    It needs neither Docker nor Java: Kafka is downloaded the first time and kept. It listens
    on 127.0.0.1 only, prints its address, and stops with Ctrl-C.

    \b
    Example:
      governor broker --port 9092 --data ./kafka
    """
    from streams.broker import run

    sys.exit(run(nodes=int(nodes), port=port, data_dir=data, out=click.echo))


@main.command(epilog=_STATUSES)
def worker() -> None:
    """Govern: read events, publish decisions, until SIGTERM or Ctrl-C.

    All that it needs is in the environment (`governor config`). Workers with the same
    GOVERNOR_GROUP share the partitions. A mistake in the settings or the policy stops the start
    with all mistakes listed.

    \b
    Example:
      GOVERNOR_BROKER=kafka-1:9092 GOVERNOR_POLICY=policy.yaml governor worker
    """
    # Modules stay: going through them again and again takes a tenth of the start.
    gc.disable()
    settings = settings_of_environment()
    from streams.worker import run

    gc.freeze()
    gc.enable()
    run(settings)


_VERIFY_STATUSES = """\
Exit status: 0 no difference, 1 differences, 2 it could not compare (the reason is on standard
error).
"""


@main.command(epilog=_VERIFY_STATUSES)
@click.option(
    "--from", "begin", metavar="TIME", callback=moment, help="Leave out events before this time."
)
@click.option(
    "--to", "end", metavar="TIME", callback=moment, help="Judge nobody seen after this time."
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    metavar="N",
    help="Compare some N users only: quicker, and needs less memory.",
)
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="Differences shown."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, every difference in it.")
def verify(
    begin: float | None, end: float | None, sample: int | None, limit: int, as_json: bool
) -> None:
    """Do rows and decisions say what the events say?

    Reads the topics of events, computes in plain Python what each user's decision must be, and
    compares the decisions topic and the changelog with it. Each difference is told with the user,
    the label, what was expected, what is there, and where. It changes nothing and may run beside
    live workers: users whose events are under way are left out, and counted.

    It needs the settings of the workers, above all GOVERNOR_BROKER, GOVERNOR_GROUP,
    GOVERNOR_TOPIC_PREFIX, GOVERNOR_POLICY, GOVERNOR_HISTORY and GOVERNOR_ROW_LIMIT, and the memory
    for one partition's events.

    \b
    Example:
      governor verify --sample 10000
    """
    settings = settings_of_environment()
    from streams.verify import run

    sys.exit(run(settings, begin, end, sample=sample or 0, limit=limit, as_json=as_json))


@main.command(name="compile", epilog=_STATUSES)
def compile_() -> None:
    """Compile all that a worker runs, and keep it, so that the next one starts at once.

    For whoever builds an image. The compiler keeps its work in NUMBA_CACHE_DIR, or beside the
    source. It talks to nobody.
    """
    settings = settings_of_environment()
    from streams.app import create
    from streams.pipeline import warm_up

    app = create(settings)
    warm_up(app.empty_ledger(), app.empty_gate())


@main.command(epilog=_STATUSES)
@click.option("--worker", default="User:governor", show_default=True, help="Who the workers are.")
@click.option("--pipeline", default="User:pipeline", show_default=True, help="Who writes events.")
@click.option("--reader", default="User:adserver", show_default=True, help="Who reads decisions.")
@click.option("--yaml", "as_yaml", is_flag=True, help="The list itself, for other tools.")
def topics(worker: str, pipeline: str, reader: str, as_yaml: bool) -> None:
    """Print what Kafka must have and allow, as commands of its own tools.

    For a cluster where workers may not create topics, or where permissions are checked. The
    settings say the brokers, the prefix, the group, partitions and replicas. It talks to nobody.

    \b
    Example:
      GOVERNOR_PARTITIONS=32 GOVERNOR_REPLICATION=3 governor topics | sh
    """
    settings = settings_of_environment()
    from streams.permissions import commands, wanted

    if as_yaml:
        import yaml

        click.echo(yaml.safe_dump(wanted(), sort_keys=False), nl=False)
        return
    for line in commands(settings, {"worker": worker, "pipeline": pipeline, "reader": reader}):
        click.echo(line)


@main.command(epilog=_STATUSES)
@click.option("--keep", is_flag=True, help="Leave it running at the end, with its addresses.")
@click.option(
    "--svg",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the last view to FILE, as SVG.",
)
def demo(keep: bool, svg: Path | None) -> None:
    """Watch the governor govern real exposures, through a Kafka of its own.

    The line that begins with `oracle:` says how many live decisions were compared with a plain
    re-computation, and how many differ; any that does is exit status 1.
    """
    from streams.demo import run

    sys.exit(run(keep=keep, svg=svg))


@main.command(epilog=_STATUSES)
@click.option("--rate", type=click.FloatRange(0.1, 10_000), default=200, show_default=True,
              help="Occasions to show an ad, a second.")  # fmt: skip
@click.option("--users", type=click.IntRange(1), default=20_000, show_default=True,
              help="How many people there are.")  # fmt: skip
@click.option("--campaigns", type=click.IntRange(1), default=50, show_default=True,
              help="Campaigns; three of them follow each person.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0), help="Stop after so long; without it, never.")
@click.option("--defy", type=click.FloatRange(0, 1), default=0, show_default=True,
              help="Share of refused occasions that are used all the same.")  # fmt: skip
def traffic(rate: float, users: int, campaigns: int, seconds: float | None, defy: float) -> None:
    """Play an ad server and its audience, to try a deployment with.

    People come, some often and most seldom; the server asks the decisions before it shows an ad,
    as `streams.client` lets a real one, and sends what was shown and clicked. Made-up events stay
    in the topics: not for a deployment that governs anybody real.

    \b
    Example:
      GOVERNOR_BROKER=kafka-1:9092 governor traffic --rate 500
    """
    settings = settings_of_environment()
    import asyncio

    from aiokafka.errors import KafkaError

    from streams.traffic import Audience, send

    def say(text: str) -> None:
        click.echo(text, err=True)

    audience = Audience(users, campaigns)
    try:
        totals = asyncio.run(send(settings, audience, rate, seconds, defy, say))
    except (LookupError, KafkaError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        return
    click.echo(totals)


def settings_of_environment() -> "Settings":
    """The environment's settings; ends the process with every mistake if there are any."""
    from streams.settings import SettingsError, load_settings

    try:
        return load_settings(os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        sys.exit(2)


for command in (show, push, diff, rollback, resume):
    policy.add_command(command)
for command in (show, push, diff, rollback, resume, release, access, erase, backfill):
    command.epilog = _STATUSES
main.add_command(deadletters)
policy.add_command(release)
for command in (release, access, erase, backfill, replay, simulate):
    main.add_command(command)

if __name__ == "__main__":
    main()
