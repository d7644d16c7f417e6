"""regionctl infra prices: the list prices that estimates rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import programs, render
from cli.leaf import Run, group, leaf
from cli.render import Table

app = group()


@leaf(app, "show", examples=("regionctl infra prices show", "regionctl infra prices show -o json"))
async def show(
    run: Run,
    sku: Annotated[
        str, typer.Option("--sku", metavar="TEXT", help="Only skus with this in their name.")
    ] = "",
) -> None:
    """Every price with its region, unit, date and source."""
    from infra.aws import prices

    known = prices.load()
    rows = [row for row in known.rows if sku in row.sku]
    document = {
        **render.listing("PriceList", [row.document() for row in rows]),
        "sameAs": [
            {"region": each.region, "as": each.other, "source": each.source, "date": each.date}
            for each in known.same_as.values()
        ],
    }
    cells = [
        (row.sku, row.region, f"{row.usd:g}", row.unit, _above(row.above), row.date, row.source)
        for row in rows
    ]
    foot = [
        f"{each.region} without prices of its own is priced as {each.other}: {each.source}"
        for each in known.same_as.values()
    ]
    table = Table(("sku", "region", "USD", "per", "above", "date", "source"), cells, foot=foot)
    render.show(run.output, document, tables=[table], names=sorted({row.sku for row in rows}))


def _above(quantity: float) -> str:
    return f"{quantity:,.0f}" if quantity else ""


@leaf(
    app,
    "refresh",
    examples=(
        "regionctl infra prices refresh --out us.json",
        "regionctl infra prices refresh --region eu-central-1 --sku aurora-instance/db.r8g.large "
        "--out eu.json",
    ),
)
async def refresh(
    run: Run,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where the new price file is written.")
    ],
    region: Annotated[
        list[str] | None,
        typer.Option("--region", metavar="REGION", help="Ask for this region; may be repeated."),
    ] = None,
    sku: Annotated[
        list[str] | None,
        typer.Option("--sku", metavar="SKU", help="Ask for this too; may be repeated."),
    ] = None,
) -> None:
    """Ask AWS for today's prices. Needs credentials; what AWS does not answer keeps its row."""
    arguments = ["--out", str(out)]
    for name in region or ("us-east-1", "us-west-2"):
        arguments += ["--region", name]
    for name in sku or ():
        arguments += ["--sku", name]
    result = await programs.call("infra.aws.prices_refresh", *arguments)
    document = {"apiVersion": "regionctl/v1", "kind": "PriceRefresh", **result}
    rows = [(each["sku"], each["region"], f"{each['usd']:g}") for each in result["changed"]]
    foot = [f"{result['answered']} of {result['asked']} answered; written to {result['file']}"]
    if result["unknown"]:
        foot.append(f"not asked for: {', '.join(result['unknown'])}")
    tables = [Table(("changed", "region", "USD"), rows, foot=foot)]
    render.show(run.output, document, tables=tables, names=[result["file"]])
