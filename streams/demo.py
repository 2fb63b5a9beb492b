"""``governor demo``: eight real days in half a minute, through a Kafka and a worker of its own.

It feeds page views of the EB-NeRD sample in event time, shows what the decisions topic says
meanwhile, and ends by comparing every decision on the topic with `governor.oracle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import textwrap
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.live import Live

from governor.policy import Policy, duration, load
from streams.broker import BrokerError, Cluster
from streams.demo_check import Verdict, check
from streams.demo_kafka import Decisions, Feed, feeding, follow, last_decisions
from streams.demo_sample import Page, read_pages
from streams.demo_summary import summary
from streams.demo_tally import Tally
from streams.demo_view import WIDTH, Scene, draw, line, save
from streams.demo_words import days_between
from streams.demo_worker import DemoError, Worker, figures
from streams.topics import EVENT_TOPICS

__all__ = ["HISTORY", "ROW_LIMIT", "policy_text", "run"]

FEED_SECONDS = 20.0
"""How long the stream takes, whatever its length in event time."""
START_SECONDS = 300.0
"""Within which a worker is up; the first time it compiles."""
SETTLE_SECONDS = 60.0
FRAME_SECONDS = 0.125
LINE_SECONDS = 2.0
INTERRUPTED = 130

PREFIX = "governor."
HISTORY = "4d"
ROW_LIMIT = 1024
DIFFERENCES = 10
INDENT = "    "

Tell = Callable[[str], None]


@dataclass
class _Demo:
    """What the parts of a running demo share."""

    console: Console
    tell: Tell
    cluster: Cluster
    worker: Worker
    pages: Sequence[Page]
    scene: Scene

    def check(self) -> None:
        """Raise DemoError when the broker or the worker is gone."""
        if (failure := self.cluster.failure()) is not None:
            raise DemoError(failure)
        self.worker.check()


def run(keep: bool = False, svg: Path | None = None) -> int:
    """Run the demo.

    Args:
        keep: leave broker and worker running at the end, until Ctrl-C.
        svg: where to write the last view.

    Returns:
        The exit status: 0 when every decision on the topic is right; 1 when one is not, or
        something failed, which is then told; 130 when it was interrupted before that was known.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    started = time.monotonic()

    def tell(text: str) -> None:
        told = f"{time.monotonic() - started:4.0f} s  {text}"
        console.print(told, markup=False, soft_wrap=True)

    status = INTERRUPTED
    try:
        with _interruptible():
            tell("starting a Kafka broker")
            with Cluster(progress=tell) as cluster:
                tell(f"starting a worker on {cluster.bootstrap}")
                with _worker(cluster) as worker:
                    demo = _set_up(console, tell, cluster, worker)
                    verdict = asyncio.run(_play(demo))
                    status = verdict.status
                    _conclude(demo, verdict, svg)
                    if keep:
                        _keep(demo)
                    tell("stopping the worker and the broker")
    except KeyboardInterrupt:
        tell("interrupted: the worker and the broker are stopped")
    except (BrokerError, DemoError, KafkaError, OSError) as error:
        tell(f"failed: {error}")
        return 1
    return status


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, and neither cuts the orderly stop short."""
    stopping = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_: object) -> None:
        for each in stopping:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in stopping}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def policy_text() -> str:
    """The demo's policy file."""
    return files("governor").joinpath("policy.demo.yaml").read_text(encoding="utf-8")


def _policy() -> Policy:
    return load(policy_text(), horizon=duration(HISTORY), row_limit=ROW_LIMIT)


def _worker(cluster: Cluster) -> Worker:
    settings = {
        "BROKER": cluster.bootstrap,
        "TOPIC_PREFIX": PREFIX,
        "HISTORY": HISTORY,
        "ROW_LIMIT": str(ROW_LIMIT),
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
    }
    return Worker(settings, policy_text())


def _set_up(console: Console, tell: Tell, cluster: Cluster, worker: Worker) -> _Demo:
    pages = read_pages()
    scene = Scene(pages[0][0].ts, pages[-1][0].ts, Tally(_policy().rules), now=pages[0][0].ts)
    return _Demo(console, tell, cluster, worker, pages, scene)


async def _play(demo: _Demo) -> Verdict:
    """The part with events in it, from the first of them to the comparison."""
    scene, decisions_topic = demo.scene, PREFIX + "decisions"
    bootstrap = demo.cluster.bootstrap
    metrics = await _served(demo)
    async with feeding(bootstrap, PREFIX) as feed:

        async def story() -> Verdict:
            await _feed(demo, feed)
            await _settled(demo, feed)
            scene.decisions = await last_decisions(bootstrap, decisions_topic)
            return _verdict(feed, scene.decisions)

        return await _first(
            story(),
            _watch(demo, metrics),
            follow(bootstrap, decisions_topic, scene.decisions),
            _show(demo),
        )


