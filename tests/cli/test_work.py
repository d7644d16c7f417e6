"""Whose token is sent where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli import work
from control_plane import listen
from control_plane.listen import Listen
from infra.local import certificates


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a project's; the person's own token is a setting."""
    mine = tmp_path / "mine.token"
    mine.write_text("mine\n")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for name in ("SERVER", "STATE_DIR", "CA_FILE"):
        monkeypatch.delenv(f"REGIONCTL_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("REGIONCTL_TOKEN_FILE", str(mine))
    return tmp_path


def platform(directory: Path, host: str = "127.0.0.1") -> Path:
    (directory / "control").mkdir(parents=True)
    made = {"format": 1, "topology": "two-regions", "portOffset": 0}
    (directory / "state.json").write_text(json.dumps(made))
    (directory / "control" / "token").write_text("its-own\n")
    certificate = None
    if host != "127.0.0.1":
        certificates.ensure(directory / "ca")
        certificate = (directory / "ca" / "edge.pem").read_text()
    (directory / "control" / "listen.json").write_text(listen.text(Listen(host, certificate)))
    return directory


def sent(state_dir: Path | None) -> str:
    return work.client_of(state_dir)._http.headers["authorization"].removeprefix("Bearer ")


def test_a_directory_that_a_projects_file_names_never_gets_the_persons_token(home: Path) -> None:
    directory = platform(home / "project" / "x")
    Path("regionctl.toml").write_text("state_dir = 'x'\n")
    assert sent(None) == "its-own"
    assert sent(directory) == "its-own"


def test_a_directory_that_leads_off_this_machine_never_gets_the_persons_token(home: Path) -> None:
    assert sent(platform(home / "away", "203.0.113.7")) == "its-own"
    assert sent(platform(home / "named", "control.example")) == "its-own"


def test_a_platform_of_this_machine_and_a_server_of_the_settings_get_the_persons_token(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sent(platform(home / "here")) == "mine"
    monkeypatch.setenv("REGIONCTL_STATE_DIR", str(home / "here"))
    assert sent(None) == "mine"
    monkeypatch.delenv("REGIONCTL_STATE_DIR")
    monkeypatch.setenv("REGIONCTL_SERVER", "https://ops.example:18000")
    assert sent(None) == "mine"
