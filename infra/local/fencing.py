"""Making sure that something cannot write: its processes are gone and nothing starts them again.

On one machine this can be proven: processes carry the state directory and their instance in their
environment, and a database's processes stand in its data directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from infra.local import faults
from infra.local import layout as files
from infra.local.site import Site
from infra.provider import Fenced
from runtime.errors import TimedOut, Unavailable


def orphans(site: Site) -> dict[str, int]:
    """instance → pid of what runs without a supervisor that answers.

    Of a tree only the topmost process is listed.
    """
    found: dict[str, int] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            instance = _instance_of(site, process)
            if instance is None or not alive(process.pid):
                continue
            parent = process.parent()
            if parent is None or _instance_of(site, parent) != instance:
                found[instance] = process.pid
    return found


def alive(pid: int | None) -> bool:
    """Whether the process exists and has not ended (a zombie has)."""
    try:
        return pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _instance_of(site: Site, process: psutil.Process) -> str | None:
    """Which instance a process is: by its environment or, where a server has painted over that
    (Valkey, PostgreSQL), by the data folder that it works in."""
    with contextlib.suppress(psutil.Error):
        environment = process.environ()
        if environment.get("REGIONCTL_STATE") == str(site.layout.root):
            instance = environment.get("REGIONCTL_INSTANCE")
            return instance if instance in site.topology.by_id else None
        if process.name().startswith(("valkey", "postgres")):
            where = Path(process.cwd())
            name = where.parent.name if where.name == "pgdata" else where.name
            spec = site.topology.by_id.get(name)
            if spec and site.layout.data(spec.region, name).resolve() in (where, where.parent):
                return name
    return None


async def pids_of(site: Site, instances: Iterable[str]) -> list[int]:
    """The topmost pid of each instance that runs, supervised or not."""
    wanted = list(instances)
    found: set[int] = set()
    regions = {site.spec(instance).region for instance in wanted}
    strays: dict[str, int] | None = None
    for region in regions:
        try:
            known = await site.supervisors[region].info()
            found |= {
                info.pid
                for info in known.values()
                if info.name in wanted and info.pid is not None and alive(info.pid)
            }
        except Unavailable:
            if strays is None:
                strays = await asyncio.to_thread(orphans, site)
    found |= {pid for instance, pid in (strays or {}).items() if instance in wanted}
    for instance in wanted:
        if site.spec(instance).kind == "postgres":
            pid = site.postmaster(instance)
            if pid is not None:
                found.add(pid)
    return sorted(found)


async def kill(site: Site, instances: Iterable[str], *, keep_down: bool) -> list[int]:
    """Kill -9 the whole of each instance. `keep_down`: their supervisor starts none again."""
    wanted = list(instances)
    pids = await pids_of(site, wanted)
    if keep_down:
        # Frozen first, so that none of them can end in good order while the others still run.
        for pid in pids:
            for process in faults.process_tree(pid):
                with contextlib.suppress(psutil.Error):
                    psutil.Process(process).suspend()
        for instance in wanted:
            with contextlib.suppress(Unavailable):
                await site.supervisor(instance).stop_program(instance, wait=False)
    return await asyncio.to_thread(faults.kill_tree, pids)


async def fence(site: Site, instance: str) -> Fenced:
    try:
        await kill(site, [instance], keep_down=True)
    except TimedOut as error:
        return Fenced(False, f"its processes did not end: {error.detail}")
    if await pids_of(site, [instance]):
        return Fenced(False, "its processes came back")
    return Fenced(True, "its processes were killed and none is left")


async def fence_region(site: Site, region: str) -> Fenced:
    """Whatever of the region could write is gone; its supervisor goes on where it runs."""
    instances = [
        spec.id for spec in site.topology.instances(region=region) if spec.kind != "supervisor"
    ]
    try:
        await kill(site, instances, keep_down=True)
    except TimedOut as error:
        return Fenced(False, f"its processes did not end: {error.detail}")
    left = await pids_of(site, instances)
    if left:
        return Fenced(False, f"processes of the region still run: {left}")
    return Fenced(True, "no process of the region is left")


# Zones that a fault holds down.


def hold_zone(site: Site, zone: str, expires_seconds: float) -> None:
    """Nothing is started in `zone` ("us-east-1a") until it is released or the time is up."""
    document = json.dumps({"until": time.time() + expires_seconds})
    files.replace_file(_hold(site, zone), document)


def release_zone(site: Site, zone: str) -> None:
    _hold(site, zone).unlink(missing_ok=True)


def held_zones(site: Site) -> set[str]:
    found = set()
    for region in site.topology.regions:
        for letter in region.zones:
            zone = region.name + letter
            try:
                until = json.loads(_hold(site, zone).read_text("utf-8"))["until"]
            except (OSError, ValueError, KeyError):
                continue
            if until > time.time():
                found.add(zone)
    return found


def require_reachable(site: Site, instances: Iterable[str]) -> None:
    """Raises `Unavailable` when one of them stands in a zone that is held down."""
    held = held_zones(site)
    for instance in instances:
        spec = site.spec(instance)
        if spec.region + spec.zone in held:
            raise Unavailable(
                f"{instance} stands in zone {spec.region}{spec.zone}, which is down.",
                hint="A drill holds it down; it comes back when the drill heals it.",
            )


def _hold(site: Site, zone: str) -> Path:
    return site.layout.folder("") / f"down.{zone}.json"
