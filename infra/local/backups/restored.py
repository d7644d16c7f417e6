"""Restored servers beside the platform: made, found again, thrown away.

Each lives in a folder of its own, `restored/ID`, which says what it is in restored.json.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.backups import JSON, Restored, Target
from infra.local import layout as files
from infra.local import ports, postgres
from infra.local.backups import recover, restore
from infra.local.backups.parts import Parts, end_programs, exclusive
from infra.local.backups.recover import Copy, Recovered
from infra.local.backups.restore import Meter
from infra.local.ports import HOST
from runtime.errors import Invalid, NotFound, Refused

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
DOCUMENT = "restored.json"
PORT = "port"
PASSFILE = "pgpass"
REPLACED = "replaced"


async def aside(
    parts: Parts, id: str, database: str, target: Target, backup: str | None
) -> Restored:
    """See `infra.backups.Backups.restore_aside`."""
    if not NAME.fullmatch(id):
        raise Invalid(f"{id!r} is no name for a server.", hint="Small letters, digits, hyphens.")
    folder = parts.restored / id
    with exclusive(parts.restored / f"{id}.lock", f"{id} is being restored"):
        known = _read(folder)
        if known is not None:
            wanted = {"database": database, "target": target_json(target)}
            wanted |= {"backup": backup} if backup else {}
            if not wanted.items() <= known.items():
                raise Refused(f"{id} is a copy of something else.", hint="Choose another name.")
            return await _served(parts, folder, known)
        await _clear(parts, folder)
        parts.folder(folder)
        copy = Copy(f"restored.{id}", folder / "pgdata", _free_port(parts, folder))
        meter = Meter()
        look = parts.folder(folder / "look")
        way = await restore.find_way(parts, database, target, backup, look)
        with parts.working(id, meter.far):
            reached = await restore.build(parts, way, copy, meter)
        await asyncio.to_thread(shutil.rmtree, look)
        restored = _restored(id, database, copy, reached, meter)
        document = _json(restored) | {"target": target_json(target), "backup": way.backup.id}
        files.replace_file(folder / DOCUMENT, json.dumps(document, indent=1))
        return await _served(parts, folder, document)


def _restored(id: str, database: str, copy: Copy, reached: Recovered, meter: Meter) -> Restored:
    return Restored(
        id=id,
        database=database,
        host=HOST,
        port=copy.port,
        reached_lsn=reached.lsn,
        reached_at=reached.at,
        timeline=reached.timeline,
        bytes=meter.bytes,
        seconds=meter.seconds,
    )


async def find(parts: Parts, id: str) -> Restored:
    """Raises `NotFound`. A server that was ended, as by a reboot, is started again."""
    folder = parts.restored / id
    known = _read(folder) if NAME.fullmatch(id) else None
    if known is None:
        raise NotFound(f"No restored server is called {id}.", hint="regionctl backup restore")
    return await _served(parts, folder, known)


async def _served(parts: Parts, folder: Path, known: Mapping[str, Any]) -> Restored:
    copy = Copy(f"restored.{known['id']}", folder / "pgdata", known["port"])
    await recover.serve(parts, copy)
    password = f"{HOST}:{copy.port}:*:{postgres.SUPERUSER}:{parts.site.secrets.superuser}\n"
    files.replace_file(folder / PASSFILE, password)
    at = known["reachedAt"]
    return Restored(
        id=known["id"],
        database=known["database"],
        host=HOST,
        port=copy.port,
        reached_lsn=known["reachedLsn"],
        reached_at=datetime.fromisoformat(at) if at else None,
        timeline=known["timeline"],
        bytes=known["bytes"],
        seconds=known["seconds"],
        user=postgres.SUPERUSER,
        dbname=postgres.DATABASE,
        passfile=str(folder / PASSFILE),
    )


async def discard(parts: Parts, id: str) -> None:
    if not NAME.fullmatch(id):
        raise NotFound(f"No restored server is called {id}.")
    with exclusive(parts.restored / f"{id}.lock", f"{id} is being restored"):
        await _clear(parts, parts.restored / id)
    (parts.restored / f"{id}.lock").unlink(missing_ok=True)


async def _clear(parts: Parts, folder: Path) -> None:
    """Nothing runs in the folder, and it is gone."""
    copy = Copy(f"restored.{folder.name}", folder / "pgdata", 0)
    (folder / DOCUMENT).unlink(missing_ok=True)
    await asyncio.to_thread(end_programs, folder)
    await asyncio.to_thread(recover.kill, copy)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _free_port(parts: Parts, folder: Path) -> int:
    """The first one of the block that nobody has; `folder` claims it before its server runs, for
    several may be restored at the same time. Raises `Refused`."""
    claims = parts.restored.glob(f"*/{PORT}")
    taken = {int(each.read_text()) for each in claims if each.parent != folder}
    for port in parts.site.ports.restored:
        if port not in taken and ports.holder(port) is None:
            files.replace_file(folder / PORT, str(port))
            return port
    raise Refused(
        "Restored servers have all the ports that there are for them.",
        hint="regionctl backup discard ID",
        extra={"restored": sorted(each.name for each in parts.restored.glob("*/"))},
    )


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        known: dict[str, Any] = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return known


def _json(restored: Restored) -> JSON:
    return {
        "what": "A restored copy of a database, beside the platform; regionctl backup discard.",
        "id": restored.id,
        "database": restored.database,
        "port": restored.port,
        "reachedLsn": restored.reached_lsn,
        "reachedAt": restored.reached_at.isoformat() if restored.reached_at else None,
        "timeline": restored.timeline,
        "bytes": restored.bytes,
        "seconds": dict(restored.seconds),
    }


def target_json(target: Target) -> JSON:
    time = target.time.isoformat() if target.time else None
    return {"time": time, "lsn": target.lsn, "name": target.name}


async def into(
    parts: Parts, instance: str, database: str, target: Target, backup: str | None
) -> JSON:
    """See `infra.backups.Backups.restore_into`.

    The copy is recovered and checked beside the node's data directory, which is renamed only then,
    and removed when the node runs with the restored one. Killed anywhere, it is begun again.
    """
    site = parts.site
    folder = site.pgdata(instance).parent
    marker = folder / DOCUMENT
    wanted = {"database": database, "target": target_json(target), "asked": backup}
    with exclusive(folder / "restoring.lock", f"{instance} is being restored"):
        known = _document(marker)
        if site.postmaster(instance) is not None:
            if {key: known.get(key) for key in wanted} == wanted:
                where = await parts.cluster.where(instance)
                if not where["standby"] and where["timeline"] == known["answer"]["timeline"]:
                    await asyncio.to_thread(_remove_replaced, folder)
                    return dict(known["answer"])
            raise Refused(f"{instance} runs.", hint="It must be stopped before it is replaced.")
        began = time.monotonic()
        work = folder / "restoring"
        ready = _document(work / DOCUMENT)
        swapping = (work / "pgdata").exists() and not site.pgdata(instance).exists()
        if not swapping or {key: ready.get(key) for key in wanted} != wanted:
            answer = await _into_work(parts, work, database, target, backup, instance)
            ready = wanted | {"answer": answer}
            files.replace_file(work / DOCUMENT, json.dumps(ready))
        await _swap(parts, instance, work, ready)
        ready["answer"]["seconds"] = round(time.monotonic() - began, 3)
        files.replace_file(marker, json.dumps(ready))
        await parts.cluster.start(instance)
        await asyncio.to_thread(_remove_replaced, folder)
        return dict(ready["answer"])


async def _into_work(
    parts: Parts, work: Path, database: str, target: Target, backup: str | None, instance: str
) -> JSON:
    """The recovered, stopped and checked data directory `work`/pgdata."""
    await _clear(parts, work)
    parts.folder(work)
    copy = Copy(f"restored.{instance.replace('.', '-')}", work / "pgdata", _free_port(parts, work))
    way = await restore.find_way(parts, database, target, backup, parts.folder(work / "look"))
    meter = Meter()
    histories = _histories(parts.site.pgdata(instance))
    with parts.working(instance, meter.far):
        reached = await restore.build(parts, way, copy, meter, histories=histories)
    return {
        "lsn": reached.lsn,
        "timeline": reached.timeline,
        "seconds": sum(meter.seconds.values()),
    }


def _histories(pgdata: Path) -> Mapping[str, bytes]:
    """Of timelines that the node knows and the archive may not: none of them is used again."""
    return {each.name: each.read_bytes() for each in (pgdata / "pg_wal").glob("*.history")}


async def _swap(parts: Parts, instance: str, work: Path, ready: JSON) -> None:
    """The node's data directory is the restored one; what it had before lies beside it."""
    site = parts.site
    pgdata = site.pgdata(instance)
    if (work / "pgdata").exists():
        site.mark(instance, complete=False)
        if pgdata.exists():
            pgdata.rename(pgdata.with_name(f"{REPLACED}-{time.time_ns()}"))
        (work / "pgdata").rename(pgdata)
    files.replace_file(pgdata / "pg_hba.conf", postgres.hba(), owner=site.user)
    postgres.write_config(site, instance, postgres.Config())
    site.mark(instance, complete=True)
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


def _remove_replaced(folder: Path) -> None:
    for each in folder.glob(f"{REPLACED}-*"):
        shutil.rmtree(each, ignore_errors=True)


def _document(path: Path) -> JSON:
    try:
        known: JSON = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return known
