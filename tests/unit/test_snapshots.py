"""Snapshots: what is read back is what was written, and what cannot be trusted is left aside."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from governor.events import Limits, decode_impressions
from governor.gate import Gate
from governor.ledger import Ledger
from governor.policy import load
from governor.records import Records
from streams.snapshots import OLDEST_SECONDS, Copy, SnapshotError, Snapshots, read, write

HORIZON = 32 * 86_400_000_000
RULES = "rules:\n  - {name: day, cap: 2, per: campaign, window: 1d}\n"
OTHER_RULES = "rules:\n  - {name: creatives, cap: 1, per: creative, window: 2h}\n"
T0 = 1_700_000_000


def empty(rules: str = RULES, row_limit: int = 128) -> Ledger:
    return Ledger(load(rules, horizon=HORIZON), horizon=HORIZON, row_limit=row_limit)


def feed(ledger: Ledger, first: int, last: int, users: int = 60) -> None:
    """Impressions numbered so, of some users."""
    records = []
    for n in range(first, last):
        event = {
            "event_id": f"e{n}",
            "user_id": f"u{n * 7 % users}",
            "ts": T0 + n * 13,
            "campaign_id": f"C{n % 5}",
            "creative_id": f"B{n % 3}",
        }
        records.append((b"u", json.dumps(event).encode(), (T0 + n * 13) * 1000))
    columns, rejected = decode_impressions(Records.of(records), ledger.labels, Limits())
    assert not rejected
    ledger.apply(columns)


def filled() -> Ledger:
    ledger = empty()
    feed(ledger, 0, 500)
    ledger.take(T0 * 1_000_000)
    return ledger


def gate() -> Gate:
    return Gate(secret=b"secret", retention=HORIZON)


def copy_of(ledger: Ledger, gate: Gate) -> Copy:
    return Copy(
        0,
        ledger.image(),
        gate.everything(),
        ledger.horizon,
        ledger.row_limit,
        ledger.policy.version,
    )


def kept(folder: Path, ledger: Ledger, offset: int = 900) -> Path:
    path = folder / "ledger-0.snapshot"
    write(path, copy_of(ledger, gate()), topic="t1", offset=offset, now=T0)
    return path


def read_back(path: Path, ledger: Ledger, **changes: float | str) -> int | None:
    options = {"topic": "t1", "begin": 0, "end": 1000, "now": T0 + 60, **changes}
    return read(path, ledger, gate(), **options)  # type: ignore[arg-type]


def assert_same(one: Ledger, other: Ledger) -> None:
    assert len(one) == len(other)
    assert one.entries == other.entries
    for n in range(60):
        assert one.decide(f"u{n}") == other.decide(f"u{n}")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    ledger, again = filled(), empty()
    assert read_back(kept(tmp_path, ledger), again) == 900
    assert_same(ledger, again)


def test_a_ledger_that_was_read_back_goes_on_as_the_other_would(tmp_path: Path) -> None:
    ledger, again = filled(), empty()
    feed(ledger, 500, 600)  # not flushed yet: dirty rows and unwritten ads come along
    read_back(kept(tmp_path, ledger), again)
    feed(ledger, 600, 900, users=200)
    feed(again, 600, 900, users=200)
    for one in (ledger.take(7), again.take(7)):
        assert one.users > 0
    assert_same(ledger, again)
    feed(ledger, 900, 1000)
    feed(again, 900, 1000)
    expected, found = ledger.take(7), again.take(7)
    for records, others in (
        (expected.changelog, found.changelog),
        (expected.decisions, found.decisions),
    ):
        assert len(records) == len(others) > 0
        assert [records.value(i) for i in range(len(records))] == [
            others.value(i) for i in range(len(others))
        ]


def test_one_of_another_policy_is_refused(tmp_path: Path) -> None:
    """What a row keeps is for the rules that may ask for it."""
    with pytest.raises(SnapshotError, match="another policy"):
        read_back(kept(tmp_path, filled()), empty(OTHER_RULES))


def test_what_stands_in_front_of_the_ledger_comes_along(tmp_path: Path) -> None:
    ledger, before, after = filled(), gate(), gate()
    before.add_origins(b"known", {b"cookie", b"device"})
    path = tmp_path / "ledger-0.snapshot"
    write(path, copy_of(ledger, before), topic="t1", offset=900, now=T0)
    read(path, empty(), after, topic="t1", begin=0, end=1000, now=T0)
    assert after.origins(b"known") == {b"cookie", b"device"}
    assert after.everything() == before.everything()


def test_of_no_file_there_is_nothing(tmp_path: Path) -> None:
    assert read_back(tmp_path / "ledger-0.snapshot", empty()) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"topic": "t2"}, "not the one"),
        ({"end": 900}, "not in the changelog"),
        ({"begin": 902}, "not in the changelog"),
        ({"now": T0 + OLDEST_SECONDS + 1}, "old"),
        ({"now": T0 - 1}, "old"),
    ],
)
def test_one_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, float | str], why: str
) -> None:
    with pytest.raises(SnapshotError, match=why):
        read_back(kept(tmp_path, filled()), empty(), **changes)


def test_one_of_another_row_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="GOVERNOR_ROW_LIMIT"):
        read_back(kept(tmp_path, filled()), empty(row_limit=64))


def test_no_byte_can_change_or_be_missing_without_notice(tmp_path: Path) -> None:
    path = kept(tmp_path, filled())
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in [0, 21, 25, 40, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(SnapshotError):
            read_back(path, empty())
        path.write_bytes(whole[:at])
        with pytest.raises(SnapshotError):
            read_back(path, empty())


def test_a_folder_that_cannot_be_written_is_counted_and_told(tmp_path: Path) -> None:
    counted: Counter[str] = Counter()
    told = []
    file = tmp_path / "a file"
    file.touch()
    snapshots = Snapshots(
        file / "folder",
        "ledger",
        60,
        lambda outcome: counted.update([outcome]),
        lambda guard, text: told.append((guard, text)),
    )
    snapshots.know("t1")
    assert counted == {"failed": 1}
    ((guard, text),) = told
    assert guard == "snapshot_failed"
    assert "GOVERNOR_SNAPSHOTS" in text
