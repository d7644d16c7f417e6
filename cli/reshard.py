"""What the commands of `regionctl shard` that move slots have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli import render, work
from cli.leaf import Run
from cli.render import Output, Table
from runtime.errors import Refused

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]

BATCH = 32
SOAK_SECONDS = 600.0
LOOK_SECONDS = 0.2
MOVING = ("reshard", "reshard-rollback")
FINAL = ("succeeded", "failed", "aborted")


def show_plan(output: Output, plan: JSON) -> None:
    """The moves with their sizes, and what the whole is estimated to cost."""
    expected = plan["expected"]
    columns = ("source", "target", "slots", "count", "rows", "size")
    rows = [
        (
            move["source"],
            move["target"],
            f"{move['first']}-{move['last']}",
            move["slots"],
            _count(move["rows"]),
            size(move["bytes"]),
        )
        for move in expected.get("moves", ())
    ]
    pause = f"{expected['pauseSeconds'] * 1000:.0f} ms"
    measured = expected.get("pausesMeasured")
    basis = f"from {measured} fences here" if measured else "nothing measured here yet"
    if expected.get("worstPauseSeconds"):
        pause += f", worst {expected['worstPauseSeconds'] * 1000:.0f} ms"
    foot = [
        f"{expected['slots']} slots in {expected['handOvers']} hand-overs, "
        f"{_count(expected['rows'])} rows, {size(expected['bytes'])}, "
        f"about {render.seconds(expected['seconds'])}",
        f"writers of a batch wait about {pause} ({basis})",
        f"{len(plan['steps'])} steps: " + ", ".join(_names(plan)),
    ]
    document = {"apiVersion": "regionctl/v1", **plan, "kind": "Plan", "verb": plan["kind"]}
    title = f"plan: reshard {plan['target']}"
    render.show(
        output,
        document,
        tables=[Table(columns, rows, title=title, foot=foot)],
        names=[f"{row[0]} {row[1]} {row[2]}" for row in rows],
    )


def _names(plan: JSON) -> list[str]:
    """Each step's name once, in the order of its first time."""
    return list(dict.fromkeys(step["name"] for step in plan["steps"]))


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Bytes for people: 512 B, 3.4 MiB; "-" when not known."""
    if value is None:
        return "-"
    amount, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def runs(shard_map: JSON, shard: str) -> list[tuple[int, int]]:
    """The slots of a shard as (first, last), whatever the epochs of their parts are."""
    found: list[tuple[int, int]] = []
    for each in shard_map["ranges"]:
        if each["shard"] != shard:
            continue
        if found and found[-1][1] + 1 == each["first"]:
            found[-1] = (found[-1][0], each["last"])
        else:
            found.append((each["first"], each["last"]))
    return found


def tables_of_moves(shard_map: JSON) -> list[Table]:
    """What is being moved or can be taken back; no table when there is nothing."""
    rows = []
    for move in shard_map.get("moves", ()):
        wanted = range(move["first"], move["last"] + 1)
        there = sum(
            max(0, min(r["last"], move["last"]) - max(r["first"], move["first"]) + 1)
            for r in shard_map["ranges"]
            if r["shard"] == move["target"]
        )
        until = render.moment(move["soak_until"])
        slots = f"{move['first']}-{move['last']}"
        moved = f"{there} of {len(wanted)}"
        rows.append((move["source"], move["target"], slots, moved, until))
    columns = ("source", "target", "slots", "moved", "can be taken back until")
    return [Table(columns, rows, title="moves")] if rows else []


def say_what_follows(operation: JSON) -> None:
    """Until when it can be taken back: for the person who waited."""
    for step in operation.get("steps", ()):
        if step["name"] == "begin-soak" and step.get("result"):
            until = render.moment(step["result"]["until"])
            render.note(f"until {until} regionctl shard rollback takes it back")


def show_pause(output: Output, answer: JSON) -> None:
    state = "paused" if answer["paused"] else "moving"
    document = {"apiVersion": "regionctl/v1", "kind": "ReshardPause", **answer}
    rows = [(answer["operation"], state, answer["reason"])]
    table = Table(("operation", "state", "reason"), rows)
    render.show(output, document, tables=[table], names=[answer["operation"]])


async def end(run: Run, verb: str, args: Mapping[str, Any], consequence: str) -> None:
    """Stops the reshard that runs, and then carries `verb` out."""
    async with work.connect(run) as client:
        if run.dry_run:
            await work.perform(run, client, verb, args)
            return
        name = (await client.topology())["name"]
        await run.insist(name, consequence)
        stopped = await _stop(run, client, [each for each in MOVING if each != verb])
        try:
            operation = await work.perform(run, client, verb, args)
        except Refused:
            if stopped is None or (await client.reshard())["items"]:
                raise
            operation = stopped  # it had not begun anything that could be ended
    if operation is not None:
        work.show_operation(run.output, operation)


async def _stop(run: Run, client: Client, verbs: Sequence[str]) -> JSON | None:
    """The operation that moved slots, as it ended; None when none ran."""
    found = await client.reshard()
    id = found["operation"]
    if id is None or found["verb"] not in verbs:
        return None
    render.note(f"stopping {found['verb']} {id}")
    await client.abort(id, run.reason)
    while True:
        operation = await work.patiently(lambda: client.operation(id))
        if operation["state"] in FINAL:
            return operation
        await asyncio.sleep(LOOK_SECONDS)
