"""What CI runs is what anybody can run here, and it leaves nothing running."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.drills import DRILLS

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def workflow() -> dict[str, Any]:
    # "on" is a boolean in YAML 1.1.
    document: dict[str, Any] = yaml.load(WORKFLOW.read_text(), Loader=yaml.BaseLoader)
    return document


def commands() -> Iterator[str]:
    for job in workflow()["jobs"].values():
        for step in job["steps"]:
            yield from filter(None, [step.get("run")])


def test_every_command_of_the_workflow_is_one_of_this_project() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands():
        program, *words = command.split()
        if program == "make":
            assert words[0] in targets, command
        elif program != "sudo":
            assert (ROOT / program).is_file(), command


def test_the_drills_that_the_workflow_names_exist() -> None:
    named = [set(each.split()) for c in commands() for each in re.findall(r'DRILLS="([^"]*)"', c)]
    assert named
    assert set.union(*named) <= set(DRILLS)


def test_no_job_can_hang_for_ever_or_write_to_the_repository() -> None:
    made = workflow()
    assert made["permissions"] == {"contents": "read"}
    assert "schedule" in made["on"]
    for job in made["jobs"].values():
        assert 0 < int(job["timeout-minutes"]) <= 120
        assert "permissions" not in job
        uploads = [s for s in job["steps"] if "upload-artifact" in s.get("uses", "")]
        assert all(step["if"] == "always()" for step in uploads)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("contents: read", "contents: everything"),
        ("runs-on:", "run-on:"),
        ("run: make ci-load", "run: echo ${{ github.event.pull_request.title }}"),
        ("actions/checkout@v6", "somebody/checkout@v6"),
    ],
)
def test_a_mistake_in_the_workflow_is_found_by_the_checks(
    tmp_path: Path, was: str, becomes: str
) -> None:
    assert _content(WORKFLOW)
    wrong = tmp_path / ".github" / "workflows" / "ci.yml"
    wrong.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".github" / "zizmor.yml", tmp_path / ".github")
    text = WORKFLOW.read_text()
    assert was in text
    wrong.write_text(text.replace(was, becomes))
    assert not _content(wrong)


def _content(path: Path) -> bool:
    """As `make check` asks."""
    programs = Path(sys.executable).parent
    schema = ("check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-workflows", path)
    flaws = ("zizmor", "--offline", "--quiet", path)
    return all(
        subprocess.run(
            [programs / name, *words], capture_output=True, cwd=path.parents[2], check=False
        ).returncode
        == 0
        for name, *words in (schema, flaws)
    )
