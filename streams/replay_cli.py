"""``governor replay`` and ``governor simulate``: what would a policy do?"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from governor.policy import Policy
    from governor.replay.linking import Links
    from governor.replay.log import Log
    from governor.replay.replaying import Terms
    from governor.replay.tallying import Findings, Frontier
    from governor.simulation.worlds import World
    from streams.replay_log import Loaded

__all__ = ["replay", "simulate"]

_STATUSES = """\
Exit status: 0 all went well, 1 the log cannot be read or the policy not be used, 2 a mistake in
the command line or the settings (on standard error).
"""


def _ticks(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from governor.policy import duration

    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _swept(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[str, int] | None:
    from governor.policy import duration

    if value == "none":
        return None
    per, slash, window = value.partition("/")
    try:
        if slash and per:
            return per, duration(window)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    raise click.BadParameter(f"{value!r} is not DIMENSION/WINDOW: write one such as campaign/7d")


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, writable=True, path_type=Path)

_POLICY = click.option(
    "--policy",
    "policies",
    multiple=True,
    type=_FILE,
    help="A policy file; several to compare them. Without one GOVERNOR_POLICY or the built-in.",
)
_HTML = click.option("--html", type=_OUT, metavar="FILE", help="Write the report there.")
_JSON = click.option(
    "--json",
    "as_json",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write all figures there as JSON; - prints them, and nothing else.",
)
_HISTORY = click.option(
    "--history",
    envvar="GOVERNOR_HISTORY",
    default="32d",
    callback=_ticks,
    show_default=True,
    show_envvar=True,
    help="How far back rows remember.",
)
_ROW_LIMIT = click.option(
    "--row-limit",
    envvar="GOVERNOR_ROW_LIMIT",
    default=128,
    type=click.IntRange(8, 1024),
    show_default=True,
    show_envvar=True,
    help="Exposures that are kept of a person.",
)
_REFIT = click.option(
    "--refit",
    default="1d",
    callback=_ticks,
    show_default=True,
    help="Event time between two estimates of the curves that a rule `fatigue` acts by.",
)
_TITLE = click.option("--title", default="", help="Heads the report.")


@click.command(epilog=_STATUSES)
@click.argument("files", nargs=-1, type=_FILE)
@click.option(
    "--engagements",
    multiple=True,
    type=_FILE,
    help="A file of engagements beside the impressions; rows without a type are clicks.",
)
@click.option(
    "--map",
    "mapping",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column holds a field, such as user_id=uid, ts=time:ms or labels.brand=brand.",
)
@click.option(
    "--map-engagements",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="The same for --engagements, where it differs.",
)
@click.option("--topic", "topics", multiple=True, metavar="NAME", help="Read this Kafka topic.")
@click.option("--since", metavar="TIME", help="Of the topic, from this ISO time on.")
@click.option("--until", metavar="TIME", help="Of the topic, up to this ISO time.")
@_POLICY
@click.option(
    "--window",
    default="1d",
    callback=_ticks,
    show_default=True,
    help="How long after an exposure an engagement still answers it.",
)
@click.option(
    "--sweep",
    default="campaign/7d",
    callback=_swept,
    metavar="DIMENSION/WINDOW",
    show_default=True,
    help="Try plain caps of several sizes, to hold the policies against; none to leave it out.",
)
@_HTML
@_JSON
@_TITLE
@_REFIT
@_HISTORY
@_ROW_LIMIT
def replay(
    files: tuple[Path, ...],
    engagements: tuple[Path, ...],
    mapping: tuple[str, ...],
    map_engagements: tuple[str, ...],
    topics: tuple[str, ...],
    since: str | None,
    until: str | None,
    policies: tuple[Path, ...],
    window: int,
    sweep: tuple[str, int] | None,
    html: Path | None,
    as_json: Path | None,
    title: str,
    refit: int,
    history: int,
    row_limit: int,
) -> None:
    """What would a policy have done to this log?

    FILES hold impressions, or events of all kinds: Parquet (.parquet), CSV (.csv, .tsv) or JSON
    lines (anything else), perhaps gzipped. Each exposure is asked for when it happened, by the
    code that governs live; what is held back does not take place, and what answered it counts as
    lost. Prints what each policy held back and cost, and for each campaign and depth what the
    log says about fatigue.

    \b
    Fields: user_id, ts and, of impressions, campaign_id are needed; event_id, impression_id,
    creative_id, advertiser_id, category, channel, surface, segment, type, kind, click (1 where
    the impression was clicked), click_ts, measurable, retargeting, consent, tz, labels.ANY and
    ids.TYPE are read where there are columns of these names, or --map says which.
    ts is in seconds; ts=COLUMN:ms (us, ns) in other units; dates in words are read too.

    \b
    Examples:
      governor replay ads.parquet --map user_id=uid --map ts=time:ms --html report.html
      governor replay shown.csv --engagements clicks.csv --policy now.yaml --policy next.yaml
      governor replay --topic governor.impressions --topic governor.engagements --since 2026-11-01
    """
    from governor.policy import PolicyError
    from governor.replay.replaying import Terms
    from streams.history import HistoryError
    from streams.mapping import MappingError

    if bool(files) == bool(topics):
        raise click.UsageError("give FILES, or --topic")
    if (since or until) and not topics:
        raise click.UsageError("--since and --until are for --topic")
    terms = Terms(horizon=history, row_limit=row_limit, within=window, refit=refit)
    try:
        chosen = _policies(policies, terms)
        with _progress() as bar:
            began = time.perf_counter()
            if topics:
                log, loaded = _from_topics(topics, since, until, bar)
                source = ", ".join(topics)
            else:
                log, loaded = _from_files(files, engagements, mapping, map_engagements, bar)
                source = ", ".join(path.name for path in (*files, *engagements))
            if not len(log):
                raise HistoryError(_nothing(loaded))
            found, spent = _replayed(log, loaded, chosen, terms, sweep, source, bar, began)
    except (PolicyError, MappingError, HistoryError, LookupError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    name = title or f"What would a policy have done? {source}"
    _give(found, name, html, as_json)
    click.echo(
        f"{len(log):,} events read and led past {len(chosen)} "
        f"{'policy' if len(chosen) == 1 else 'policies'} in {spent:.1f} s: "
        f"{len(log) * len(chosen) / spent:,.0f} events/s",
        err=True,
    )


def _nothing(loaded: Loaded) -> str:
    if not loaded.rows:
        return "the log is empty: it has no row"
    return f"no row of {loaded.rows:,} is an event: " + "; ".join(loaded.said())


def _policies(paths: Sequence[Path], terms: Terms) -> list[tuple[str, Policy]]:
    """The policies by the names of their files; the environment's without any."""
    from governor.policy import default_text, load

    limits = {"horizon": terms.horizon, "row_limit": terms.row_limit}
    if paths:
        return [(path.stem, load(path.read_bytes(), **limits)) for path in paths]
    from streams.cli import settings_of_environment
    from streams.settings import read_policy

    settings = settings_of_environment()
    if settings.policy:
        return [(Path(settings.policy).stem, read_policy(settings))]
    return [("the built-in policy", load(default_text(), **limits))]


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=False,
    ) as bar:
        yield bar


