"""Begins and ends a platform from outside: `python -m control_plane.bootstrap up|down ...`.

`up` makes the state directory and starts the global supervisor, which keeps the control plane,
the edge and the peers running; everything else is the control plane's work. `down` needs no control
plane: it stops every supervisor, then whatever else carries the state directory in its
environment, and proves that nothing is left. Prints one line of JSON: the answer, or a problem.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from pydantic.alias_generators import to_camel

from control_plane import audit_file, listen, monitored
from control_plane import settings as environment
from control_plane.audit_file import recorded
from infra.local import clients, layout, leftovers, ports, quota, servers
from infra.local.layout import Layout, State
from infra.local.ports import Ports
from infra.local.supervisor import Program, Supervisor, tail
from infra.topology import BUILT_IN, Topology, load
from runtime.clock import SystemClock, wait_until
from runtime.errors import Exit, OperationFailed, Problem, Refused, TimedOut

JSON = dict[str, Any]
CONTROL_PLANE = "control-plane"
UP_SECONDS = 30.0
DOWN_SECONDS = 90.0
GRACE_SECONDS = 10.0


async def up(
    wanted: str,
    root: Path,
    port_offset: int,
    asked: listen.Listen | None = None,
    with_monitoring: bool | None = None,
    reason: str = "",
) -> JSON:
    """The control plane of the platform in `root` runs, and listens where `asked` says or where it
    did before; so does its monitoring, or not. May be repeated at any time.

    Raises `Refused` when another `up` or `down` works on `root`, another platform lives there or
    holds its ports, or the topology is not for this machine; `OperationFailed`, with the log's
    last lines, when it does not come up.
    """
    topology = load(wanted)
    if topology.aws:
        raise Refused(
            f"The topology {topology.name} is for AWS: this machine cannot hold it.",
            hint=f"regionctl infra up --topology {wanted} makes it; then REGIONCTL_SERVER=URL "
            "regionctl up provisions it, by the control plane over there",
        )
    choice = monitored.asked(topology, with_monitoring)
    _check_owner(root)
    paths = Layout(root)
    with layout.exclusive(paths):
        state = _make_state(topology, wanted, root, port_offset)
        table = ports.table(topology, state.portOffset)
        with recorded(root / audit_file.NAME, "up", topology.name, reason):
            monitored.choose(paths, table, with_monitoring, choice)
            where = await _live(topology, paths, table, asked, changed=with_monitoring is not None)
            monitoring = await monitored.settle(paths, _supervisor(paths, table), table, where)
    return {
        "address": where.address(table.control),
        "tokenFile": str(paths.control / "token"),
        "stateDir": str(root),
        "monitoring": monitoring,
    }


async def _live(
    topology: Topology, paths: Layout, table: Ports, asked: listen.Listen | None, *, changed: bool
) -> listen.Listen:
    """The control plane runs; where it listens. `changed`: begin it anew although it does."""
    before = listen.read(paths.control)
    where = asked or before
    supervisor = _supervisor(paths, table)
    alive = _alive(paths.root, before, table.control)
    if where != before:
        layout.replace_file(paths.control / "listen.json", listen.text(where))
        if await supervisor.alive():
            await supervisor.stop_program(CONTROL_PLANE)  # the next one listens there
    if not alive or changed or where != before or await _orphaned(supervisor):
        _make_token(paths)
        await _start(topology, paths, table)
    return where


async def down(root: Path, *, delete_data: bool, reason: str = "") -> JSON:
    """Nothing of the platform in `root` runs any more; with `delete_data` nothing of it is left.

    Raises `TimedOut`, naming them, when processes survive.
    """
    state = layout.read_state(root)
    paths = Layout(root)
    with layout.exclusive(paths):
        topology = load(str(paths.topology))
        table = ports.table(topology, state.portOffset)
        with recorded(root / audit_file.NAME, "down", topology.name, reason):
            # The control plane first: what it carries out would start things again.
            await _supervisor(paths, table).shutdown(DOWN_SECONDS)
            await asyncio.gather(
                *(each.shutdown(DOWN_SECONDS) for each in _regions(topology, paths, table))
            )
            ended = await asyncio.to_thread(_end_leftovers, root)
        if delete_data:
            with layout.explain_disk(root):
                shutil.rmtree(root)
    return {"stateDir": str(root), "deleted": delete_data, "endedLeftovers": ended}


def _check_owner(root: Path) -> None:
    """Before anything is written: raises `Refused` when somebody else's platform is here."""
    if (root / "state.json").exists():
        layout.read_state(root)
    elif root.exists() and root.owner() != layout.user_name(os.geteuid()):
        raise Refused(
            f"{root} belongs to {root.owner()}.",
            hint=f"Run as {root.owner()}, or choose another --state-dir.",
        )


