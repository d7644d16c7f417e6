"""Resharding from the console, against a control plane whose world is the memory provider."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from tests.cli.conftest import Plane

NAME = "two-regions"


def document(platform: Plane, *arguments: str) -> Any:
    ended = platform.run(*arguments, "-o", "json")
    assert ended.code == 0, (arguments, ended)
    return json.loads(ended.stdout)


def owners(platform: Plane) -> list[str]:
    """Of neighbouring slots, each once."""
    ranges = document(platform, "shard", "map")["ranges"]
    return [name for name, _ in itertools.groupby(each["shard"] for each in ranges)]


def test_a_plan_says_what_moves_how_long_it_takes_and_how_long_writers_wait(
    platform: Plane,
) -> None:
    expected = document(platform, "shard", "plan", "--to", "4")["expected"]
    assert [(m["source"], m["target"], m["slots"]) for m in expected["moves"]] == [
        ("s1", "s3", 256),
        ("s2", "s4", 256),
    ]
    assert (expected["slots"], expected["handOvers"]) == (512, 16)
    assert expected["rows"] == 0
    assert expected["seconds"] > 0
    assert expected["pauseSeconds"] > 0
    ended = platform.run("shard", "plan", "--to", "4")
    assert "writers of a batch wait about 30 ms" in ended.stdout
    assert platform.run("shard", "plan", "--to", "4", "--exit-code").code == 20


@pytest.mark.parametrize(("to", "code"), [("2", 5), ("0", 2), ("65", 2)])
def test_a_count_that_makes_no_sense_is_refused(platform: Plane, to: str, code: int) -> None:
    assert platform.run("shard", "reshard", "--to", to, "--yes").code == code


def test_growing_taking_it_back_growing_again_and_finishing(platform: Plane) -> None:
    dry = document(platform, "shard", "reshard", "--to", "4", "--batch", "256", "--dry-run")
    assert dry["steps"][0]["name"] == "check-moves"
    assert owners(platform) == ["s1", "s2"]
    grown = platform.run("shard", "reshard", "--to", "4", "--batch", "128", "--yes")
    assert grown.code == 0, grown
    assert "✓ hand-over s1 to s3, slots 256-383" in grown.stderr
    assert "takes it back" in grown.stderr
    assert owners(platform) == ["s1", "s3", "s2", "s4"]
    assert "can be taken back until" in platform.run("shard", "map").stdout.lower()
    assert platform.run("status", "--exit-status").code == 0

    again = platform.run("shard", "reshard", "--to", "2", "--yes")
    assert again.code == 5
    assert "shard finish" in again.stderr
    assert platform.run("shard", "rollback", "--yes").code == 5
    back = platform.run("shard", "rollback", "--confirm", NAME, "-o", "json")
    assert back.code == 0, back
    assert owners(platform) == ["s1", "s2"]
    assert [each["name"] for each in document(platform, "status")["shards"]] == [
        *("s1", "s2", "catalog")
    ]

    assert platform.run("shard", "reshard", "--to", "3", "--batch", "256", "--yes").code == 0
    assert platform.run("shard", "finish", "--yes").code == 5
    assert platform.run("shard", "finish", "--early", "--yes").code == 0
    assert document(platform, "shard", "map")["moves"] == []
    assert platform.run("shard", "rollback", "--confirm", NAME).code == 5


def test_a_reshard_is_paused_resumed_and_aborted(platform: Plane) -> None:
    assert platform.run("shard", "pause").code == 5
    asked = ("--to", "16", "--batch", "1", "--detach", "--yes")
    id = document(platform, "shard", "reshard", *asked)["id"]
    assert document(platform, "shard", "pause", "--reason", "busy")["paused"]
    time_out = time.monotonic() + 40
    while "waits: paused" not in platform.run("events", "-n", "3").stdout:
        assert time.monotonic() < time_out
    before = document(platform, "op", "show", id)
    assert before["state"] == "running"
    assert document(platform, "shard", "resume")["operation"] == id
    assert document(platform, "shard", "pause", "--reason", "again")["paused"]
    ended = platform.run("shard", "abort", "--confirm", NAME, "--reason", "enough")
    assert ended.code == 0, ended
    assert document(platform, "op", "show", id)["state"] == "aborted"
    shard_map = document(platform, "shard", "map")
    assert shard_map["moves"] == []
    assert platform.run("shard", "verify").code == 0
