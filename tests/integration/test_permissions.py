"""What `governor topics` prints is all that a worker needs of a Kafka that forbids the rest."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    NewTopic,
    ResourcePattern,
    ResourceType,
)

from tests.integration.commands import governor
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment
from tests.integration.scenario import scenario
from tests.integration.test_security import SecureCluster

USERS = {"admin": "admin-password", "governor": "worker-password", "pipeline": "another"}
OPERATIONS = {one.name.replace("_", "").lower(): one for one in ACLOperation}
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


def client(user: str) -> dict[str, Any]:
    """How somebody connects."""
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": user,
        "sasl_plain_password": USERS[user],
    }


@pytest.fixture
def guarded(deploy: Deploy, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment at a broker that asks who somebody is, and allows nobody anything yet."""
    known = " ".join(f'user_{user}="{password}"' for user, password in USERS.items())
    overrides = {
        "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.plaintext.plain.sasl.jaas.config": (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="admin" password="{USERS["admin"]}" {known};'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
    }
    with SecureCluster(client("admin"), overrides, tmp_path / "kafka") as cluster:
        deployment = deploy(
            cluster.bootstrap,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            sasl_username="governor",
            sasl_password=USERS["governor"],
        )
        # The test looks at everything; it produces as the pipeline does.
        deployment.kafka |= client("admin")
        yield deployment
        deployment.end()


def obey(line: str, admin: KafkaAdminClient) -> None:
    """Do what a line of kafka-topics.sh or kafka-acls.sh would."""
    tool, *words = shlex.split(line)
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in ("--create", "--if-not-exists", "--add"):
        parser.add_argument(flag, action="store_true")
    for option in ("--bootstrap-server", "--partitions", "--replication-factor", "--topic"):
        parser.add_argument(option)
    for option in ("--allow-principal", "--group", "--transactional-id"):
        parser.add_argument(option)
    for option in ("--config", "--operation"):
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("--resource-pattern-type", default="literal")
    told = parser.parse_args(words)
    if tool == "kafka-topics.sh":
        assert told.create
        configs = dict(one.split("=", 1) for one in told.config)
        factor = int(told.replication_factor)
        admin.create_topics(
            [NewTopic(told.topic, int(told.partitions), factor, topic_configs=configs)]
        )
        return
    assert (tool, told.add) == ("kafka-acls.sh", True)
    (resource,) = (name for name in RESOURCES if getattr(told, name))
    pattern = ACLResourcePatternType[told.resource_pattern_type.upper()]
    for operation in told.operation:
        admin.create_acls(
            [
                ACL(
                    principal=told.allow_principal,
                    host="*",
                    operation=OPERATIONS[operation.lower()],
                    permission_type=ACLPermissionType.ALLOW,
                    resource_pattern=ResourcePattern(
                        RESOURCES[resource], getattr(told, resource), pattern
                    ),
                )
            ]
        )


def test_a_worker_governs_with_what_is_listed_and_nothing_else(guarded: Deployment) -> None:
    admin = KafkaAdminClient(bootstrap_servers=guarded.bootstrap, **client("admin"))
    try:
        for line in governor(guarded, "topics").splitlines():
            obey(line, admin)
    finally:
        admin.close()
    events = scenario(51, users=30, events=300)
    guarded.send(events[:150])
    worker = guarded.worker()
    guarded.wait_until_committed()
    assert worker.stop() == 0
    again = guarded.worker()
    guarded.send(events[150:])
    guarded.wait_until_committed()
    guarded.assert_decides(events)
    assert again.errors() == []
    assert again.stop() == 0


def test_without_permissions_a_worker_says_what_is_refused(guarded: Deployment) -> None:
    worker = guarded.worker(wait=False)
    assert worker.wait(120) == 1
    assert "uthorization" in worker.log()
