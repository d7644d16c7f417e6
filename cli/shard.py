"""regionctl shard: who owns which users."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import render, work
from cli.leaf import Run, group, leaf
from cli.render import Table
from runtime.errors import Exit, Invalid
from runtime.shardmap import SLOTS, slot_of

app = group()


@leaf(app, "map", examples=("regionctl shard map", "regionctl shard map -o json"))
async def map_(run: Run) -> None:
    """Slots, shards, homes, primaries and epochs."""
    async with work.connect(run) as client:
        document = await client.shard_map()
    rows = []
    for name, shard in document["shards"].items():
        owned = [r for r in document["ranges"] if r["shard"] == name]
        slots = ", ".join(f"{r['first']}-{r['last']}" for r in owned)
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
            )
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
