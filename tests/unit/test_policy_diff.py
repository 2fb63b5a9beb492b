"""What another policy would do, on events of a file."""

from __future__ import annotations

import json
from pathlib import Path

from governor.policy import Policy, load
from streams.policy_diff import compare, replayed
from streams.settings import load_settings

T0 = 1_790_000_000


def policy(*rules: str) -> Policy:
    return load("rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules))


def test_each_change_is_told_alone_and_all_together(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = [
        {"event_id": f"{user}-{n}", "user_id": user, "ts": T0 + n, "campaign_id": f"C{n % 2}"}
        for user, times in (("once", 1), ("twice", 2), ("often", 5))
        for n in range(times)
    ]
    path.write_text("\n".join(map(json.dumps, events)))
    before = policy(
        "name: day, cap: 2, per: user, window: 1d",
        "name: hour, cap: 3, per: campaign, window: 1h",
    )
    after = policy(
        "name: day, cap: 5, per: user, window: 1d",
        "name: pace, spacing: 1h, per: campaign",
    )
    settings = load_settings({})
    found = compare(before, after, replayed(path, settings), settings)
    assert [(one.change, one.users, one.throttled, one.freed) for one in found] == [
        ("all changes", 3, 3, 1),
        ("changed day", 3, 0, 1),
        ("without hour", 3, 0, 1),
        ("new pace", 3, 3, 0),
    ]
    assert found[0].as_json()["change"] == "all changes"
    assert compare(before, before, replayed(path, settings), settings)[0].throttled == 0
