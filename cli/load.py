"""regionctl load: load tests against the levels that were promised."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import load_capacity, load_child, load_live, load_report, render
from cli.leaf import READS, Run, group, leaf
from cli.render import Output, Table
from runtime.errors import Exit

app = group()
for part in (load_report, load_capacity):
    app.registered_commands += part.app.registered_commands
JSON = dict[str, Any]
Profile = Annotated[
    str, typer.Argument(metavar="PROFILE", help="Such as smoke; load profiles shows them.")
]
WARM_UP = "warm-up"
MET = {True: "met", False: "missed", None: "unknown"}


@leaf(app, "profiles", examples=("regionctl load profiles", "regionctl load profiles -o json"))
async def profiles(run: Run) -> None:
    """The load profiles: how many arrivals a second, how long, and what for."""
    found = await load_child.profiles()
    rows = [
        (each["name"], each["peakRate"], render.seconds(each["seconds"]), each["purpose"])
        for each in found
    ]
    render.show(
        run.output,
        render.listing("LoadProfileList", found),
        tables=[Table(("profile", "arrivals/s", "lasts", "what for"), rows)],
        names=[each["name"] for each in found],
    )


@leaf(
    app,
    "run",
    shared=(*READS, "dry_run"),
    examples=(
        "regionctl load run smoke",
        "regionctl load run baseline --gate slo.yaml --report-dir build/load",
        "regionctl load run peak --rate-scale 2 --seconds 120 --seed 7 -o json",
        "regionctl load run smoke --url https://shop.example --client client.json",
    ),
)
async def run(
    run: Run,
    profile: Profile,
    gate: Annotated[
        Path | None, typer.Option("--gate", help="File with the gates: regionctl slo show -o yaml.")
    ] = None,
    rate_scale: Annotated[
        float, typer.Option("--rate-scale", help="Times the profile's rates.")
    ] = 1.0,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Stretch or press the profile into them.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same arrivals.")] = 1,
    workers: Annotated[
        int, typer.Option("--workers", min=0, max=64, help="Load processes on this machine.")
    ] = 1,
    expect_workers: Annotated[
        int | None,
        typer.Option("--expect-workers", min=1, help="Here and elsewhere; needs --bind."),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option("--bind", metavar="HOST:PORT", help="Where workers elsewhere join."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Keep every sample: samples.csv.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure this machine first; refuse what is beyond it."),
    ] = False,
    report_dir: Annotated[
        Path | None, typer.Option("--report-dir", help="Where run.json and the reports go.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="A platform elsewhere, in place of this one.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", help="PEM file: who vouches for its certificate.")
    ] = None,
    client: Annotated[
        Path | None, typer.Option("--client", help="File of the OAuth client, mode 0600.")
    ] = None,
    lag_limit_ms: Annotated[
        float | None,
        typer.Option(
            "--lag-limit-ms", min=0.1, help="How late this machine may start requests; 5 by rule."
        ),
    ] = None,
) -> int:
    """Run a load test. Exit 0 passed, 10 a gate is missed, 9 the measurement proves nothing."""
    options = {"--rate-scale": rate_scale, "--seconds": seconds, "--seed": seed}
    plan = await load_child.plan_of(profile, options)
    if run.dry_run:
        _show_plan(run.output, plan)
        return Exit.OK
    load_child.check_installed()
    if gate is not None:
        await load_child.check_gates(gate)
    target = load_child.find_target(run.state_dir, url, ca, client)
    id, folder = load_child.new_folder(run.state_dir, report_dir, url)
    more = {
        "--workers": workers,
        "--expect-workers": expect_workers,
        "--bind": bind,
        "--lag-limit-ms": lag_limit_ms,
        "--out": folder,
        "--id": id,
    }
    words = [*target.words(), *load_child.words({"--profile": profile, **options, **more})]
    words += [*(["--raw"] if raw else []), *(["--calibrate"] if calibrate else [])]
    with load_live.of(f"{profile} → {target.url}", float(plan["seconds"])) as shown:
        code = await load_child.follow("loadtests.run", words, shown.tell)
    judging = asyncio.ensure_future(load_child.judge(folder, gate))
    verdict, document = await asyncio.shield(judging)
    show_run(run.output, document, folder)
    return Exit.INTERRUPTED if code == Exit.INTERRUPTED else verdict


def show_run(output: Output, document: JSON, folder: Path) -> None:
    """LoadRun: exactly as it was written with -o json, the essentials as tables."""
    shown = [each for each in document["endpoints"] if each["phase"] != WARM_UP]
    rows = [
        (
            each["name"],
            each["journey"],
            each["phase"],
            each["ok"],
            each["errors"],
            *(_ms(each["intendedMs"][name]) for name in ("p50", "p95", "p99")),
            _ms(each["serviceMs"]["p99"]),
        )
        for each in shown
    ]
    columns = ("endpoint", "journey", "phase", "ok", "errors", "p50", "p95", "p99", "service p99")
    gates = [
        (
            each["metric"],
            _where(each["where"]),
            f"{each['op']} {each['limit']}",
            each["value"],
            MET[each["met"]],
        )
        for each in document["gates"]
    ]
    tables = [Table(columns, rows, title="milliseconds, from the intended start")] if rows else []
    if gates:
        tables.append(Table(("metric", "where", "limit", "value", "met"), gates))
    tables.append(Table((), [], foot=_foot(document, folder)))
    render.show(output, document, tables=tables, names=[document["id"]])


def _foot(document: JSON, folder: Path) -> list[str]:
    offered, generator = document["offered"], document["generator"]
    lines = [
        f"offered: {offered['started']} of {offered['planned']} arrivals, "
        f"{offered['dropped']} dropped; generator {generator['lagP99Ms']:.1f} ms late (p99), "
        f"{generator['cpuMax']:.0%} of a processor"
    ]
    if document["environment"]["colocated"]:
        lines.append("generator and platform share this machine: no figure of capacity")
    lines += [
        f"error: {each['endpoint']}: {each['kind']}, {each['count']} times"
        for each in document["errors"][:10]
    ]
    lines += [f"because: {why}" for why in document["validity"]["because"]]
    if document["partial"]:
        lines.append("partial: the run was ended before its plan")
    return [*lines, f"report: {folder}", f"{document['profile']}: {document['verdict']}"]


def _show_plan(output: Output, plan: JSON) -> None:
    rows = [
        (each["kind"], each["fromRate"], each["toRate"], render.seconds(each["seconds"]))
        for each in plan["segments"]
    ]
    foot = [
        f"{plan['arrivals']} arrivals in {render.seconds(plan['seconds'])}, seed {plan['seed']}",
        f"{plan['users']} users are registered before",
    ]
    table = Table(("segment", "from/s", "to/s", "lasts"), rows, title=plan["profile"], foot=foot)
    document = {"apiVersion": "regionctl/v1", "kind": "LoadPlan", **plan}
    render.show(output, document, tables=[table], names=[plan["profile"]])


def _where(where: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in where.items())


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
