"""regionctl runbook: what to do about a symptom, to read or to be taken through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli import rehearsal, render
from cli.guide import Guide
from cli.leaf import READS, Run, group, leaf
from cli.render import Table
from cli.steps import told, unanswered
from cli.suggest import unknown
from runbooks import book as books
from runbooks.book import Runbook, Value
from runtime.errors import Exit, Invalid, Refused

app = group()
TAKES = (*READS, "dry_run", "reason", "timeout", "confirm")
Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Such as database-failure; runbook list shows them.",
        autocompletion=books.names,
    ),
]


@leaf(app, "list", examples=("regionctl runbook list", "regionctl runbook list -o name"))
async def list_(run: Run) -> None:
    """The runbooks, each with its symptom. Works while the control plane is away."""
    found = [books.read(name) for name in books.names()]
    rows = [(book.name, book.title, book.symptom, book.drill) for book in found]
    keys = ("name", "title", "symptom", "alert", "drill", "scenario", "rto", "rpo")
    render.show(
        run.output,
        render.listing("RunbookList", [{k: getattr(book, k) for k in keys} for book in found]),
        tables=[Table(("runbook", "what it is about", "symptom", "drill"), rows)],
        names=[book.name for book in found],
    )


@leaf(app, "show", examples=("regionctl runbook show control-plane-lost",))
async def show(run: Run, name: Name) -> None:
    """One runbook, to be read. Works while the control plane is away."""
    book = _find(name)
    document = {"apiVersion": "regionctl/v1", "kind": "Runbook", **asdict(book)}
    render.show(run.output, document, tables=_tables(book), names=[name])


@leaf(
    app,
    "run",
    shared=TAKES,
    examples=(
        "regionctl runbook run database-failure",
        "regionctl runbook run database-failure --set target=s1 --from 2",
        "regionctl runbook run reshard --set to=4 --dry-run",
        "regionctl runbook run zone-failure --unattended -o json",
        "regionctl runbook run database-failure --set target=s1 --drill",
    ),
)
async def run(
    run: Run,
    name: Name,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Answer to what the runbook asks."),
    ] = None,
    first: Annotated[
        int, typer.Option("--from", metavar="N", min=1, help="Begin with this step.")
    ] = 1,
    unattended: Annotated[
        bool, typer.Option("--unattended", help="Ask nobody; severe steps need --confirm.")
    ] = False,
    drill: Annotated[
        bool,
        typer.Option("--drill", help="In its drill, unattended; exits with the drill's verdict."),
    ] = False,
) -> int:
    """Take the steps of a runbook, one after the other, each when you agree."""
    book = _find(name)
    values = _values(book, given or [])
    unattended = unattended or drill
    _check(run, book, values, first, unattended=unattended)
    rehearsed = None
    if drill and not run.dry_run:
        rehearsed = await rehearsal.begin(run, _drill_of(book), f"runbook {name}, in its drill")
    await Guide(run, book, values, unattended, first, rehearsed=rehearsed).through()
    return rehearsed.exit if rehearsed else Exit.OK


def _find(name: str) -> Runbook:
    if name not in books.names():
        raise unknown("runbook", name, books.names())
    return books.read(name)


def _drill_of(book: Runbook) -> str:
    if book.drill is None:
        raise Refused(f"No drill brings {book.name} about.", hint="leave --drill out")
    return book.drill


def _values(book: Runbook, given: Sequence[str]) -> dict[str, Value]:
    """What is known of what the runbook asks."""
    asks = {ask.name: ask for ask in book.asks}
    values = {name: ask.default for name, ask in asks.items() if ask.default is not None}
    for each in given:
        key, separator, text = each.partition("=")
        if not separator:
            raise Invalid(f"{each!r} is not KEY=VALUE.", hint="such as --set target=s1")
        if key not in asks:
            raise unknown("question", key, asks)
        values[key] = asks[key].value(text)
    return values


def _check(
    run: Run, book: Runbook, values: dict[str, Value], first: int, *, unattended: bool
) -> None:
    """Raises `Invalid` or `Refused` for what could not come to its end."""
    if first > len(book.steps):
        raise Invalid(f"{book.name} has {len(book.steps)} steps.", hint="--from 1")
    alone = unattended or run.dry_run
    if not alone and not run.interactive:
        raise Refused(
            "There is no terminal to ask at.",
            hint=f"regionctl runbook run {book.name} --unattended, or --dry-run",
        )
    wanted = set[str]().union(*(step.wanted for step in book.steps[first - 1 :]))
    missing = [ask.name for ask in book.asks if ask.name in wanted - set(values)]
    if alone and missing:
        raise unanswered(book, missing)


def _tables(book: Runbook) -> list[Table]:
    """Facts, steps and text."""
    goal = ", ".join(f"{key} {getattr(book, key)}" for key in ("rto", "rpo") if getattr(book, key))
    facts: list[tuple[str, Any]] = [
        ("symptom", book.symptom),
        ("alert", book.alert),
        ("drill", f"regionctl drill run {book.drill}" if book.drill else None),
        ("objective", goal or None),
        *((f"asks {ask.name}", f"{ask.says} (such as {ask.example})") for ask in book.asks),
    ]
    lines = []
    for number, step in enumerate(book.steps, start=1):
        lines.append(f"{number}. {step.title}")
        lines += told(step, {}, "   ")
    rows = [fact for fact in facts if fact[1]]
    title = f"steps; to be taken through them: regionctl runbook run {book.name}"
    return [
        Table(("", ""), rows, title=book.title),
        Table((), [], title=title, foot=lines),
        Table((), [], foot=[book.text.rstrip()]),
    ]
