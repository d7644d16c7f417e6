"""regionctl scale: how many instances a service has.

scale SERVICE --to N   so many in each zone that serves, or in one
scale [list]           how many there are, what they use, and why there are so many
scale hold, release    nothing is scaled but by hand while somebody measures or repairs
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import render, work
from cli.lazy import Defaulting
from cli.leaf import MUTATES, Run, group, leaf
from cli.names import known
from cli.render import Table
from cli.when import seconds_of


class Scaling(Defaulting):
    """`regionctl scale orders --to 3` is `regionctl scale set orders --to 3`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args.insert(0, "set")
        return super().parse_args(ctx, args)


app = group(cls=Scaling)


@leaf(
    app,
    "set",
    shared=MUTATES,
    examples=(
        "regionctl scale orders --to 3 --dry-run",
        "regionctl scale orders --to 3 --reason 'sale at noon'",
        "regionctl scale set payments --zone us-east-1a --to 1",
    ),
)
async def set_(
    run: Run,
    service: Annotated[
        str,
        typer.Argument(metavar="SERVICE", help="Such as orders.", autocompletion=known("service")),
    ],
    to: Annotated[int, typer.Option("--to", metavar="N", help="Instances in a zone.")],
    zone: Annotated[
        str | None,
        typer.Option(
            "--zone",
            metavar="ZONE",
            help="Only there, such as us-east-1a; else in each zone of the region that serves.",
            autocompletion=known("zone"),
        ),
    ] = None,
) -> None:
    """Give a service so many instances. No request fails by it.

    Where the topology says scaling.automatic, they become fewer again when they have nothing to do.
    """
    args: dict[str, Any] = {"service": service, "to": to}
    if zone is not None:
        args["zone"] = zone
    async with work.connect(run) as client:
        operation = await work.perform(run, client, "scale", args)
        if operation is not None:
            work.show_operation(run.output, operation)


@leaf(
    app,
    "hold",
    shared=MUTATES,
    examples=("regionctl scale hold --for 30m --reason 'measuring what one instance bears'",),
)
async def hold(
    run: Run,
    length: Annotated[
        str, typer.Option("--for", metavar="TIME", help="So long, such as 30m; a day at most.")
    ] = "1h",
) -> None:
    """Scale nothing but by hand for some time, while somebody measures or repairs."""
    await _hold(run, seconds_of(length))


@leaf(app, "release", shared=MUTATES, examples=("regionctl scale release",))
async def release(run: Run) -> None:
    """End a hold before its time."""
    await _hold(run, 0)


async def _hold(run: Run, seconds: int) -> None:
    async with work.connect(run) as client:
        operation = await work.perform(run, client, "scale-hold", {"seconds": float(seconds)})
        if operation is not None:
            work.show_operation(run.output, operation)


@leaf(app, "list", examples=("regionctl scale", "regionctl scale list -o json"))
async def list_(run: Run) -> None:
    """Instances by service and zone, what they use of a processor core each, and why so many."""
    async with work.connect(run) as client:
        found = await client.scaling()
    rows = [
        (
            each["service"],
            each["zone"],
            each["desired"],
            each["running"],
            "-" if each["usedPercent"] is None else f"{each['usedPercent']:.0f} %",
            f"{each['memoryBytes'] / 2**20:.0f} MiB",
            each["why"],
        )
        for each in found["items"]
    ]
    foot = [
        f"{found['least']} to {found['most']} in a zone; used: of one core, by each process",
        "automatic" if found["automatic"] else "by hand only: scaling.automatic is false",
    ]
    head = ("service", "zone", "desired", "running", "used", "memory", "why")
    render.show(
        run.output,
        found,
        tables=[Table(head, rows, foot=foot)],
        names=[f"{each['service']}.{each['zone']}" for each in found["items"]],
    )
