"""The command line: what it prints, where, and with which exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import streams.broker
from streams.cli import main
from streams.settings import Settings

POLICY = "rules:\n  - {name: user-daily, cap: 20, per: user, window: 1d}\n"


def governor(*arguments: str, stdin: str = "", **environ: str) -> Result:
    return CliRunner(env={f"GOVERNOR_{name}": value for name, value in environ.items()}).invoke(
        main, arguments, input=stdin
    )


def test_help_names_every_command_and_the_exit_statuses() -> None:
    result = governor("--help")
    assert result.exit_code == 0
    for word in ("broker", "config", "demo", "policy", "verify", "worker", "Exit status: 0"):
        assert word in result.output


@pytest.mark.parametrize(
    "command",
    [
        "broker",
        "config",
        "demo",
        "replay",
        "simulate",
        "topics",
        "traffic",
        "verify",
        "worker",
        "policy check",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    result = governor(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Exit status" in result.output


def test_help_does_not_load_the_compiler_or_the_stream_library() -> None:
    script = (
        "import sys; from streams.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(not {'numba', 'numpy', 'faust', 'pydantic', 'rich'}.isdisjoint(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_config_prints_a_table() -> None:
    result = governor("config", PARTITIONS="16")
    assert result.exit_code == 0
    (row,) = [line for line in result.output.splitlines() if "GOVERNOR_PARTITIONS" in line]
    assert "16" in row
    assert "environment" in row


def test_config_as_json_has_every_setting() -> None:
    result = governor("config", "--json", PARTITIONS="16")
    rows = {row["setting"]: row for row in json.loads(result.output)}
    assert len(rows) == len(Settings.model_fields)
    assert rows["GOVERNOR_PARTITIONS"]["value"] == "16"
    assert rows["GOVERNOR_PARTITIONS"]["default"] == "8"
    assert rows["GOVERNOR_PARTITIONS"]["source"] == "environment"


def test_config_as_markdown_does_not_depend_on_the_environment() -> None:
    result = governor("config", "--markdown", PARTITIONS="wrong")
    assert result.exit_code == 0
    assert result.output == governor("config", "--markdown").output
    lines = result.output.splitlines()
    assert len(lines) == 2 + len(Settings.model_fields)
    assert all(line.count("|") == 4 for line in lines)


def test_config_never_prints_the_password() -> None:
    environ = {
        "SECURITY_PROTOCOL": "SASL_SSL",
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": "me",
        "SASL_PASSWORD": "hunter2",
    }
    for form in ([], ["--json"], ["--markdown"]):
        result = governor("config", *form, **environ)
        assert result.exit_code == 0
        assert "hunter2" not in result.output


@pytest.mark.parametrize("command", ["config", "worker"])
def test_wrong_settings_are_all_told_with_status_2(command: str) -> None:
    result = governor(command, PARTITIONS="x", HISTORY="7", BROKR="a:1")
    assert result.exit_code == 2
    assert result.stdout == ""
    told = [line.split(" ")[0] for line in result.stderr.splitlines()]
    assert sorted(told) == ["GOVERNOR_BROKR", "GOVERNOR_HISTORY", "GOVERNOR_PARTITIONS"]


def test_a_right_policy_is_ok(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("version: v7\n" + POLICY)
    result = governor("policy", "check", str(file))
    assert (result.exit_code, result.output) == (0, "ok: 1 rule, version v7\n")


def test_a_policy_comes_from_standard_input_too() -> None:
    result = governor("policy", "check", "-", stdin=POLICY)
    assert result.exit_code == 0
    assert result.output.startswith("ok: 1 rule, version ")


def test_what_is_hardly_meant_is_a_warning_and_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY + "  - {name: idle, cap: 99, per: user, window: 2d}\n")
    result = governor("policy", "check", str(file))
    assert result.exit_code == 0
    assert result.stderr.startswith(f"{file}, line ")
    assert "idle will not fire" in result.stderr
    assert result.stderr.rstrip().endswith("(a warning)")


def test_a_wrong_policy_is_told_on_standard_error_with_status_2(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("rules:\n  - {name: a, cap: 0, per: user, window: 90}\n")
    result = governor("policy", "check", str(file))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}, line 2: cap 0 is less than 1: write how many exposures are allowed, from 1",
        f"{file}, line 2: window 90 has no unit: write 90s, 90m, 90h, 90d or 90w",
    ]


def test_the_example_in_the_help_is_right() -> None:
    text = governor("policy", "check", "--help").output
    _, _, after = text.partition("rules:\n")
    rules = [line.strip() for line in after.splitlines() if line.strip().startswith("- {")]
    result = governor("policy", "check", "-", stdin="rules:\n" + "\n".join(rules))
    assert result.output.strip() in text


def test_a_policy_is_checked_against_the_workers_history_and_row_limit() -> None:
    text = POLICY.replace("1d", "60d").replace("20", "200")
    result = governor("policy", "check", "-", stdin=text)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert (
        governor("policy", "check", "-", stdin=text, HISTORY="60d", ROW_LIMIT="200").exit_code == 0
    )
    options = ["--history", "60d", "--row-limit", "200"]
    assert governor("policy", "check", "-", *options, stdin=text).exit_code == 0
    wrong = governor("policy", "check", "-", "--history", "60", stdin=text)
    assert wrong.exit_code == 2
    assert "has no unit" in wrong.stderr


def test_the_checks_bounds_are_by_default_those_of_the_settings() -> None:
    (check,) = [main.commands["policy"].commands["check"]]  # type: ignore[attr-defined]
    defaults = {option.name: option.default for option in check.params}
    assert defaults["history"] == "32d"
    assert Settings().history.days == 32
    assert defaults["row_limit"] == Settings().row_limit


def test_broker_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called = []

    def run(**options: object) -> int:
        called.append(options)
        return 1

    monkeypatch.setattr(streams.broker, "run", run)
    result = governor("broker", "--nodes", "3", "--port", "9092", "--data", str(tmp_path))
    assert result.exit_code == 1
    options = dict(called[0])
    options.pop("out")
    assert options == {"nodes": 3, "port": 9092, "data_dir": tmp_path}
    assert governor("broker", "--nodes", "2").exit_code == 2


@pytest.mark.parametrize("command", ["access", "erase"])
@pytest.mark.parametrize("kind", ["IDFA", "user", "2nd", "_device"])
def test_an_id_of_no_type_is_refused_before_kafka_is_asked(command: str, kind: str) -> None:
    result = governor(command, "--user", "u7", "--id", f"{kind}=d1")
    assert result.exit_code == 2
    assert f"{kind!r} is no type of other ids: write a letter of a-z" in result.stderr
