"""regionctl shard: who owns which users, and how that is changed while they write."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import recover, render, reshard, work
from cli.leaf import MUTATES, READS, SEVERE, Run, group, leaf
from cli.render import Table
from runtime.errors import Exit, Invalid
from runtime.shardmap import SLOTS, slot_of

app = group()
To = Annotated[int, typer.Option("--to", min=1, max=64, help="How many shards there shall be.")]
Batch = Annotated[int, typer.Option("--batch", min=1, max=256, help="Slots a hand-over.")]
Soak = Annotated[
    float,
    typer.Option("--soak", min=0, help="Seconds in which it can be taken back afterwards."),
]


@leaf(app, "map", examples=("regionctl shard map", "regionctl shard map -o json"))
async def map_(run: Run) -> None:
    """Slots, shards, homes, primaries and epochs, and what is being moved."""
    async with work.connect(run) as client:
        document = await client.shard_map()
    rows = []
    for name, shard in document["shards"].items():
        slots = ", ".join(f"{first}-{last}" for first, last in reshard.runs(document, name))
        sync = ", ".join(shard["sync"])
        rows.append((name, slots, shard["epoch"], shard["home"], _instance(shard["primary"]), sync))
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "ShardMap", **document},
        tables=[
            Table(
                ("database", "slots", "epoch", "home", "primary", "in sync"),
                rows,
                title=f"shard map version {document['version']}",
            ),
            *reshard.tables_of_moves(document),
        ],
        names=list(document["shards"]),
    )


@leaf(
    app,
    "locate",
    examples=("regionctl shard locate 4611686018427387904", "regionctl shard locate slot:17"),
)
async def locate(
    run: Run,
    key: Annotated[str, typer.Argument(help="A user id, or slot:N.")],
) -> None:
    """The shard, primary and epoch that one user's writes go to."""
    slot = _slot(key)
    async with work.connect(run) as client:
        document = await client.shard_map()
    owned = next(r for r in document["ranges"] if r["first"] <= slot <= r["last"])
    shard = document["shards"][owned["shard"]]
    found = {
        "key": key,
        "slot": slot,
        "shard": owned["shard"],
        "epoch": owned["epoch"],
        "home": shard["home"],
        "primary": _instance(shard["primary"]),
    }
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "Placement", **found},
        tables=[Table(tuple(found), [tuple(found.values())])],
        names=[owned["shard"]],
    )


@leaf(app, "verify", examples=("regionctl shard verify", "regionctl shard verify -o json"))
async def verify(run: Run) -> Exit:
    """What must hold over all databases together. Exit 4 when something does not."""
    async with work.connect(run) as client:
        found = await client.invariants()
    rows = [(each["name"], "ok" if each["held"] else "failed", each["detail"]) for each in found]
    render.show(
        run.output,
        render.listing("InvariantList", found),
        tables=[Table(("invariant", "state", "detail"), rows)],
        names=[each["name"] for each in found if not each["held"]],
    )
    return Exit.OK if all(each["held"] for each in found) else Exit.FAILED


@leaf(
    app,
    "plan",
    shared=(*READS, "reason"),
    examples=("regionctl shard plan --to 4", "regionctl shard plan --to 2 -o json"),
)
async def plan(
    run: Run,
    to: To,
    batch: Batch = reshard.BATCH,
    soak: Soak = reshard.SOAK_SECONDS,
    exit_code: recover.ExitCode = False,
) -> int:
    """Which slots would move, how much that is, how long it takes, how long writers wait."""
    async with work.connect(run) as client:
        made = await client.plan("reshard", {"to": to, "batch": batch, "soak": soak}, run.reason)
    reshard.show_plan(run.output, made)
    return work.exit_of_plan(made, asked=exit_code)


@leaf(
    app,
    "reshard",
    shared=MUTATES,
    examples=("regionctl shard reshard --to 4", "regionctl shard reshard --to 2 --soak 3600"),
)
async def reshard_(
    run: Run, to: To, batch: Batch = reshard.BATCH, soak: Soak = reshard.SOAK_SECONDS
) -> None:
    """Move slots until there are so many shards, while customers write."""
    if not run.dry_run:
        await run.agree(f"Move users until there are {to} shards?")
    args = {"to": to, "batch": batch, "soak": soak}
    async with work.connect(run) as client:
        if run.dry_run:
            reshard.show_plan(run.output, await client.plan("reshard", args, run.reason))
            return
        operation = await work.perform(run, client, "reshard", args)
    if operation is not None:
        work.show_operation(run.output, operation)
        reshard.say_what_follows(operation)


@leaf(app, "pause", shared=(*READS, "reason"), examples=("regionctl shard pause",))
async def pause(run: Run) -> None:
    """Copying waits and no slots are handed over, until resume."""
    async with work.connect(run) as client:
        reshard.show_pause(run.output, await client.pause_reshard(run.reason))


@leaf(app, "resume", shared=(*READS, "reason"), examples=("regionctl shard resume",))
async def resume(run: Run) -> None:
    """Moving slots goes on after a pause."""
    async with work.connect(run) as client:
        reshard.show_pause(run.output, await client.resume_reshard(run.reason))


@leaf(
    app,
    "rollback",
    shared=SEVERE,
    examples=("regionctl shard rollback --confirm two-regions --reason INC-441",),
)
async def rollback(run: Run, batch: Batch = reshard.BATCH) -> None:
    """Take a reshard back: every slot goes to where it came from. Until the soak ends."""
    await reshard.end(
        run,
        "reshard-rollback",
        {"batch": batch},
        "This hands every moved slot back and ends the new shards.",
    )


@leaf(
    app,
    "finish",
    shared=MUTATES,
    examples=("regionctl shard finish", "regionctl shard finish --early --yes"),
)
async def finish(
    run: Run,
    early: Annotated[
        bool, typer.Option("--early", help="Before the soak is over: no way back then.")
    ] = False,
) -> None:
    """End a reshard for good: copies of moved rows and empty shards go."""
    if not run.dry_run:
        await run.agree("Finish the reshard? It cannot be taken back then.")
    await recover.carry_out(run, "reshard-finish", {"early": early})


@leaf(
    app,
    "abort",
    shared=SEVERE,
    examples=("regionctl shard abort --confirm two-regions --reason 'disk full'",),
)
async def abort(run: Run) -> None:
    """Give an unfinished reshard up: slots stay where they are now, the rest of it goes."""
    await reshard.end(
        run,
        "reshard-abort",
        {},
        "This stops moving slots; those already handed over stay where they are.",
    )


def _slot(key: str) -> int:
    text = key.removeprefix("slot:")
    top = SLOTS if key.startswith("slot:") else 2**63
    if not text.isdecimal() or int(text) >= top:
        raise Invalid(
            f"{key!r} is not a user id (a number below 2^63), nor slot:N (N below {SLOTS}).",
            hint="regionctl shard locate slot:17",
        )
    return int(text) if key.startswith("slot:") else slot_of(int(text))


def _instance(primary: Any) -> str:
    return str(primary["instance"]) if isinstance(primary, dict) else str(primary)
