"""What operators copy: the image's steps as the rehearsal reads them, and the list for Kafka."""

from __future__ import annotations

import json

import pytest

from checks.rehearsal import DOCKERFILE, stages
from streams.permissions import PERMISSIONS, commands, wanted
from streams.settings import load_settings
from streams.topics import CONFIGURATION, READ_TOPICS, SINGLE
from streams.traffic import Audience

TEXT = """\
# syntax=docker/dockerfile:1
FROM python AS build
ENV A=1 \\
    B="two words"
# between two steps
RUN one \\
    # inside of one
    && two

FROM python
COPY --from=build /opt/x /opt/x
USER 10001:10001
HEALTHCHECK --interval=1s CMD ["a", "b c"]
CMD ["worker"]
"""


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    build, last = stages(TEXT)
    assert (build.name, last.name) == ("build", "1")
    assert [one.name for one in build.instructions] == ["ENV", "RUN"]
    assert build.instructions[0].words == ["A=1", "B=two words"]
    assert build.instructions[1].rest.split() == ["one", "&&", "two"]
    assert last.last("CMD").words == ["worker"]
    with pytest.raises(SystemExit, match="ENTRYPOINT"):
        last.last("ENTRYPOINT")


def test_the_image_ends_without_root_and_with_a_health_check_of_its_own_port() -> None:
    last = stages(DOCKERFILE.read_text())[-1]
    user, group = last.last("USER").rest.split(":")
    assert int(user) > 0
    assert int(group) > 0
    check = json.loads(last.last("HEALTHCHECK").rest.partition("CMD ")[2])
    assert "GOVERNOR_METRICS_PORT" in check[-1]
    assert "/healthz" in check[-1]
    assert last.last("CMD").words == ["worker"]


def test_every_topic_is_on_the_list_and_everything_on_it_is_a_topic() -> None:
    names = {one["name"] for one in wanted()["topics"]}
    assert names == {*CONFIGURATION, *SINGLE}
    worker = {one.name: one.operations for one in PERMISSIONS["worker"] if one.resource == "topic"}
    assert worker.keys() == names
    assert all("Read" in worker[name] for name in (*READ_TOPICS, "ledger", "policy"))
    assert all(
        one.name in names
        for each in PERMISSIONS.values()
        for one in each
        if one.resource == "topic"
    )


def test_commands_name_what_the_settings_say() -> None:
    settings = load_settings(
        {
            "GOVERNOR_BROKER": "k:1",
            "GOVERNOR_TOPIC_PREFIX": "ads.",
            "GOVERNOR_GROUP": "watch",
            "GOVERNOR_PARTITIONS": "32",
            "GOVERNOR_REPLICATION": "3",
        }
    )
    lines = list(commands(settings, {"worker": "User:w"}))
    (ledger,) = (line for line in lines if "--topic ads.ledger" in line and "--create" in line)
    assert "--partitions 32 --replication-factor 3" in ledger
    assert "--config cleanup.policy=compact" in ledger
    assert "--config min.insync.replicas=2" in ledger
    (policy,) = (line for line in lines if "--topic ads.policy" in line and "--create" in line)
    assert "--partitions 1 " in policy
    (ids,) = (line for line in lines if "--transactional-id" in line)
    assert ids.endswith("--transactional-id watch- --resource-pattern-type prefixed")
    assert all("User:w" in line for line in lines if line.startswith("kafka-acls.sh"))
    assert all("--bootstrap-server k:1" in line for line in lines)


def test_an_audience_is_the_same_in_every_run_and_few_come_often() -> None:
    one, two = (list(Audience(1000, 50).occasions(5000)) for _ in range(2))
    assert one == two
    visits = sorted(sum(each.user == who for each in one) for who in {o.user for o in one})
    assert sum(visits[-len(visits) // 10 :]) > 0.3 * len(one)
    followed = {each.campaign for each in one if each.user == one[0].user}
    assert len(followed) <= 3