@dataclass
class _Task:
    """One line of the progress bar."""

    bar: Progress
    number: Any
    began: float
    seen: float = 0.0

    def tell(self, done: int) -> None:
        """So much is done."""
        now = time.perf_counter()
        if now - self.seen > 0.1:
            self.seen = now
            self.bar.update(self.number, completed=done, rate=_rate(done, now - self.began))

    def end(self, done: int) -> None:
        """All is done."""
        spent = time.perf_counter() - self.began
        self.bar.update(self.number, completed=done, total=done, rate=_rate(done, spent))


def _rate(done: int, seconds: float) -> str:
    return f"{done / max(seconds, 1e-9):,.0f}/s"


def _task(bar: Progress, name: str, total: int | None) -> _Task:
    return _Task(bar, bar.add_task(name, total=total, rate=""), time.perf_counter())


def _from_files(
    files: Sequence[Path],
    engagements: Sequence[Path],
    mapping: Sequence[str],
    map_engagements: Sequence[str],
    bar: Progress,
) -> tuple[Log, Loaded]:
    from streams.mapping import mapped
    from streams.replay_log import Loader, Source, rows_of

    both, own = mapped(mapping), mapped(map_engagements)
    sources = [Source(path, both) for path in files]
    sources += [Source(path, own, engagements=True) for path in engagements]
    task = _task(bar, "reading", rows_of(path for path in (*files, *engagements)))
    loader = Loader(task.tell)
    loader.files(sources)
    task.end(loader.loaded.rows)
    return loader.closed(), loader.loaded


