"""regionctl backup: copies in another region, and the way back from them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli import recover, render, work
from cli.leaf import MUTATES, SEVERE, Run, group, leaf
from cli.names import known
from cli.render import Table
from runtime.errors import Exit, Refused

JSON = dict[str, Any]

app = group()
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="Such as backup list shows.", autocompletion=known("backup")),
]
Database = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATABASE]",
        help="Such as s1 or catalog; default: all.",
        autocompletion=known("database"),
    ),
]


class Kind(StrEnum):
    full = "full"
    incremental = "incremental"


class Place(StrEnum):
    new = "new"
    in_place = "in-place"


@leaf(
    app,
    "create",
    shared=MUTATES,
    examples=("regionctl backup create", "regionctl backup create s1 --kind full -o name"),
)
async def create(
    run: Run,
    database: Database = None,
    kind: Annotated[
        Kind | None, typer.Option("--kind", help="Default: incremental when there is a full one.")
    ] = None,
) -> None:
    """Take a backup now; it is verified before it is listed."""
    args = {"database": database or "all", "kind": kind.value if kind else None}
    async with work.connect(run) as client:
        ended = await work.perform(run, client, "backup", args)
    if ended is not None:
        _show_backups(run, _results(ended, "take-backup"))


@leaf(app, "list", examples=("regionctl backup list", "regionctl backup list s1 -o json"))
async def list_(run: Run, database: Database = None) -> None:
    """Backups that can be restored, oldest first."""
    async with work.connect(run) as client:
        _show_backups(run, await client.backups(database))


@leaf(
    app,
    "verify",
    shared=MUTATES,
    examples=("regionctl backup verify s1-20260131T041500Z-full",),
)
async def verify(run: Run, id: Id) -> None:
    """Download everything a restore from ID would read, and check it. Exit 4 when it is damaged."""
    async with work.connect(run) as client:
        backup = await client.backup(id)
        args = {"id": id, "database": backup["database"]}
        ended = await work.perform(run, client, "backup-verify", args)
    if ended is None:
        return
    (found,) = _results(ended, "verify-backup")
    rows = [(id, found["pieces"], found["segments"], _size(found["bytes"]), "ok")]
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "BackupVerification", **found},
        tables=[Table(("backup", "pieces", "wal segments", "bytes", "state"), rows)],
        names=[id],
    )


@leaf(
    app,
    "restore",
    shared=SEVERE,
    examples=(
        "regionctl backup restore s1 --at 2026-01-31T04:15:00Z --to new",
        "regionctl backup restore s1 --at before-release-7 --to in-place --confirm s1",
        "regionctl backup restore s1-20260131T041500Z-full --at 0/5A1B2C8 --to new --dry-run",
    ),
)
async def restore(
    run: Run,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID|DATABASE",
            help="A backup, or the database: the best one.",
            autocompletion=known("backup", "database"),
        ),
    ],
    to: Annotated[Place, typer.Option("--to", help="A server beside the platform, or in place.")],
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME|LSN|POINT",
            autocompletion=known("point"),
            help="2026-01-31T04:15:00Z, 0/5A1B2C8, or a restore point; default: all archived.",
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="The new server's name, for discard.")
    ] = None,
    loss: Annotated[
        bool, typer.Option("--accept-data-loss", help="In place: do not wait for the archive.")
    ] = False,
) -> None:
    """Bring a database back as it was; what cannot be reached is refused and changes nothing."""
    if loss and not run.reason.strip():
        raise Refused("--accept-data-loss needs a reason.", hint="add --reason 'why'")
    async with work.connect(run) as client:
        goal = await client.restorable(name, at)
        database = goal["database"]
        render.note(f"{database} from {goal['backup']['id']}, to {at or 'everything archived'}")
        args = {"database": database, "to": to.value, "at": at, "id": goal["id"]}
        args |= {"server": server, "accept_data_loss": loss}
        if to is Place.in_place and not run.dry_run:
            if run.interactive and run.confirm is None:
                recover.announce(await client.plan("restore", args, run.reason))
            await run.insist(
                database, f"{database} goes back; what was written to it since is given up."
            )
        ended = await work.perform(run, client, "restore", args)
    if ended is None:
        return
    if to is Place.in_place:
        work.show_operation(run.output, ended)
        return
    (found,) = _results(ended, "restore-aside")
    _show_restored(run, found)


@leaf(app, "discard", shared=MUTATES, examples=("regionctl backup discard s1-op-12",))
async def discard(
    run: Run, id: Annotated[str, typer.Argument(metavar="ID", help="A restored server.")]
) -> None:
    """End a server that a restore left beside the platform, and remove its files."""
    async with work.connect(run) as client:
        await client.restored(id)
    await run.agree(f"End {id} and remove its files?")
    await recover.carry_out(run, "restore-discard", {"id": id})


@leaf(app, "point", shared=MUTATES, examples=("regionctl backup point before-release-7",))
async def point(
    run: Run, name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new point.")]
) -> None:
    """Mark one moment of all databases together; writers wait for some milliseconds."""
    async with work.connect(run) as client:
        if any(each["name"] == name for each in await client.restore_points()):
            raise Refused(f"There is a restore point {name!r} already.", hint="another name")
        ended = await work.perform(run, client, "restore-point", {"name": name})
    if ended is not None:
        _show_points(run, _results(ended, "mark-point"))


@leaf(app, "points", examples=("regionctl backup points", "regionctl backup points -o name"))
async def points(run: Run) -> None:
    """Restore points over all databases, oldest first."""
    async with work.connect(run) as client:
        _show_points(run, await client.restore_points())


@leaf(
    app,
    "status",
    examples=("regionctl backup status", "regionctl backup status --exit-status"),
)
async def status(
    run: Run,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="Exit 11 unless every archive runs, whole.")
    ] = False,
) -> int:
    """How the WAL of each database is being archived, and each one's newest backup."""
    async with work.connect(run) as client:
        found = await client.archives()
        backups = await client.backups()
    newest = {each["database"]: each["id"] for each in backups}
    items = [{**each, "newestBackup": newest.get(each["database"])} for each in found]
    rows = [
        (
            each["database"],
            _archive_state(each),
            each["receivedLsn"],
            each["uploadedLsn"],
            render.seconds(each["ageSeconds"]),
            _size(each["spoolBytes"]),
            each["newestBackup"],
        )
        for each in items
    ]
    foot = [f"{each['database']}: {each['gap']}" for each in items if each["gap"]]
    if any(each["alarm"] for each in items):
        foot.append("Much WAL waits for the object storage: regionctl status, regionctl logs")
    columns = ("database", "archive", "received", "uploaded", "age", "spool", "newest backup")
    render.show(
        run.output,
        render.listing("ArchiveList", items),
        tables=[Table(columns, rows, foot=foot)],
        names=[each["database"] for each in items],
    )
    whole = all(_archive_state(each) == "running" for each in items)
    return Exit.OK if whole or not exit_status else Exit.DEGRADED


