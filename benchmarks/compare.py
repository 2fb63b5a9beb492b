"""What a change did: the last run against the one before, or two files.

    make bench-compare
    python -m benchmarks.compare benchmarks/results/A.json benchmarks/results/B.json

A ratio above 1 means more of the unit. "better" and "worse" are said only where the values of
the two runs do not overlap; a figure measured once cannot show that, so there it takes a fifth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.history import Figure, Record, load, runs

__all__ = ["main"]

ONCE = 0.2


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("files", nargs="*", type=Path, help="the older and the newer")
    files = parser.parse_args().files or _last_two()
    if len(files) != 2:
        parser.error("name two files, or none")
    before, after = (load(path) for path in files)
    _print(before, after)


def _last_two() -> list[Path]:
    """The last run, and the newest before it that measured something of the same."""
    found = runs()
    if found:
        last = load(found[-1])
        for path in reversed(found[:-1]):
            older = load(path)
            if older.quick == last.quick and older.figures.keys() & last.figures.keys():
                return [path, found[-1]]
    raise SystemExit("there are no two runs to compare: run make bench, change something, again")


def _print(before: Record, after: Record) -> None:
    print(f"before: {before.started}{' (quick)' if before.quick else ''}")
    print(f"after:  {after.started}{' (quick)' if after.quick else ''}")
    for key, value in after.machine.items():
        if (was := before.machine.get(key)) != value:
            print(f"NOT the same {key}: {was}, now {value}")
    print(f"\n{'':<44} {'before':>26} {'after':>26}  ratio")
    for name, now in after.figures.items():
        if (was_ := before.figures.get(name)) is None:
            continue
        ratio = f"{now.median / was_.median:.2f}" if was_.median else "?"
        title = f"{name}, {now.unit}"
        print(f"{title:<44} {was_.spread:>26} {now.spread:>26}  {ratio} {_verdict(was_, now)}")


def _verdict(before: Figure, after: Figure) -> str:
    slack = ONCE if len(before.values) == 1 or len(after.values) == 1 else 0.0
    if min(after.values) > max(before.values) * (1 + slack):
        return "better" if after.more_is_better else "worse"
    if max(after.values) * (1 + slack) < min(before.values):
        return "worse" if after.more_is_better else "better"
    return ""


if __name__ == "__main__":
    main()
