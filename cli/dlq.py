"""regionctl events dlq: events that a consumer could not handle, and what a person decides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from cli import render, work
from cli.leaf import READS, Run, group, leaf
from cli.names import known
from cli.render import Table
from runtime.errors import Invalid, NotFound

JSON = dict[str, Any]

app = group()
ACTS = (*READS, "dry_run", "reason")
Region = Annotated[
    str | None,
    typer.Option(
        "--region", help="Default: the one that serves customers.", autocompletion=known("region")
    ),
]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Such as events dlq list shows.")
]
All = Annotated[bool, typer.Option("--all", help="Every one that is there now.")]


@leaf(app, "list", examples=("regionctl events dlq list", "regionctl events dlq list -o name"))
async def list_(
    run: Run,
    region: Region = None,
    consumer: Annotated[
        str | None, typer.Option("--consumer", help="Only what this one set aside.")
    ] = None,
) -> None:
    """Events that a consumer set aside, oldest first."""
    async with work.connect(run) as client:
        found = await client.dead_letters(region)
    letters = [each for each in found["items"] if consumer in (None, each["group"])]
    _show(run, found["region"], letters)


@leaf(app, "show", examples=("regionctl events dlq show 1732320000000-0",))
async def show(
    run: Run, id: Annotated[str, typer.Argument(metavar="ID")], region: Region = None
) -> None:
    """One of them with everything that is in it."""
    async with work.connect(run) as client:
        found = await client.dead_letters(region)
    (letter,) = _chosen(found, [id], every=False)
    rows = [(name, _text(value)) for name, value in letter.items()]
    render.show(
        run.output,
        {
            "apiVersion": "regionctl/v1",
            "kind": "DeadLetter",
            "region": found["region"],
            "letter": letter,
        },
        tables=[Table(("", ""), rows)],
        names=[letter["id"]],
    )


@leaf(
    app,
    "replay",
    shared=ACTS,
    examples=(
        "regionctl events dlq replay 1732320000000-0",
        "regionctl events dlq replay --all --reason 'fixed in 0.2.1'",
    ),
)
async def replay(run: Run, ids: Ids = None, every: All = False, region: Region = None) -> None:
    """Give events once more to the consumer that set them aside; it knows those it has seen."""
    async with work.connect(run) as client:
        found = await client.dead_letters(region)
        letters = _chosen(found, ids or [], every=every)
        if run.dry_run or not letters:
            _show(run, found["region"], letters)
            return
        await run.agree(f"Replay {len(letters)} events of {found['region']}?")
        answer = await client.replay_letters(found["region"], _ids(letters), run.reason)
    _tell(run, "replayed", answer)


@leaf(
    app,
    "drop",
    shared=(*ACTS, "confirm"),
    examples=(
        "regionctl events dlq drop 1732320000000-0 --confirm us-east-1 --reason 'test order'",
        "regionctl events dlq drop --all --dry-run",
    ),
)
async def drop(run: Run, ids: Ids = None, every: All = False, region: Region = None) -> None:
    """Forget events for good. Their content is kept with the platform's own events."""
    async with work.connect(run) as client:
        found = await client.dead_letters(region)
        letters = _chosen(found, ids or [], every=every)
        if run.dry_run or not letters:
            _show(run, found["region"], letters)
            return
        what = f"This drops {len(letters)} events of {found['region']}: nobody will handle them."
        await run.insist(found["region"], what)
        answer = await client.drop_letters(found["region"], _ids(letters), run.reason)
    _tell(run, "dropped", answer)


def _chosen(found: JSON, ids: Sequence[str], *, every: bool) -> list[JSON]:
    """Raises `Invalid` without a choice, `NotFound` for an id that is none."""
    if bool(ids) == every:
        raise Invalid("Say which: their ids, or --all.", hint="regionctl events dlq list")
    letters: dict[str, JSON] = {each["id"]: each for each in found["items"]}
    for id in ids:
        if id not in letters:
            raise NotFound(
                f"{found['region']} has no dead letter {id!r}.", hint="regionctl events dlq list"
            )
    return list(letters.values()) if every else [letters[id] for id in dict.fromkeys(ids)]


def _ids(letters: Sequence[JSON]) -> list[str]:
    return [letter["id"] for letter in letters]


def _show(run: Run, region: str, letters: Sequence[JSON]) -> None:
    rows = [
        (
            each["id"],
            each["group"],
            each["kind"],
            each["event"],
            render.moment(each["at"]),
            each["reason"],
        )
        for each in letters
    ]
    columns = ("id", "consumer", "kind", "event", "set aside", "reason")
    foot = [f"{region}: {len(letters)} dead letters"]
    render.show(
        run.output,
        {**render.listing("DeadLetterList", letters), "region": region},
        tables=[Table(columns, rows, foot=foot)],
        names=_ids(letters),
    )


def _tell(run: Run, done: str, answer: JSON) -> None:
    document = {"apiVersion": "regionctl/v1", "kind": "DeadLettersAct", **answer}
    rows = [(answer["region"], answer[done], run.reason)]
    render.show(
        run.output,
        document,
        tables=[Table(("region", done, "reason"), rows)],
        names=answer["ids"],
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
