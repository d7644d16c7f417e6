"""regionctl slo: the service level objectives, their error budgets, and what follows from them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import programs, render, work
from cli.leaf import Run, group, leaf
from cli.render import Output, Table
from runtime.errors import Exit, Invalid, NotFound

app = group()
JSON = dict[str, Any]
File = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Of an SLO file instead of the platform."),
]


class Format(StrEnum):
    prometheus = "prometheus"


@leaf(app, "show", examples=("regionctl slo show", "regionctl slo show -o yaml > slo.yaml"))
async def show(run: Run) -> None:
    """The objectives of the topology. With -o yaml an SLO file (OpenSLO), which gates load runs."""
    async with work.connect(run) as client:
        written = await client.slo("/file")
    rows = [_row(each) for each in written["items"]]
    columns = ("objective", "good", "counted by", "period", "what is good")
    names = [each["metadata"]["name"] for each in written["items"]]
    render.show(run.output, written, tables=[Table(columns, rows)], names=names)


def _row(slo: JSON) -> tuple[object, ...]:
    spec, objective = slo["spec"], slo["spec"]["objectives"][0]
    counted = objective.get("timeSliceWindow")
    return (
        slo["metadata"]["name"],
        f"{objective['targetPercent']:g} %",
        f"slices of {counted}" if counted else "requests",
        spec["timeWindow"][0]["duration"],
        spec["description"],
    )


@leaf(app, "check", examples=("regionctl slo check", "regionctl slo check -o json"))
async def check(run: Run) -> int:
    """Whether the objectives are met now. Exit 10 when a budget is spent or burns for a page."""
    async with work.connect(run) as client:
        found = await client.slo()
    rows = [
        (
            each["name"],
            each["state"],
            f"{alert['severity']} at {alert['factor']:g}",
            f"{_times(alert['burnLong'])} over {alert['long']}",
            f"{_times(alert['burnShort'])} over {alert['short']}",
            "fires" if alert["firing"] else "",
        )
        for each in found["items"]
        for alert in each["alerts"]
    ]
    columns = ("objective", "state", "alert", "burn", "and", "")
    foot = [_told(found)]
    names = [found["state"]]
    render.show(run.output, found, tables=[Table(columns, rows, foot=foot)], names=names)
    return Exit.OK if found["met"] else Exit.MISSED


def _told(found: JSON) -> str:
    bad = [each["name"] for each in found["items"] if each["state"] in ("page", "spent")]
    if bad:
        return f"missed: {', '.join(bad)}"
    return "nobody has asked for anything yet" if found["state"] == "unknown" else "met"


@leaf(app, "budget", examples=("regionctl slo budget", "regionctl slo budget -o json"))
async def budget(run: Run) -> None:
    """What of each error budget is spent and left, and how long it lasts at the present burn."""
    async with work.connect(run) as client:
        found = await client.slo()
    rows = [
        (
            each["name"],
            each["period"],
            f"{each['counted']:g}",
            f"{each['bad']:g}",
            _percent(each["good"]),
            _percent(each["budgetSpent"]),
            _percent(each["budgetLeft"]),
            _times(each["burn"]),
            render.seconds(each["lastsSeconds"]),
        )
        for each in found["items"]
    ]
    columns = ("objective", "period", "of", "bad", "good", "spent", "left", "burn 1h", "lasts")
    foot = [f"counted since {render.moment(found['since'])}"]
    names = [each["name"] for each in found["items"]]
    render.show(run.output, found, tables=[Table(columns, rows, foot=foot)], names=names)


@leaf(app, "lint", examples=("regionctl slo lint slo.yaml",))
async def lint(run: Run, file: Annotated[Path, typer.Argument(help="An SLO file.")]) -> int:
    """Check an SLO file and the gates in it. Exit 2 when something is wrong."""
    text = _read(file)
    faults = [*_faults(text, str(file)), *await _gate_faults(file)]
    faults = list(dict.fromkeys(faults))
    found = {
        "apiVersion": "regionctl/v1",
        "kind": "SloLint",
        "file": str(file),
        "valid": not faults,
        "faults": faults,
    }
    rows = [(fault,) for fault in faults] or [("none",)]
    render.show(run.output, found, tables=[Table(("fault",), rows)], names=faults)
    return Exit.USAGE if faults else Exit.OK


def _faults(text: str, source: str) -> list[str]:
    from infra import slo_file

    try:
        slo_file.parse(text, source)
    except Invalid as problem:
        return problem.detail.splitlines()
    return []


async def _gate_faults(file: Path) -> list[str]:
    """Load runs read the gates themselves, so they are asked."""
    _, answer = await programs.ask("loadtests.judge", "--lint", str(file))
    return [str(fault) for fault in answer.get("faults", [answer.get("error")])]


@leaf(
    app,
    "export",
    examples=(
        "regionctl slo export prometheus > slo-rules.yml",
        "regionctl slo export prometheus --file slo.yaml",
    ),
)
async def export(
    run: Run,
    format: Annotated[Format, typer.Argument(help="prometheus: recording and alerting rules.")],
    file: File = None,
) -> None:
    """The objectives for another tool: as its own file, or with -o as a document."""
    import yaml

    from infra import slo_file, slo_prometheus

    if file is None:
        async with work.connect(run) as client:
            text, source = yaml.safe_dump(await client.slo("/file")), "the platform"
    else:
        text, source = _read(file), str(file)
    slos = slo_file.parse(text, source)
    if run.output is Output.table:
        render.out(slo_prometheus.to_yaml(slos).rstrip("\n"))
        return
    rules = slo_prometheus.rules(slos)
    document = {"apiVersion": "regionctl/v1", "kind": "PrometheusRules", **rules}
    render.show(run.output, document, names=[group["name"] for group in rules["groups"]])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"There is no file {file}.", hint="regionctl slo show -o yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise Invalid(f"Cannot read {file}: {why}.", hint="regionctl slo show -o yaml") from error


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.4g} %"


def _times(burn: float | None) -> str:
    return "-" if burn is None else f"{burn:.2f}x"
