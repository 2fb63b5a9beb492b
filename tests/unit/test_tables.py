"""CSV and Parquet as logs: columns mapped, times in every spelling, and what is wrong said."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from governor.entries import ENGAGEMENT, EXPOSURE
from governor.replay.linking import link
from governor.replay.log import Log
from governor.ticks import SECOND
from streams.history import HistoryError, batches
from streams.mapping import Mapped, MappingError, mapped
from streams.replay_log import Loaded, Loader, Source

T0 = 1_790_000_000


def loaded(path: Path, *options: str, clicks: Path | None = None) -> tuple[Log, Loaded]:
    loader = Loader()
    sources = [Source(path, mapped(options))]
    if clicks is not None:
        sources.append(Source(clicks, Mapped(), engagements=True))
    loader.files(sources)
    return loader.closed(), loader.loaded


def csv(path: Path, *lines: str) -> Path:
    text = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


ROWS = {
    "uid": ["u", "v", "u"],
    "time": [T0 * 1000, T0 * 1000 + 250, T0 * 1000 + 500],
    "campaign": ["C", "D", "C"],
    "page": ["1", "1", "2"],
    "clicked": [0, 1, 0],
}
MAP = (
    "user_id=uid", "ts=time:ms", "campaign_id=campaign", "impression_id=page+campaign",
    "click=clicked", "labels.page=page",
)  # fmt: skip


def files(folder: Path) -> list[Path]:
    """The same log as Parquet, with and without dictionaries, as CSV and as JSON lines."""
    table = pa.table(ROWS)
    parquet.write_table(table, folder / "a.parquet")
    parquet.write_table(table, folder / "b.parquet", use_dictionary=False, row_group_size=1)
    names = list(ROWS)
    rows = list(zip(*ROWS.values(), strict=True))
    lines = [",".join(map(str, row)) for row in rows]
    csv(folder / "c.csv", ",".join(names), *lines)
    csv(folder / "d.csv.gz", ",".join(names), *lines)
    csv(folder / "e.tsv", "\t".join(names), *(line.replace(",", "\t") for line in lines))
    return sorted(folder.iterdir())


def test_the_same_log_in_every_form(tmp_path: Path) -> None:
    logs = [loaded(path, *MAP)[0] for path in files(tmp_path)]
    assert len(logs) == 5
    for log in logs:
        assert len(log) == 4
        assert log.kinds().tolist() == [EXPOSURE, EXPOSURE, ENGAGEMENT, EXPOSURE]
        assert log.ts.tolist() == [T0 * SECOND + k for k in (0, 250_000, 250_000, 500_000)]
        assert [log.key(int(who)) for who in log.who] == ["u", "v", "v", "u"]
        assert log.labels.labels_of(int(log.ad[0])) == {"campaign": "C", "page": "1"}
        assert link(log, SECOND).answers.tolist() == [-1, -1, 1, -1]
        assert (log.exposure == logs[0].exposure).all()


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ([T0, T0 + 1], ""),
        ([float(T0), T0 + 1.0], ""),
        ([T0 * 10**6, (T0 + 1) * 10**6], ":us"),
        ([T0 * 10**9, (T0 + 1) * 10**9], ":ns"),
        ([str(T0), str(T0 + 1)], ""),
        (["2026-09-21T14:13:20Z", "2026-09-21T16:13:21+02:00"], ""),
        (["2026-09-21 14:13:20", "2026-09-21T14:13:21.000"], ""),
        ([datetime.fromtimestamp(T0 + k, UTC) for k in (0, 1)], ""),
        ([datetime.fromtimestamp(T0 + k, UTC).replace(tzinfo=None) for k in (0, 1)], ""),
    ],
)
def test_times_are_read_however_they_are_written(
    values: list[Any], option: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.parquet"
    columns = {"user_id": ["u", "v"], "at": values, "campaign_id": ["C", "C"]}
    parquet.write_table(pa.table(columns), path)
    log, told = loaded(path, f"ts=at{option}")
    assert told.bad == 0
    assert log.ts.tolist() == [T0 * SECOND, (T0 + 1) * SECOND]


def test_bad_times_are_counted_and_told(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "log.csv",
        "user_id,ts,campaign_id",
        f"u,{T0},C",
        "u,yesterday,C",
        "u,,C",
        f"u,{T0}000,C",
        "u,2026-09-21T14:13:20,C",
    )
    log, told = loaded(path)
    assert log.ts.tolist() == [T0 * SECOND, T0 * SECOND]
    said = told.said()
    assert any("2 rows" in text and "cannot be read as a time" in text for text in said)
    assert any("1 row " in text and "write --map ts=COLUMN:ms" in text for text in said)
    assert any("row 2" in text for text in said)


def test_rows_with_too_many_columns_are_counted(tmp_path: Path) -> None:
    path = csv(tmp_path / "log.csv", "user_id,ts,campaign_id", f"u,{T0},C", f"u,{T0},C,more")
    log, told = loaded(path)
    assert len(log) == 1
    assert "too few or too many columns" in told.said()[0]


def test_a_click_log_beside_an_impression_log(tmp_path: Path) -> None:
    shown = csv(
        tmp_path / "shown.csv", "user_id,ts,campaign_id,impression_id",
        f"u,{T0},C,i1", f"u,{T0 + 9},C,i2",
    )  # fmt: skip
    clicks = csv(
        tmp_path / "clicks.csv", "user_id,ts,impression_id,type",
        f"u,{T0 + 5},i1,", f"u,{T0 + 12},i2,conversion",
    )  # fmt: skip
    log, told = loaded(shown, clicks=clicks)
    assert told.bad == 0
    assert link(log, 60 * SECOND).answers.tolist() == [-1, 0, -1, 2]
    assert ((log.what[log.kinds() == ENGAGEMENT] >> 2) & 31).tolist() == [1, 4]


def test_a_log_of_all_kinds_is_sorted_out_by_type(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "log.csv", "user_id,ts,campaign_id,type,label",
        f"u,{T0},C,impression,", f"u,{T0 + 1},C,viewable,", f"u,{T0 + 2},C,click,",
        f"u,{T0 + 3},,opt_out,campaign:C",
    )  # fmt: skip
    log, told = loaded(path)
    assert told.bad == 0
    assert log.kinds().tolist() == [0, 0, 1, 2]


def test_other_ids_have_rows_of_their_own(tmp_path: Path) -> None:
    path = csv(tmp_path / "log.csv", "user_id,ts,campaign_id,home",
               f"u,{T0},C,h", f"v,{T0 + 1},C,")  # fmt: skip
    log, _ = loaded(path, "ids.household=home")
    assert [log.key(int(who)) for who in log.who] == ["u", "household\0h", "v"]
    assert log.source.tolist() == [0, 0, 1]


def test_when_it_was_clicked_may_stand_with_the_impression(tmp_path: Path) -> None:
    path = csv(tmp_path / "log.csv", "user_id,ts,campaign_id,clicked_at",
               f"u,{T0},C,{T0 + 7}", f"u,{T0 + 1},C,")  # fmt: skip
    log, _ = loaded(path, "click_ts=clicked_at")
    assert log.ts.tolist() == [T0 * SECOND, (T0 + 1) * SECOND, (T0 + 7) * SECOND]
    assert link(log, 60 * SECOND).answers.tolist() == [-1, -1, 0]


def test_columns_that_are_missing_are_told_with_what_there_is(tmp_path: Path) -> None:
    path = csv(tmp_path / "log.csv", "uid,time,campaign", f"u,{T0},C")
    with pytest.raises(MappingError) as caught:
        loaded(path)
    text = str(caught.value)
    for said in (
        "write --map user_id=uid", "write --map ts=time", "write --map campaign_id=campaign",
        "columns found: uid, time, campaign",
    ):  # fmt: skip
        assert said in text
    with pytest.raises(MappingError, match="no column who"):
        loaded(path, "user_id=who", "ts=time", "campaign_id=campaign")


def test_a_column_of_ids_of_no_type_is_told(tmp_path: Path) -> None:
    path = csv(tmp_path / "log.csv", "user_id,ts,campaign_id,ids.Device", f"u,{T0},C,d")
    with pytest.raises(MappingError, match=r"ids\.Device: no type of other ids"):
        loaded(path)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("user_id", "not FIELD=COLUMN"),
        ("=uid", "not FIELD=COLUMN"),
        ("userid=uid", "did you mean user_id"),
        ("ts=time:min", "min is no unit"),
        ("ids.IDFA=uid", "no type of other ids; write ids. and a letter of a-z"),
        ("ids.user=uid", "no type of other ids"),
    ],
)
def test_a_mapping_that_means_nothing_says_what_to_write(option: str, said: str) -> None:
    with pytest.raises(MappingError, match=said):
        mapped([option])


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.parquet", "log.jsonl"])
def test_an_empty_file_is_told_by_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if path.suffix == ".gz" else b"")
    with pytest.raises(HistoryError, match=name.replace(".", r"\.")):
        loaded(path)


def test_a_table_is_the_same_events_to_a_backfill(tmp_path: Path) -> None:
    told = []
    for path in files(tmp_path):
        events = [
            (topic, json.loads(records.value(i) or b""))
            for topic, records in batches(path, mapped(MAP))
            for i in range(len(records))
        ]
        for _, event in events:
            event["event_id"] = event["event_id"].replace(path.name, "log")
        told.append(sorted(events, key=lambda one: (one[0], one[1]["ts"])))
    assert all(one == told[0] for one in told)
    (click, *shown) = told[0]
    assert click == (
        "engagements",
        {
            "topic": "engagements", "event_id": "log-1-click", "user_id": "v", "ts": T0 + 0.25,
            "type": "click", "impression_id": "1-D",
        },
    )  # fmt: skip
    assert shown[0][1] == {
        "event_id": "log-0", "user_id": "u", "ts": T0, "campaign_id": "C",
        "impression_id": "1-C", "labels": {"page": "1"},
    }  # fmt: skip


def test_consent_in_a_column_is_to_a_backfill_what_events_have(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = ["true", "0", "DBABMA~CO", "CO", "", '"{""retargeting"": false}"']
    lines = [f"e{n},u,{T0 + n},C,{said}" for n, said in enumerate(rows)]
    path.write_text("\n".join(["event_id,user_id,ts,campaign_id,consent", *lines]))
    said = [
        json.loads(records.value(i) or b"").get("consent")
        for _, records in batches(path, mapped(()))
        for i in range(len(records))
    ]
    assert said == [
        {"retargeting": True},
        {"retargeting": False},
        {"gpp": "DBABMA~CO"},
        {"tcf": "CO"},
        None,
        {"retargeting": False},
    ]


def test_lines_of_json_are_mapped_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    row = {"event_id": "e", "uid": "u", "time": T0 * 1000, "campaign_id": "C"}
    path.write_text(json.dumps(row) + "\nno json\n")
    log, told = loaded(path, "user_id=uid", "ts=time:ms")
    assert log.ts.tolist() == [T0 * SECOND]
    assert told.bad == 1
    assert "no json" in told.said()[0]


def test_parts_of_two_files_are_told_apart(tmp_path: Path) -> None:
    loader = Loader()
    paths = [csv(tmp_path / f"{n}.csv", "user_id,ts,campaign_id", f"u,{T0},C") for n in (1, 2)]
    loader.files(Source(path) for path in paths)
    log = loader.closed()
    assert len(np.unique(log.event)) == 2
