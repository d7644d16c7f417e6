"""What a removed shard leaves behind does not come back with the next shard of its name."""

from __future__ import annotations

import os
from pathlib import Path

from infra.local import aside, layout, ports
from infra.local.layout import Layout
from infra.local.site import Site
from infra.topology import load

TOPOLOGY = load("two-regions").with_shards(1)


def platform(root: Path) -> Site:
    paths = Layout(root)
    known = layout.read_secrets(paths)
    return Site(TOPOLOGY, paths, ports.table(TOPOLOGY), known, None, Path("/nowhere"))


def make(site: Site, instance: str, text: str) -> Path:
    folder = site.layout.data("us-east-1", instance) / "pgdata"
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text(text)
    return folder


def test_data_of_removed_databases_is_kept_beside_until_the_next_of_that_name(
    tmp_path: Path,
) -> None:
    site = platform(tmp_path)
    mine = make(site, "s1.us-east-1a", "mine")
    for text in ("first", "second"):
        removed = make(site, "s2.us-east-1a", text)
        assert aside.set_aside(site, "us-east-1") == ["s2.us-east-1a"]
        assert aside.set_aside(site, "us-east-1") == []
        assert not removed.exists()
        kept = site.layout.data("us-east-1", "s2.us-east-1a.removed") / "pgdata" / "PG_VERSION"
        assert kept.read_text() == text
    assert mine.exists()


def test_a_folder_in_which_a_server_runs_is_left_alone(tmp_path: Path) -> None:
    site = platform(tmp_path)
    folder = make(site, "s2.us-east-1a", "running")
    (folder / "postmaster.pid").write_text(f"{os.getpid()}\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert aside.set_aside(site, "us-east-1") == []
    finally:
        os.chdir(before)
    assert folder.exists()
