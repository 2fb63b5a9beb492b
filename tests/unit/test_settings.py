"""Settings: what the environment may say, and what is said about a wrong one."""

from datetime import timedelta
from pathlib import Path

import pytest

from streams.settings import (
    PREFIX,
    Settings,
    SettingsError,
    described,
    load_settings,
    read_policy,
    ticks,
)


def settings(**given: str) -> Settings:
    return load_settings({PREFIX + name: value for name, value in given.items()})


def mistakes(**given: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings(**given)
    assert str(refused.value) == "\n".join(refused.value.mistakes)
    return refused.value.mistakes


def test_an_empty_environment_gives_the_defaults() -> None:
    found = load_settings({"HOME": "/", "GOVERNORS": "1"})
    assert found.broker == "127.0.0.1:9092"
    assert found.partitions == 8
    assert found.history == timedelta(days=32)
    assert found.flush_interval == timedelta(milliseconds=25)
    assert found.model_fields_set == set()
    assert len(read_policy(found).rules) == 5


def test_values_are_read() -> None:
    found = settings(
        BROKER="kafka-1:9092, [::1]:9093",
        TOPIC_PREFIX="ads.",
        PARTITIONS="32",
        HISTORY="60d",
        FLUSH_INTERVAL="0.05s",
        METRICS_PORT="0",
        MAX_FUTURE="0s",
        LOG_LEVEL="debug",
    )
    assert found.broker == "kafka-1:9092,[::1]:9093"
    assert found.topic("impressions") == "ads.impressions"
    assert found.partitions == 32
    assert ticks(found.history) == 60 * 86_400_000_000
    assert found.flush_interval == timedelta(milliseconds=50)
    assert found.metrics_port == 0
    assert found.max_future == timedelta(0)
    assert found.log_level == "debug"


def test_the_process_environment_and_env_files_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("GOVERNOR_PARTITIONS=3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOVERNOR_PARTITIONS", "4")
    assert load_settings({}).partitions == 8


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BROKER", "kafka", "'kafka' is not host:port: write one such as kafka-1:9092"),
        ("BROKER", "a:1,", "'' is not host:port"),
        ("BROKER", "a:70000", "write one from 1 to 65535"),
        ("BROKER", "kafka://a:9092", "is not host:port"),
        ("GROUP", "a b", "'a b' cannot be used: write 1 to 200 letters"),
        ("GROUP", "", "is empty: unset it for the default governor"),
        ("TOPIC_PREFIX", "ads/", "cannot be used"),
        ("PARTITIONS", "0", "is out of range: write a number from 1 to 10000"),
        ("PARTITIONS", "8.0", "'8.0' is not a whole number"),
        ("PARTITIONS", " 8", "' 8' is not a whole number"),
        ("PARTITIONS", "1_0", "'1_0' is not a whole number"),
        ("PARTITIONS", "true", "'true' is not a whole number"),
        ("PARTITIONS", "-8", "is out of range"),
        ("REPLICATION", "", "is empty: unset it for the default 1"),
        ("ROW_LIMIT", "7", "from 8 to 1024"),
        ("ROW_LIMIT", "1025", "from 8 to 1024"),
        ("HISTORY", "32", "'32' has no unit: write 32s, 32m, 32h, 32d or 32w"),
        ("HISTORY", "", "is empty: unset it for the default 32d"),
        ("MAX_FUTURE", "-5m", "is negative"),
        ("MAX_AGE", "1 year", "is not a duration"),
        ("FLUSH_INTERVAL", "0s", "is out of range: write a duration from 1ms to 1m"),
        ("MAX_EVENT_BYTES", "64k", "is not a whole number"),
        ("METRICS_PORT", "65536", "from 0 to 65535"),
        ("METRICS_HOST", "", "is empty"),
        ("LOG_LEVEL", "INFO", "is not one of debug, info, warning, error, critical"),
        ("SECURITY_PROTOCOL", "TLS", "is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("MAVEN_URL", "ftp://a", "write a URL"),
    ],
)
def test_a_wrong_value_is_told_with_its_remedy(name: str, value: str, told: str) -> None:
    (found,) = mistakes(**{name: value})
    assert found.startswith(PREFIX + name)
    assert told in found


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("GOVERNOR_PARTITION", "did you mean GOVERNOR_PARTITIONS?"),
        ("GOVERNOR_partitions", "did you mean GOVERNOR_PARTITIONS?"),
        ("GOVERNOR_BROKERS", "did you mean GOVERNOR_BROKER?"),
        ("GOVERNOR_SHADOW", "unset it (`governor config` lists all)"),
        ("GOVERNOR_", "unset it"),
    ],
)
def test_an_unknown_variable_is_a_mistake(variable: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({variable: "yes"})
    (found,) = refused.value.mistakes
    assert found.startswith(f"{variable} is not a setting")
    assert told in found


def test_what_kubernetes_sets_for_a_service_called_governor_is_ignored() -> None:
    load_settings(
        {
            "GOVERNOR_SERVICE_HOST": "10.0.0.1",
            "GOVERNOR_SERVICE_PORT": "8000",
            "GOVERNOR_SERVICE_PORT_METRICS": "8000",
            "GOVERNOR_PORT": "tcp://10.0.0.1:8000",
            "GOVERNOR_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "GOVERNOR_PORT_8000_TCP_ADDR": "10.0.0.1",
        }
    )
    (found,) = mistakes(METRICS_PORT="tcp://10.0.0.1:8000")
    assert "enableServiceLinks: false" in found


def test_a_history_shorter_than_the_policy_is_told_with_lines() -> None:
    found = mistakes(HISTORY="2d")
    assert len(found) == 1
    assert found[0].startswith("the built-in policy, line ")
    assert "GOVERNOR_HISTORY" in found[0]


def test_all_mistakes_are_told_together_with_those_of_the_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("rules:\n  - {name: a, cap: 0, per: user, window: 90}\n")
    found = mistakes(PARTITIONS="no", HISTRY="1d", POLICY=str(policy), SASL_USERNAME="me")
    assert [line.split(" ")[0] for line in found] == [
        "GOVERNOR_HISTRY",
        "GOVERNOR_PARTITIONS",
        "GOVERNOR_SASL_USERNAME",
        "GOVERNOR_POLICY",
        "GOVERNOR_POLICY",
    ]
    assert f"GOVERNOR_POLICY {policy}, line 2: window 90 has no unit" in found[4]


def test_a_wrong_history_does_not_blame_the_policy() -> None:
    (found,) = mistakes(HISTORY="1 d")
    assert found.startswith("GOVERNOR_HISTORY")


def test_a_policy_file_is_used(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: mine\nrules:\n  - {name: a, spacing: 1m, per: user}\n")
    assert read_policy(settings(POLICY=str(policy))).version == "mine"
    assert read_policy(settings(POLICY="")).version != "mine"


def test_a_policy_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    (absent,) = mistakes(POLICY=str(tmp_path / "none.yaml"))
    assert "No such file or directory: write the path of a policy file" in absent
    (folder,) = mistakes(POLICY=str(tmp_path))
    assert "Is a directory" in folder


def test_sasl_settings_come_together() -> None:
    found = mistakes(SECURITY_PROTOCOL="SASL_SSL", SASL_USERNAME="me")
    assert [line.partition(":")[0] for line in found] == [
        "GOVERNOR_SASL_MECHANISM is missing",
        "GOVERNOR_SASL_PASSWORD is missing",
    ]
    (lone,) = mistakes(SASL_PASSWORD="hunter2")
    assert "has no effect with GOVERNOR_SECURITY_PROTOCOL=PLAINTEXT" in lone
    settings(
        SECURITY_PROTOCOL="SASL_PLAINTEXT",
        SASL_MECHANISM="SCRAM-SHA-512",
        SASL_USERNAME="me",
        SASL_PASSWORD="hunter2",
    )


def test_ssl_files_exist_and_come_together(tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.write_text("x")
    (absent,) = mistakes(SECURITY_PROTOCOL="SSL", SSL_CA_FILE=str(tmp_path / "none.pem"))
    assert "No such file or directory" in absent
    (lone,) = mistakes(SECURITY_PROTOCOL="SSL", SSL_KEY_FILE=str(pem))
    assert lone == "GOVERNOR_SSL_KEY_FILE needs GOVERNOR_SSL_CERT_FILE: set both"
    (plain,) = mistakes(SSL_CA_FILE=str(pem))
    assert "has no effect with GOVERNOR_SECURITY_PROTOCOL=PLAINTEXT" in plain
    settings(SECURITY_PROTOCOL="SSL", SSL_CERT_FILE=str(pem), SSL_KEY_FILE=str(pem))


def test_the_password_is_never_told() -> None:
    found = settings(
        SECURITY_PROTOCOL="SASL_SSL",
        SASL_MECHANISM="PLAIN",
        SASL_USERNAME="me",
        SASL_PASSWORD="hunter2",
    )
    assert found.sasl_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(found) + str(found) + str(described(found))
    wrong = mistakes(SASL_PASSWORD="hunter2", SECURITY_PROTOCOL="x", PARTITIONS="x")
    assert "hunter2" not in str(wrong)


def test_every_setting_is_described_and_its_source_named() -> None:
    rows = {row["setting"]: row for row in described(settings(PARTITIONS="8", HISTORY="5w"))}
    assert all(row["meaning"].endswith(".") for row in rows.values())
    assert rows["GOVERNOR_PARTITIONS"]["source"] == "environment"
    assert rows["GOVERNOR_REPLICATION"]["source"] == "default"
    assert rows["GOVERNOR_HISTORY"]["value"] == "35d"
    assert rows["GOVERNOR_FLUSH_INTERVAL"]["default"] == "25ms"


def test_every_default_is_a_value_that_may_be_written() -> None:
    rows = described(load_settings({}))
    given = {row["setting"]: row["default"] for row in rows}
    assert load_settings(given).model_dump() == load_settings({}).model_dump()


@pytest.mark.parametrize(
    ("text", "share"), [("10%", 0.1), ("0.25", 0.25), ("0", 0), ("100%", 1), ("0.5%", 0.005)]
)
def test_a_share_is_a_number_or_per_cent(text: str, share: float) -> None:
    assert load_settings({"GOVERNOR_CONFIRM_SHARE": text}).confirm_share == pytest.approx(share)


@pytest.mark.parametrize("text", ["10", "101%", "-1%", "half", "1e-2", "%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"GOVERNOR_CONFIRM_SHARE .*(10% or 0\.1|0 to 1)"):
        load_settings({"GOVERNOR_CONFIRM_SHARE": text})
