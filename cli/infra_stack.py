"""regionctl infra up, down, drift, outputs, doctor: a stack on AWS, by Pulumi's engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import infra_children as children
from cli import infra_tables as tables
from cli import render
from cli.leaf import READS, Run, leaf
from cli.render import Output, Table
from cli.settings import Settings
from runtime.errors import Exit, Invalid, NotFound, Refused

if TYPE_CHECKING:
    from infra.aws.first_run import Stage

JSON = dict[str, Any]
ENGINE = "infra.aws.engine"
DEFAULT = "aws-two-regions"
CHANGING = (*READS, "dry_run", "reason", "confirm")
SEVERE = frozenset({"delete", "replace", "delete-replaced", "create-replacement"})
"""Steps that may take data with them."""
INTERRUPTED = {
    action: f"Pulumi has finished what it was at and unlocked the stack. What was done stays done: "
    f"regionctl infra {verb} again goes on from there."
    for action, verb in (("up", "up"), ("destroy", "down"))
}

Topology = Annotated[
    str,
    typer.Option("--topology", metavar="NAME|FILE", help="A topology with provider: aws."),
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="URL",
        help="Where the stack's state is: s3://BUCKET, file://DIR. Else PULUMI_BACKEND_URL.",
    ),
]
SecretsProvider = Annotated[
    str | None,
    typer.Option(
        "--secrets-provider",
        metavar="URL",
        help="What encrypts secrets in the state: awskms://alias/NAME?region=REGION. "
        "Else a passphrase.",
    ),
]
Region = Annotated[
    str | None,
    typer.Option("--region", metavar="REGION", help="Only this region, and what it needs."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module to `regionctl infra`."""
    leaf(
        app,
        "up",
        shared=CHANGING,
        examples=(
            "regionctl infra up --dry-run --backend s3://my-state",
            "regionctl infra up --backend s3://my-state --reason INC-7",
            "regionctl infra up --region us-west-2 --backend s3://my-state",
        ),
    )(up)
    leaf(
        app,
        "down",
        shared=CHANGING,
        examples=(
            "regionctl infra down --dry-run --backend s3://my-state",
            "regionctl infra down --keep-data --confirm aws-two-regions",
        ),
    )(down)
    leaf(app, "drift", examples=("regionctl infra drift --backend s3://my-state",))(drift)
    leaf(app, "outputs", examples=("regionctl infra outputs -o json",))(outputs)
    leaf(app, "doctor", examples=("regionctl infra doctor --backend s3://my-state",))(doctor)


async def up(
    run: Run,
    topology: Topology = DEFAULT,
    backend: Backend = None,
    secrets_provider: SecretsProvider = None,
    region: Region = None,
) -> Exit:
    """Make AWS what the topology says. Shows what would change and asks first.

    Refused when a finding or a mandatory policy is in the way. What deletes or replaces something
    needs --confirm TOPOLOGY. With --dry-run exit 20 when something would change. Ctrl-C lets Pulumi
    finish what it is at; running it again goes on from there.
    """
    planned = await children.planned(topology)
    _allowed(planned)
    asked = _request(run, topology, backend, secrets_provider, run.reason)
    asked["targets"] = await _targets(run, asked, planned.plan, region)
    preview = await _engine(run, "preview", asked)
    _announce(run, preview, "would")
    if run.dry_run or not preview["steps"]:
        return show_ended(run, "InfraPreview", preview, planned.plan)
    name = planned.plan["topology"]
    if any(step["op"] in SEVERE for step in preview["steps"]):
        await run.insist(name, f"This deletes or replaces resources of {name}.")
    else:
        await run.agree(f"Change {len(preview['steps'])} resources of {preview['stack']} on AWS?")
    with _recorded(run, "infra up", topology):
        done = await _engine(run, "up", asked)
    show_ended(
        run, "InfraUpdate", done, planned.plan, what_is_left(topology, backend, done["outputs"])
    )
    return Exit.OK


async def down(
    run: Run,
    topology: Topology = DEFAULT,
    backend: Backend = None,
    secrets_provider: SecretsProvider = None,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Leave what is protected: databases, buckets.")
    ] = False,
) -> Exit:
    """Delete the stack from AWS. Protected resources stop it, or stay with --keep-data."""
    name = _name(topology)
    asked = _request(run, topology, backend, secrets_provider, run.reason)
    asked["keepData"] = keep_data
    preview = await _engine(run, "preview-destroy", asked)
    _announce(run, preview, "would")
    if run.dry_run or not preview["steps"]:
        return show_ended(run, "InfraPreview", preview, None)
    await run.insist(name, f"This deletes {len(preview['steps'])} resources of {name} from AWS.")
    with _recorded(run, "infra down", topology):
        done = await _engine(run, "destroy", asked)
    show_ended(run, "InfraUpdate", done, None)
    return Exit.OK


