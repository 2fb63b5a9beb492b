"""Who may write a partition: a producer id for good, and an epoch that grows with every owner.

Kafka's transaction coordinator gives both for a transactional id, here ``<group>-<partition>``.
No transaction is ever begun. What is used is that the leader of a partition, once it has seen a
batch of one epoch, refuses every batch of an older one: see `streams.producer`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactString, Int16, Int32, Int64, Schema, TaggedFields

__all__ = ["FencedError", "Identities", "Identity", "Patience"]

log = logging.getLogger(__name__)

NEARLY_LAST_EPOCH = 32_700
"""Behind epoch 32,766 Kafka gives another producer id, which would not fence the one before."""

_TRANSACTION_TIMEOUT_MS = 60_000  # asked for, but there are no transactions
_FENCED = (47, 90)  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
_NOT_ALLOWED = 53
# Loading, not available, not the coordinator, timed out, concurrent transactions
_PASSING = (14, 15, 16, 7, 51)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_SAID_EVERY = 10.0


class FencedError(Exception):
    """Another worker owns a partition that this one believed to be its own."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: another worker has taken the partition over, so nothing was written to it. "
            "This one must have been held still or cut off past GOVERNOR_SESSION_TIMEOUT; start "
            "it anew. Nothing that was not acked is lost"
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What every batch of one owner of a partition carries."""

    producer: int
    epoch: int


class Patience:
    """The pauses between tries of something that must succeed.

    Args:
        what: is being tried, for the log.
        check: raises when it is not to be tried again.
    """

    def __init__(self, what: str, check: Callable[[], None]) -> None:
        self._what = what
        self._check = check
        self._pause = _FIRST_PAUSE
        self._said = 0.0

    async def pause(self, reason: str) -> None:
        """Wait, each time longer, up to a second; say why every ten."""
        self._check()
        now = time.monotonic()
        if now - self._said > _SAID_EVERY and self._pause > 4 * _FIRST_PAUSE:
            log.warning("%s: %s: trying again", self._what, reason)
            self._said = now
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self._check()


class Identities:
    """Asks the transaction coordinators of one group.

    Args:
        client: connected.
        group: the first part of the transactional ids.
        check: raises when this worker must not go on trying.
    """

    def __init__(self, client: AIOKafkaClient, group: str, check: Callable[[], None]) -> None:
        self._client = client
        self._group = group
        self._check = check
        self._coordinators: dict[str, int] = {}

    async def next(self, partition: int, current: Identity | None = None) -> Identity:
        """An identity for the partition that ends all earlier ones.

        Args:
            partition: that this worker owns.
            current: the one that it has; then it gets another only if it still is the newest.

        Raises:
            FencedError: ``current`` is not the newest.
            KafkaError: Kafka does not give any.
        """
        transactional_id = f"{self._group}-{partition}"
        patience = Patience(f"asking for {transactional_id}'s producer id", self._check)
        while True:
            try:
                node = await self._coordinator(transactional_id)
                answer = await self._client.send(
                    node,
                    _InitProducerId(transactional_id, current),
                    group=ConnectionGroup.COORDINATION,
                )
            except IncompatibleBrokerVersion as error:
                raise KafkaError("the brokers are older than Kafka 2.5: upgrade them") from error
            except KafkaError as error:
                reason = repr(error)
            else:
                code = answer.error_code
                if code == 0:
                    return Identity(answer.producer_id, answer.producer_epoch)
                if code in _FENCED:
                    raise FencedError(f"transactional id {transactional_id}")
                if code not in _PASSING:
                    raise self._refusal(transactional_id, code)
                reason = for_code(code).__name__
            self._coordinators.pop(transactional_id, None)
            await patience.pause(reason)

    async def _coordinator(self, transactional_id: str) -> int:
        node = self._coordinators.get(transactional_id)
        if node is None:
            try:
                node = int(
                    await self._client.coordinator_lookup(
                        CoordinationType.TRANSACTION, transactional_id
                    )
                )
            except KafkaError as error:
                if getattr(error, "errno", None) == _NOT_ALLOWED:
                    raise self._refusal(transactional_id, _NOT_ALLOWED) from error
                self._client.force_metadata_update()
                raise
            self._coordinators[transactional_id] = node
        return node

    def _refusal(self, transactional_id: str, code: int) -> Exception:
        error: Exception
        if code == _NOT_ALLOWED:
            error = PermissionError(
                f"Kafka does not let this user write with the transactional id {transactional_id}: "
                f"grant Write and Describe on TransactionalId {self._group}- (prefixed)"
            )
        else:
            error = KafkaError(f"no producer id for {transactional_id}: {for_code(code).__name__}")
        return error


# aiokafka has version 0 only, in which a worker cannot say who it believes to be.
class _InitProducerIdResponse(Response):
    API_KEY = 22
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _InitProducerIdRequest(RequestStruct):
    API_KEY = 22
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _InitProducerIdResponse
    SCHEMA = Schema(
        ("transactional_id", CompactString("utf-8")),
        ("transaction_timeout_ms", Int32),
        ("producer_id", Int64),
        ("producer_epoch", Int16),
        ("tags", TaggedFields),
    )


class _InitProducerId(Request[_InitProducerIdRequest]):
    API_KEY = 22

    def __init__(self, transactional_id: str, current: Identity | None) -> None:
        self._transactional_id = transactional_id
        self._current = current or Identity(-1, -1)

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(
            self._transactional_id,
            _TRANSACTION_TIMEOUT_MS,
            self._current.producer,
            self._current.epoch,
            {},
        )
