"""regionctl config: what is set, where, and where it could be."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import render
from cli.leaf import Run, group, leaf
from cli.render import Table
from cli.settings import DEFAULT, PREFIX, Setting, effective, files

app = group()


@leaf(app, "show", examples=("regionctl config show", "regionctl config show --origin"))
async def show(
    run: Run,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say for each where it comes from.")
    ] = False,
) -> None:
    """Every setting as it counts now: options, then environment, then files."""
    settings = effective()
    if run.state_dir is not None:
        named = run.state_dir.expanduser().absolute()
        settings["state_dir"] = Setting(named, "--state-dir", -1)
    items = [
        {
            "key": name,
            "value": None if found.value is None else str(found.value),
            "origin": found.origin,
            "variable": PREFIX + name.upper(),
        }
        for name, found in settings.items()
    ]
    rows = [tuple(each[key] for key in ("key", "value", "origin")) for each in items]
    columns = ("setting", "value", "from")
    shown = 3 if origin else 2
    render.show(
        run.output,
        render.listing("ConfigList", items),
        tables=[Table(columns[:shown], [row[:shown] for row in rows])],
        names=[f"{each['key']}={each['value']}" for each in items if each["origin"] != DEFAULT],
    )


@leaf(app, "path", examples=("regionctl config path", "regionctl config path -o json"))
async def path(run: Run) -> None:
    """The files that settings are taken from, the nearest first. They are TOML: output = "json"."""
    items = [
        {"scope": scope, "path": str(file.absolute()), "exists": file.exists()}
        for scope, file in files().items()
    ]
    rows = [(each["scope"], each["path"], each["exists"]) for each in items]
    render.show(
        run.output,
        render.listing("ConfigFileList", items),
        tables=[Table(("whose", "file", "exists"), rows)],
        names=[str(each["path"]) for each in items if each["exists"]],
    )