async def drift(
    run: Run,
    topology: Topology = DEFAULT,
    backend: Backend = None,
    secrets_provider: SecretsProvider = None,
) -> Exit:
    """What was changed on AWS by other hands. Changes nothing; exit 20 when there is something."""
    asked = _request(run, topology, backend, secrets_provider)
    return show_ended(run, "InfraDrift", await _engine(run, "drift", asked), None)


async def outputs(
    run: Run,
    topology: Topology = DEFAULT,
    backend: Backend = None,
    secrets_provider: SecretsProvider = None,
) -> None:
    """What the stack exports, such as its address, and what a first run does next.

    Secret values are masked.
    """
    asked = _request(run, topology, backend, secrets_provider)
    ended = await _engine(run, "outputs", asked)
    from infra.aws import first_run

    found: JSON = ended["outputs"]
    todo = what_is_left(topology, backend, found)
    document = {
        "apiVersion": "regionctl/v1",
        "kind": "InfraOutputs",
        "mode": "applied",
        "stack": ended["stack"],
        "outputs": found,
        "next": [stage.to_json() for stage in todo],
    }
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in sorted(found.items())
    ]
    tables_ = [Table(("output", "value"), rows, foot=first_run.lines(todo))]
    render.show(run.output, document, tables=tables_, names=found)


async def doctor(
    run: Run,
    topology: Topology = DEFAULT,
    backend: Backend = None,
    secrets_provider: SecretsProvider = None,
) -> Exit:
    """Whether a stack could be applied from here: packages, CLI, plugin, state, credentials.

    Exit 5 when something is missing; each comes with its mend. When nothing is, a first run is
    told in order. Nothing is changed.
    """
    from infra.aws import first_run

    asked = _request(run, topology, backend, secrets_provider)
    found = (await children.answer("infra.aws.engine_doctor", given=asked))["checks"]
    failed = [each for each in found if each["state"] == "fail"]
    todo = after_checks(found, topology, backend)
    rows = [(each["name"], each["state"], each["detail"]) for each in found]
    mends = [f"  {each['name']}: {each['mend']}" for each in found if each["mend"]]
    foot = ["", "to mend:", *mends] if mends else []
    render.show(
        run.output,
        {
            "apiVersion": "regionctl/v1",
            "kind": "DoctorReport",
            "state": "fail" if failed else "ok",
            "checks": found,
            "next": [stage.to_json() for stage in todo],
        },
        tables=[
            Table(
                ("check", "state", "found"),
                rows,
                foot=[*foot, *first_run.lines(todo)],
            )
        ],
        names=[each["name"] for each in failed],
    )
    return Exit.REFUSED if failed else Exit.OK


async def export(run: Run, topology: str, backend: str | None) -> JSON:
    """The state of a stack, as `pulumi stack export` has it, its secrets encrypted."""
    asked = _request(run, topology, backend, None)
    async for line in children.events(ENGINE, "export", given=_bytes(asked)):
        if line["event"] == "ended":
            return dict(line["export"])
    raise Refused("Pulumi did not say what the stack has.", hint="regionctl infra doctor")


def _request(
    run: Run, topology: str, backend: str | None, secrets: str | None, reason: str = ""
) -> JSON:
    """What the engine is asked. The folder has the stack's settings, none of them secret."""
    from infra.aws.engine_request import Request

    folder = infra_folder(run) / _name(topology)
    return Request(
        topology=topology,
        work_dir=folder,
        backend=backend or "",
        secrets_provider=secrets or "",
        message=reason,
    ).document()


def infra_folder(run: Run) -> Path:
    """Where the console keeps what belongs to stacks on AWS."""
    settings = Settings.read()
    home = run.state_dir or settings.state_dir or settings.state_root
    return home.expanduser().absolute() / "infra"


def _recorded(run: Run, action: str, topology: str) -> AbstractContextManager[None]:
    """No control plane sees this: who did it, and how it ended, is recorded from here."""
    from control_plane import audit_file

    file = infra_folder(run) / audit_file.NAME
    return audit_file.recorded(file, action, _name(topology), run.reason)


def _name(topology: str) -> str:
    return Path(topology).stem


def _allowed(planned: children.Planned) -> None:
    """Raises `Refused` when the plan may not be applied."""
    lines = [f"{each['policy']}: {each['message']}" for each in planned.violations]
    lines += [f"{each['path']}: {each['message']}" for each in planned.wrong]
    if lines:
        raise Refused(
            f"{len(lines)} findings and policies forbid this. Nothing was changed.",
            hint="regionctl infra policy",
            extra={"lines": lines[:15]},
        )


