"""An exchange of a command with Kafka: run to its end, or ended with what to do about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from streams.settings import Settings

__all__ = ["exchange"]

T = TypeVar("T")


def exchange(settings: Settings, work: Coroutine[Any, Any, T], *also: type[Exception]) -> T:
    """What the work gives.

    Args:
        settings: where Kafka is.
        work: is not begun before.
        also: errors whose text says to an operator all that there is to say.

    Raises:
        click.ClickException: Kafka does not answer, or not what was asked for.
    """
    from aiokafka.errors import KafkaConnectionError, KafkaError

    from streams.patience import ReaderError

    # What they write beside the error that is raised says the same, and worse.
    for name in ("aiokafka", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    telling: tuple[type[Exception], ...] = (ReaderError, LookupError, *also)
    try:
        return asyncio.run(work)
    except telling as error:
        raise click.ClickException(str(error)) from None
    except KafkaConnectionError:
        raise click.ClickException(
            f"no Kafka answers at {settings.broker}: is GOVERNOR_BROKER right, and is it up?"
        ) from None
    except KafkaError as error:
        raise click.ClickException(
            f"Kafka at {settings.broker} (GOVERNOR_BROKER) refuses: {error or type(error).__name__}"
        ) from None
