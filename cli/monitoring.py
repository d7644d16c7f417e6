"""regionctl monitoring: the platform's Prometheus, Alertmanager, Grafana, Loki and Jaeger files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import find, platform, programs, render
from cli.leaf import Run, group, leaf
from cli.render import Table

FILES = "control_plane.monitoring_files"
app = group()


@leaf(
    app,
    "files",
    examples=(
        "regionctl monitoring files --out monitoring",
        "regionctl monitoring files --out /etc/regionctl/monitoring --topology mine.yaml",
    ),
)
async def files(
    run: Run,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where they are written.")],
    topology: Annotated[
        str | None,
        typer.Option("--topology", metavar="NAME|FILE", help="Of a platform that is not made yet."),
    ] = None,
    port_offset: Annotated[
        int | None, typer.Option("--port-offset", min=0, help="As `regionctl up` is told it.")
    ] = None,
) -> None:
    """Write them for use elsewhere; README.txt beside them says which secrets go where."""
    directory = find.state_dir(run.state_dir, topology and platform.name_of(topology))
    wanted, offset = platform.as_made(directory, topology, port_offset)
    words = ["--topology", wanted, "--state-dir", str(directory), "--port-offset", str(offset)]
    made = await programs.call(FILES, *words, "--out", str(out.expanduser().absolute()))
    document = {"apiVersion": "regionctl/v1", "kind": "MonitoringFiles", **made}
    tables = [Table(("file",), [(name,) for name in made["files"]])]
    render.note(f"written to {made['directory']}")
    render.show(run.output, document, tables=tables, names=made["files"])
