"""regionctl status: the platform as it is now, on one screen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli import edge, find, render, work
from cli.leaf import Run, group, leaf
from cli.render import Output, Table
from cli.settings import Settings
from runtime.errors import Exit, Invalid, Unavailable

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]

app = group()
WATCH_SECONDS = 2.0
STATES = {"healthy": Exit.OK, "degraded": Exit.DEGRADED, "down": Exit.DOWN}


@leaf(
    app,
    "status",
    examples=(
        "regionctl status",
        "regionctl status -o json",
        "regionctl status -w",
        "regionctl status -w -o jsonl",
    ),
)
async def status(
    run: Run,
    watch: Annotated[
        bool, typer.Option("-w", "--watch", help="Again each 2 s; as jsonl or yaml each change.")
    ] = False,
    exit_status: Annotated[
        bool, typer.Option("--exit-status", help="Exit 11 when degraded, 12 when down.")
    ] = False,
) -> int:
    """Regions, instances and databases as they are now."""
    if watch and run.output is Output.json:
        raise Invalid("With -w there are many documents, not one.", hint="-w -o jsonl")
    try:
        async with work.connect(run) as client:
            document = await client.status()
            if watch:
                await _watch(run.output, client, document)
    except Unavailable as problem:
        raise await _explain(run, problem) from problem
    show(run.output, document)
    return STATES.get(document["state"], Exit.OK) if exit_status else Exit.OK


async def _watch(output: Output, client: Client, document: JSON) -> NoReturn:
    """Until it is interrupted, also while the control plane is being restarted."""
    shown: JSON | None = None
    lost = ""
    while True:
        if output is Output.table:
            render.clear()
            show(output, document)
        elif shown is None or _settled(document) != _settled(shown):
            if output is Output.yaml:
                render.out("---")
            show(output, document)
        shown = document
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                document = await client.status()
                lost = ""
                break
            except Unavailable as problem:
                if problem.detail != lost:
                    render.note(f"{problem.detail} What is shown is how it was; asking again.")
                lost = problem.detail


def _settled(document: JSON) -> JSON:
    """What of it is no measurement, which is another one each time."""
    shards = [
        {**each, "standbys": [{**s, "lagSeconds": None} for s in each["standbys"]]}
        for each in document["shards"]
    ]
    archives = [(each["database"], each["running"], each["gap"]) for each in document["archives"]]
    return {**document, "at": None, "shards": shards, "archives": archives}


async def _explain(run: Run, problem: Unavailable) -> Unavailable:
    """The control plane is away: whether customers notice is the next question, which only the
    platform's own machine can answer."""
    if Settings.read().server and run.state_dir is None:
        return problem
    platform = find.platform(run.state_dir)
    answer = await edge.ask(platform)
    said = (
        f"The edge still answers customers ({answer})." if answer else "The edge does not answer."
    )
    hint = "regionctl doctor" if answer else f"regionctl up{platform.option}"
    return Unavailable(
        f"The control plane of {platform.name} at {platform.address} does not answer. {said}",
        hint=hint,
        runbook="control-plane-lost",
        extra={"edgeAnswers": answer is not None},
    )


def show(output: Output, document: dict[str, Any]) -> None:
    """PlatformStatus, as it came or as tables."""
    instances = [
        (region["name"], i["id"], i["kind"], i.get("role"), i["state"], i.get("pid"), i["address"])
        for region in document["regions"]
        for i in region["instances"]
    ]
    instances += [
        ("", i["id"], i["kind"], "", i["state"], i["pid"], i["address"])
        for i in (*document.get("peers", []), document["edge"])
    ]
    shards = [
        (s["name"], s["epoch"], s["home"], s["primary"], _standbys(s["standbys"]))
        for s in document["shards"]
    ]
    regions = [
        (r["name"], r["role"], r["state"], f"{_running(r)}/{len(r['instances'])}")
        for r in document["regions"]
    ]
    head = f"{document['state']}   entry {document['entryUrl']}"
    tables = [
        Table(("instance", "kind", "role", "state", "pid", "address"), [i[1:] for i in instances]),
        Table(("database", "epoch", "home", "primary", "standbys"), shards),
        Table(("region", "role", "state", "running"), regions, foot=[head]),
    ]
    render.show(output, document, tables=tables, names=[row[1] for row in instances])


def _running(region: dict[str, Any]) -> int:
    return sum(instance["state"] == "running" for instance in region["instances"])


def _standbys(standbys: list[dict[str, Any]]) -> str:
    parts = []
    for standby in standbys:
        lag = standby.get("lagSeconds")
        kind = "sync" if standby["sync"] else "async"
        parts.append(f"{standby['id']} ({kind}, lag {render.seconds(lag)})")
    return ", ".join(parts)