def _archive_state(archive: JSON) -> str:
    if archive["gap"]:
        return "gap"
    if not archive["running"]:
        return "stopped"
    return "waiting" if archive["alarm"] else "running"


@leaf(
    app,
    "prune",
    shared=MUTATES,
    examples=("regionctl backup prune", "regionctl backup prune --keep-full 2 --yes"),
)
async def prune(
    run: Run,
    keep_full: Annotated[
        int | None,
        typer.Option("--keep-full", min=1, help="Full backups of each database that stay."),
    ] = None,
) -> None:
    """Remove old backups, whole chains at a time, and WAL that nothing kept needs."""
    async with work.connect(run) as client:
        if not run.dry_run:
            plan = await client.plan("prune", {"keep_full": keep_full}, run.reason)
            kept = plan["expected"]["keepFull"]
            await run.agree(
                f"Remove what is older than the newest {kept} full backups of each database?"
            )
        ended = await work.perform(run, client, "prune", {"keep_full": keep_full})
    if ended is None:
        return
    (found,) = _results(ended, "prune-backups")
    removed = found["removed"]
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "Pruning", "removed": removed},
        tables=[Table(("removed",), [(id,) for id in removed], foot=[f"{len(removed)} removed"])],
        names=removed,
    )


def _results(operation: JSON, step: str) -> list[JSON]:
    """What the steps of that name returned, those that had nothing to do left out."""
    found = [each["result"] for each in operation["steps"] if each["name"] == step]
    return [result for result in found if result]


def _show_backups(run: Run, found: Sequence[JSON]) -> None:
    rows = [
        (
            each["id"],
            each["database"],
            each["kind"],
            render.moment(each["beganAt"]),
            _size(each["bytes"]),
            _size(each["stored"]),
            each["region"],
            each["parent"],
        )
        for each in found
    ]
    columns = ("id", "database", "kind", "began", "size", "stored", "from", "builds on")
    render.show(
        run.output,
        render.listing("BackupList", found),
        tables=[Table(columns, rows)],
        names=[each["id"] for each in found],
    )


def _show_points(run: Run, found: Sequence[JSON]) -> None:
    rows = [(each["name"], render.moment(each["at"]), each["mapVersion"]) for each in found]
    render.show(
        run.output,
        render.listing("RestorePointList", found),
        tables=[Table(("name", "at", "map version"), rows)],
        names=[each["name"] for each in found],
    )


def _show_restored(run: Run, found: JSON) -> None:
    """How to connect; the password stays in its file."""
    keys = ("host", "port", "user", "dbname", "passfile")
    words = {key: found[key] for key in keys if found[key]}
    connect = " ".join(f"{key}={value}" for key, value in words.items())
    rows = [
        ("server", found["id"]),
        ("reached", f"{render.moment(found['reachedAt'])}  timeline {found['timeline']}"),
        ("took", render.seconds(sum(found["seconds"].values()))),
        *words.items(),
        ("connect", f'psql "{connect}"'),
        ("end it", f"regionctl backup discard {found['id']}"),
    ]
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "RestoredServer", **found},
        tables=[Table(("", ""), rows)],
        names=[found["id"]],
    )


def _size(count: int) -> str:
    """Bytes for people: 512 B, 3.4 kB, 1.2 GB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
