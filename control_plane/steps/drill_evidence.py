"""Effects of drills after the recovery: read back, check, test the meter, judge, report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import psutil

from control_plane import drills, evidence, objectives, report, report_html, report_text
from control_plane.emulated import APPLIED
from control_plane.steps.drill_files import (
    call,
    drill_folder,
    keep,
    kept,
    raw_files,
    run_folder,
    unless_left_out,
    write,
)
from control_plane.world import World
from infra.local import doctor
from runtime.clock import wait_until
from runtime.errors import OperationFailed, TimedOut

JSON = dict[str, Any]

# What thousands of orders in flight need until stock, money and mails agree with them.
SETTLING_SECONDS = 90.0
LOOK_SECONDS = 0.5
SAMPLE = 20


async def read_back(world: World, *, run: int) -> JSON:
    """Every acknowledged write is looked for, through the edge, as a client."""
    folder = run_folder(world, run)
    if not (folder / "journal.jsonl").exists():
        return {"acknowledged": 0, "missing": 0, "duplicates": 0}
    if not (folder / "readback.json").exists():
        await _read_back(world, folder, "journal.jsonl", "readback.json")
    found = kept(folder, "readback.json")
    return {
        "acknowledged": found["acknowledged"],
        "missing": len(found["missing"]),
        "duplicates": len(found["duplicates"]),
    }


async def _read_back(
    world: World, folder: Path, journal: str, out: str, last: int | None = None
) -> None:
    files = ["--journal", str(folder / journal), "--out", str(folder / out)]
    arguments = [*world.as_client(), *files]
    if last is not None:
        arguments += ["--last", str(last)]
    await call(world, folder, "loadtests.readback", arguments)


async def check_invariants(world: World, *, run: int) -> JSON:
    """What the databases say together, once all orders of the run have come to rest.

    Services may still work off events; so the databases are asked again until everything holds.
    After `SETTLING_SECONDS` they are reported as they are then.
    """
    latest: list[JSON] = []

    async def all_held() -> bool:
        latest[:] = [dict(each) for each in await world.provider.invariants()]
        return all(each["held"] for each in latest)

    with contextlib.suppress(TimedOut):
        await wait_until(
            world.clock,
            all_held,
            what="invariants",
            seconds=SETTLING_SECONDS,
            every=LOOK_SECONDS,
        )
    keep(run_folder(world, run), "invariants.json", latest)
    return {"broken": [each["name"] for each in latest if not each["held"]]}


@unless_left_out
async def self_test(world: World, *, run: int) -> JSON:
    """Plants a lost write, a stall and a second writer in copies of the evidence.

    The judge must see each of them, or the drill proves nothing.
    """
    folder = run_folder(world, run)
    fault = kept(folder, "fault.json")
    planted = [await _plant(world, folder, kind, fault["effective"]) for kind in evidence.CONTROLS]
    keep(folder, "selftest.json", planted)
    return {"planted": len(planted)}


async def _plant(world: World, folder: Path, kind: str, effective: float) -> JSON:
    file, readback = f"planted-{kind}.jsonl", f"planted-{kind}.json"
    files = ["--journal", str(folder / "journal.jsonl"), "--out", str(folder / file)]
    fault = ["--fault", repr(effective)]
    try:
        planted = json.loads(await call(world, folder, "loadtests.plant", [kind, *files, *fault]))
        if kind == "lost":
            await _read_back(world, folder, file, readback, last=SAMPLE)
    except OperationFailed as problem:
        return {"kind": kind, "error": problem.detail}
    return {"kind": kind, "file": file, "readback": readback, **planted}


async def judge(world: World, *, run: int, drill: str) -> JSON:
    """The verdict of one run. It is made again, from the same files, when the report is."""
    files = report.run_files(raw_files(drill_folder(world)), run)
    found = evidence.judge(drills.find(drill), run, files)
    real = world.provider.mode == APPLIED
    summary = {
        "run": run,
        "verdict": found.verdict if real else "void",
        "because": list(found.because),
        "rtoSeconds": found.rto_seconds if real else None,
        "lost": found.loss.count,
    }
    await world.emit({"kind": "drill-judged", **summary})
    return summary


async def write_report(world: World, *, drill: str, fault: str, repeat: int) -> JSON:
    """report.json, report.md, report.html and junit.xml; the document goes to the store as well."""
    folder = drill_folder(world)
    files = raw_files(folder)
    spec = drills.find(drill)
    runs = [
        evidence.judge(spec, number, report.run_files(files, number))
        for number in range(1, repeat + 1)
    ]
    operation = await world.store.operation(world.operation_id)
    started = operation.started_at or operation.created_at
    versions = await asyncio.to_thread(doctor.versions)
    document = report.document(
        spec,
        runs,
        objectives.of(world.topology, spec.scenario, spec.limits),
        facts={
            "operation": world.operation_id,
            "startedAt": started.isoformat(),
            "finishedAt": world.clock.now().isoformat(),
            "faultKind": fault,
            "topology": {"name": world.topology.name, "digest": world.topology.digest()},
            "versions": {name: told for name, told in versions.items() if told is not None},
            "machine": _machine(),
            "mode": world.provider.mode,
            "plan": world.plan.to_json(),
        },
        events=await events_of(world),
        files=files,
    )
    keep(folder, "report.json", document)
    write(folder / "report.md", report_text.markdown(document))
    write(folder / "junit.xml", report_text.junit(document))
    write(folder / "report.html", report_html.page(document, files))
    await world.store.save_report(document)
    return {"verdict": document["verdict"], "report": str(folder / "report.json")}


async def events_of(world: World) -> list[JSON]:
    """What the control plane recorded while the drill ran: the drill's own and its recovery's.

    Read by sequence number, from the drill's own first event to the newest now: what happened
    before the drill costs nothing, and what is told meanwhile does not prolong the reading.
    """
    first = await world.store.events(operation_id=world.operation_id, limit=1)
    newest = await world.store.past_events(limit=1)
    if not first or not newest:
        return []
    events: list[JSON] = []
    after, last = first[0].sequence - 1, newest[-1].sequence
    while after < last and (batch := await world.store.events(after=after)):
        after = batch[-1].sequence
        events += [event.to_json() for event in batch if event.sequence <= last]
    return events


def _machine() -> JSON:
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "memoryBytes": psutil.virtual_memory().total,
        "note": "Load, platform and control plane share this machine: times, not capacity.",
    }
