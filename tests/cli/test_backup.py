"""regionctl backup against a real control plane whose world is the memory provider."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.conftest import Plane


def answer(platform: Plane, *words: str) -> Any:
    ended = platform.run("backup", *words, "-o", "json")
    assert ended.code == 0, ended
    return json.loads(ended.stdout)


def test_backups_are_made_listed_verified_and_pruned(platform: Plane) -> None:
    made = answer(platform, "create")["items"]
    assert [each["kind"] for each in made] == ["full"] * 3
    assert answer(platform, "create", "s1")["items"][0]["kind"] == "incremental"
    assert answer(platform, "create", "s1", "--kind", "full")["items"][0]["kind"] == "full"
    listed = answer(platform, "list", "s1")["items"]
    assert [each["kind"] for each in listed] == ["full", "incremental", "full"]
    assert answer(platform, "verify", listed[0]["id"])["problems"] == []
    removed = answer(platform, "prune", "--keep-full", "1", "--yes")["removed"]
    assert removed == [each["id"] for each in listed[:2]]
    names = platform.run("backup", "list", "s1", "-o", "name").stdout.split()
    assert names == [listed[2]["id"]]


def test_a_restore_aside_says_how_to_connect_and_is_discarded(platform: Plane) -> None:
    answer(platform, "create", "s1")
    found = answer(platform, "restore", "s1", "--to", "new")
    assert (found["kind"], found["database"], found["host"]) == (
        *("RestoredServer", "s1", "127.0.0.1"),
    )
    assert found["port"]
    assert "password" not in json.dumps(found)
    assert platform.run("backup", "discard", found["id"], "--yes").code == 0
    again = platform.run("backup", "discard", found["id"], "--yes")
    assert (again.code, again.stdout) == (2, "")


def test_a_restore_in_place_needs_the_name_and_reports_its_operation(platform: Plane) -> None:
    answer(platform, "create", "s1")
    refused = platform.run("backup", "restore", "s1", "--to", "in-place", "--yes")
    assert (refused.code, "--confirm s1" in refused.stderr) == (5, True)
    wrong = platform.run("backup", "restore", "s1", "--to", "in-place", "--confirm", "s2")
    assert wrong.code == 5
    plan = answer(platform, "restore", "s1", "--to", "in-place", "--dry-run")
    assert [step["name"] for step in plan["steps"]][:2] == ["check-target", "record-unsynced"]
    done = answer(platform, "restore", "s1", "--to", "in-place", "--confirm", "s1")
    assert (done["kind"], done["state"]) == ("restore", "succeeded")


def test_what_is_not_there_exits_2_and_what_cannot_be_reached_exits_5(platform: Plane) -> None:
    answer(platform, "create", "s1")
    for words in (
        ["verify", "nothing"],
        ["discard", "nothing"],
        ["create", "s9"],
        ["restore", "s9", "--to", "new"],
        ["restore", "s1", "--at", "no-such-point", "--to", "new"],
        ["restore", "s1", "--at", "2026-99-01T00:00:00Z", "--to", "new"],
        ["point", "0/1A"],
    ):
        ended = platform.run("backup", *words)
        assert (ended.code, ended.stdout) == (2, ""), (words, ended)
    for words in (
        ["restore", "s1", "--at", "2020-01-01T00:00:00Z", "--to", "new"],
        ["restore", "s1", "--at", "FFFF/0", "--to", "new"],
        ["restore", "s2", "--to", "new"],
        ["restore", "s1", "--to", "in-place", "--confirm", "s1", "--accept-data-loss"],
    ):
        ended = platform.run("backup", *words)
        assert (ended.code, ended.stdout) == (5, ""), (words, ended)


def test_a_restore_point_has_one_meaning_for_ever(platform: Plane) -> None:
    (point,) = answer(platform, "point", "before-release-7")["items"]
    assert sorted(point["lsns"]) == ["catalog", "s1", "s2"]
    assert platform.run("backup", "point", "before-release-7").code == 5
    assert [each["name"] for each in answer(platform, "points")["items"]] == ["before-release-7"]


def test_the_archives_are_told_with_each_newest_backup(platform: Plane) -> None:
    answer(platform, "create", "s1")
    items = {each["database"]: each for each in answer(platform, "status")["items"]}
    assert items["s1"]["newestBackup"].startswith("s1-")
    assert items["s2"]["newestBackup"] is None
    assert all(each["running"] for each in items.values())
    table = platform.run("backup", "status", "--exit-status")
    assert (table.code, "NEWEST BACKUP" in table.stdout) == (0, True)
