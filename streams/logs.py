"""The log: one line an event of interest, as JSON, or coloured in a terminal; secrets never.

Modules log through the standard library, what is worth a column of its own as ``extra``:

    log.info("ready", extra={"partitions": 4, "users": 1_000_000})

is ``{"timestamp": ..., "level": "info", "logger": "streams.store", "event": "ready",
"partitions": 4, "users": 1000000}``. What Faust, aiokafka and asyncio say comes out the same way.
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from streams.settings import Settings

__all__ = ["STARS", "Redaction", "configuration", "configure", "said", "secrets"]

STARS: Final = "**********"
"""What stands where a secret stood."""

QUIET_SECONDS = 10.0
_CHATTY = {
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "mode.timers": logging.ERROR,  # which timer is late on a busy machine helps nobody
    "aiokafka": logging.WARNING,
}
"""Loggers of libraries, and the least that is worth reading of each."""
_FIRST = ("timestamp", "level", "logger", "event")


def configure(settings: Settings, level: str | None = None) -> None:
    """Log to standard error from now on, uncaught exceptions too; `configuration` says how."""
    logging.config.dictConfig(configuration(settings, level, terminal=sys.stderr.isatty()))
    sys.excepthook = _uncaught


def configuration(
    settings: Settings, level: str | None = None, *, terminal: bool = False
) -> dict[str, Any]:
    """The log's configuration, as `logging.config.dictConfig` and Faust take it.

    Args:
        settings: their secrets are redacted; their log level holds where ``level`` is None.
        level: the least that is logged.
        terminal: lines for a person, in colours, instead of JSON.
    """
    least = logging.getLevelName((level or settings.log_level).upper())
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {"()": _formatter, "redact": Redaction(secrets(settings)), "terminal": terminal}
        },
        "filters": {"sparse": {"()": _Sparse}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": ["sparse"],
            }
        },
        "loggers": {name: {"level": max(own, least)} for name, own in _CHATTY.items()},
        "root": {"level": least, "handlers": ["stderr"]},
    }


def secrets(settings: Settings) -> list[str]:
    """The values of ``settings`` that nobody may read."""
    values = (getattr(settings, name) for name in Settings.model_fields)
    return [one.get_secret_value() for one in values if isinstance(one, SecretStr) and one]


def said(text: str, event: str) -> list[dict[str, Any]]:
    """The lines of a log of JSON that tell of ``event``; what is not JSON is passed over."""
    lines = []
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("event") == event:
            lines.append(found)
    return lines


class Redaction:
    """Puts stars where a secret stands, in every text of an event, tracebacks included.

    A secret is also found as Python, JSON or a URL would write it.
    """

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _written(value)}
        # The longest first: a form may hold another.
        self._forms = sorted(forms - {""}, key=len, reverse=True)

    def __call__(self, _logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
        """Redact an event, as structlog calls its processors."""
        return {str(key): self._redacted(value) for key, value in event.items()}

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        for form in self._forms:
            text = text.replace(form, STARS)
        return text

    def _redacted(self, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): self._redacted(one) for key, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._redacted(one) for one in value]
        return self.text(value if isinstance(value, str) else repr(value))


def _written(value: str) -> Iterable[str]:
    """``value`` as Python, JSON and URLs write it, inside of texts with and without quotes."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="")
    for one in (value, value.encode(), value.encode("latin-1", "replace")):
        text = repr(one)[1 + isinstance(one, bytes) : -1]
        unquoted = text.replace("\\'", "'")
        yield from (text, unquoted, unquoted.replace("'", "\\'"))


def _formatter(redact: Redaction, terminal: bool) -> structlog.stdlib.ProcessorFormatter:
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=True)]
        if terminal
        else [_ordered, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redact,
            *last,
        ],
    )


def _ordered(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    return {**{name: event[name] for name in _FIRST}, **event}


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger(__name__).critical("uncaught", exc_info=(kind, error, trace))


class _Sparse(logging.Filter):
    """Lets a client library say the same at most every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is new, or not a client library's."""
        if not record.name.startswith("aiokafka"):
            return True
        what = record.name, str(record.msg)
        if record.created - self._said.get(what, 0.0) < QUIET_SECONDS:
            return False
        self._said[what] = record.created
        return True