def _make_state(topology: Topology, wanted: str, root: Path, port_offset: int) -> State:
    """The state directory; on the first time its ports are free. Raises `Refused`."""
    paths = Layout(root)
    quota.check(topology)
    if not paths.state.exists():
        ports.require_free(
            ports.table(topology, port_offset).all(),
            hint=f"Stop that program, or move this platform with --port-offset "
            f"{port_offset + 1000}.",
        )
    source = Path(wanted) if Path(wanted).suffix else BUILT_IN / f"{wanted}.yaml"
    chosen = environment.choices().postgres_bin
    state = layout.create(
        root,
        topology=topology.name,
        document=source.read_text(encoding="utf-8"),
        port_offset=port_offset,
        postgres_bin=chosen,
    )
    _check_same(load(str(paths.topology)), topology, paths)
    return state


def _check_same(made: Topology, asked: Topology, paths: Layout) -> None:
    """Raises `Refused`, naming what differs: a platform cannot be changed into another one."""
    old, new = asdict(made), asdict(asked)
    changed = [to_camel(field) for field in old if old[field] != new[field]]
    if changed == ["shards"]:
        raise Refused(
            f"{paths.root} has {len(made.shards)} shards by now, not {len(asked.shards)}.",
            hint=f"regionctl up --state-dir {paths.root} goes on with them; "
            f"regionctl shard reshard --to {len(asked.shards)} changes their number.",
        )
    if changed:
        raise Refused(
            f"{paths.root} was made from another topology of the name {made.name!r}; "
            f"what differs: {', '.join(changed)}.",
            hint=f"regionctl up --state-dir {paths.root} goes on with it as it was made; "
            "for a new one beside it, add --topology, another --state-dir and --port-offset.",
        )


def _make_token(paths: Layout) -> None:
    """The API's root token, readable by the owner alone; made once."""
    token = paths.control / "token"
    if not token.exists():
        layout.replace_file(token, secrets.token_urlsafe(32))


async def _start(topology: Topology, paths: Layout, table: Ports) -> None:
    """The global supervisor runs and keeps the control plane alive."""
    supervisor = _supervisor(paths, table)
    where = listen.read(paths.control)
    programs = [
        *_global(topology, paths),
        _control_plane(paths, where, table),
        *monitored.programs(paths, topology, table, where),
    ]
    supervisor.write(programs)
    if await supervisor.alive():
        await supervisor.update()
        await supervisor.start_program(CONTROL_PLANE)
    else:
        _end_orphans(paths.root, {program.name for program in programs})
        ports.require_free({table.control: "control plane", table.supervisor: "global supervisor"})
        await supervisor.start(own_session=True)

    async def live() -> bool:
        return await asyncio.to_thread(_alive, paths.root, where, table.control)

    try:
        await wait_until(
            SystemClock(), live, what="the control plane to answer", seconds=UP_SECONDS
        )
    except TimedOut:
        log = supervisor.folder / "logs" / f"{CONTROL_PLANE}.log"
        raise OperationFailed(
            f"The control plane did not come up within {UP_SECONDS:g} s.",
            hint=f"Read {log}, then run regionctl up again.",
            extra={"log": str(log), "lines": tail(log, 8)},
        ) from None


def _global(topology: Topology, paths: Layout) -> list[Program]:
    """Edge and peers: their files and their programs."""
    if topology.provider != "local":
        return []
    from infra.local.provider import LocalProvider

    site = LocalProvider(topology, paths.root).site
    with layout.explain_disk(paths.root):
        servers.prepare_global(site)
        clients.write(paths, site.secrets, site.entry_url)
    return servers.global_programs(site)


