"""The audit log of what is done where no control plane is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from control_plane import audit_file
from control_plane.audit_file import recorded
from runtime.errors import OperationFailed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / audit_file.NAME


def test_work_is_told_of_before_it_begins_and_after_it_has_ended(file: Path) -> None:
    with recorded(file, "up", "two-regions", "INC-7"):
        (asked,) = audit_file.entries(file)
        assert (asked.kind, asked.action, asked.target) == ("asked", "up", "two-regions")
    with pytest.raises(OperationFailed), recorded(file, "down", "two-regions", ""):
        raise OperationFailed("It does not stop.")
    told = [(each.kind, each.action, each.outcome) for each in audit_file.entries(file)]
    assert told[1:] == [
        ("ended", "up", "succeeded"),
        ("asked", "down", None),
        ("ended", "down", "failed: It does not stop."),
    ]
    assert asked.reason == "INC-7"
    assert "@" in asked.actor
    assert file.stat().st_mode & 0o777 == 0o600


def test_writers_at_once_make_one_chain(file: Path) -> None:
    def work(number: int) -> None:
        with recorded(file, "up", f"p{number}", ""):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(20)))
    verdict = audit_file.verify(file)
    assert (verdict.entries, verdict.broken) == (40, None)


@pytest.mark.parametrize("forged", ["changed", "removed", "torn"])
def test_a_forgery_is_named_and_the_log_goes_on(file: Path, forged: str) -> None:
    for _ in range(3):
        with recorded(file, "up", "two-regions", "why"):
            pass
    lines = file.read_text().splitlines()
    changed = json.dumps({**json.loads(lines[2]), "reason": "another"})
    lines[2:] = {
        "changed": [changed, *lines[3:]],
        "removed": lines[3:],
        "torn": [lines[2][:40]],
    }[forged]
    end = "" if forged == "torn" else "\n"
    file.write_text("\n".join(lines) + end)
    with recorded(file, "down", "two-regions", ""):
        pass
    broken = audit_file.verify(file).broken
    assert broken is not None
    assert broken.sequence == 3
    assert audit_file.entries(file)[-1].action == "down"


def test_a_file_that_is_not_there_is_an_empty_log(file: Path) -> None:
    assert audit_file.entries(file) == []
    assert audit_file.verify(file).entries == 0
