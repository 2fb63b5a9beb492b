"""SipHash against the vectors that its authors published (vectors_sip64)."""

import numpy as np
import pytest

from governor.siphash import key_of, siphash

VECTORS = {
    0: 0x726FDB47DD0E0E31,
    1: 0x74F839C593DC67FD,
    7: 0xAB0200F58B01D137,
    8: 0x93F5F5799A932462,
    15: 0xA129CA6149BE45E5,
}


@pytest.mark.parametrize("size", VECTORS)
def test_it_is_the_authors_function(size: int) -> None:
    key0, key1 = np.frombuffer(bytes(range(16)), np.uint64)
    assert siphash(key0, key1, np.arange(64, dtype=np.uint8), 0, size) == VECTORS[size]


def test_a_secret_is_a_key_whatever_its_length() -> None:
    keys = {tuple(map(int, key_of(secret))) for secret in (b"", b"a", b"a" * 1000)}
    assert len(keys) == 3
