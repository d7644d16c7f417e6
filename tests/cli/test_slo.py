"""regionctl slo, as it is typed: against a platform in memory, and against files."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import pytest
import yaml

from control_plane.levels import Tally
from control_plane.minutes import SECONDS
from runtime.errors import Exit
from tests.cli.conftest import Plane, control_plane


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with control_plane(tmp_path_factory.mktemp("slo"), automatic=False) as plane:
        yield plane


@pytest.fixture
def file(platform: Plane, tmp_path: Path) -> Path:
    """The platform's own objectives, as a file."""
    path = tmp_path / "slo.yaml"
    path.write_text(platform.run("slo", "show", "-o", "yaml").stdout)
    return path


def test_what_show_prints_is_a_file_that_lint_finds_nothing_in(platform: Plane, file: Path) -> None:
    ended = platform.run("slo", "lint", str(file), "-o", "json")
    assert (ended.code, json.loads(ended.stdout)["faults"]) == (Exit.OK, [])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("latency.p99", "latency.p98", "nobody measures 'latency.p98'"),
        ("targetPercent: 99.99", "targetPercent: 50.0", "not even a total outage"),
        ("displayName: latency", "name: latency", "there is no such field"),
    ],
)
def test_lint_says_what_is_wrong_with_objectives_and_with_gates(
    platform: Plane, file: Path, old: str, new: str, told: str
) -> None:
    file.write_text(file.read_text().replace(old, new))
    ended = platform.run("slo", "lint", str(file))
    assert ended.code == Exit.USAGE
    assert told in ended.stdout


def test_rules_are_the_same_from_the_platform_and_from_its_file(
    platform: Plane, file: Path
) -> None:
    own = platform.run("slo", "export", "prometheus")
    from_file = platform.run("slo", "export", "prometheus", "--file", str(file))
    assert own.stdout == from_file.stdout
    rules = yaml.safe_load(own.stdout)
    assert list(rules) == ["groups"]
    names = {rule.get("alert") for group in rules["groups"] for rule in group["rules"]}
    assert names == {None, "SloBurnPage", "SloBurnTicket"}


def test_check_ends_with_10_when_a_budget_burns_for_a_page(platform: Plane) -> None:
    calm = platform.run("slo", "check")
    assert (calm.code, "nobody has asked" in calm.stdout) == (Exit.OK, True)
    with closing(sqlite3.connect(platform.state / "control" / "control.db")) as database:
        minute = int(time.time()) // SECONDS - 1
        bad = Tally(requests=1000, errors=500, timed=1000, slices=12)
        database.execute("INSERT INTO minute VALUES (?, ?, ?, ?, ?, ?, ?)", (minute, *astuple(bad)))
        database.commit()
    burning = platform.run("slo", "check")
    assert (burning.code, "missed: errors" in burning.stdout) == (Exit.MISSED, True)
    budget = platform.run("slo", "budget", "-o", "json")
    states = {each["name"]: each["state"] for each in json.loads(budget.stdout)["items"]}
    assert states == {"availability": "ok", "latency": "ok", "errors": "page"}
