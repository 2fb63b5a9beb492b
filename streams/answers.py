"""A connection to Kafka that puts large answers together once.

asyncio's reader appends what comes to one buffer, which grows and is copied as it does, wakes who
waits each time, and tells the system to stop and to go on again every 128 KiB; then it copies what
was waited for. A fetch is a megabyte, forty times a second.
"""

# It extends asyncio and aiokafka where they have no public place for it.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient

__all__ = ["AnswersClient", "Reader"]

LARGE = 64 * 1024
"""Bytes from which on an answer is kept in pieces."""


class Reader(asyncio.StreamReader):
    """asyncio's reader, but for reads of `LARGE` bytes and more.

    What comes for such a read stays in the pieces that it came in, and nobody is woken before all
    is there.
    """

    _pieces: list[bytes]
    """Of the large read that is under way."""
    _missing = 0
    """Bytes that it still waits for."""

    def feed_data(self, data: Any) -> None:
        """Take in bytes that came."""
        if self._missing:
            piece = bytes(data[: self._missing])
            self._pieces.append(piece)
            self._missing -= len(piece)
            if self._missing:
                return
            self._wakeup_waiter()  # type: ignore[attr-defined]
            data = data[len(piece) :]
        super().feed_data(data)

    async def readexactly(self, n: int) -> bytes:
        """The next ``n`` bytes.

        What a read that is cancelled has got is gone: aiokafka cancels one with its connection.

        Raises:
            asyncio.IncompleteReadError: the connection ended before.
        """
        buffer: bytearray = self._buffer  # type: ignore[attr-defined]
        if n < LARGE or len(buffer) >= n:
            return await super().readexactly(n)
        self._pieces, self._missing = [bytes(buffer)], n - len(buffer)
        buffer.clear()
        try:
            while self._missing:
                if (error := self.exception()) is not None:
                    raise error
                if self._eof:  # type: ignore[attr-defined]
                    raise asyncio.IncompleteReadError(b"".join(self._pieces), n)
                await self._wait_for_data("readexactly")  # type: ignore[attr-defined]
            return b"".join(self._pieces)
        finally:
            self._pieces, self._missing = [], 0


class AnswersClient(AIOKafkaClient):
    """aiokafka's client, whose connections have a `Reader`."""

    async def _get_conn(self, *arguments: Any, **options: Any) -> Any:
        made = await super()._get_conn(*arguments, **options)
        # A closed connection has none. One that has just been made waits for nothing large.
        if made is not None and type(made._reader) is asyncio.StreamReader:
            made._reader.__class__ = Reader
        return made
