"""regionctl info: which platform is meant, and where everything of it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cli import find, render
from cli.leaf import Run, group, leaf
from cli.render import Table
from cli.settings import Settings, cache_dir, files
from runtime.errors import Problem

app = group()

INSIDE = {
    "topology": "topology.yaml",
    "certificate authority": "ca/ca.pem",
    "root's token": "control/token",
    "records": "control/control.db",
    "drill reports": "drills",
    "saved rows": "salvage",
    "logs of the control plane and the edge": "global/logs",
    "regions: settings, data, logs": "regions",
}


@leaf(app, "info", examples=("regionctl info", "regionctl info -o json"))
async def info(run: Run) -> None:
    """All addresses and paths, whether anything is there or not. Asks nobody."""
    settings = Settings.read()
    server = settings.server if run.state_dir is None else None
    places = _addresses(run, server)
    paths: dict[str, Path] = {}
    if server is None:
        home = find.state_dir(run.state_dir)
        paths = {"state directory": home, **{what: home / name for what, name in INSIDE.items()}}
    named = {"token": settings.token_file, "server's authority": settings.ca_file}
    paths |= {what: path for what, path in named.items() if path is not None}
    paths |= {f"settings: {scope}": file.absolute() for scope, file in files().items()}
    paths |= {
        "cache": cache_dir(),
        "program": Path(__file__).parent,
        "python": Path(sys.executable),
    }
    items: list[dict[str, Any]] = [
        {"what": what, "where": where, "exists": None} for what, where in places.items()
    ]
    items += [
        {"what": what, "where": str(path), "exists": path.exists()} for what, path in paths.items()
    ]
    rows = [(each["what"], each["where"], each["exists"]) for each in items]
    render.show(
        run.output,
        render.listing("InfoList", items),
        tables=[Table(("what", "where", "exists"), rows)],
        names=[str(each["where"]) for each in items if each["exists"] is not False],
    )


def _addresses(run: Run, server: str | None) -> dict[str, str]:
    """Of a control plane elsewhere, or of the platform on this machine, if there is one."""
    if server is not None:
        return {"control plane": server}
    try:
        platform = find.platform(run.state_dir)
        entry = f"https://127.0.0.1:{platform.edge_port}"
        return {"platform": platform.name, "control plane": platform.address, "entry": entry}
    except Problem:
        return {}
