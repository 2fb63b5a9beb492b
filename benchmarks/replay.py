"""Events a second that `governor replay` leads from a Parquet file past a policy.

    python -m benchmarks.replay [--events N] [--people N] [--runs N]

One Parquet file of impressions and clicks (half a million people, 200 campaigns, one click in a
hundred) is read, put in order, linked and led past four caps, as the command does it. Beside it, in
the same run: pyarrow reading the same columns of the same file and doing nothing with them, which
is the ceiling. The last line is JSON; figures are medians of the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from governor.policy import load
from governor.replay.linking import link
from governor.replay.replaying import DAY, Terms, replay
from governor.walking import HELD
from streams.history import ROWS
from streams.mapping import mapped
from streams.replay_log import Loader, Source

POLICY = """
rules:
  - {name: user-daily, cap: 20, per: user, window: 1d}
  - {name: campaign-daily, cap: 2, per: campaign, window: 1d}
  - {name: advertiser-daily, cap: 10, per: advertiser, window: 1d}
  - {name: category-daily, cap: 10, per: category, window: 1d}
"""
START = 1_790_000_000
COLUMNS = (
    "event_id", "user_id", "ts", "campaign_id", "creative_id", "advertiser_id", "category",
    "impression_id", "type",
)  # fmt: skip
CHUNK = 1_000_000


def write(path: Path, events: int, people: int, campaigns: int = 200, seed: int = 1) -> None:
    """A log of ten days, in the order of its times; a click names the impression before it."""
    rng = np.random.default_rng(seed)
    writer = None
    for first in range(0, events, CHUNK):
        number = np.arange(first, min(first + CHUNK, events))
        click = rng.random(len(number)) < 0.01
        click[0] = False
        user = rng.integers(0, people, len(number))
        campaign = rng.integers(0, campaigns, len(number))
        shown = np.where(click, number - 1, number)
        for column in (user, campaign):
            column[1:] = np.where(click[1:], column[:-1], column[1:])
        table = pa.table(
            {
                "event_id": _texts("e", number),
                "user_id": _texts("user-", user),
                "ts": (START + number * (10 * 86_400 / events)),
                "campaign_id": _texts("campaign-", campaign),
                "creative_id": _texts("creative-", campaign),
                "advertiser_id": _texts("advertiser-", campaign % 50),
                "category": _texts("IAB", campaign % 26),
                "impression_id": _texts("i", shown),
                "type": pa.array(np.where(click, "click", "impression")),
            }
        )
        writer = writer or parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _texts(prefix: str, number: NDArray[np.int64]) -> Any:
    return pa.array(np.char.add(prefix, number.astype(str)))


def ceiling(path: Path) -> float:
    """Seconds that pyarrow takes to read the same columns."""
    began = time.perf_counter()
    file = parquet.ParquetFile(path, pre_buffer=True)
    for batch in file.iter_batches(batch_size=ROWS, columns=list(COLUMNS)):
        batch.num_rows  # noqa: B018 - read, and let go
    return time.perf_counter() - began


def ours(path: Path) -> tuple[dict[str, float], int]:
    """Seconds by what they were spent on, and how many exposures were held back."""
    at = [time.perf_counter()]
    loader = Loader()
    loader.files([Source(path, mapped(()))])
    at.append(time.perf_counter())
    log = loader.closed()
    at.append(time.perf_counter())
    links = link(log, DAY)
    at.append(time.perf_counter())
    outcome = replay(log, links, load(POLICY), Terms())
    at.append(time.perf_counter())
    names = ("read", "order", "link", "replay")
    spent = {name: b - a for name, a, b in zip(names, at, at[1:], strict=False)}
    return spent, int((outcome.verdicts.fate == HELD).sum())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--people", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm.parquet"
        write(warm, 10_000, 1_000)
        ours(warm)
        path = Path(folder) / "log.parquet"
        write(path, asked.events, asked.people)
        print(f"{asked.events:,} events, {path.stat().st_size / 1e6:.0f} MB of Parquet")
        rates, shares = [], []
        for _ in range(asked.runs):
            least = ceiling(path)
            spent, held = ours(path)
            total = sum(spent.values())
            rates.append(asked.events / total)
            shares.append(least / total)
            parts = ", ".join(f"{name} {1e6 * s / asked.events:.2f}" for name, s in spent.items())
            print(
                f"{asked.events / total:,.0f} events/s ({parts} us an event); pyarrow alone "
                f"{asked.events / least:,.0f}/s; {held:,} held back"
            )
    print(
        json.dumps(
            {
                "events_per_s": round(statistics.median(rates)),
                "ratio_to_reading": round(statistics.median(shares), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
