"""What all tests share: a Kafka that runs for the whole session, and hypothesis' settings."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from streams.broker import Cluster

# The first example of a test may compile a function, so no example has a deadline.
settings.register_profile("governor", deadline=None)
settings.load_profile("governor")


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """`host:port` of a Kafka: the one that GOVERNOR_BROKER names, or one started here."""
    if bootstrap := os.environ.get("GOVERNOR_BROKER"):
        yield bootstrap
        return
    with Cluster() as cluster:
        yield cluster.bootstrap
