from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.console import regionctl


def places(home: Path, **env: str) -> dict[str, tuple[str, bool | None]]:
    ended = regionctl("info", "-o", "json", home=home, env=env)
    assert ended.code == 0, ended
    items = json.loads(ended.stdout)["items"]
    return {each["what"]: (each["where"], each["exists"]) for each in items}


def test_paths_are_told_before_there_is_anything(tmp_path: Path) -> None:
    found = places(tmp_path)
    assert found["state directory"] == (str(tmp_path / "state"), False)
    assert found["cache"] == (str(tmp_path / "cache" / "regionctl"), False)
    assert found["program"][1]
    assert "control plane" not in found


def test_addresses_of_a_platform_are_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    document = {"format": 1, "topology": "two-regions", "portOffset": 400}
    (tmp_path / "state" / "state.json").write_text(json.dumps(document))
    found = places(tmp_path)
    assert found["control plane"] == ("http://127.0.0.1:18400", None)
    assert found["entry"] == ("https://127.0.0.1:18401", None)


def test_of_a_server_elsewhere_no_state_directory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = "https://192.0.2.1:18000"
    found = places(tmp_path, REGIONCTL_SERVER=server, REGIONCTL_TOKEN_FILE=str(tmp_path / "t"))
    assert found["control plane"] == (server, None)
    assert found["token"] == (str(tmp_path / "t"), False)
    assert "state directory" not in found
