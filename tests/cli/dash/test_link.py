"""The dashboard's connection outlives what it was made from."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.dash import view
from cli.dash.link import Link
from cli.dash.view import Contact
from cli.leaf import Run
from cli.settings import BASE_PORT, DEFAULT_NAME, Settings, elsewhere
from runtime.errors import Unauthorized, Unavailable
from tests.cli.conftest import Plane
from tests.control_plane.served import TOKEN, served, state_dir
from tests.ports import free_port


def place(folder: Path, address: str) -> None:
    offset = (urlsplit(address).port or 0) - BASE_PORT
    made = {"format": 1, "topology": "two-regions", "portOffset": offset}
    (folder / "state.json").write_text(json.dumps(made))


def in_another_terminal(line: str, home: Path) -> subprocess.CompletedProcess[str]:
    """What is typed where nothing of this environment is set."""
    here = str(Path(sys.executable).parent)
    environment = {"PATH": f"{here}:{os.environ['PATH']}", "HOME": str(home)}
    return subprocess.run(
        ["sh", "-c", line],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=home,
        env=environment,
        timeout=60,
        check=False,
    )


def test_a_copied_line_means_the_same_platform_in_another_terminal(
    platform: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SERVER", "STATE_DIR", "TOKEN_FILE", "CA_FILE"):
        monkeypatch.delenv(f"REGIONCTL_{name}", raising=False)
    monkeypatch.setenv("REGIONCTL_STATE_DIR", str(platform.state))
    by_variable = Link(Run()).line("regionctl op list -o name")
    assert by_variable == f"regionctl op list -o name --state-dir {platform.state}"
    monkeypatch.setenv("REGIONCTL_SERVER", f"http://127.0.0.1:{platform.port}")
    monkeypatch.delenv("REGIONCTL_STATE_DIR")
    monkeypatch.setenv("REGIONCTL_TOKEN_FILE", str(platform.state / "control" / "token"))
    by_server = Link(Run()).line("regionctl op list -o name")
    assert "--state-dir" not in by_server
    assert Link(Run(state_dir=platform.state)).line("regionctl dr").endswith(str(platform.state))
    for line in (by_variable, by_server):
        ended = in_another_terminal(line, tmp_path)
        assert (ended.returncode, ended.stdout) == (0, "op-1\n"), ended


def test_what_a_new_terminal_means_by_itself_needs_no_more_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SERVER", "STATE_DIR", "TOKEN_FILE", "CA_FILE"):
        monkeypatch.delenv(f"REGIONCTL_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    usual = Settings.read().state_root / DEFAULT_NAME
    assert elsewhere("regionctl dr", usual) == "regionctl dr"
    other = tmp_path / "my platform"
    assert elsewhere("regionctl dr", other) == f"regionctl dr --state-dir '{other}'"
    (tmp_path / "regionctl").mkdir()
    (tmp_path / "regionctl" / "config.toml").write_text('server = "https://far:1"')
    assert elsewhere("regionctl dr", usual) == f"regionctl dr --state-dir {usual}"


@pytest.mark.parametrize(
    ("server", "entry", "asked"),
    [
        ("https://far.example:18000", None, None),
        ("https://far.example:18000", "https://127.0.0.1:{port}", None),
        ("http://127.0.0.1:18000", "https://127.0.0.1:{port}", True),
        (None, "https://localhost:{port}", True),
        (None, None, False),
    ],
)
async def test_the_edge_of_another_machine_is_not_looked_for_on_this_one(
    server: str | None,
    entry: str | None,
    asked: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`asked`: this machine's port was; None: it was not, and nothing is said to be silent."""
    for name in ("SERVER", "STATE_DIR", "TOKEN_FILE", "CA_FILE"):
        monkeypatch.delenv(f"REGIONCTL_{name}", raising=False)
    calls = []
    serving = await asyncio.start_server(
        lambda reader, writer: (calls.append(1), writer.close()), "127.0.0.1", port := free_port()
    )
    async with serving:
        if server is None:
            state_dir(tmp_path)
            place(tmp_path, "http://127.0.0.1:1")
            link = Link(Run(state_dir=tmp_path))
        else:
            monkeypatch.setenv("REGIONCTL_SERVER", server)
            link = Link(Run())
        document = {"entryUrl": entry.format(port=port)} if entry else None
        probe = await link.probe(document)
        await link.close()
    assert probe.known == (asked is not None)
    assert bool(calls) == bool(asked)
    shown = view.banners(None, Contact(lost=1.0, probes=(probe,)))
    assert any(("not known from here" in cell.text) == (asked is None) for cell in shown[1:2])


async def test_a_new_token_and_a_new_address_are_picked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SERVER", "STATE_DIR", "TOKEN_FILE", "CA_FILE"):
        monkeypatch.delenv(f"REGIONCTL_{name}", raising=False)
    folder = state_dir(tmp_path / "state")
    token = folder / "control" / "token"
    async with served(folder) as address:
        place(folder, address)
        token.write_text("an-old-one")
        link = Link(Run(state_dir=folder))
        try:
            with pytest.raises(Unauthorized):
                await link.overview()
            token.write_text(TOKEN)
            assert (await link.overview())["name"] == "two-regions"
            place(folder, "http://127.0.0.1:1")
            assert (await link.overview())["name"] == "two-regions"
        finally:
            await link.close()
    place(folder, "http://127.0.0.1:1")
    link = Link(Run(state_dir=folder))
    try:
        with pytest.raises(Unavailable):
            await link.overview()
        async with served(folder) as address:
            place(folder, address)
            assert (await link.overview())["name"] == "two-regions"
    finally:
        await link.close()
