"""What keeps the code the shape that ARCHITECTURE.md says it has."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import parse

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cli", "control_plane", "infra", "loadtests", "runbooks", "runtime")
LINES_AT_MOST = 400


def _modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_imports_go_only_where_the_contracts_allow() -> None:
    checked = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "path",
    _modules(*PACKAGES, "tests", "benchmarks"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_AT_MOST


def _steps_made() -> Iterator[tuple[str | None, str]]:
    """(name or None when it is not a literal, where) of each `Step(...)` in planners and drills."""
    for path in _modules("control_plane"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or path.name == "plan.py":
                continue
            if isinstance(node.func, ast.Name) and node.func.id == "Step":
                name = node.args[0] if node.args else None
                literal = name.value if isinstance(name, ast.Constant) else None
                yield literal, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_step_that_is_planned_can_be_carried_out() -> None:
    from control_plane.steps import HANDLERS

    astray = {f"{name} at {where}" for name, where in _steps_made() if name not in HANDLERS}
    assert not astray


def test_every_step_that_can_be_carried_out_is_planned() -> None:
    from control_plane.steps import HANDLERS

    assert set(HANDLERS) <= {name for name, _ in _steps_made()}


RUNBOOKS = sorted((ROOT / "runbooks").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *RUNBOOKS]
COMMAND = re.compile(r"^\s*\$ regionctl (.+?)(?:\s+[#>].*)?$", re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_a_document_shows_is_one_that_exists(path: Path) -> None:
    for line in COMMAND.findall(path.read_text()):
        parse(shlex.split(line))


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    for wrong in ("drill rum x", "drill run x --bogus", "drill run"):
        with pytest.raises(Exception, match=r"No such|Missing"):
            parse(shlex.split(wrong))


def test_every_file_that_the_architecture_names_exists() -> None:
    named = re.findall(
        r"`([a-z_]+(?:/[a-z_]+)*/[a-z_]*(?:\.py)?)`", (ROOT / "ARCHITECTURE.md").read_text()
    )
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]
