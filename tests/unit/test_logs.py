"""The log: lines of JSON in which no secret stands, whoever says it and however."""

from __future__ import annotations

import io
import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from streams import logs
from streams.settings import Settings, load_settings

PASSWORD = 'a "hunter" with = and \' and \\ and ü'
KEY = "erasure-key-7"


@pytest.fixture
def settings() -> Settings:
    return load_settings(
        {
            "GOVERNOR_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "GOVERNOR_SASL_MECHANISM": "PLAIN",
            "GOVERNOR_SASL_USERNAME": "governor",
            "GOVERNOR_SASL_PASSWORD": PASSWORD,
            "GOVERNOR_ERASURE_KEY": KEY,
        }
    )


@pytest.fixture
def sink() -> Iterator[io.StringIO]:
    """What is logged, while the test runs; the log is put back as it was."""
    root, before = logging.root, (logging.root.handlers[:], logging.root.level)
    chatty = {
        name: logging.getLogger(name).level for name in ("faust", "mode", "mode.timers", "aiokafka")
    }
    yield io.StringIO()
    root.handlers[:], level = before
    root.setLevel(level)
    for name, one in chatty.items():
        logging.getLogger(name).setLevel(one)


def logged(sink: io.StringIO, settings: Settings, **options: Any) -> logging.Logger:
    """A logger of ours that writes to ``sink``."""
    configuration = logs.configuration(settings, **options)
    configuration["handlers"]["stderr"]["stream"] = sink
    logging.config.dictConfig(configuration)
    return logging.getLogger("streams.some")


def test_a_line_is_json_with_time_level_logger_event_and_columns(
    sink: io.StringIO, settings: Settings
) -> None:
    logged(sink, settings).info("ready", extra={"partitions": [0, 3], "users": 10})
    line = json.loads(sink.getvalue())
    assert list(line) == ["timestamp", "level", "logger", "event", "partitions", "users"]
    assert line["timestamp"].endswith("Z")
    del line["timestamp"]
    assert line == {
        "level": "info",
        "logger": "streams.some",
        "event": "ready",
        "partitions": [0, 3],
        "users": 10,
    }


def test_an_event_is_one_line_with_its_traceback_inside(
    sink: io.StringIO, settings: Settings
) -> None:
    log = logged(sink, settings)
    try:
        raise ValueError("first line\nsecond line")
    except ValueError:
        log.exception("failed: %s", "a\nb")
    (line,) = sink.getvalue().splitlines()
    assert "second line" in json.loads(line)["exception"]
    assert json.loads(line)["event"] == "failed: a\nb"


class Client:
    """An object whose text holds a secret, as clients' objects do."""

    def __repr__(self) -> str:
        return f"<Client {PASSWORD!r}>"


WAYS = {
    "in the text": lambda log: log.error(f"refused: {PASSWORD} {KEY}"),  # noqa: G004 - this is the test
    "as an argument": lambda log: log.error("refused: %s, %r", PASSWORD, {"key": KEY}),
    "as a column": lambda log: log.error("refused", extra={"why": PASSWORD, "deep": [{"k": KEY}]}),
    "as the name of a column": lambda log: log.error("refused", extra={"deep": {KEY: 1}}),
    "as bytes": lambda log: log.error("refused", extra={"sent": PASSWORD.encode("latin-1")}),
    "in an object": lambda log: log.error("refused", extra={"client": Client()}),
    "in a URL": lambda log: log.error("at kafka://governor:%s@k:1", quote(PASSWORD, safe="")),
    "as JSON": lambda log: log.error("sent %s", json.dumps({"password": PASSWORD})),
    "as JSON of bytes": lambda log: log.error("sent %s", json.dumps(PASSWORD, ensure_ascii=False)),
}


@pytest.mark.parametrize("terminal", [False, True], ids=["json", "terminal"])
@pytest.mark.parametrize("way", WAYS)
def test_no_secret_is_written(
    way: str, terminal: bool, sink: io.StringIO, settings: Settings
) -> None:
    WAYS[way](logged(sink, settings, terminal=terminal))
    assert logs.STARS in sink.getvalue()
    assert_hidden(sink.getvalue())


@pytest.mark.parametrize("terminal", [False, True], ids=["json", "terminal"])
@pytest.mark.parametrize("name", ["streams.some", "faust.app", "aiokafka.conn", "asyncio"])
def test_no_traceback_shows_a_secret_whoever_logs_it(
    name: str, terminal: bool, sink: io.StringIO, settings: Settings
) -> None:
    logged(sink, settings, terminal=terminal)
    try:
        try:
            raise ValueError(PASSWORD)
        except ValueError as error:
            raise RuntimeError(f"key {KEY!r}") from error
    except RuntimeError:
        logging.getLogger(name).exception("failed")
    assert "RuntimeError" in sink.getvalue()
    assert_hidden(sink.getvalue())


def assert_hidden(text: str) -> None:
    """No secret stands in ``text``, however written; nor a telling part of one."""
    for part in (PASSWORD, KEY, "hunter", quote(PASSWORD), "erasure-key"):
        assert part not in text


def test_uncaught_exceptions_are_logged_like_the_rest(
    sink: io.StringIO, settings: Settings
) -> None:
    logged(sink, settings)
    error = ValueError(PASSWORD)
    logs._uncaught(ValueError, error, None)
    line = json.loads(sink.getvalue())
    assert (line["level"], line["event"]) == ("critical", "uncaught")
    assert_hidden(sink.getvalue())


def test_secrets_are_all_settings_that_are_never_printed(settings: Settings) -> None:
    assert logs.secrets(settings) == [KEY, PASSWORD]
    assert logs.secrets(Settings()) == []


def test_without_secrets_nothing_is_starred(sink: io.StringIO) -> None:
    logged(sink, Settings()).info("plain", extra={"none": None, "share": 0.5, "yes": True})
    line = json.loads(sink.getvalue())
    assert (line["none"], line["share"], line["yes"]) == (None, 0.5, True)
    assert logs.STARS not in sink.getvalue()


def test_a_log_is_read_back_by_event_whatever_else_stands_in_it() -> None:
    text = 'Traceback\n{"event": "serving", "metrics": "http://h:1/metrics"}\n{"event": "x"}\n[1]\n'
    assert [one["metrics"] for one in logs.said(text, "serving")] == ["http://h:1/metrics"]
    assert logs.said(text, "ready") == []


def test_client_libraries_repeat_themselves_at_most_every_ten_seconds(
    sink: io.StringIO, settings: Settings
) -> None:
    log = logged(sink, settings)
    for _ in range(3):
        logging.getLogger("aiokafka.conn").error("unable to connect to %s", "k:1")
        log.error("ours")
    assert sink.getvalue().count("unable") == 1
    assert sink.getvalue().count("ours") == 3
