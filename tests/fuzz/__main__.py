"""`make fuzz`: case after case until stopped, or for so many minutes, with a line of progress."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.fuzz.cases import case
from tests.fuzz.mixes import MIXES
from tests.fuzz.running import Mismatch, least, run, told


def main() -> int:
    """The exit status: 1 as soon as the ledger and the oracle differ."""
    asked = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    asked.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    asked.add_argument("--seed", type=int, default=1_000_000, help="the first case's (1000000)")
    options = asked.parse_args()
    met: Counter[str] = Counter()
    start = shown = time.monotonic()
    seed = options.seed
    while (now := time.monotonic()) < start + 60 * options.minutes:
        drawn = case(seed, MIXES[seed % len(MIXES)])
        try:
            met += run(drawn)
        except Mismatch:
            print(f"\n{told(least(drawn))}\n\nagain: python -m tests.fuzz --seed {seed}")
            return 1
        seed += 1
        if now > shown + 1:
            shown = now
            print(
                f"\r{now - start:6.0f} s  {seed - options.seed:,} cases  {met['events']:,} events"
                f"  {met['decisions']:,} decisions compared",
                end="",
                flush=True,
            )
    print("\n" + "\n".join(f"{number:12,}  {what}" for what, number in sorted(met.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