def _from_topics(
    topics: Sequence[str], since: str | None, until: str | None, bar: Progress
) -> tuple[Log, Loaded]:
    from aiokafka.errors import KafkaError

    from streams import backfill
    from streams.cli import settings_of_environment
    from streams.replay_log import Loader
    from streams.topics import EVENT_TOPICS

    settings = settings_of_environment()
    spans = [
        backfill.Span(
            topic,
            backfill.moment(since) if since else None,
            backfill.moment(until) if until else None,
            next((kind for kind in EVENT_TOPICS if settings.topic(kind) == topic), None),
        )
        for topic in topics
    ]
    task = _task(bar, "reading", None)
    loader = Loader(task.tell)

    async def read() -> None:
        for span in spans:
            await loader.topic(span.topic, backfill.from_topic(settings, span))

    try:
        asyncio.run(read())
    except KafkaError as error:
        raise LookupError(f"Kafka at {settings.broker}: {error}") from error
    task.end(loader.loaded.rows)
    return loader.closed(), loader.loaded


def _replayed(
    log: Log,
    loaded: Loaded,
    policies: Sequence[tuple[str, Policy]],
    terms: Terms,
    sweep: tuple[str, int] | None,
    source: str,
    bar: Progress,
    began: float,
) -> tuple[Findings, float]:
    """What is found, and the seconds from ``began`` until the log was past all policies."""
    import numpy as np

    from governor.policy import written
    from governor.replay import replaying, sweeping, tallying
    from governor.replay.linking import link

    task = _task(bar, "compiling, the first time", 1)
    small = log.of_people(np.arange(log.people) == log.who[0])
    replaying.replay(small, link(small, terms.within), policies[0][1], terms)
    task.end(1)
    links: Links = link(log, terms.within)
    outcomes = []
    for name, policy in policies:
        task = _task(bar, f"replaying {name}", len(log))
        outcomes.append((name, replaying.replay(log, links, policy, terms, task.tell)))
        task.end(len(log))
    spent = time.perf_counter() - began
    task = _task(bar, "estimating fatigue", None)
    seen = replaying.observed(log, links, policies[0][1])
    campaigns, sampled, _ = tallying.campaigns_of(seen, terms.within, 5 * terms.most)
    task.end(len(campaigns))
    points: Sequence[Frontier] = []
    share, rule = 1.0, ""
    if sweep is not None:
        task = _task(bar, "trying plain caps", len(sweeping.CAPS))
        points, share = sweeping.sweep(log, *sweep, terms, tell=task.tell)
        task.end(len(points))
        rule = f"{{}} exposures per {sweep[0]} in {written(sweep[1])}"
    found = tallying.log_found(log, links, seen, source, loaded.said())
    return tallying.Findings(
        log=found,
        policies=[tallying.policy_found(name, outcome, seen) for name, outcome in outcomes],
        campaigns=campaigns,
        frontier=points,
        frontier_rule=rule,
        frontier_share=share,
        people=[
            person
            for name, outcome in outcomes
            for person in tallying.people_of(outcome, name, seen)
        ],
        warnings=tallying.warned(found, campaigns, seen),
        sampled=sampled,
    ), spent


