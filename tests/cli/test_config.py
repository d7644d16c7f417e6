from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.console import regionctl


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is the project's: `tmp_path`/project."""
    (tmp_path / "project").mkdir()
    (tmp_path / "config" / "regionctl").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")


def project(home: Path, text: str) -> Path:
    file = home / "project" / "regionctl.toml"
    file.write_text(text)
    return file


def user(home: Path, text: str) -> Path:
    file = home / "config" / "regionctl" / "config.toml"
    file.write_text(text)
    return file


def shown(home: Path, *words: str, **env: str) -> dict[str, tuple[str | None, str]]:
    """Each setting with where it comes from."""
    ended = regionctl("config", "show", *words, "-o", "json", home=home, env=env)
    assert ended.code == 0, ended
    return {
        each["key"]: (each["value"], each["origin"]) for each in json.loads(ended.stdout)["items"]
    }


def test_an_option_counts_before_the_environment_before_the_project_before_the_user(
    tmp_path: Path,
) -> None:
    mine = user(tmp_path, "output = 'yaml'\ncolour = 'never'\nport_offset = 400\n")
    ours = project(tmp_path, "output = 'name'\ncolour = 'always'\n")
    found = shown(tmp_path, "--state-dir", "/elsewhere", REGIONCTL_OUTPUT="jsonl")
    assert found["state_dir"] == ("/elsewhere", "--state-dir")
    assert found["output"] == ("jsonl", "REGIONCTL_OUTPUT")
    assert found["colour"] == ("always", str(ours))
    assert found["port_offset"] == ("400", str(mine))
    assert found["server"] == (None, "default")


def test_what_nobody_says_has_a_default(tmp_path: Path) -> None:
    found = shown(tmp_path, TERM="xterm", NO_COLOR="")
    assert found["output"] == ("table", "default")
    assert found["colour"] == ("auto", "default")


def test_the_form_of_the_answer_can_be_set_for_good(tmp_path: Path) -> None:
    project(tmp_path, "output = 'json'\n")
    assert json.loads(regionctl("config", "path", home=tmp_path).stdout)["kind"]
    assert regionctl("config", "path", "-o", "table", home=tmp_path).stdout.startswith("WHOSE")
    wrong = regionctl("config", "path", "--bogus", home=tmp_path)
    assert json.loads(wrong.stderr)["error"]["exit"] == 2


def test_a_path_is_meant_beside_the_file_that_says_it(tmp_path: Path) -> None:
    user(tmp_path, "token_file = 'me.token'\nca_file = '~/ca.pem'\n")
    found = shown(tmp_path, HOME=str(tmp_path))
    assert found["token_file"][0] == str(tmp_path / "config" / "regionctl" / "me.token")
    assert found["ca_file"][0] == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("outptu = 'json'", ("'outptu'", "did you mean output?")),
        ("token = 'secret'", ("'token'", "did you mean token_file?")),
        ("output = 'xml'", ("output must be one of table", "'xml'")),
        ("port_offset = 1.5", ("port_offset must be a whole number", "1.5")),
        ("port_offset = true", ("port_offset must be a whole number",)),
        ("state_dir = 7", ("state_dir must be text",)),
        ('state_dir = "a\\u0000"', ("state_dir must be text",)),
        ("output = ", ("is no TOML",)),
        ("[output]", ("output must be one of",)),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_file_and_key(
    tmp_path: Path, text: str, told: tuple[str, ...]
) -> None:
    file = user(tmp_path, text)
    ended = regionctl("region", "list", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert all(part in ended.stderr for part in (str(file), *told)), ended.stderr
    assert regionctl("config", "path", "-o", "name", home=tmp_path).stdout.strip() == str(file)
    assert regionctl("--help", home=tmp_path).code == 0


def test_a_variable_that_is_wrong_is_told_by_its_name(tmp_path: Path) -> None:
    ended = regionctl("config", "show", home=tmp_path, env={"REGIONCTL_PORT_OFFSET": "many"})
    assert (ended.code, ended.stdout) == (2, "")
    assert "REGIONCTL_PORT_OFFSET: port_offset must be a whole number" in ended.stderr


@pytest.mark.parametrize("key", ["server", "token_file", "ca_file", "postgres_bin"])
def test_a_file_that_was_downloaded_says_neither_who_gets_a_token_nor_what_is_run(
    tmp_path: Path, key: str
) -> None:
    project(tmp_path, f"{key} = 'https://192.0.2.1'\n")
    ended = regionctl("status", home=tmp_path)
    assert (ended.code, ended.stdout) == (2, "")
    assert f"{key} is not taken from a project's file" in ended.stderr


def test_a_platform_that_is_named_nearer_by_is_meant_and_not_a_server(tmp_path: Path) -> None:
    user(tmp_path, "server = 'https://192.0.2.1'\n")
    away = regionctl("op", "list", home=tmp_path)
    assert (away.code, "There is no platform in" in away.stderr) == (6, True)


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"REGIONCTL_COLOUR": "always"}, True),
        ({"REGIONCTL_COLOUR": "always", "NO_COLOR": "1", "TERM": "dumb"}, True),
    ],
)
def test_colours_are_used_on_a_terminal_or_when_they_are_wanted(
    tmp_path: Path, env: dict[str, str], coloured: bool
) -> None:
    project(tmp_path, "output = 'json'\n")
    table = regionctl("config", "path", "-o", "table", home=tmp_path, env=env).stdout
    assert ("\x1b[" in table) == coloured


def test_no_colour_in_the_environment_counts_before_a_file(tmp_path: Path) -> None:
    project(tmp_path, "colour = 'always'\n")
    assert shown(tmp_path, NO_COLOR="1")["colour"] == ("never", "NO_COLOR")
    assert shown(tmp_path, TERM="dumb")["colour"] == ("never", "TERM")
