"""What the integration tests share."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deployment import Deployment
from tests.integration.scenario import RULES

Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deploy]:
    """Makes a `Deployment` at the session's broker, or at that of ``bootstrap``.

    Its processes end with the test. The broker starts when the first one needs it.
    """
    made: list[Deployment] = []

    def make(bootstrap: str | None = None, **options: Any) -> Deployment:
        name = re.sub(r"[^a-zA-Z0-9]+", "-", f"{request.node.name}-{len(made)}")[-120:]
        folder = tmp_path / str(len(made))
        folder.mkdir()
        options.setdefault("rules", RULES)
        bootstrap = bootstrap or request.getfixturevalue("broker")
        made.append(Deployment(bootstrap, name, folder, **options))
        return made[-1]

    yield make
    for deployment in made:
        deployment.end()
