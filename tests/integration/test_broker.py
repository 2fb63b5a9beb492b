"""The broker as its users meet it: real JVMs, a real client."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.broker import BrokerError, Cluster, run

ROOT = Path(__file__).parents[2]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.05)


def create(cluster: Cluster, topic: str, replicas: int) -> None:
    async def ask() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, 1, replicas)])
        finally:
            await admin.close()

    asyncio.run(ask())


def produce(cluster: Cluster, topic: str, value: bytes) -> int:
    """Send with acks=all; the offset."""

    async def send() -> int:
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap, acks="all") as producer:
            return int((await producer.send_and_wait(topic, value)).offset)

    return asyncio.run(asyncio.wait_for(send(), 30))


def consume(cluster: Cluster, topic: str, count: int) -> list[bytes]:
    """The first `count` values, read as a group so that its coordinator is used too."""

    async def read() -> list[bytes]:
        async with AIOKafkaConsumer(
            topic,
            bootstrap_servers=cluster.bootstrap,
            group_id="test",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        ) as consumer:
            return [(await consumer.getone()).value for _ in range(count)]

    return asyncio.run(asyncio.wait_for(read(), 30))


@pytest.fixture(scope="module")
def one() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def test_metadata_names_the_node(one: Cluster) -> None:
    async def ask() -> list[int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=one.bootstrap)
        await admin.start()
        try:
            described = await admin.describe_cluster()
        finally:
            await admin.close()
        return [each["node_id"] for each in described["brokers"]]

    assert asyncio.run(ask()) == [1]


def test_a_message_comes_back(one: Cluster) -> None:
    create(one, "echo", 1)
    produce(one, "echo", b"hello")
    assert consume(one, "echo", 1) == [b"hello"]


def test_kafka_logs_to_the_file(one: Cluster) -> None:
    assert "Kafka Server started" in one.log().read_text()


def test_a_given_data_folder_survives_kill_and_restart_and_is_not_shared(tmp_path: Path) -> None:
    with Cluster(data_dir=tmp_path) as cluster:
        create(cluster, "kept", 1)
        produce(cluster, "kept", b"first")
        with pytest.raises(BrokerError, match="is in use by a running broker"):
            Cluster(data_dir=tmp_path).start()
        cluster.kill()
        cluster.restart()
        produce(cluster, "kept", b"second")
    with Cluster(data_dir=tmp_path) as cluster:
        assert consume(cluster, "kept", 2) == [b"first", b"second"]


def test_three_nodes_take_acks_all_with_one_lost() -> None:
    with Cluster(3) as cluster:
        create(cluster, "safe", 3)
        assert produce(cluster, "safe", b"all") == 0
        cluster.kill(3)
        assert produce(cluster, "safe", b"two of three") == 1
        with pytest.raises(BrokerError, match=r"restart\(3\)"):
            cluster.pid(3)


def test_settings_that_kafka_refuses_are_told() -> None:
    with pytest.raises(BrokerError, match=r"mend the overrides(.|\n)*num.partitions"):
        Cluster(overrides={"num.partitions": "many"}).start()


def test_the_broker_and_its_data_go_when_the_parent_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from streams.broker import Cluster\n"
        "with Cluster() as cluster:\n"
        "    print(cluster.pid(), cluster.folder, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid, folder = parent.stdout.readline().split()
        jvm = psutil.Process(int(pid))
        assert jvm.is_running()
        parent.kill()
    wait_for(lambda: not jvm.is_running(), "end of the JVM")
    wait_for(lambda: not Path(folder).exists(), "end of the temporary data")


def test_run_tells_where_it_is_and_stops_on_sigint() -> None:
    told: list[str] = []

    def out(line: str) -> None:
        told.append(line)
        if line == "Ctrl-C stops it":
            os.kill(os.getpid(), signal.SIGINT)

    assert run(out=out) == 0
    assert any(line.startswith("broker at 127.0.0.1:") for line in told)
    assert told[-1] == "broker stopped"


def test_run_fails_when_the_node_ends_by_itself() -> None:
    told: list[str] = []

    def out(line: str) -> None:
        told.append(line)
        if line == "Ctrl-C stops it":
            folder = next(line for line in told if line.startswith("data in ")).split()[2]
            (jvm,) = (
                process
                for process in psutil.Process().children(recursive=True)
                if process.name() == "java" and folder in " ".join(process.cmdline())
            )
            threading.Thread(target=jvm.kill).start()

    assert run(out=out) == 1
    assert "node 1 ended by itself with status 137" in told[-1]
    assert "Kafka Server started" in told[-1]