@click.command(epilog=_STATUSES)
@click.option(
    "--world",
    default="drawn",
    show_default=True,
    metavar="NAME",
    help="Whom and what: drawn (from a prior, by the seed) or a scenario; list tells all.",
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option("--people", type=click.IntRange(1), help="How many people, instead of the world's.")
@click.option(
    "--obeys",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="The share of occasions on which the ad server heeds the governor.",
)
@_POLICY
@_HTML
@_JSON
@_TITLE
@_REFIT
@_HISTORY
@_ROW_LIMIT
def simulate(
    world: str,
    seed: int,
    people: int | None,
    obeys: float,
    policies: tuple[Path, ...],
    html: Path | None,
    as_json: Path | None,
    title: str,
    refit: int,
    history: int,
    row_limit: int,
) -> None:
    """Let simulated people, whose fatigue is known, live under policies.

    The same people meet the same occasions and have the same luck, without a governor, with it
    under each policy, and with an ad server that has a plain cap of its own. The report is that
    of `governor replay`, with the truth beside the estimates.

    \b
    Examples:
      governor simulate --policy policy.yaml --html report.html
      governor simulate --world "recency recovery" --people 5000 --obeys 0.8
    """
    from dataclasses import replace

    from governor.policy import PolicyError
    from governor.replay.replaying import Terms
    from governor.simulation.worlds import SCENARIOS, drawn

    known = {each.name: each for each in SCENARIOS}
    if world == "list":
        for name in ("drawn", *known):
            click.echo(name)
        return
    if world != "drawn" and world not in known:
        raise click.BadParameter(f"there is no world {world!r}: see --world list")
    chosen_world = drawn(seed) if world == "drawn" else known[world]
    if people is not None:
        chosen_world = replace(chosen_world, people=people)
    terms = Terms(horizon=history, row_limit=row_limit, refit=refit)
    try:
        chosen = _policies(policies, terms)
        with _progress() as bar:
            found = _simulated(chosen_world, seed, obeys, chosen, terms, bar)
    except (PolicyError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    _give(found, title or f"Simulated people: {chosen_world.name}", html, as_json)


def _simulated(
    world: World,
    seed: int,
    obeys: float,
    policies: Sequence[tuple[str, Policy]],
    terms: Terms,
    bar: Progress,
) -> Findings:
    from governor.replay.sweeping import CAPS
    from governor.simulation import telling
    from governor.simulation.loop import Server, occasions, run

    task = _task(bar, "drawing people", world.people)
    drawn = occasions(world, seed)
    task.end(world.people)
    n = len(drawn.occasions.ts)
    none = run(drawn)
    runs = []
    for name, policy in policies:
        task = _task(bar, f"living under {name}", n)
        server = Server(obeys=obeys)
        one = run(
            drawn, server, policy, refit=terms.refit, horizon=terms.horizon,
            row_limit=terms.row_limit, tell=task.tell,
        )  # fmt: skip
        runs.append((name, policy, one))
        task.end(n)
    task = _task(bar, "living under plain caps", len(CAPS))
    caps = telling.capped(none, ((cap, run(drawn, Server(cap=cap))) for cap in CAPS))
    task.end(len(CAPS))
    task = _task(bar, "estimating fatigue", 1 + len(runs))
    told = {
        "world": world.name,
        "seed": seed,
        "people": f"{world.people:,}",
        "the ad server heeds the governor": f"{obeys:.0%}",
    }
    found = telling.found(none, runs, caps, "an ad server's own cap of {} in 7 days", told)
    task.end(1 + len(runs))
    return found


def _give(found: Findings, title: str, html: Path | None, as_json: Path | None) -> None:
    """Print and write what was found."""
    from governor.report.page import page

    if html is not None:
        html.write_text(page(found, title), "utf-8")
    text = json.dumps(found.to_json(), ensure_ascii=False)
    if as_json is not None and str(as_json) != "-":
        as_json.write_text(text + "\n", "utf-8")
    if as_json is not None and str(as_json) == "-":
        click.echo(text)
        return
    _print(found)
    for path in (html, as_json):
        if path is not None:
            click.echo(f"written: {path}", err=True)


def _print(found: Findings) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from governor.report import sentences
    from governor.report.plots import name_of

    console = Console(width=None if sys.stdout.isatty() else 110, soft_wrap=True)
    console.print(Text(sentences.of_log(found)))
    for one in found.policies:
        console.print(Text(sentences.of_policy(one), style="bold"))
        for rule in one.rules:
            shadow = " (shadow)" if rule.shadow else ""
            console.print(
                Text(
                    f"  {rule.name}{shadow}: {rule.exposures:,} exposures, {rule.alone:,} of them "
                    f"by nothing else; {rule.engagements:,} engagements"
                )
            )
    for campaign in found.campaigns:
        console.print()
        console.print(Text(sentences.of_campaign(campaign), style="bold"))
        table = Table()
        for column in ("depth", "exposures", "engagements", "naive", "estimate", "95% band"):
            table.add_column(column, justify="right")
        table.add_column("identified")
        if campaign.truth:
            table.add_column("truth", justify="right")
        for row in campaign.depths:
            if row.exposures:
                cells = [
                    str(row.depth),
                    f"{row.exposures:,}",
                    f"{row.engagements:,}",
                    "" if math.isnan(row.naive) else f"{row.naive:.3f}",
                    f"{row.estimate:.3f}",
                    f"{row.low:.3f} to {row.high:.3f}",
                    "yes" if row.identified else "no",
                ]
                if campaign.truth:
                    cells.append(f"{campaign.truth[row.depth - 1]:.3f}")
                table.add_row(*cells, end_section=row.depth == 1)
        table.title = name_of(campaign.label)
        if table.row_count:
            console.print(table)
    for text in (*found.log.refused, *found.warnings):
        console.print(Text(f"mind: {text}"))
    for text in sentences.advice(found):
        console.print(Text(f"next: {text}"))
