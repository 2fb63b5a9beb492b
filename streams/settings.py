"""Settings: what an operator may choose, read from ``GOVERNOR_*`` environment variables.

``load_settings`` reports all mistakes at once, those of the policy file with them, each with
what to write instead. There is no truthiness and no guessing: a value is right or refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from governor.policy import (
    MAX_BYTES,
    MAX_ROW_LIMIT,
    Policy,
    PolicyError,
    default_text,
    duration,
    load,
    written,
)
from streams import failpoints
from streams.broker import MAVEN_CENTRAL

__all__ = [
    "PREFIX",
    "Settings",
    "SettingsError",
    "described",
    "load_settings",
    "read_policy",
    "ticks",
]

PREFIX: Final = "GOVERNOR_"

_UNSET: Final = "unset it (`governor config` lists all)"

_TICK: Final = timedelta(microseconds=1)


def ticks(time: timedelta) -> int:
    """``time`` in the unit of the domain, microseconds; exact."""
    return time // _TICK


def _validator(check: Callable[[str], object]) -> BeforeValidator:
    """``check`` for the texts of the environment; values of other types pass to pydantic."""
    return BeforeValidator(lambda value: check(value) if isinstance(value, str) else value)


def _whole(low: int, high: int) -> BeforeValidator:
    def check(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise ValueError(f"{text!r} is not a whole number: write one from {low} to {high}")
        if not low <= int(text) <= high:
            raise ValueError(f"{text!r} is out of range: write a number from {low} to {high}")
        return int(text)

    return _validator(check)


def _time(low: str, high: str) -> BeforeValidator:
    def check(text: str) -> timedelta:
        time = duration(text)
        if not duration(low) <= time <= duration(high):
            raise ValueError(f"{text!r} is out of range: write a duration from {low} to {high}")
        return time * _TICK

    return _validator(check)


def _read_share(text: str) -> float:
    number, percent = text.removesuffix("%"), text.endswith("%")
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", number):
        raise ValueError(f"{text!r} is not a share: write one such as 10% or 0.1")
    share = float(number) / (100 if percent else 1)
    if share > 1:
        raise ValueError(f"{text!r} is more than all: write one from 0% to 100%, or 0 to 1")
    return share


_share = _validator(_read_share)


def _one_of(*choices: str) -> BeforeValidator:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(filter(None, choices))}")
        return text

    return _validator(check)


def _like(pattern: str, remedy: str) -> BeforeValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} cannot be used: write {remedy}")
        return text

    return _validator(check)


def _brokers(text: str) -> str:
    brokers = [each.strip() for each in text.split(",")]
    for each in brokers:
        host, _, port = each.rpartition(":")
        if not (
            re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host)
            and re.fullmatch(r"[0-9]{1,9}", port)
        ):
            raise ValueError(f"{each!r} is not host:port: write one such as kafka-1:9092")
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{each!r} has no such port: write one from 1 to 65535")
    return ",".join(brokers)


def _failpoints(text: str) -> str:
    failpoints.parse(text)
    return text


_LogLevel = Literal["debug", "info", "warning", "error", "critical"]
_Unreadable = Literal["stop", "skip"]
_Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
_Mechanism = Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
_KAFKA_NAME = "[A-Za-z0-9._-]{1,200}", "1 to 200 letters, digits, '.', '_' and '-'"


class Settings(BaseSettings):
    """One worker's settings. An empty text means: not set.

    Only ``load_settings`` reads an environment, and only the one that it is given.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    broker: Annotated[str, _validator(_brokers)] = Field(
        "127.0.0.1:9092",
        description="Kafka brokers to ask for the cluster: host:port, several with commas.",
    )
    group: Annotated[str, _like(*_KAFKA_NAME)] = Field(
        "governor",
        description="Consumer group and Faust app id. Workers of one group share the partitions.",
    )
    topic_prefix: Annotated[str, _like(*_KAFKA_NAME)] = Field(
        "governor.",
        description="Begins the names of all topics: impressions, engagements, controls, "
        "decisions, deadletters, policy, fatigue, and internally repartition, samples, curves and "
        "the changelog ledger.",
    )
    partitions: Annotated[int, _whole(1, 10_000)] = Field(
        8,
        description="Partitions of every topic that is created: the most workers that can share "
        "the work. Existing topics keep theirs.",
    )
    replication: Annotated[int, _whole(1, 100)] = Field(
        1, description="Replicas of every topic that is created; 3 in production."
    )
    policy: str = Field(
        "",
        description="Path of the policy file; empty for the built-in policy.",
    )
    confirm_share: Annotated[float, _share] = Field(
        0.1,
        description="A policy under which something rests for more than this share of users that "
        "does not rest now is pushed only with --confirm; such as 10% or 0.1.",
    )
    history: Annotated[timedelta, _time("1m", "3650d")] = Field(
        timedelta(days=32),
        description="How far back rows remember. Must cover the longest window of the policy.",
    )
    row_limit: Annotated[int, _whole(8, MAX_ROW_LIMIT)] = Field(
        128,
        description="Exposures kept of a user, the newest. No cap can be higher.",
    )
    max_future: Annotated[timedelta, _time("0s", "1d")] = Field(
        timedelta(minutes=5),
        description="How far an event's time may lie after its record's broker timestamp; "
        "a later one is a dead letter.",
    )
    max_age: Annotated[timedelta, _time("1m", "36500d")] = Field(
        timedelta(days=3650),
        description="How far an event's time may lie before its record's broker timestamp; "
        "an earlier one is a dead letter.",
    )
    input_retention: Annotated[timedelta, _time("1m", "3650d")] = Field(
        timedelta(days=7),
        description="How long the input topics keep events (their retention.ms). As long is kept, "
        "as a keyed hash, who was erased, so that no replay brings them back.",
    )
    purge_interval: Annotated[timedelta, _time("100ms", "1d")] = Field(
        timedelta(minutes=1),
        description="How often what was applied is deleted from the internal repartition topic.",
    )
    erasure_key: SecretStr = Field(
        SecretStr(""),
        description="Secret that keys those hashes, the same for all workers; without it they can "
        "be tried against known ids. Never printed.",
    )
    max_event_bytes: Annotated[int, _whole(256, 16_777_216)] = Field(
        65_536, description="The largest event, in bytes; a larger one is a dead letter."
    )
    flush_interval: Annotated[timedelta, _time("1ms", "1m")] = Field(
        timedelta(milliseconds=25),
        description="Time between two flushes of decisions, and between two fetches where nothing "
        "waits: the delay of a decision against the size of its batch.",
    )
    max_pending_events: Annotated[int, _whole(1_000, 100_000_000)] = Field(
        400_000,
        description="Events applied whose rows are not written yet; at this many, reading waits, "
        "and from half of it on rows are written without a pause.",
    )
    session_timeout: Annotated[timedelta, _time("1s", "5m")] = Field(
        timedelta(seconds=10),
        description="After how long without a sign of life the group takes a worker's partitions "
        "away. The brokers allow 6s to 30m unless set otherwise.",
    )
    overshoot_grace: Annotated[timedelta, _time("0s", "1d")] = Field(
        timedelta(seconds=5),
        description="How long ad servers have to learn of a decision. What they show against it "
        "later than that is counted as overshoot.",
    )
    stall_timeout: Annotated[timedelta, _time("2s", "1h")] = Field(
        timedelta(minutes=2),
        description="After how long without progress, with work at hand and Kafka there, /healthz "
        "fails.",
    )
    unreadable_rows: Annotated[_Unreadable, _one_of("stop", "skip")] = Field(
        "stop",
        description="What to do about a changelog record that cannot be read: stop, or skip it, "
        "which forgets that user's row and counts it.",
    )
    crash_attempts: Annotated[int, _whole(0, 100)] = Field(
        3,
        description="After how many workers in a row that began at an offset and got no further "
        "its next events are tried in a process of their own, and what ends that is a dead letter; "
        "0 for never.",
    )
    deadletter_streak: Annotated[int, _whole(0, 1_000_000_000)] = Field(
        1_000,
        description="So many dead letters in a row of one topic, and it is not read any more until "
        "newer messages are events again; 0 for no limit.",
    )
    deadletter_percent: Annotated[int, _whole(0, 100)] = Field(
        50,
        description="Likewise, at more than this share of a topic's last 10,000 messages; 0 for no "
        "limit.",
    )
    snapshots: str = Field(
        "",
        description="Folder, kept between starts, for copies of the rows, so that a restart reads "
        "only what the changelog got since; empty for none.",
    )
    snapshot_interval: Annotated[timedelta, _time("1s", "12h")] = Field(
        timedelta(minutes=10), description="Time between two snapshots of a partition."
    )
    standbys: Annotated[int, _whole(0, 10)] = Field(
        1,
        description="Workers that keep a copy of each partition's rows, to take it over at once; "
        "with 0 the next owner first reads its changelog.",
    )
    sample_people: Annotated[int, _whole(0, 1_000_000)] = Field(
        20_000,
        description="How many people at most are observed to estimate curves of fatigue from; one "
        "worker holds what became of their exposures, some kilobytes each. 0: nobody, and there "
        "are no curves.",
    )
    sample_interval: Annotated[timedelta, _time("100ms", "1h")] = Field(
        timedelta(seconds=10),
        description="How often what has changed about observed people is told.",
    )
    curves_interval: Annotated[timedelta, _time("100ms", "7d")] = Field(
        timedelta(minutes=10), description="Time between two estimates of the curves."
    )
    metrics_host: Annotated[str, _like(r"[A-Za-z0-9._:-]+", "an address such as 0.0.0.0")] = Field(
        "0.0.0.0", description="Address that serves /metrics, /healthz and /readyz."
    )
    metrics_port: Annotated[int, _whole(0, 65_535)] = Field(
        8000, description="Port that serves them; 0 for any that is free."
    )
    last_scrape: Annotated[timedelta, _time("0s", "10m")] = Field(
        timedelta(seconds=20),
        description="How long the metrics of a worker that a guard stopped can still be read, so "
        "that Prometheus learns of it: a little more than its scrape_interval. It ends as soon as "
        "they have been; 0s for at once.",
    )
    log_level: Annotated[_LogLevel, _one_of("debug", "info", "warning", "error", "critical")] = (
        Field("info", description="The least level that is logged.")
    )
    security_protocol: Annotated[
        _Protocol, _one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    ] = Field(
        "PLAINTEXT", description="How to talk to Kafka: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: Annotated[
        _Mechanism, _one_of("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    ] = Field(
        "",
        description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; needed with SASL_PLAINTEXT and "
        "SASL_SSL.",
    )
    sasl_username: str = Field(
        "", description="User name; needed with SASL_PLAINTEXT and SASL_SSL."
    )
    sasl_password: SecretStr = Field(
        SecretStr(""),
        description="Password; needed with SASL_PLAINTEXT and SASL_SSL. Never printed.",
    )
    ssl_ca_file: str = Field(
        "",
        description="Certificates to trust, as PEM; empty for the system's. Only with SSL or "
        "SASL_SSL.",
    )
    ssl_cert_file: str = Field(
        "", description="The client's certificate, as PEM; only with GOVERNOR_SSL_KEY_FILE."
    )
    ssl_key_file: str = Field(
        "", description="The client's private key, as PEM; only with GOVERNOR_SSL_CERT_FILE."
    )
    failpoints: Annotated[str, _validator(_failpoints)] = Field(
        "", description="Only for tests of faults: where a worker kills, stops or pauses itself."
    )
    maven_url: Annotated[str, _like(r"https?://\S+", "a URL that begins with https://")] = Field(
        MAVEN_CENTRAL, description="Where `governor broker` fetches Kafka from, the first time."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing is read behind the caller's back: no process environment, no .env file."""
        return (init_settings,)

    def topic(self, name: str) -> str:
        """The full name of the topic ``name``, such as ``impressions``."""
        return self.topic_prefix + name


class SettingsError(Exception):
    """Settings that cannot be used: all their mistakes, the policy's with them."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("\n".join(self.mistakes))


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` gives; raises ``SettingsError`` with every mistake."""
    given: dict[str, Any] = {}
    mistakes: list[str] = []
    for variable, value in environ.items():
        field = variable.removeprefix(PREFIX).lower()
        if variable == PREFIX + field.upper() and field in Settings.model_fields:
            given[field] = value
        elif variable.startswith(PREFIX) and not _service_link(variable, value):
            likely = get_close_matches(field[:64], Settings.model_fields, 1, 0.7)
            told = f"did you mean {PREFIX}{likely[0].upper()}?" if likely else _UNSET
            mistakes.append(f"{variable} is not a setting: {told}")
    wrong: set[str] = set()
    try:
        settings = Settings(**given)
    except ValidationError as refused:
        for error in refused.errors(include_url=False, include_input=False):
            field = str(error["loc"][0])
            wrong.add(field)
            mistakes.append(_refusal(field, given[field], error["ctx"]["error"]))
        settings = Settings(**{name: text for name, text in given.items() if name not in wrong})
    mistakes += _security_mistakes(settings, wrong)
    try:
        _load_policy(settings, checked=wrong.isdisjoint({"history"}))
    except SettingsError as error:
        mistakes += error.mistakes
    if mistakes:
        raise SettingsError(mistakes)
    return settings


def read_policy(settings: Settings) -> Policy:
    """The policy that ``settings`` name; raises ``SettingsError`` with every mistake in it."""
    return _load_policy(settings, checked=True)


def _load_policy(settings: Settings, *, checked: bool) -> Policy:
    """``checked`` False: the history is not known, so windows are not held against it."""
    source = f"{PREFIX}POLICY {settings.policy}" if settings.policy else "the built-in policy"
    try:
        text = _read(settings.policy) if settings.policy else default_text().encode()
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise SettingsError([f"{source}: {reason}: write the path of a policy file"]) from None
    except ValueError:
        raise SettingsError([f"{PREFIX}POLICY holds a NUL byte: write a path"]) from None
    horizon = ticks(settings.history) if checked else None
    try:
        return load(text, horizon=horizon, row_limit=settings.row_limit)
    except PolicyError as error:
        raise SettingsError([f"{source}, {mistake}" for mistake in error.mistakes]) from None


def _read(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _refusal(field: str, value: str, reason: ValueError) -> str:
    variable = PREFIX + field.upper()
    if not value:
        default = _text(Settings.model_fields[field].default)
        return f"{variable} is empty: unset it for the default {default}"
    if _SERVICE_URL.match(value):
        return (
            f"{variable} {value!r} comes from a Kubernetes service of that name: rename the "
            "service, or set enableServiceLinks: false in the pod"
        )
    return f"{variable} {reason}"


_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")


def _service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set ``variable``, as it does for a service called governor."""
    ports = r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
    if re.fullmatch(rf"{PREFIX}(\w+_)?({ports})", variable):
        return True
    return variable.endswith("_PORT") and _SERVICE_URL.match(value) is not None


def _security_mistakes(settings: Settings, wrong: set[str]) -> list[str]:
    """Settings that need each other, as far as they are right by themselves."""
    mistakes = []
    protocol = settings.security_protocol
    known = "security_protocol" not in wrong
    for field in ("sasl_mechanism", "sasl_username", "sasl_password"):
        value = getattr(settings, field)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        variable = PREFIX + field.upper()
        if not text and protocol.startswith("SASL_") and field not in wrong:
            mistakes.append(f"{variable} is missing: {PREFIX}SECURITY_PROTOCOL={protocol} needs it")
        if text and known and not protocol.startswith("SASL_"):
            mistakes.append(
                f"{variable} has no effect with {PREFIX}SECURITY_PROTOCOL={protocol}: "
                "write SASL_SSL there, or unset it"
            )
    for field in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file"):
        path, variable = getattr(settings, field), PREFIX + field.upper()
        if not path:
            continue
        if known and not protocol.endswith("SSL"):
            mistakes.append(
                f"{variable} has no effect with {PREFIX}SECURITY_PROTOCOL={protocol}: "
                "write SSL or SASL_SSL there, or unset it"
            )
        try:
            Path(path).open("rb").close()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it cannot be read"
            mistakes.append(f"{variable} {path!r}: {reason}: write the path of a PEM file")
    if bool(settings.ssl_cert_file) != bool(settings.ssl_key_file):
        lone, other = ("CERT", "KEY") if settings.ssl_cert_file else ("KEY", "CERT")
        mistakes.append(f"{PREFIX}SSL_{lone}_FILE needs {PREFIX}SSL_{other}_FILE: set both")
    return mistakes


def _text(value: object) -> str:
    """A setting's value as it would be written in the environment; a secret as stars."""
    return written(ticks(value)) if isinstance(value, timedelta) else str(value)


def described(settings: Settings) -> list[dict[str, str]]:
    """Every setting as texts: setting, value, default, meaning, and source.

    The source is ``environment`` or ``default``. Secrets are stars.
    """
    return [
        {
            "setting": PREFIX + name.upper(),
            "value": _text(getattr(settings, name)),
            "default": _text(field.default),
            "meaning": field.description or "",
            "source": "environment" if name in settings.model_fields_set else "default",
        }
        for name, field in Settings.model_fields.items()
    ]
