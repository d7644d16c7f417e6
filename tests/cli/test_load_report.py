"""regionctl load report and compare, of runs whose records lie in folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests import judge
from runtime.errors import Exit
from tests.cli.console import regionctl
from tests.loadtests.runs import endpoint, run

GATE = """
kind: SLO
metadata: {name: latency}
spec: {objectives: []}
x-regionctl: {gates: [{metric: latency.p99, op: "<=", value: 100ms}]}
"""


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A quick run and a slow one, neither judged by a gate."""
    found = {}
    for name, latency in (("quick", 5.0), ("slow", 300.0)):
        found[name] = tmp_path / name
        found[name].mkdir()
        document = run(endpoint(intended=[latency + n % 7 for n in range(3200)]), id=name)
        (found[name] / "run.json").write_text(json.dumps(document))
        assert judge.main([str(found[name])]) == 0
    return found


def test_a_run_is_shown_again_and_can_be_judged_by_another_gate(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    gate = tmp_path / "gate.yaml"
    gate.write_text(GATE)
    for name, code in (("quick", Exit.OK), ("slow", Exit.MISSED)):
        shown = regionctl("load", "report", str(folders[name]), home=tmp_path)
        assert shown.code == Exit.OK
        ended = regionctl(
            "load", "report", str(folders[name]), "--gate", str(gate), "-o", "json", home=tmp_path
        )
        assert ended.code == code
        assert json.loads(ended.stdout)["gates"][0]["met"] == (code == Exit.OK)
        again = regionctl("load", "report", str(folders[name]), home=tmp_path)
        assert again.code == code


def test_two_runs_are_compared_and_an_invalid_one_proves_nothing(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    words = ("load", "compare", str(folders["quick"]), str(folders["slow"]))
    ended = regionctl(*words, home=tmp_path)
    assert ended.code == Exit.OK
    assert "slower" in ended.stdout
    assert "after: worse" in ended.stdout
    record = folders["slow"] / "run.json"
    document = json.loads(record.read_text())
    document["validity"] = {"valid": False, "because": ["late"]}
    record.write_text(json.dumps(document))
    void = regionctl(*words, "-o", "json", home=tmp_path)
    assert (void.code, json.loads(void.stdout)["verdict"]) == (Exit.VOID, "invalid")


def test_a_folder_with_something_else_in_it_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    ended = regionctl("load", "report", str(tmp_path), home=tmp_path)
    assert ended.code == Exit.USAGE
    assert "no load run" in ended.stderr
