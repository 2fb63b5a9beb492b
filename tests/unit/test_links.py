"""Links between homes: rows are united, later events follow, cycles end, whatever arrives first."""

from __future__ import annotations

import itertools
import random
from collections import deque

import pytest

from governor.records import Records
from tests.invariants import T0
from tests.unit.test_home import Cluster, control, shown


def link(user: str, to: str, ts: float) -> tuple[str, dict[str, object]]:
    return control("link", user, ts, to=to)


def root(cluster: Cluster, key: str) -> str:
    """The id that an id has become."""
    for _ in range(10):
        found = cluster.home(key).gate.redirects.get(key.encode())
        if found is None:
            return key
        key = found.to.decode()
    pytest.fail("a cycle")


def rows(cluster: Cluster) -> int:
    """Rows that are left after a flush."""
    for home in cluster.homes:
        home.ledger.take(0)
    return sum(len(home.ledger) for home in cluster.homes)


@pytest.mark.parametrize("seed", range(4))
def test_the_rows_are_united_and_later_events_follow(seed: int) -> None:
    rng = random.Random(seed)
    cluster = Cluster()
    events = [
        *(shown("anonymous", n) for n in range(2)),
        *(shown("known", n) for n in range(10, 12)),
        link("anonymous", "known", T0 + 5),
    ]
    rng.shuffle(events)
    for event in events:
        cluster.give(rng.randrange(3), event)
    cluster.settle(rng.choice)
    cluster.give(0, shown("anonymous", 20))
    cluster.settle()
    assert cluster.exposures("known") == 5
    assert cluster.exposures("anonymous") == 0
    assert root(cluster, "anonymous") == "known"
    assert rows(cluster) == 1


def test_links_form_chains() -> None:
    for order in itertools.permutations(range(3)):
        cluster = Cluster()
        for user in "abcd":
            cluster.give(0, shown(user, ord(user)))
        links = [link("a", "b", T0 + 1), link("b", "c", T0 + 2), link("c", "d", T0 + 3)]
        for n in order:
            cluster.give(1, links[n])
        cluster.settle()
        assert cluster.exposures("d") == 4
        assert root(cluster, "a") == root(cluster, "b") == root(cluster, "c") == "d"
        assert cluster.home("d").gate.origins(b"d") == {b"a", b"b", b"c"}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_cycle_is_broken_at_its_last_link_whatever_comes_first(size: int) -> None:
    users = "abcd"[:size]
    links = [link(a, b, T0 + n) for n, (a, b) in enumerate(itertools.pairwise(users))]
    links.append(link(users[-1], "a", T0 + size))
    for seed, order in enumerate(itertools.permutations(range(size))):
        rng = random.Random(seed)
        cluster = Cluster()
        for user in users:
            cluster.give(0, shown(user, ord(user)), shown(user, ord(user) + 200))
        for n in order:
            cluster.give(rng.randrange(3), links[n])
            if rng.random() < 0.5:
                cluster.settle(rng.choice)
        cluster.settle(rng.choice)
        assert {root(cluster, user) for user in users} == {users[-1]}, order
        assert cluster.exposures(users[-1]) == 2 * size
        assert rows(cluster) == 1


def test_an_id_follows_its_earliest_link() -> None:
    for links in itertools.permutations([link("a", "b", T0 + 1), link("a", "c", T0 + 2)]):
        cluster = Cluster()
        for one in links:
            cluster.give(0, one)
            cluster.settle()
        assert root(cluster, "a") == "b"


def test_links_delivered_again_change_nothing() -> None:
    cluster = Cluster()
    events = [shown("a", 1), shown("b", 2), link("a", "b", T0 + 3)]
    for _ in range(3):
        for event in events:
            cluster.give(0, event)
        cluster.settle()
    assert cluster.exposures("b") == 0
    cluster.give(0, shown("b", 4))
    cluster.settle()
    assert cluster.exposures("b") == 3
    assert rows(cluster) == 1


def test_an_erasure_reaches_the_ids_linked_with_it() -> None:
    for erased in "abc":
        cluster = Cluster()
        before = [shown(user, n) for user in "abc" for n in range(3)]
        links = [link("a", "b", T0 + 10), link("b", "c", T0 + 11)]
        for event in (*before, *links):
            cluster.give(0, event)
        cluster.settle()
        cluster.give(1, control("erase", erased, T0 + 50))
        cluster.settle()
        assert rows(cluster) == 0
        for home in cluster.homes:
            assert not home.gate.redirects
            assert not any(home.gate.origins(user.encode()) for user in "abc")
        for event in (*before, *links):
            cluster.give(2, event)
        cluster.settle()
        assert rows(cluster) == 0
        cluster.give(0, shown("a", 60), shown("a", 61), shown("a", 62))
        cluster.settle()
        assert root(cluster, "a") == "a"
        assert cluster.exposures("a") == 3


def test_a_merge_that_comes_after_the_erasure_brings_nothing_back() -> None:
    cluster = Cluster()
    cluster.give(0, shown("a", 1), shown("a", 60), shown("k", 2))
    cluster.settle()
    cluster.give(0, link("a", "k", T0 + 5))
    held = [deque(queue) for queue in cluster.queues]
    for queue in cluster.queues:
        queue.clear()
    cluster.give(0, control("erase", "k", T0 + 50))
    cluster.settle()
    for queue, late in zip(cluster.queues, held, strict=True):
        queue.extend(late)
    cluster.settle()
    for n in (70, 71):
        cluster.give(0, shown("k", n))
    cluster.settle()
    assert cluster.exposures("k") == 3
    assert cluster.home("a").gate.redirects.get(b"a") is None


def test_links_and_origins_are_read_back_from_the_changelog() -> None:
    cluster = Cluster(1)
    cluster.give(0, shown("a", 1), link("a", "b", T0 + 2))
    cluster.settle()
    gate = cluster.homes[0].gate
    logged = [(key, value, 0) for key, value in gate.take()]
    other = cluster._gate()
    assert len(other.load(Records.of(logged))) == 0
    assert other.redirects.get(b"a") == gate.redirects.get(b"a")
    assert other.origins(b"b") == {b"a"}
    assert (
        sorted(other.everything())
        == sorted(gate.everything())
        == sorted((key, value) for key, value, _ in logged)
    )
    gate.redirects.forget(b"a")
    gate.take_origins(b"b")
    other.load(Records.of([(key, value, 0) for key, value in gate.take()]))
    assert other.redirects.get(b"a") is None
    assert other.origins(b"b") == set()
