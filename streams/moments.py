"""Times as people write them on a command line."""

from __future__ import annotations

import click

__all__ = ["moment"]


def moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Epoch seconds of ``2026-03-01T04:00:00Z``, of epoch seconds, or of ``6h``, so long ago."""
    if value is None:
        return None
    import time
    from datetime import UTC, datetime

    from governor.policy import duration

    try:
        return float(value)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(value)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - duration(value) / 1e6
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time: write 2026-03-01T04:00:00Z, epoch seconds, or 6h for so long "
            "ago"
        ) from None
