"""regionctl drill: break it on purpose, let it recover, judge the evidence."""

from __future__ import annotations

import hashlib
import json
import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import drill_on_aws, programs, render, work
from cli.leaf import SEVERE, Run, group, leaf
from cli.names import known
from cli.render import Output, Table
from cli.suggest import unknown
from runtime.errors import Exit, Invalid, NotFound

app = group()
VERDICTS = {"passed": Exit.OK, "failed": Exit.MISSED, "void": Exit.VOID}
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Such as database-failure; drill list shows them.",
        autocompletion=known("drill"),
    ),
]


class Fault(StrEnum):
    kill = "kill"
    freeze = "freeze"
    corrupt = "corrupt"
    loss = "loss"


@leaf(app, "list", examples=("regionctl drill list", "regionctl drill list -o name"))
async def list_(run: Run) -> None:
    """The drills, and what each of them breaks."""
    async with work.connect(run) as client:
        drills = await client.drills()
    rows = [(d["name"], ", ".join(d.get("faults", [])), d.get("title", "")) for d in drills]
    render.show(
        run.output,
        render.listing("DrillList", drills),
        tables=[Table(("drill", "faults", "what it does"), rows)],
        names=[drill["name"] for drill in drills],
    )


@leaf(app, "show", examples=("regionctl drill show region-failure",))
async def show(run: Run, name: Name) -> None:
    """One drill: its objective, its faults, its steps."""
    async with work.connect(run) as client:
        drill = await _find(client, name)
    rows = [(key, _flat(value)) for key, value in drill.items()]
    render.show(
        run.output,
        {"apiVersion": "regionctl/v1", "kind": "Drill", **drill},
        tables=[Table(("property", "value"), rows)],
        names=[name],
    )


@leaf(
    app,
    "run",
    shared=SEVERE,
    examples=(
        "regionctl drill run database-failure",
        "regionctl drill run database-failure --fault freeze --repeat 20 -o json",
        "regionctl drill run region-failure --dry-run",
        "regionctl drill run backup-restore --production-size 2000",
        "regionctl drill run database-failure --load baseline",
        "regionctl drill run region-failure --topology aws-two-regions --dry-run",
    ),
)
async def run(
    run: Run,
    name: Name,
    fault: Annotated[
        Fault | None, typer.Option("--fault", help="One that the drill has: drill list.")
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, max=100, help="How often, for a distribution.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the random moments; drawn when left out.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=1, max=200, help="Probe orders each second.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "--region",
            help="A database, an instance of a service, or the region that serves.",
            autocompletion=known("database", "instance", "region"),
        ),
    ] = None,
    production_size: Annotated[
        float | None,
        typer.Option(
            "--production-size", min=0, help="GB of one database, for which times are extrapolated."
        ),
    ] = None,
    load: Annotated[
        str | None,
        typer.Option("--load", metavar="PROFILE", help="Load beside the probe: load profiles."),
    ] = None,
    load_rate_scale: Annotated[
        float | None, typer.Option("--load-rate-scale", help="Times the profile's rates.")
    ] = None,
    load_seconds: Annotated[
        float | None, typer.Option("--load-seconds", help="Stretch or press the profile into them.")
    ] = None,
    topology: Annotated[
        str | None,
        typer.Option(
            "--topology", metavar="NAME|FILE", help="One on AWS: planned here, approved, run there."
        ),
    ] = None,
    observe: Annotated[
        bool, typer.Option("--observe", help="With --topology: plan from a look at AWS.")
    ] = False,
) -> int:
    """Run a drill. Exit 0 passed, 10 an objective missed, 9 the measurement is void."""
    args: dict[str, Any] = {"drill": name, "repeat": repeat}
    given = {
        "fault": fault.value if fault else None,
        "seed": _seed(run) if seed is None else seed,
        "rate": rate,
        "target": target,
        "production_gigabytes": production_size,
        "load": load,
        "load_rate_scale": load_rate_scale,
        "load_seconds": load_seconds,
    }
    args |= {key: value for key, value in given.items() if value is not None}
    if load is not None:
        await _check_profile(load)
    made = None
    if topology is not None:
        made = await drill_on_aws.plan(topology, args, look=observe)
        if run.dry_run:
            drill_on_aws.show(run, made)
            return Exit.OK
        drill_on_aws.announce(made)
        await drill_on_aws.approve(run, made)
    async with work.connect(run) as client:
        if made is not None:
            await drill_on_aws.require(client, made["topology"])
        await work.patiently(lambda: _find(client, name), work.RESTART_SECONDS)
        ended = await work.perform(run, client, "drill", args)
        if ended is None:
            return Exit.OK
        id = ended["id"]
        report = await work.patiently(lambda: client.report(id))
    show_report(run.output, report)
    return VERDICTS.get(report["verdict"], Exit.VOID)


def _seed(run: Run) -> int:
    """Of one key always the same: given again, it must be the same request."""
    if run.idempotency_key is None:
        return secrets.randbelow(2**31)
    digest = hashlib.sha256(run.idempotency_key.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4]) >> 1


@leaf(app, "report", examples=("regionctl drill report op-12 -o json",))
async def report(
    run: Run,
    id: Annotated[
        str, typer.Argument(help="The drill's operation.", autocompletion=known("operation"))
    ],
) -> None:
    """A report as it was written."""
    async with work.connect(run) as client:
        show_report(run.output, await client.report(id))


