"""regionctl load report, load compare: load runs that were made, looked at again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import find, load_child, programs, render
from cli.leaf import Run, group, leaf
from cli.render import Table
from runtime.errors import Exit, Invalid, NotFound

app = group()
JSON = dict[str, Any]
VERDICTS = {"passed": Exit.OK, "failed": Exit.MISSED, "invalid": Exit.VOID}
Where = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or the folder of its run.json.")
]


@leaf(
    app,
    "report",
    examples=(
        "regionctl load report load-20261123-090000-4711",
        "regionctl load report build/load --gate slo.yaml",
    ),
)
async def report(
    run: Run,
    where: Where,
    gate: Annotated[
        Path | None, typer.Option("--gate", help="Judge it again, by this file.")
    ] = None,
) -> int:
    """A load run as it was judged. Exit 0 passed, 10 a gate is missed, 9 it proves nothing."""
    from cli.load import show_run

    folder = folder_of(run, where)
    document = _read(folder)
    if gate is not None:
        load_child.check_installed()
        await load_child.check_gates(gate)
        _, document = await load_child.judge(folder, gate)
    show_run(run.output, document, folder)
    return VERDICTS.get(document["verdict"], Exit.VOID)


@leaf(app, "compare", examples=("regionctl load compare before/ after/",))
async def compare(run: Run, a: Where, b: Where) -> int:
    """What changed from one load run to another, with intervals of 95 %. Exit 9: one is invalid."""
    load_child.check_installed()
    folders = [folder_of(run, each) for each in (a, b)]
    for folder in folders:
        _read(folder)
    code, found = await programs.ask("loadtests.compare", *map(str, folders))
    if "error" in found:
        raise Invalid(str(found["error"]), hint="regionctl load report RUN")
    rows = [
        (
            each["endpoint"].replace("*", "all"),
            each["phase"],
            each["metric"],
            _value(each["a"], each["unit"]),
            _value(each["b"], each["unit"]),
            f"{100 * each['change']:+.1f} %",
            f"{100 * each['low']:+.1f} … {100 * each['high']:+.1f} %",
            each["is"],
        )
        for each in found["items"]
    ]
    columns = ("endpoint", "phase", "metric", "before", "after", "change", "95 %", "is")
    foot = [*(f"note: {note}" for note in found["notes"]), f"after: {found['verdict']}"]
    tables = [Table(columns if rows else (), rows, foot=foot)]
    render.show(run.output, found, tables=tables, names=[found["verdict"]])
    return Exit.VOID if code else Exit.OK


def folder_of(run: Run, where: str) -> Path:
    """The folder of a run that is named by its path or, on this machine's platform, by its id.

    Raises `NotFound`.
    """
    given = Path(where).expanduser()
    if _has_run(given):
        return given.absolute()
    if "/" not in where and where not in ("", ".", ".."):
        kept = find.platform(run.state_dir).state_dir / "load" / where
        if _has_run(kept):
            return kept
    raise NotFound(
        f"There is no load run {where!r}.", hint="regionctl load run smoke; its last line names it"
    )


def _has_run(folder: Path) -> bool:
    try:
        return (folder / "run.json").is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _read(folder: Path) -> JSON:
    """Raises `Invalid` for what is no record of a load run."""
    try:
        document = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Invalid(f"{folder}/run.json cannot be read: {error}.") from error
    if not isinstance(document, dict) or document.get("kind") != "LoadRun":
        raise Invalid(f"{folder}/run.json is no load run.", hint="regionctl load run smoke")
    return document


def _value(value: float, unit: str) -> str:
    return f"{value:.1f} ms" if unit == "ms" else f"{100 * value:.3g} %"
