"""regionctl region: the regions of the platform."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import render, work
from cli.leaf import Run, group, leaf
from cli.names import known
from cli.render import Table
from cli.suggest import unknown

app = group()


@leaf(app, "list", examples=("regionctl region list", "regionctl region list -o name"))
async def list_(run: Run) -> None:
    """Every region with its role and state."""
    async with work.connect(run) as client:
        document = await client.status()
    regions: list[dict[str, Any]] = document["regions"]
    rows = [(r["name"], r["role"], r["state"], len(r["instances"])) for r in regions]
    render.show(
        run.output,
        render.listing("RegionList", regions),
        tables=[Table(("region", "role", "state", "instances"), rows)],
        names=[region["name"] for region in regions],
    )


@leaf(app, "show", examples=("regionctl region show us-east-1",))
async def show(
    run: Run,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Such as us-east-1.", autocompletion=known("region")),
    ],
) -> None:
    """One region with its instances."""
    async with work.connect(run) as client:
        document = await client.status()
    regions = {region["name"]: region for region in document["regions"]}
    if name not in regions:
        raise unknown("region", name, regions)
    region = regions[name]
    rows = [
        (i["id"], i["kind"], i.get("zone"), i.get("role"), i["state"], i["address"])
        for i in region["instances"]
    ]
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "Region", **region},
        tables=[
            Table(
                ("instance", "kind", "zone", "role", "state", "address"),
                rows,
                title=f"{name} ({region['role']}): {region['state']}",
            )
        ],
        names=[name],
    )
