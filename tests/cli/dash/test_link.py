"""The dashboard's connection outlives what it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli.dash.link import Link
from cli.leaf import Run
from cli.settings import BASE_PORT
from runtime.errors import Unauthorized, Unavailable
from tests.control_plane.served import TOKEN, served, state_dir


def place(folder: Path, address: str) -> None:
    offset = (urlsplit(address).port or 0) - BASE_PORT
    made = {"format": 1, "topology": "two-regions", "portOffset": offset}
    (folder / "state.json").write_text(json.dumps(made))


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
