"""regionctl doctor: is this machine fit, and if not, what to do."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cli import find, programs, render
from cli.leaf import Run, group, leaf
from cli.render import Table
from cli.settings import DEFAULT_NAME, Settings
from runtime.errors import Exit, Problem

app = group()


@leaf(app, "doctor", examples=("regionctl doctor", "regionctl doctor --port-offset 1000 -o json"))
async def doctor(
    run: Run,
    topology: Annotated[
        str | None, typer.Option("--topology", metavar="NAME|FILE", help="Whose ports to check.")
    ] = None,
    port_offset: Annotated[
        int | None, typer.Option("--port-offset", min=0, help="Added to every port.")
    ] = None,
) -> int:
    """Check python, user, ports, memory, disk, servers and state. Exit 5 when one fails."""
    directory = find.state_dir(run.state_dir)
    if port_offset is None:
        port_offset = _offset(run)
    made = directory / "topology.yaml"
    whose = topology or (str(made) if os.access(made, os.R_OK) else DEFAULT_NAME)
    arguments = ["--state-dir", str(directory), "--topology", whose]
    arguments += ["--port-offset", str(port_offset)]
    postgres = Settings.read().postgres_bin
    if postgres is not None:
        arguments += ["--postgres-bin", str(postgres)]
    found = await programs.call("infra.local.doctor", *arguments)
    checks = found["checks"]
    failed = [check for check in checks if check["state"] == "fail"]
    rows = [(check["name"], check["state"], check["detail"]) for check in checks]
    mends = [f"  {c['name']}: {c['mend']}" for c in checks if c["mend"]]
    foot = ["", "to mend:", *mends] if mends else []
    render.show(
        run.output,
        {
            "apiVersion": "regionctl/v1",
            "kind": "DoctorReport",
            "state": "fail" if failed else "ok",
            "checks": checks,
        },
        tables=[Table(("check", "state", "found"), rows, foot=foot)],
        names=[check["name"] for check in failed],
    )
    return Exit.REFUSED if failed else Exit.OK


def _offset(run: Run) -> int:
    try:
        return find.platform(run.state_dir).port_offset
    except Problem:
        return Settings.read().port_offset or 0
