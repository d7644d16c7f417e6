from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cli import reference
from cli.settings import KEYS
from runtime.errors import Exit
from tests.commands import leaves, parse

WRITTEN = Path(__file__).resolve().parents[2] / "docs" / "reference"


def test_the_reference_is_as_the_code_would_write_it() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in WRITTEN.glob("*.md")}
    assert written == reference.pages(), "make docs writes it again"


def test_the_reference_has_every_command_exit_code_and_setting() -> None:
    pages = reference.pages()
    for path in leaves():
        assert f"    regionctl {path} " in pages[f"{path.split()[0]}.md"]
    assert set(reference.EXITS) == set(Exit)
    assert all(f"`REGIONCTL_{name.upper()}`" in pages["environment.md"] for name in KEYS)


def test_pages_of_what_is_no_more_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("")
    (tmp_path / "picture.svg").write_text("")
    reference.write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*reference.pages(), "picture.svg"}


@pytest.mark.parametrize("path", leaves())
def test_every_example_is_a_command_line_that_exists(path: str) -> None:
    for example in reference._examples(leaves()[path]):
        program, *words = shlex.split(example.partition(" > ")[0])
        assert program == "regionctl"
        parse(words)