@leaf(app, "history", examples=("regionctl drill history", "regionctl drill history -o json"))
async def history(run: Run) -> None:
    """Every drill that was run, newest first."""
    async with work.connect(run) as client:
        reports = await client.drill_history()
    rows = [
        (r["operation"], r["drill"], r["verdict"], render.moment(r["startedAt"]), _rto(r), _lost(r))
        for r in reports
    ]
    render.show(
        run.output,
        render.listing("DrillHistory", reports),
        tables=[Table(("operation", "drill", "verdict", "started", "rto", "lost"), rows)],
        names=[report["operation"] for report in reports],
    )


@leaf(app, "verify-report", examples=("regionctl drill verify-report drills/op-12/report.json",))
async def verify_report(
    run: Run, file: Annotated[Path, typer.Argument(help="A report.json.")]
) -> int:
    """Recompute a report's verdict from its raw ledger, offline. Exit 9 when it does not stand."""
    document, files = _read_report(file)
    from control_plane.report import check

    findings = check(document, files)
    verdict = str(document.get("verdict"))
    found = {
        "apiVersion": "regionctl/v1",
        "kind": "ReportVerification",
        "report": str(file),
        "drill": document.get("drill"),
        "operation": document.get("operation"),
        "verified": not findings,
        "verdict": verdict if not findings else "void",
        "findings": findings,
    }
    foot = [f"{file}: {'stands' if not findings else 'does not stand'}; verdict {found['verdict']}"]
    tables = [Table(("finding",), [(finding,) for finding in findings] or [("none",)], foot=foot)]
    render.show(run.output, found, tables=tables, names=[str(found["verdict"])])
    return VERDICTS.get(str(found["verdict"]), Exit.VOID)


def _read_report(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The report and the raw files that it quotes, which lie beside it.

    Raises `NotFound` or `Invalid`.
    """
    try:
        if not file.is_file():
            raise NotFound(f"There is no file {file}.", hint="regionctl drill history")
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(
            f"{file} is not a report: {error}.", hint="a report.json is wanted"
        ) from error
    if not isinstance(document, dict) or document.get("kind") != "DrillReport":
        raise Invalid(f"{file} is not a drill report.", hint="a report.json is wanted")
    folder = file.resolve().parent
    quoted = document.get("files")
    paths = [folder / name for name in quoted] if isinstance(quoted, dict) else []
    return document, {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.is_file() and path.resolve().is_relative_to(folder)
    }


async def _find(client: Any, name: str) -> dict[str, Any]:
    drills: dict[str, dict[str, Any]] = {drill["name"]: drill for drill in await client.drills()}
    if name not in drills:
        raise unknown("drill", name, drills)
    return drills[name]


async def _check_profile(name: str) -> None:
    """Raises `NotFound` for a load profile that there is not."""
    found = await programs.call("loadtests.profiles")
    names = {each["name"]: each for each in found["profiles"]}
    if name not in names:
        raise unknown("load profile", name, names)


def show_report(output: Output, report: dict[str, Any]) -> None:
    """DrillReport: exactly as written with -o json, the essentials as tables."""
    phases = [(phase["name"], render.seconds(phase["seconds"])) for phase in report["phases"]]
    objectives = [
        (
            o["name"],
            render.seconds(o["limitSeconds"]),
            render.seconds(o["measuredSeconds"]),
            _met(o),
        )
        for o in report["objectives"]
    ]
    invariants = [(i["name"], i["held"], i["detail"]) for i in report["invariants"]]
    ledger = report["ledger"]
    counted = ("attempted", "acknowledged", "failed", "unknown", "lost", "duplicated")
    fault = report["fault"]
    self_test = report["selfTest"]
    from control_plane import drills_load, figures

    foot = [
        *figures.lines(report),
        *drills_load.sentences(report),
        f"self-test: {self_test['caught']} of {self_test['planted']} planted faults caught",
        *(f"because: {why}" for why in report.get("because") or []),
        f"{report['drill']}: {report['verdict']}",
    ]
    tables = [
        Table(("phase", "time"), phases, title=f"fault: {fault['kind']} {fault['target']}"),
        Table(counted, [tuple(ledger[key] for key in counted)], title="writes of the probe"),
        Table(("invariant", "held", "detail"), invariants),
        *_distribution(report),
        *(Table(head, rows, title=title) for title, head, rows in drills_load.tables(report)),
        Table(("objective", "limit", "measured", "met"), objectives, foot=foot),
    ]
    render.show(output, report, tables=tables, names=[report["operation"]])


def _distribution(report: dict[str, Any]) -> list[Table]:
    repeats = report.get("repeats") or []
    spread = (report.get("distribution") or {}).get("rtoSeconds") or {}
    if len(repeats) < 2:
        return []
    row = (len(repeats), *(render.seconds(spread.get(key)) for key in ("p50", "p95", "max")))
    return [Table(("repeats", "p50", "p95", "max"), [row], title="recovery time")]


def _met(objective: dict[str, Any]) -> str:
    return "met" if objective["met"] else "missed"


def _rto(report: dict[str, Any]) -> str:
    spread = (report.get("distribution") or {}).get("rtoSeconds") or {}
    return render.seconds(spread.get("max"))


def _lost(report: dict[str, Any]) -> object:
    return (report.get("ledger") or {}).get("lost")


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(item) for item in value)
    return str(value)
