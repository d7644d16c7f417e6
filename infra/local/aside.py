"""What is left of databases that the topology has no more.

Their data is kept beside, under another name, until the next database of that name goes the same
way: a shard that comes back later begins empty, and never with rows or an owner's rights of before.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import psutil

from infra.local import layout as files
from infra.local.site import Site

log = logging.getLogger(__name__)

SUFFIX = ".removed"


def set_aside(site: Site, region: str) -> list[str]:
    """The data folders of removed databases of `region` are out of the way; their instances.

    A folder in which a server still runs is left alone. Raises `OperationFailed` for a full or
    forbidden disk.
    """
    gone = []
    for folder in sorted(site.layout.data(region, "").glob("*/pgdata")):
        instance = folder.parent.name
        if instance in site.topology.by_id or instance.endswith(SUFFIX):
            continue
        if _runs_in(folder):
            log.warning("%s is not in the topology and runs: its data stays", instance)
            continue
        kept = folder.parent.with_name(instance + SUFFIX)
        with files.explain_disk(folder):
            if kept.exists():
                shutil.rmtree(kept)
            folder.parent.rename(kept)
        gone.append(instance)
    return gone


def _runs_in(folder: Path) -> bool:
    try:
        pid = int((folder / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
        return Path(psutil.Process(pid).cwd()) == folder.resolve()
    except (OSError, ValueError, psutil.Error):
        return False
