"""The folder of a drill: its files, and the load programs that write some of them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import psutil

from control_plane import ledger as ledgers
from control_plane import report
from control_plane.evidence import LEFT_OUT
from control_plane.world import World
from runtime.errors import OperationFailed

JSON = dict[str, Any]
Step = Callable[..., Awaitable[JSON]]
OUTPUTS = ("report.json", "report.md", "report.html", "junit.xml")


def drill_folder(world: World) -> Path:
    return world.state_dir / "drills" / world.operation_id


def run_folder(world: World, run: int) -> Path:
    folder = drill_folder(world) / report.run_folder(run)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def keep(folder: Path, name: str, document: Any) -> None:
    """Whole or not at all, also when the power fails in between."""
    write(folder / name, json.dumps(document, indent=1))


def write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def kept(folder: Path, name: str) -> Any:
    """The document of that name; None when the step that makes it has not ended yet."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def leave_out(folder: Path, why: str, fault: Mapping[str, Any] | None = None) -> JSON:
    """This run does not take place. The first reason stands."""
    if not kept(folder, LEFT_OUT):
        keep(folder, LEFT_OUT, {"because": why, "fault": dict(fault or {})})
    return {"leftOut": kept(folder, LEFT_OUT)["because"]}


def unless_left_out(step: Step) -> Step:
    """`step`, which does nothing for a run that did not take place."""

    @wraps(step)
    async def handler(world: World, *, run: int, **args: Any) -> JSON:
        left_out = kept(run_folder(world, run), LEFT_OUT)
        if left_out:
            return {"leftOut": left_out["because"]}
        return await step(world, run=run, **args)

    return handler


def book(folder: Path) -> ledgers.Ledger:
    """The ledger as far as the probe has written it. Raises `MeasurementVoid` without one."""
    text = (folder / "journal.jsonl").read_text(encoding="utf-8")
    return ledgers.parse(text.splitlines())


def raw_files(folder: Path) -> dict[str, bytes]:
    """Every file of evidence, by its path in the folder of the drill."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".json", ".jsonl") and path.name not in OUTPUTS
    }


def probe_alive(folder: Path) -> bool:
    """Whether the process that wrote the journal's first line still runs and is that process."""
    path = folder / "journal.jsonl"
    if not path.exists():
        return False
    with path.open(encoding="utf-8") as file:
        start = json.loads(file.readline())
    try:
        process = psutil.Process(start["pid"])
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and process.create_time() <= start["wall"] + 1.0
    except psutil.NoSuchProcess:
        return False


async def spawn(
    world: World, folder: Path, module: str, arguments: Sequence[str], *, log: str = "probe.log"
) -> None:
    """Starts a program in a session of its own: it outlives us, and no signal to us reaches it."""
    with (folder / log).open("ab") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=folder,
            env=_environment(world),
            start_new_session=True,
        )
    _watched.add(task := asyncio.create_task(_reap(process)))
    task.add_done_callback(_watched.discard)


_watched: set[asyncio.Task[None]] = set()


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Takes the exit code of a probe that ends while we live, so that no zombie stays."""
    await process.wait()


async def call(
    world: World,
    folder: Path,
    module: str,
    arguments: Sequence[str],
    *,
    fine: Collection[int] = (0,),
) -> str:
    """Runs a program to its end and returns its output. Raises `OperationFailed` for an exit code
    that is not `fine`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=_environment(world),
    )
    try:
        out, errors = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode not in fine:
        lines = errors.decode("utf-8", "replace").strip().splitlines()[-15:]
        raise OperationFailed(
            f"{module} ended with exit code {process.returncode}: {' | '.join(lines[-3:])}",
            hint=f"regionctl op resume {world.operation_id}",
            extra={"lines": lines},
        )
    return out.decode()


def _environment(world: World) -> dict[str, str]:
    """So that `doctor` and `down` can find what is left of a drill."""
    return {"REGIONCTL_STATE": str(world.state_dir)}
