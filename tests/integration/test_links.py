"""Several ids and links through a real Kafka: rows of an event's ids lie on several partitions."""

from __future__ import annotations

from tests.integration.commands import seen_by
from tests.integration.conftest import Deploy
from tests.integration.deployment import Deployment, Event
from tests.integration.events import control, shown
from tests.integration.scenario import T0

POLICY = """
version: test
rules:
  - {name: user-daily, cap: 4, per: user, window: 1d}
  - {name: household-daily, cap: 5, per: campaign, window: 1d, id: household}
"""
PEOPLE = 24


def anonymous(n: int) -> str:
    return f"anonymous {n}"


def known(n: int) -> str:
    return f"known {n}"


def exposures(prefix: str, numbers: range) -> list[Event]:
    return [shown(f"{prefix} {n}", at) for n in range(PEOPLE) for at in numbers]


def user_rests(deployment: Deployment, key: str) -> float | None:
    """When the rest of all ads ends for an id, in seconds after `T0`."""
    for throttle in deployment.published().get(key, {}).get("throttles", ()):
        if throttle["label"] == "user":
            return float(throttle["until"]) - T0
    return None


def test_an_anonymous_id_becomes_a_known_one_and_stays_it(deploy: Deploy) -> None:
    """Two exposures of each id are four of one person; also after a crash, by the reader too."""
    deployment = deploy(policy=POLICY)
    worker = deployment.worker()
    deployment.send(exposures("anonymous", range(2)) + exposures("known", range(10, 12)))
    deployment.wait_until_committed()
    assert deployment.published() == {}
    deployment.send(control("link", anonymous(n), 20, to=known(n)) for n in range(PEOPLE))
    deployment.wait_until_committed()
    published = deployment.published()
    for n in range(PEOPLE):
        assert published[anonymous(n)] == {"id": anonymous(n), "redirect": known(n)}
        (throttle,) = published[known(n)]["throttles"]
        assert throttle["evidence"]["user-daily"]["exposures"] == 4
        assert throttle["until"] == T0 + 86400
    seen_by(
        deployment,
        lambda client: (
            not client.allowed({"user": anonymous(7)}, {"campaign": "C9"}, T0 + 30).allowed
        ),
        "what holds of the known id under the anonymous one",
    )
    worker.kill()
    worker = deployment.worker()
    deployment.send([shown(anonymous(3), 40), shown(known(5), 40)])
    deployment.wait_until_committed()
    assert user_rests(deployment, known(3)) == user_rests(deployment, known(5)) == 86400 + 1
    assert user_rests(deployment, known(4)) == 86400
    assert worker.metrics()("governor_forwarded_total", reason="redirect") == 1
    assert worker.stop() == 0


def test_links_form_chains_and_the_last_link_of_a_cycle_is_refused(deploy: Deploy) -> None:
    deployment = deploy(policy=POLICY)
    deployment.worker()
    deployment.send([shown(user, n) for n, user in enumerate("abcd")])
    deployment.send(
        [
            control("link", "b", 22, to="c"),
            control("link", "d", 24, to="a"),
            control("link", "c", 23, to="d"),
            control("link", "a", 21, to="b"),
        ]
    )
    deployment.wait_until_committed()
    published = deployment.published()
    assert {key: one.get("redirect") for key, one in published.items()} == {
        "a": "b", "b": "c", "c": "d", "d": None,
    }  # fmt: skip
    assert user_rests(deployment, "d") == 86400


def test_consent_that_one_of_two_ids_refused_is_refused_until_it_is_granted_anew(
    deploy: Deploy,
) -> None:
    """Whichever of the two refused; a grant from before the link, told later, lifts nothing."""
    deployment = deploy(policy=POLICY)
    deployment.worker()
    said: list[Event] = []
    for n in range(PEOPLE):
        no, yes = (anonymous(n), known(n)) if n % 2 else (known(n), anonymous(n))
        said.append(control("consent", no, 1, consent={"retargeting": False}))
        said.append(control("consent", yes, 2, consent={"retargeting": True}))
    deployment.send(said)
    deployment.wait_until_committed()
    deployment.send(control("link", anonymous(n), 20, to=known(n)) for n in range(PEOPLE))
    deployment.wait_until_committed()
    granting = {"consent": {"retargeting": True}}
    deployment.send(control("consent", known(n), 10, **granting) for n in range(0, PEOPLE, 3))
    deployment.send(control("consent", known(n), 30, **granting) for n in range(1, PEOPLE, 3))
    deployment.wait_until_committed()
    published = deployment.published()
    for n in range(PEOPLE):
        throttles = published.get(known(n), {}).get("throttles", [])
        assert [one["label"] for one in throttles] == ["retargeting"] * (n % 3 != 1), n
        assert all(one["from"] == T0 + 20 for one in throttles)


def test_each_id_of_an_event_has_a_row_and_a_decision(deploy: Deploy) -> None:
    """Of a household of three, nobody is at a limit and the household is; the strictest wins."""
    deployment = deploy(policy=POLICY)
    worker = deployment.worker()
    households = [f"h{n}" for n in range(PEOPLE)]
    deployment.send(
        shown(f"{home} {member}", 10 * member + n, ids={"household": home, "device": f"d {home}"})
        for home in households
        for member in range(3)
        for n in range(2)
    )
    deployment.wait_until_committed()
    published = deployment.published()
    assert published.keys() == {f"household\0{home}" for home in households}
    for home in households:
        record = published[f"household\0{home}"]
        assert (record["id"], record["id_type"]) == (home, "household")
        (throttle,) = record["throttles"]
        assert (throttle["label"], throttle["reasons"]) == ("campaign:C1", ["household-daily"])
        assert throttle["until"] == T0 + 86400 + 1
    metrics = worker.metrics()
    assert metrics("governor_users") == PEOPLE * 5
    assert metrics("governor_forwarded_total", reason="identity") > PEOPLE
    ads = {"campaign": "C1"}
    seen_by(
        deployment,
        lambda client: (
            client.allowed({"user": "h1 0"}, ads, T0 + 60).allowed
            and not client.allowed({"user": "h1 0", "household": "h1"}, ads, T0 + 60).allowed
        ),
        "that the strictest of two ids wins",
    )
    assert worker.stop() == 0