async def _first(main: Coroutine[Any, Any, Verdict], *others: Coroutine[Any, Any, None]) -> Verdict:
    """The result of ``main``; the others run as long, and what they raise is raised."""
    story = asyncio.create_task(main)
    tasks: list[asyncio.Task[Any]] = [story, *map(asyncio.create_task, others)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return await story
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _served(demo: _Demo) -> str:
    """Wait until the worker is up; return where its metrics are."""
    started = told = time.monotonic()
    pause = 5.0
    while (address := demo.worker.address) is None:
        demo.check()
        now = time.monotonic()
        if now - started > START_SECONDS:
            raise DemoError(f"no worker is up after {START_SECONDS:.0f} s")
        if now - told >= pause:
            told, pause = now, min(2 * pause, 60.0)
            demo.tell("the worker is still starting (compiling takes a minute, the first time)")
        await asyncio.sleep(0.1)
    return address


async def _feed(demo: _Demo, feed: Feed) -> None:
    """Send the page views at their times, compressed, once the worker answers the first."""
    first, *others = demo.pages
    await feed.send(first)
    demo.scene.show(first)
    await _settled(demo, feed)
    clock = asyncio.get_running_loop().time
    begun, speed = clock(), (demo.scene.last - demo.scene.first) / FEED_SECONDS
    for page in others:
        ahead = begun + (page[0].ts - demo.scene.first) / speed - clock()
        if ahead > 0:
            await asyncio.sleep(ahead)
        await feed.send(page)
        demo.scene.show(page)


async def _settled(demo: _Demo, feed: Feed) -> None:
    """Wait until the worker has dealt with all that was sent and its answers are acknowledged."""
    await feed.acknowledged()
    deadline = time.monotonic() + SETTLE_SECONDS
    while (figures := demo.scene.figures).events < feed.count or figures.pending:
        if time.monotonic() > deadline:
            raise DemoError(
                f"the worker has dealt with {figures.events} of {feed.count} events, "
                f"and {figures.pending} wait to be acknowledged, {SETTLE_SECONDS:.0f} s after "
                "the last was sent"
            )
        await asyncio.sleep(0.05)


async def _watch(demo: _Demo, metrics: str) -> None:
    """Keep the scene's figures at what /metrics says, and look after broker and worker."""
    latest: deque[tuple[float, int]] = deque(maxlen=12)
    async with ClientSession(timeout=ClientTimeout(total=5)) as session:
        while True:
            demo.check()
            with contextlib.suppress(ClientError, TimeoutError):
                async with session.get(metrics) as answer:
                    demo.scene.figures = figures(await answer.text())
            count = demo.scene.figures.events
            if not latest or count > latest[-1][1]:
                latest.append((time.monotonic(), count))
                (since, before), (until, after) = latest[0], latest[-1]
                demo.scene.rate = (after - before) / (until - since or 1.0)
            await asyncio.sleep(0.2)


async def _show(demo: _Demo) -> None:
    """Draw the scene while it changes; where there is no terminal, tell it."""
    if not demo.console.is_terminal:
        while True:
            await asyncio.sleep(LINE_SECONDS)
            demo.tell(line(demo.scene))
    with Live(console=demo.console, auto_refresh=False) as live:
        try:
            while True:
                live.update(draw(demo.scene), refresh=True)
                await asyncio.sleep(FRAME_SECONDS)
        finally:
            live.update(draw(demo.scene), refresh=True)


def _verdict(feed: Feed, decisions: Decisions) -> Verdict:
    return check(
        _policy(),
        feed.events,
        feed.partitions,
        decisions,
        horizon=duration(HISTORY),
        row_limit=ROW_LIMIT,
    )


def _conclude(demo: _Demo, verdict: Verdict, svg: Path | None) -> None:
    """Tell the summary and the verdict, and write the picture."""
    if svg is not None:
        save(demo.scene, svg)
    obeyed = Tally(_policy().rules, obey=True)
    for page in demo.pages:
        obeyed.add(page)
    days = days_between(demo.scene.first, demo.scene.last)
    told = ["", *summary(demo.scene.tally, obeyed, days), ""]
    lines = [_wrapped(text) for text in told]
    if verdict.withdrawn:
        lines.append(
            f"{verdict.withdrawn} more throttles had run out for everybody and are withdrawn."
        )
    lines.append(str(verdict))
    lines += [f"  {one}" for one in verdict.differences[:DIFFERENCES]]
    for text in lines:
        demo.console.print(text, markup=False, soft_wrap=True)


def _wrapped(text: str) -> str:
    indent = INDENT if text.startswith(" ") else ""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent)


def _keep(demo: _Demo) -> None:
    """Tell where everything is, and wait for Ctrl-C."""
    demo.tell("all of it is left running until Ctrl-C:")
    for name, where in (
        ("Kafka", demo.cluster.bootstrap),
        ("topics", ", ".join(PREFIX + name for name in (*EVENT_TOPICS, "decisions"))),
        ("metrics", demo.worker.address),
        ("worker's log", demo.worker.log),
    ):
        demo.console.print(f"  {name:<13}{where}", markup=False, soft_wrap=True)
    while True:
        demo.check()
        time.sleep(0.2)