async def _targets(run: Run, asked: JSON, plan: JSON, region: str | None) -> list[str]:
    """The URNs that make a region; none when no region is named: all."""
    from infra.aws import plan as plans

    if region is None:
        return []
    known = {one["region"] for one in plan["resources"]} - {""}
    if region not in known:
        raise Invalid(f"Nothing is in {region!r}.", hint=f"one of {', '.join(sorted(known))}")
    try:
        state = (await _engine(run, "export", asked))["export"]
    except NotFound:
        state = {}
    there = {one["urn"] for one in (state.get("deployment") or {}).get("resources") or ()}
    found = plans.targets(plan, region, there)
    elsewhere = sum(1 for one in plans.managed(plan) if one["urn"] in found) - sum(
        1 for one in plans.managed(plan) if one["region"] == region
    )
    if elsewhere:
        render.note(f"{region} needs {elsewhere} resources elsewhere that are not there yet.")
    return found


async def _engine(run: Run, action: str, asked: JSON) -> JSON:
    """Lets the engine do it, and tells of it as it comes. Raises what it reports."""
    from infra.aws.engine_request import MAKING

    asked = {**asked, "mayCreate": action in MAKING}
    ended: JSON = {}
    try:
        async for line in children.events(ENGINE, action, given=_bytes(asked)):
            if line["event"] == "ended":
                ended = line
            elif run.output is Output.jsonl:
                render.out(json.dumps(line))
            else:
                _tell(line)
    except asyncio.CancelledError:
        render.note(INTERRUPTED.get(action, "Nothing was changed."))
        raise
    if not ended:
        raise Refused("Pulumi ended without a word.", hint="regionctl infra doctor")
    return ended


def after_checks(found: Sequence[JSON], topology: str, backend: str | None) -> tuple[Stage, ...]:
    """A first run, from where nothing is missing for it."""
    if any(each["state"] == "fail" for each in found):
        return ()
    return what_is_left(topology, backend, {})


def what_is_left(topology: str, backend: str | None, outputs: JSON) -> tuple[Stage, ...]:
    """What is left of a first run when the stack has these outputs."""
    from infra.aws import first_run
    from infra.aws.spec import platform
    from infra.topology import parse, read

    text, source = read(topology)
    wanted = platform(parse(text, source), text)
    return first_run.remaining(first_run.stages(wanted, topology, backend=backend or ""), outputs)


def _bytes(asked: JSON) -> bytes:
    return json.dumps(asked).encode("utf-8")


def _tell(line: JSON) -> None:
    """A line of progress for the person who waits."""
    match line["event"]:
        case "step" if line["op"] != "same":
            words = {"begin": line["op"], "done": f"{line['op']}: done", "failed": "FAILED"}
            render.note(f"{words[line['phase']]:<16}{tables.name(line['urn'])}")
        case "diagnostic":
            render.note(f"{line['severity']}: {line['message']}")
        case "policy":
            render.note(f"{line['level']} {line['policy']}: {line['message']}")


def _announce(run: Run, preview: JSON, word: str) -> None:
    if run.output.for_people:
        counts = ", ".join(f"{op} {count}" for op, count in sorted(preview["changes"].items()))
        render.note(f"{preview['stack']} {word}: {counts or 'change nothing'}")


def show_ended(
    run: Run, kind: str, ended: JSON, plan: JSON | None, todo: Sequence[Stage] = ()
) -> Exit:
    """Shows how it ended, and `todo`. Exit 20 of what was only looked at, and would change
    something."""
    from infra.aws import first_run

    document = {
        "apiVersion": "regionctl/v1",
        "kind": kind,
        "mode": ended.get("mode", "planned"),
        "topology": plan["topology"] if plan else None,
        **{key: value for key, value in ended.items() if key not in ("event", "mode")},
        **({"next": [stage.to_json() for stage in todo]} if todo else {}),
    }
    rows = [(step["op"], tables.name(step["urn"]), step["type"]) for step in ended["steps"]]
    counts = ", ".join(f"{op} {count}" for op, count in sorted(ended["changes"].items()))
    foot = [f"{ended['stack']}: {counts or 'nothing changes'}"]
    foot += [f"{key}: {value}" for key, value in sorted(ended.get("outputs", {}).items())]
    foot += first_run.lines(todo)
    shown = [Table(("step", "resource", "type") if rows else (), rows, foot=foot)]
    render.show(run.output, document, tables=shown, names=[step["urn"] for step in ended["steps"]])
    return Exit.CHANGES if ended["steps"] else Exit.OK
