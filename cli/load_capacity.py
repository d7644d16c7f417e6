"""regionctl load capacity: how much platform so many customers need."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import load_child, load_live, load_report, render, work
from cli.leaf import READS, Run, group, leaf
from cli.render import Table
from runtime.errors import Exit, Invalid, MeasurementVoid, Problem

if TYPE_CHECKING:
    from control_plane.capacity import Assumed, Measured, Needed, Stair

app = group()
JSON = dict[str, Any]
PROFILE = "breakpoint"
BUSIEST = "orders"
CATALOG = "catalog"


@leaf(
    app,
    "capacity",
    shared=READS,
    examples=(
        "regionctl load capacity",
        "regionctl load capacity --users 250000 --think 20 --run load-20261123-090000-4711",
        "regionctl load capacity --ceiling 350 --response-ms 40 -o json",
    ),
)
async def capacity(
    run: Run,
    users: Annotated[int, typer.Option("--users", help="Customers at once.")] = 100_000,
    think: Annotated[
        float, typer.Option("--think", help="Seconds between a customer's journeys.")
    ] = 30.0,
    utilisation: Annotated[
        float, typer.Option("--utilisation", help="Share of the ceiling that is used; 0.7.")
    ] = 0.7,
    of: Annotated[
        str | None, typer.Option("--run", help="A breakpoint run that was made: id or folder.")
    ] = None,
    ceiling: Annotated[
        float | None,
        typer.Option("--ceiling", help="Requests/s that an instance bears; none is measured."),
    ] = None,
    response_ms: Annotated[
        float, typer.Option("--response-ms", help="Of a request, with --ceiling alone.")
    ] = 50.0,
    instances: Annotated[
        int | None,
        typer.Option(
            "--instances", help="Of a service, when it was measured; as the platform has."
        ),
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", help="When it was measured; as the platform has.")
    ] = None,
    writes_per_shard: Annotated[
        float | None, typer.Option("--writes-per-shard", help="Writes/s that a shard bears.")
    ] = None,
    zones: Annotated[
        int, typer.Option("--zones", min=1, help="Zones that the instances are spread over.")
    ] = 2,
    lost_zones: Annotated[
        int,
        typer.Option(
            "--lost-zones", min=0, help="Of these so many may be lost; the rest carries the load."
        ),
    ] = 1,
    rate_scale: Annotated[
        float, typer.Option("--rate-scale", help="Times the breakpoint profile's rates.")
    ] = 1.0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Press the breakpoint profile into them.")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=64, help="Load processes on this machine.")
    ] = 1,
    lag_limit_ms: Annotated[
        float,
        typer.Option(
            "--lag-limit-ms",
            min=0.1,
            help="How late requests may start; 50 is a tenth of what ends the run.",
        ),
    ] = 50.0,
) -> None:
    """Instances, shards and connections for so many customers, by Little's law.

    Without --run or --ceiling the breakpoint profile is run: the load grows until answers are late
    or wrong, or the load generator is at its end: then the platform bears at least so much. Exit 9
    when nothing was measured.
    """
    from control_plane import capacity as law

    measured: Measured | None = None
    found: Sequence[Stair] = ()
    if of is not None or ceiling is None:
        options = {"--rate-scale": rate_scale, "--seconds": seconds}
        more = {"--workers": workers, "--lag-limit-ms": lag_limit_ms}
        document = _there(run, of) if of is not None else await _measure(run, options, more)
        measured, found = law.read(document), law.steps(document)
    if ceiling is not None:
        measured = law.stated(ceiling, response_ms / 1000, measured)
    assert measured is not None
    here = (1, 1) if ceiling is not None or (instances and shards) else await _extent(run)
    extent = (instances or here[0], shards or here[1])
    assumed = law.Assumed(users, think, utilisation, *extent, writes_per_shard, zones, lost_zones)
    answer = law.document(measured, assumed, found, price=partial(_price, assumed))
    render.show(run.output, answer, tables=tables(answer), names=[str(users)])


def _price(assumed: Assumed, need: Needed) -> JSON:
    """By the month on AWS, with the sizes of the built-in topology there. What a shard bears by
    itself was not measured unless somebody says it: then databases have no price."""
    from infra import topology
    from infra.aws import prices, sized

    there = topology.load("aws-two-regions")
    shards = need.shards if assumed.writes_per_shard else None
    return sized.monthly(there, prices.load(), instances=need.instances, shards=shards)


def _there(run: Run, where: str) -> JSON:
    """Raises `NotFound` or `Invalid`."""
    folder = load_report.folder_of(run, where)
    try:
        return dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Invalid(f"{folder}/run.json cannot be read: {error}.") from error


async def _measure(run: Run, options: Mapping[str, Any], more: Mapping[str, Any]) -> JSON:
    """A breakpoint run as it was judged: its plan by `options`. Raises `MeasurementVoid`."""
    plan = await load_child.plan_of(PROFILE, options)
    load_child.check_installed()
    target = load_child.find_target(run.state_dir, None, None, None)
    id, folder = load_child.new_folder(run.state_dir, None, None)
    all_ = {"--profile": PROFILE, **options, **more, "--out": folder, "--id": id}
    words = [*target.words(), *load_child.words(all_)]
    with load_live.of(f"{PROFILE} → {target.url}", float(plan["seconds"])) as shown:
        code = await load_child.follow("loadtests.run", words, shown.tell)
    _, document = await load_child.judge(folder, None)
    ended_late = (document.get("brokeAt") or {}).get("by") == "generator"
    if code == Exit.INTERRUPTED or not (document["validity"]["valid"] or ended_late):
        because = "; ".join(document["validity"]["because"]) or "it was interrupted"
        raise MeasurementVoid(
            f"The ceiling is not known: {because}.",
            hint=f"regionctl load report {folder}",
            extra={"run": id},
        )
    return document


async def _extent(run: Run) -> tuple[int, int]:
    """Instances of a service where customers are served, and shards; one of each where nobody
    says."""
    try:
        async with work.connect(run) as client:
            status = await client.status()
    except Problem:
        return 1, 1
    counts = Counter(
        each["service"]
        for region in status["regions"]
        if region["role"] == "primary"
        for each in region["instances"]
        if each["kind"] == "service"
    )
    return counts.get(BUSIEST, 1), len([s for s in status["shards"] if s["name"] != CATALOG]) or 1


def tables(answer: JSON) -> list[Table]:
    """What was measured, what is assumed, what is needed."""
    measured, assumed, need = answer["measured"], answer["assumed"], answer["needed"]
    steps = [
        (each["rate"], each["requests"], each["p99_ms"], each["errors"], _held(each))
        for each in answer["steps"]
    ]
    bears, shard = measured["ceiling"], answer["shardBears"]
    least = "" if assumed["writes_per_shard"] else "at least "
    rows = [
        ("customers at once", f"{assumed['users']:,}"),
        ("seconds between journeys", assumed["think"]),
        ("used of the ceiling", f"{assumed['utilisation']:.0%}"),
        ("zones, of which may be lost", f"{assumed['zones']}, {assumed['lost_zones']}"),
        (
            f"requests/s that {assumed['instances']} of each service bear",
            f"{'' if measured['broke'] else 'at least '}{bears:.0f}",
        ),
        (
            f"writes/s that {assumed['shards']} shard(s) bear, each",
            f"{least}{shard:.0f}" if shard else "-",
        ),
        ("requests of a journey", f"{measured['each']:.2f}, {measured['writes']:.2f} write"),
        ("a journey takes (mean)", _ms(measured["journey"])),
        ("a request takes (mean)", _ms(measured["request"])),
    ]
    title = "measured and assumed" if steps else "assumed"
    shown = [Table(("quantity", "value"), rows, title=title)]
    if steps:
        columns = ("arrivals/s", "requests/s", "p99 ms", "errors", "held")
        shown.insert(0, Table(columns, steps, title="the load grew"))
    foot = [
        f"journeys: {need['journeys']:.1f}/s = users / (journey + thinking), by Little's law",
        f"requests: {need['requests']:.0f}/s, of which {need['writes']:.0f}/s write; "
        f"{need['in_flight']:.0f} are being answered at any moment",
        "a connection counts as in use for as long as its request takes: an upper bound",
        _loss(assumed, need),
    ]
    if not assumed["writes_per_shard"]:
        foot.append("shards: at most so many; --writes-per-shard says what one bears by itself")
    foot.append(f"cost: {_cost(answer['cost'])}")
    answers = [
        ("instances of each service", need["instances"]),
        ("of them in each zone", need["in_each_zone"]),
        ("shards", need["shards"]),
        ("connections in use", need["connections"]),
        ("connections in pools, 80 % used", need["pool"]),
        ("connections in each instance's pool", need["pool_of_instance"]),
    ]
    return [*shown, Table(("needed", "how many"), answers, foot=foot)]


def _loss(assumed: JSON, need: JSON) -> str:
    """The assumption about zones, with its numbers."""
    if not assumed["lost_zones"]:
        return "zones: no loss is counted on (--lost-zones 1)"
    left = assumed["zones"] - assumed["lost_zones"]
    return (
        f"zones: {assumed['lost_zones']} of {assumed['zones']} may be lost; the "
        f"{need['in_each_zone'] * left} instances that are left then bear everything, "
        f"{assumed['utilisation']:.0%} used"
    )


def _held(step: JSON) -> str:
    return "late generator" if step["late"] else "yes" if step["held"] else "no"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _cost(cost: JSON | None) -> str:
    if not cost:
        return "not priced"
    figures = {"compute": cost["computeUsd"], "database": cost["databaseUsd"]}
    told = [
        f"{name} {'not priced (--writes-per-shard)' if usd is None else f'{usd:,.0f} USD'}"
        for name, usd in figures.items()
    ]
    return f"{', '.join(told)} a month on AWS: {cost['assuming']}"