def _control_plane(paths: Layout, where: listen.Listen, table: Ports) -> Program:
    variables = {
        "REGIONCTL_PORT": str(table.control),
        "REGIONCTL_ADDRESS": where.address(table.control),
        "REGIONCTL_INSTANCE": CONTROL_PLANE,
    }
    url = environment.choices().database_url
    if url:
        variables["REGIONCTL_DATABASE_URL"] = url
    command = [sys.executable, "-m", "uvicorn", "control_plane.app:create", "--factory"]
    command += ["--host", where.host, "--port", str(table.control), "--log-level", "warning"]
    for option, name, text in (
        ("--ssl-certfile", "api.pem", where.certificate),
        ("--ssl-keyfile", "api.key", where.key),
    ):
        if text is not None:
            layout.replace_file(paths.control / name, text)
            command += [option, str(paths.control / name)]
    # uvloop cannot start a process as another user, which PostgreSQL needs when we are root.
    command += ["--loop", "asyncio", "--no-access-log", "--timeout-graceful-shutdown", "1"]
    return Program(
        CONTROL_PLANE, tuple(command), environment=variables, autostart=True, start_seconds=0
    )


def _supervisor(paths: Layout, table: Ports) -> Supervisor:
    password = layout.read_secrets(paths).supervisor
    return Supervisor(paths.folder(""), table.supervisor, password, paths.root)


def _regions(topology: Topology, paths: Layout, table: Ports) -> list[Supervisor]:
    password = layout.read_secrets(paths).supervisor
    return [
        Supervisor(paths.folder(spec.region), table.instances[spec.id], password, paths.root)
        for spec in topology.instances(kind="supervisor")
    ]


def _alive(root: Path, where: listen.Listen, port: int) -> bool:
    """The control plane of this very state directory answers."""
    try:
        url = f"{where.address(port)}/health/live"
        with urllib.request.urlopen(url, timeout=1, context=where.trust()) as answer:  # noqa: S310 # nosec B310
            return bool(json.load(answer).get("stateDir") == str(root))
    except (OSError, ValueError, urllib.error.URLError):
        return False


async def _orphaned(supervisor: Supervisor) -> bool:
    """What it ran is on its own now. One that was never made leaves nobody behind."""
    return supervisor.file.exists() and not await supervisor.alive()


def _end_orphans(root: Path, names: Collection[str]) -> None:
    """What a supervisor that has died left running is ended, so that the next one can start it."""
    for pid in leftovers.find(root):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.environ().get("REGIONCTL_INSTANCE") in names:
                process.kill()
                process.wait(5)


def _end_leftovers(root: Path) -> int:
    """Ends what still belongs to `root`; returns how many processes that were.

    They are asked first: PostgreSQL then ends in good order (SIGINT). What stays is killed.
    """
    found: list[psutil.Process] = []
    for pid in leftovers.find(root):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found.append(process)
            process.resume()
            postgres = process.name().startswith("postgres")
            process.send_signal(signal.SIGINT if postgres else signal.SIGTERM)
    psutil.wait_procs(found, timeout=GRACE_SECONDS)
    leftovers.end(root)
    return len(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the answer, or the problem, as one line of JSON and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m control_plane.bootstrap")
    verbs = parser.add_subparsers(dest="verb", required=True)
    upper = verbs.add_parser("up")
    upper.add_argument("--topology", required=True)
    upper.add_argument("--state-dir", type=Path, required=True)
    upper.add_argument("--port-offset", type=int, default=0)
    upper.add_argument("--listen")
    upper.add_argument("--tls-cert", type=Path)
    upper.add_argument("--tls-key", type=Path)
    upper.add_argument("--monitoring", action=argparse.BooleanOptionalAction)
    upper.add_argument("--reason", default="")
    downer = verbs.add_parser("down")
    downer.add_argument("--reason", default="")
    downer.add_argument("--state-dir", type=Path, required=True)
    downer.add_argument("--delete-data", action="store_true")
    asked = parser.parse_args(arguments)
    root = asked.state_dir.absolute()
    try:
        if asked.verb == "up":
            where = listen.chosen(asked.listen, asked.tls_cert, asked.tls_key)
            answer = asyncio.run(
                up(
                    asked.topology,
                    root,
                    asked.port_offset,
                    where,
                    asked.monitoring,
                    asked.reason,
                )
            )
        else:
            answer = asyncio.run(down(root, delete_data=asked.delete_data, reason=asked.reason))
    except Problem as problem:
        return _report(problem)
    except OSError as error:
        hint = "Free space, or check who owns it."
        return _report(OperationFailed(f"Cannot work below {root}: {error}.", hint=hint))
    sys.stdout.write(json.dumps(answer) + "\n")
    return int(Exit.OK)


def _report(problem: Problem) -> int:
    sys.stdout.write(json.dumps(problem.document()) + "\n")
    return int(problem.exit)


if __name__ == "__main__":
    sys.exit(main())
