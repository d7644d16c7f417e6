"""regionctl up and down: the whole platform begins and ends here."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import drill_on_aws, find, programs, render, work
from cli.leaf import MUTATES, SEVERE, Run, group, leaf
from cli.render import Output, Table
from cli.settings import DEFAULT_NAME, PORT_OFFSET_AT_MOST, Settings
from runtime.errors import Invalid, NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from control_plane.client import Client

BOOTSTRAP = "control_plane.bootstrap"


class Extra(StrEnum):
    """What a platform can have beside what its topology says."""

    monitoring = "monitoring"


app = group()


@leaf(
    app,
    "up",
    shared=MUTATES,
    examples=(
        "regionctl up",
        "regionctl up --topology mine.yaml --port-offset 1000",
        "regionctl up --dry-run",
        "regionctl up --listen 10.0.0.5 --tls-cert api.pem --tls-key api.key",
        "regionctl up --with monitoring",
    ),
)
async def up(
    run: Run,
    topology: Annotated[
        str | None, typer.Option("--topology", metavar="NAME|FILE", help="What should exist.")
    ] = None,
    port_offset: Annotated[
        int | None,
        typer.Option(
            "--port-offset", min=0, max=PORT_OFFSET_AT_MOST, help="Added to every port (18000...)."
        ),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST", help="Where the API listens; not here: TLS only."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The API's certificate.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key.")
    ] = None,
    added: Annotated[
        Extra | None,
        typer.Option("--with", help="Prometheus and Alertmanager run too, from now on."),
    ] = None,
    removed: Annotated[Extra | None, typer.Option("--without", help="They do no more.")] = None,
) -> None:
    """Make the platform exist, or mend what is missing of it. May be repeated at any time.

    With REGIONCTL_SERVER set, the control plane there makes it: the way to provision a platform on
    AWS once `regionctl infra up` has made its servers.
    """
    if added is not None and added is removed:
        raise Invalid(f"--with {added} and --without {removed} contradict each other.")
    named = {"--listen": listen, "--tls-cert": tls_cert, "--tls-key": tls_key}
    extras = {"--monitoring": added, "--no-monitoring": removed}
    server = Settings.read().server
    if server and run.state_dir is None:
        given = {"--port-offset": port_offset, **named, "--with": added, "--without": removed}
        _only_here(server, [name for name, value in given.items() if value is not None])
        await _provision(run, server, topology)
        return
    directory = find.state_dir(run.state_dir, name_of(topology) if topology else None)
    run.state_dir = directory
    if run.dry_run and not (directory / "state.json").exists():
        raise Refused(
            f"There is no platform in {directory} yet, so there is nothing to compare with.",
            hint="regionctl up makes it; --dry-run then shows what a further up would do",
        )
    wanted, offset = as_made(directory, topology, port_offset)
    arguments = ["up", "--topology", wanted, "--state-dir", str(directory)]
    if not run.dry_run:
        render.note(f"state in {directory}")
        for option, value in {"--port-offset": offset, **named}.items():
            arguments += [option, str(value)] if value is not None else []
        arguments += [option for option, value in extras.items() if value is not None]
        arguments.append(f"--reason={run.reason}")
        made = await programs.call(BOOTSTRAP, *arguments)
    else:
        made = {}
    async with work.connect(run) as client:
        if not run.dry_run and not run.detach:
            await _join(run, client)
        await work.perform(run, client, "provision", {}, show_empty=run.detach)
        if run.dry_run or run.detach:
            return
        monitoring = made.get("monitoring", {})
        show(run.output, find.platform(directory), await client.status(), monitoring)


def _only_here(server: str, options: list[str]) -> None:
    """Raises `Refused` for options that say how this machine runs a platform."""
    if options:
        raise Refused(
            f"{', '.join(options)}: the platform of {server} does not run on this machine.",
            hint="leave it out, or say which platform of this machine: --state-dir DIR",
        )


async def _provision(run: Run, server: str, topology: str | None) -> None:
    """The control plane at `server` makes what is missing of its platform."""
    async with work.connect(run) as client:
        if topology is not None:
            await drill_on_aws.require(client, name_of(topology))
        if not run.dry_run and not run.detach:
            await _join(run, client)
        await work.perform(run, client, "provision", {}, show_empty=run.detach)
        if run.dry_run or run.detach:
            return
        status = await client.status()
        name = (await client.topology())["name"]
        document = {
            "apiVersion": "regionctl/v1",
            "kind": "Platform",
            "name": name,
            "state": status["state"],
            "entryUrl": status["entryUrl"],
            "controlPlane": server,
        }
        rows = [
            *(("platform", name), ("is", status["state"]), ("entry", status["entryUrl"])),
            ("control plane", server),
        ]
        foot = ["", f"next: curl {status['entryUrl']}/api/v1/products", "      regionctl status"]
        tables = [Table(("", ""), rows, foot=foot)]
        render.show(run.output, document, tables=tables, names=[name])


async def _join(run: Run, client: Client) -> None:
    """An earlier `up` that was interrupted, and goes on in the control plane, is waited for."""
    for operation in await client.operations(limit=20):
        if operation["kind"] == "provision" and operation["state"] in ("pending", "running"):
            render.note("an earlier up is still at work; following it")
            await work.wait(run, client, operation)


def _here(run: Run) -> None:
    """Raises `Refused` when the settings mean a control plane elsewhere, and no option this one."""
    server = Settings.read().server
    if server and run.state_dir is None:
        raise Refused(
            f"The platform of {server} is stopped on its own machine, one on AWS by: "
            "regionctl infra down.",
            hint="run it there, or say which platform of this machine: --state-dir DIR",
        )


def name_of(topology: str) -> str:
    return Path(topology).stem if topology.endswith((".yaml", ".yml")) else topology


def as_made(directory: Path, topology: str | None, offset: int | None) -> tuple[str, int]:
    """Topology and port offset: as asked, or as the platform was made with, or the defaults."""
    try:
        made = find.platform(directory)
    except Unavailable:
        usual = Settings.read().port_offset or 0
        return topology or DEFAULT_NAME, usual if offset is None else offset
    kept = directory / "topology.yaml"
    return (
        topology or (str(kept) if kept.exists() else made.name),
        made.port_offset if offset is None else offset,
    )


def show(
    output: Output,
    platform: find.Platform,
    status: dict[str, Any],
    monitoring: dict[str, str],
) -> None:
    """Where the platform is and what to type next. `monitoring`: URLs by program."""
    authority = platform.state_dir / "ca" / "ca.pem"
    document = {
        "apiVersion": "regionctl/v1",
        "kind": "Platform",
        "name": platform.name,
        "state": status["state"],
        "entryUrl": status["entryUrl"],
        "caFile": str(authority),
        "stateDir": str(platform.state_dir),
        "controlPlane": platform.address,
        "monitoring": monitoring,
    }
    rows = [
        ("platform", platform.name),
        ("is", status["state"]),
        ("entry", document["entryUrl"]),
        ("CA file", document["caFile"]),
        ("state", document["stateDir"]),
        *monitoring.items(),
    ]
    more = platform.option
    foot = [
        "",
        f"next: curl --cacert {authority} {status['entryUrl']}/api/v1/products",
        f"      regionctl status{more}",
        f"      regionctl drill run database-failure{more}",
    ]
    tables = [Table(("", ""), rows, foot=foot)]
    render.show(output, document, tables=tables, names=[platform.name])


@leaf(
    app,
    "down",
    shared=SEVERE,
    examples=("regionctl down", "regionctl down --delete-data --confirm two-regions"),
)
async def down(
    run: Run,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Remove the state directory as well.")
    ] = False,
) -> None:
    """Stop the platform. Its data stays, unless --delete-data --confirm NAME."""
    _here(run)
    directory = find.state_dir(run.state_dir)
    if not (directory / "state.json").exists():
        raise NotFound(
            f"There is no platform in {directory}.", hint="say where it is: --state-dir DIR"
        )
    platform = find.platform(directory)
    run.state_dir = directory
    if not run.dry_run:
        if delete_data:
            await run.insist(
                platform.name, f"This deletes all data of {platform.name} in {directory}."
            )
        else:
            await run.agree(f"Stop {platform.name}? Its data stays.")
    try:
        async with work.connect(run) as client:
            await work.perform(run, client, "decommission", {}, show_empty=run.detach)
            if run.dry_run or run.detach:
                return
    except Unavailable:
        render.note("the control plane does not answer; stopping the supervisors directly")
    except Refused as refused:
        if not delete_data or run.dry_run:
            raise
        render.note(f"{refused.detail} Its data goes anyway; stopping the supervisors directly.")
    arguments = ["down", "--state-dir", str(directory), f"--reason={run.reason}"]
    arguments += ["--delete-data"] if delete_data else []
    await programs.call(BOOTSTRAP, *arguments)
    document = {
        "apiVersion": "regionctl/v1",
        "kind": "Platform",
        "name": platform.name,
        "state": "deleted" if delete_data else "stopped",
        "stateDir": str(directory),
    }
    row = (document["name"], document["state"], document["stateDir"])
    tables = [Table(("platform", "state", "directory"), [row])]
    render.show(run.output, document, tables=tables, names=[platform.name])
