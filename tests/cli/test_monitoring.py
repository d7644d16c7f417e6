"""The console about the monitoring: its files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from runtime.errors import Exit
from tests.cli.console import regionctl


def test_the_files_are_about_the_topology_and_the_ports_that_are_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("monitoring", "files", "--out", str(out), "--port-offset", "3000", "-o", "json")
    ended = regionctl(*words, home=tmp_path)
    assert ended.code == Exit.OK, ended
    document = json.loads(ended.stdout)
    assert all((out / name).is_file() for name in document["files"])
    edge = json.loads((out / "targets" / "edge.json").read_text())
    assert edge[0]["targets"] == ["127.0.0.1:21002"]
    config = yaml.safe_load((out / "prometheus.yml").read_text())
    assert config["global"]["external_labels"] == {"platform": "two-regions"}


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("monitoring", "files", "--out", str(tmp_path / "file" / "out"))
    ended = regionctl(*words, home=tmp_path)
    assert ended.code == Exit.FAILED
    assert "--out" in ended.stderr


def test_with_and_without_is_a_contradiction(tmp_path: Path) -> None:
    ended = regionctl("up", "--with", "monitoring", "--without", "monitoring", home=tmp_path)
    assert ended.code == Exit.USAGE
    assert not (tmp_path / "state").exists()
