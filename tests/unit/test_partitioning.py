"""The partitioner against Kafka's own test vectors and against a client's implementation."""

import numpy as np
import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from governor.partitioning import partition_of, partitions_of

# org.apache.kafka.common.utils.UtilsTest.testMurmur2
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", VECTORS)
def test_it_is_the_hash_of_kafkas_own_tests(key: bytes) -> None:
    assert partition_of(key, 2**31) == VECTORS[key] & 0x7FFFFFFF


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1), st.integers(1, 1000))
def test_it_is_that_of_a_client(keys: list[bytes], count: int) -> None:
    text = np.frombuffer(b"".join(keys), np.uint8)
    size = np.array(list(map(len, keys)), np.int64)
    found = partitions_of(text, np.cumsum(size) - size, size, count)
    assert found.tolist() == [(murmur2(key) & 0x7FFFFFFF) % count for key in keys]
