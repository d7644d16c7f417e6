"""Effects of drills: the load that runs beside the probe.

`loadtests.run` is a process of its own with processes of its own; it writes `load/run.json` into
the folder of the run when it ends. Which process it is, is seen by its command line, so a worker
that died between starting it and recording that starts no second one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from control_plane import drills, evidence, report
from control_plane.steps.drill_files import (
    call,
    drill_folder,
    keep,
    kept,
    leave_out,
    raw_files,
    run_folder,
    spawn,
    unless_left_out,
)
from control_plane.steps.drill_operations import patiently
from control_plane.world import World
from infra import slo
from runtime.clock import wait_until
from runtime.errors import MeasurementVoid, TimedOut

JSON = dict[str, Any]

PROGRAM = "loadtests.run"
LOG = "load.log"
# Users are registered first, and the profile's warm-up has to be over.
START_SECONDS = 420.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.5
JUDGED = (0, 9, 10)


async def start_load(
    world: World,
    *,
    run: int,
    profile: str,
    rate_scale: float,
    seconds: float | None,
    seed: int,
    steady_seconds: float,
) -> JSON:
    """Starts the load, and waits until its warm-up was over for `steady_seconds`."""
    folder = run_folder(world, run)
    out = _out(folder)
    if not (out / "run.json").exists() and await asyncio.to_thread(_find, out) is None:
        options = {
            "--profile": profile,
            "--rate-scale": rate_scale,
            **({"--seconds": seconds} if seconds else {}),
            "--seed": seed,
            "--out": out,
            "--id": f"{world.operation_id}-run-{run}",
        }
        words = [str(part) for pair in options.items() for part in pair]
        await spawn(world, out, PROGRAM, ["--raw", *words, *world.as_client()], log=LOG)

    async def steady() -> JSON | None:
        at = _progress(out)
        if at is not None and at >= _warm_up(out) + steady_seconds:
            return {"steadySeconds": at}
        if (out / "run.json").exists() or await asyncio.to_thread(_find, out) is None:
            raise MeasurementVoid(f"the load ended before the fault: {_last_words(out)}")
        return None

    try:
        return await wait_until(
            world.clock,
            steady,
            what="the load to be steady",
            seconds=START_SECONDS,
            every=LOOK_SECONDS,
        )
    except (MeasurementVoid, TimedOut) as problem:
        return leave_out(folder, f"{problem.detail} See {out / LOG}.")


async def end_load(world: World, *, run: int, more_seconds: float) -> JSON:
    """Lets the load go on for a while, asks it to end, and waits until it has written its record.

    What does not listen is killed: the drill is not held up by its load.
    """
    folder = run_folder(world, run)
    out = _out(folder)
    process = await asyncio.to_thread(_find, out)
    if process is None:
        return {"ended": (out / "run.json").exists()}
    if not kept(folder, evidence.LEFT_OUT):
        await world.clock.sleep(more_seconds)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)

    async def gone() -> bool:
        return await asyncio.to_thread(_find, out) is None

    ended = await patiently(world, gone, "the load to end", STOP_SECONDS, every=LOOK_SECONDS)
    if not ended:
        await asyncio.to_thread(_kill, process)
    return {"ended": ended}


@unless_left_out
async def judge_load(world: World, *, run: int, drill: str) -> JSON:
    """Shares the load's samples out to the phases of the drill, and judges it by the levels that
    the topology promises."""
    folder = run_folder(world, run)
    out = _out(folder)
    record: JSON | None = kept(out, "run.json")
    if record is None:
        return {"verdict": "invalid", "because": f"it left no record; see {out / LOG}"}
    files = report.run_files(raw_files(drill_folder(world)), run)
    found = evidence.judge(drills.find(drill), run, files)
    around = _around(drill, found, kept(folder, "fault.json"), record)
    marks = [
        word
        for phase in around["phases"]
        for word in ("--phase", f"{phase['name']}={phase['from']!r}")
    ]
    if marks and (out / "samples.csv").exists():
        await call(world, out, "loadtests.rephase", [str(out), *marks])
    keep(out, "drill.json", around)
    levels = slo.of_levels(world.topology.service_levels, world.topology.name)
    keep(out, "slo.json", slo.file(world.topology.name, levels))
    files_of = ["--gate", str(out / "slo.json"), "--drill", str(out / "drill.json")]
    await call(world, out, "loadtests.judge", [str(out), *files_of], fine=JUDGED)
    judged = kept(out, "run.json")
    summary = {"run": run, "verdict": judged["verdict"], "because": judged["validity"]["because"]}
    await world.emit({"kind": "drill-load-judged", **summary})
    return summary


def _around(drill: str, found: evidence.Run, fault: JSON, record: JSON) -> JSON:
    """What the drill measured around the load, in seconds since the load began."""
    began = datetime.fromisoformat(record["startedAt"])
    at = (datetime.fromisoformat(fault["at"]) - began).total_seconds()
    marks = [("fault", at)]
    if found.rto_seconds is not None:
        marks.append(("recovery", at + found.rto_seconds))
    seconds = record["timeline"][-1]["t"] + 1 if record["timeline"] else 0
    return {
        "name": drill,
        "rtoSeconds": found.rto_seconds,
        "lost": found.loss.count,
        "fault": {"kind": fault["fault"]["kind"], "target": fault["fault"]["target"], "at": at},
        "phases": [{"name": name, "from": begin} for name, begin in marks if 0 <= begin < seconds],
    }


def _out(folder: Path) -> Path:
    out = folder / "load"
    out.mkdir(exist_ok=True, mode=0o700)
    return out


def _find(out: Path) -> psutil.Process | None:
    """The load program that writes there, while it runs."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or ()
        if PROGRAM in words and str(out) in words:
            return process
    return None


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _progress(out: Path) -> float | None:
    """How long it has been shooting, by its own last line; None before the first shot."""
    for line in reversed(_lines(out)):
        with contextlib.suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict) and "t" in told:
                return float(told["t"])
    return None


def _warm_up(out: Path) -> float:
    """When the profile's warm-up is over; not yet, while its score is still being written."""
    try:
        first = json.loads((out / "score.json").read_text(encoding="utf-8"))["plan"]["phases"][0]
    except (OSError, ValueError):
        return float("inf")
    return float(first["to"]) if first["name"] == "warm-up" else 0.0


def _last_words(out: Path) -> str:
    record: JSON | None = kept(out, "run.json")
    if record is not None:
        return "; ".join(record["validity"]["because"]) or "its profile was too short"
    return (_lines(out) or ["it said nothing"])[-1][:300]


def _lines(out: Path) -> list[str]:
    path = out / LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [line for line in text.splitlines() if line.strip()]
