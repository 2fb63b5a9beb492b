"""What the broker module decides before any JVM runs."""

import json
import socket
from pathlib import Path

import pytest

from streams import broker
from streams.broker import BrokerError, Cluster, Node, properties, render


def nodes(count: int) -> list[Node]:
    return [Node(n, 9000 + n, 9100 + n, Path(f"/data/node-{n}")) for n in range(1, count + 1)]


def test_one_node_asks_for_one_replica_of_everything() -> None:
    (node,) = nodes(1)
    settings = properties(node, [node])
    assert settings["default.replication.factor"] == "1"
    assert settings["offsets.topic.replication.factor"] == "1"
    assert settings["transaction.state.log.replication.factor"] == "1"
    assert settings["transaction.state.log.min.isr"] == "1"
    assert settings["min.insync.replicas"] == "1"


def test_three_nodes_can_lose_one() -> None:
    every = nodes(3)
    settings = properties(every[1], every)
    assert settings["node.id"] == "2"
    assert settings["controller.quorum.voters"] == (
        "1@127.0.0.1:9101,2@127.0.0.1:9102,3@127.0.0.1:9103"
    )
    assert settings["default.replication.factor"] == "3"
    assert settings["min.insync.replicas"] == "2"
    assert settings["transaction.state.log.min.isr"] == "2"


def test_every_listener_is_on_loopback() -> None:
    (node,) = nodes(1)
    settings = properties(node, [node])
    assert settings["listeners"] == "PLAINTEXT://127.0.0.1:9001,CONTROLLER://127.0.0.1:9101"
    assert settings["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9001"


def test_overrides_win() -> None:
    (node,) = nodes(1)
    assert properties(node, [node], {"message.max.bytes": "5"})["message.max.bytes"] == "5"
    assert properties(node, [node], {"min.insync.replicas": "7"})["min.insync.replicas"] == "7"


def test_rendering_escapes_what_a_java_properties_file_cannot_hold() -> None:
    assert render({"log.dirs": "/é/a\\b", "x": "1=2"}) == "log.dirs=/\\u00e9/a\\\\b\nx=1=2\n"


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(BrokerError) as raised:
        Cluster(2, overrides={"node.id": "7", "listeners": "x"})
    assert str(raised.value) == (
        "listeners cannot be overridden; node.id cannot be overridden; nodes is 1 or 3, not 2"
    )


def test_data_of_another_number_of_nodes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "jars", lambda *_: [])
    (tmp_path / "node-1" / "data").mkdir(parents=True)
    (tmp_path / "node-1" / "data" / "meta.properties").touch()
    with pytest.raises(BrokerError, match=r"holds the data of 1 node\(s\), not 3: start 1 or"):
        Cluster(3, tmp_path).start()


def test_warm_jars_ask_no_repository(tmp_path: Path) -> None:
    home = tmp_path / broker.KAFKA.replace(":", "_")
    home.mkdir()
    (home / "a.jar").write_text("four")
    listed = {"of": [broker.KAFKA, broker.LOG_BINDING], "sizes": {"a.jar": 4}}
    (home / "jars.json").write_text(json.dumps(listed))
    told: list[str] = []
    assert broker.jars(tmp_path, "http://127.0.0.1:9", told.append) == [home / "a.jar"]
    assert told == []


def test_a_truncated_jar_is_fetched_again(tmp_path: Path) -> None:
    home = tmp_path / broker.KAFKA.replace(":", "_")
    home.mkdir()
    (home / "a.jar").write_text("fo")
    listed = {"of": [broker.KAFKA, broker.LOG_BINDING], "sizes": {"a.jar": 4}}
    (home / "jars.json").write_text(json.dumps(listed))
    with pytest.raises(BrokerError, match="cannot fetch"):
        broker.jars(tmp_path, "http://127.0.0.1:9", lambda _: None)


def test_unreachable_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BrokerError) as raised:
        broker.jars(tmp_path, "http://127.0.0.1:9/", lambda _: None)
    message = str(raised.value)
    assert "cannot fetch org.apache.kafka:kafka_2.13" in message
    assert "GOVERNOR_MAVEN_URL" in message
    assert "GOVERNOR_BROKER" in message
    assert "\n" not in message


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} of 127.0.0.1 cannot be used"):
            broker._free_ports([port])
