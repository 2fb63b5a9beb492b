"""JSON written byte by byte into an array, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.ticks import SECOND

__all__ = ["literal", "put", "put_escaped", "put_integer", "put_ten_thousandths", "put_ticks"]

_SECOND = SECOND


def literal(text: str) -> NDArray[np.uint8]:
    """A text as the compiled functions take it."""
    return np.frombuffer(text.encode(), np.uint8)


_HEX = literal("0123456789abcdef")
_ESCAPE = literal("\\u00")


@compiled
def put(out: NDArray[np.uint8], at: int, text: NDArray[np.uint8], start: int, size: int) -> int:
    """Some bytes of a text; where they end."""
    for i in range(size):
        out[at + i] = text[start + i]
    return at + size


@compiled
def put_escaped(
    out: NDArray[np.uint8], at: int, text: NDArray[np.uint8], start: int, size: int
) -> int:
    """A JSON string's inside: quotes, backslashes and control characters escaped."""
    for i in range(size):
        byte = text[start + i]
        if byte < 0x20 or byte == 0x22 or byte == 0x5C:
            at = put(out, at, _ESCAPE, 0, 4)
            out[at] = _HEX[byte >> 4]
            out[at + 1] = _HEX[byte & 15]
            at += 2
        else:
            out[at] = byte
            at += 1
    return at


@compiled
def put_integer(out: NDArray[np.uint8], at: int, value: int) -> int:
    """A number that is not negative, in decimal."""
    digits = 1
    power = 10
    while value >= power:
        digits += 1
        power *= 10
    for i in range(digits):
        out[at + digits - 1 - i] = 48 + value % 10
        value //= 10
    return at + digits


@compiled
def put_ten_thousandths(out: NDArray[np.uint8], at: int, value: int) -> int:
    """A number of ten-thousandths as a decimal, without needless zeros."""
    at = put_integer(out, at, value // 10_000)
    rest = value % 10_000
    if rest == 0:
        return at
    out[at] = 46
    for i in range(4):
        out[at + 4 - i] = 48 + rest % 10
        rest //= 10
    at += 5
    while out[at - 1] == 48:
        at -= 1
    return at


@compiled
def put_ticks(out: NDArray[np.uint8], at: int, ticks: int) -> int:
    """Ticks as seconds: up to six decimals, none needless."""
    at = put_integer(out, at, ticks // _SECOND)
    rest = ticks % _SECOND
    if rest == 0:
        return at
    out[at] = 46
    for i in range(6):
        out[at + 6 - i] = 48 + rest % 10
        rest //= 10
    at += 7
    while out[at - 1] == 48:
        at -= 1
    return at
