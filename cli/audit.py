"""regionctl audit: who wanted what and why, and how it ended."""

from __future__ import annotations

from dataclasses import asdict
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import find, render, work
from cli.leaf import Run, group, leaf
from cli.names import known
from cli.render import Table
from cli.settings import Settings
from runtime.errors import MeasurementVoid, Refused, Unavailable

if TYPE_CHECKING:
    from control_plane.chain import Entry

JSON = dict[str, Any]
app = group()
CONTROL_PLANE = "control-plane"


@leaf(
    app,
    "audit",
    examples=(
        "regionctl audit",
        "regionctl audit --actor ada -n 200 -o jsonl",
        "regionctl audit --operation op-12",
        "regionctl audit --verify",
    ),
)
async def audit(
    run: Run,
    operation: Annotated[
        str | None,
        typer.Option(
            "--operation",
            metavar="ID",
            help="Only about this operation.",
            autocompletion=known("operation"),
        ),
    ] = None,
    actor: Annotated[
        str | None,
        typer.Option(
            "--actor",
            metavar="NAME",
            help="Only of this token, or root, sentinel.",
            autocompletion=known("actor"),
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=10_000, help="How many of the last.")
    ] = 50,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the chain of the whole log instead.")
    ] = False,
) -> None:
    """Every change that was asked for or refused, by whom and why, oldest first.

    `up`, `down` and what `infra` does to AWS are recorded in files of this machine; they are shown
    with the control plane's log, and alone (with exit 6) while it does not answer.
    """
    if verify:
        await _verify(run)
        return
    kept = [
        {**entry.to_json(), "log": log}
        for log, file in _files(run).items()
        for entry in _of_file(file)
        if actor in (None, entry.actor) and operation in (None, entry.target)
    ]
    away: Unavailable | None = None
    try:
        async with work.connect(run) as client:
            found = await client.audit(operation=operation, actor=actor, limit=limit)
    except Unavailable as unavailable:
        if not kept:
            raise
        away, found = unavailable, []
    found = sorted([{**each, "log": CONTROL_PLANE} for each in found] + kept, key=itemgetter("at"))
    _show(run, found[-limit:])
    if away is not None:
        raise away


def _show(run: Run, found: list[JSON]) -> None:
    rows = [
        (
            _number(each),
            render.moment(each["at"]),
            each["actor"],
            each["role"],
            each["kind"],
            f"{each['action']} {each['target']}".strip(),
            each["operation"],
            "; ".join(text for text in (each["outcome"], each["reason"]) if text),
        )
        for each in found
    ]
    columns = ("#", "at", "who", "role", "", "what", "operation", "outcome, reason")
    render.show(
        run.output,
        render.listing("AuditLog", found),
        tables=[Table(columns, rows)],
        names=[_number(each) for each in found],
    )


def _number(entry: JSON) -> str:
    """Each log counts for itself: 7 of the control plane, up:7, infra:7."""
    before = "" if entry["log"] == CONTROL_PLANE else f"{entry['log']}:"
    return f"{before}{entry['sequence']}"


def _files(run: Run) -> dict[str, Path]:
    """The logs on this machine: of the platform, unless one elsewhere is meant, and of AWS."""
    from cli.infra_stack import infra_folder
    from control_plane import audit_file

    elsewhere = run.state_dir is None and Settings.read().server is not None
    folders = {} if elsewhere else {"up": find.state_dir(run.state_dir)}
    folders["infra"] = infra_folder(run)
    return {log: folder / audit_file.NAME for log, folder in folders.items()}


def _of_file(file: Path) -> list[Entry]:
    """Raises `Refused` when it is another user's."""
    from control_plane import audit_file

    try:
        return audit_file.entries(file)
    except OSError as error:
        raise Refused(
            f"{file} cannot be read: {error.strerror}.", hint="run it as the owner of the platform"
        ) from error


async def _verify(run: Run) -> None:
    """Raises `MeasurementVoid`, naming the first entry that is not what was written."""
    from control_plane import audit_file

    async with work.connect(run) as client:
        verdict = await client.verify_audit()
    files = {log: file for log, file in _files(run).items() if _of_file(file)}
    others = {log: asdict(audit_file.verify(file)) for log, file in files.items()}
    for log, each in {"": verdict, **others}.items():
        if each["broken"] is not None:
            broken, which = each["broken"], f"audit log ({log})" if log else "audit log"
            raise MeasurementVoid(
                f"The {which} is broken at entry {broken['sequence']}: {broken['why']}.",
                hint="Nothing from there on can be believed; compare with a backup of the records.",
                extra=each,
            )
    document = {"apiVersion": "regionctl/v1", "kind": "AuditVerdict", **verdict, "files": others}
    rows = [("entries", verdict["entries"]), ("head", verdict["head"]), ("is", "whole")]
    rows += [(f"{log}: entries", each["entries"]) for log, each in others.items()]
    rows += [(f"{log}: head", each["head"]) for log, each in others.items()]
    render.show(run.output, document, tables=[Table(("", ""), rows)], names=[str(verdict["head"])])
