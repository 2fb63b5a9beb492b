"""TLS and SASL reach Kafka through the transport, the outbox and the topics' client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context

from streams.broker import Cluster
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, wait_for
from tests.integration.scenario import scenario

USER, PASSWORD = "governor", "a secret with = and ;"


class SecureCluster(Cluster):
    """A node whose clients' listener, which keeps its name, speaks another protocol.

    `Cluster` sees that a node is ready by a request in plain text; this one asks as ``client``.
    """

    def __init__(self, client: Mapping[str, Any], overrides: Mapping[str, str], data: Path) -> None:
        super().__init__(overrides=overrides, data_dir=data)
        self.client = client

    def _await_ready(self) -> None:
        wait_for(self._answers, f"answer of the broker; see {self.log()}")

    def _answers(self) -> bool:
        assert self.failure() is None, self.failure()

        async def ask() -> bool:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, **self.client)
            try:
                await admin.start()
            except KafkaError:
                return False
            finally:
                await admin.close()
            return True

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
    )
    return made, key


@pytest.fixture
def secured(
    request: pytest.FixtureRequest,
    certificate: tuple[Path, Path],
    deploy: Deploy,
    tmp_path: Path,
) -> Iterator[Deployment]:
    """A deployment at a broker that wants the protocol of the test's parameter."""
    protocol: str = request.param
    made, key = certificate
    settings = {"security_protocol": protocol}
    client: dict[str, Any] = {"security_protocol": protocol}
    overrides = {
        "listener.security.protocol.map": f"PLAINTEXT:{protocol},CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
    }
    if protocol.endswith("SSL"):
        settings["ssl_ca_file"] = str(made)
        overrides |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.certificate.chain": made.read_text(),
            "ssl.keystore.key": key.read_text(),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.certificates": made.read_text(),
        }
    if protocol == "SSL":
        settings |= {"ssl_cert_file": str(made), "ssl_key_file": str(key)}
        overrides["ssl.client.auth"] = "required"
        client["ssl_context"] = create_ssl_context(
            cafile=str(made), certfile=str(made), keyfile=str(key)
        )
    elif protocol == "SASL_SSL":
        client["ssl_context"] = create_ssl_context(cafile=str(made))
    if protocol.startswith("SASL"):
        settings |= {
            "sasl_mechanism": "PLAIN",
            "sasl_username": USER,
            "sasl_password": PASSWORD,
        }
        client |= {
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": USER,
            "sasl_plain_password": PASSWORD,
        }
        overrides |= {
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.plaintext.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                f'username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
            ),
        }
    with SecureCluster(client, overrides, tmp_path / "kafka") as cluster:
        deployment = deploy(cluster.bootstrap, **settings)
        deployment.kafka |= client
        yield deployment
        deployment.end()


@pytest.mark.parametrize(
    "secured",
    [
        "SASL_SSL",
        pytest.param("SSL", marks=pytest.mark.slow),
        pytest.param("SASL_PLAINTEXT", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_the_worker_governs_through(secured: Deployment) -> None:
    secured.create_event_topics()
    events = scenario(50, users=30, events=300)
    secured.send(events[:150])
    worker = secured.worker()
    secured.wait_until_committed()
    assert worker.stop() == 0
    again = secured.worker()
    secured.send(events[150:])
    secured.wait_until_committed()
    secured.assert_decides(events)
    assert again.stop() == 0
    assert PASSWORD not in worker.log() + again.log()


@pytest.mark.slow
@pytest.mark.parametrize("secured", ["SASL_SSL"], indirect=True)
def test_a_wrong_password_is_told_as_such(secured: Deployment) -> None:
    worker = secured.worker(wait=False, sasl_password="not-this-one")
    worker.wait_for_either("GOVERNOR_SASL_PASSWORD", "uthentication")
    assert "not-this-one" not in worker.log()
    worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("secured", ["SASL_SSL"], indirect=True)
def test_a_certificate_that_is_not_trusted_is_told_as_such(secured: Deployment) -> None:
    worker = secured.worker(wait=False, ssl_ca_file="")
    worker.wait_for_either("GOVERNOR_SSL_CA_FILE", "ertificate")
    worker.stop()
