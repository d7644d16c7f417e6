"""regionctl dash: the console that stays open."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render
from cli.leaf import Run, group, leaf
from cli.render import Output
from cli.settings import Settings
from runtime.errors import Refused

if TYPE_CHECKING:
    from cli.dash.app import Dashboard
    from cli.dash.feed import Feed
    from cli.dash.link import Link

app = group()
PLAIN_SECONDS = 5.0


class Name(StrEnum):
    overview = "overview"
    region = "region"
    data = "data"
    operations = "operations"
    load = "load"
    logs = "logs"
    infrastructure = "infrastructure"


@leaf(
    app,
    "dash",
    examples=(
        "regionctl dash",
        "regionctl dash --screen operations --read-only",
        "regionctl dash --plain",
        "regionctl dash --serve --port 8400",
        "regionctl dash -o json",
    ),
)
async def dash(
    run: Run,
    screen: Annotated[Name, typer.Option("--screen", help="Where to begin.")] = Name.overview,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Look only: no key starts anything.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Text for screen readers, again each 5 s.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="In a browser, for this machine only.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="For --serve.")] = 8400,
) -> int | None:
    """All regions on one screen, live: look, drill, fail over. Stays when the control plane goes.

    With -o json (yaml, jsonl, name) the overview once.
    """
    from textual.constants import DRIVER

    from cli.dash.link import Link

    link = Link(run)
    try:
        if run.output is not Output.table:
            document = await link.overview()
            names = [region["name"] for region in document["regions"]]
            render.show(run.output, document, names=names)
        elif plain:
            await _plainly(link)
        elif serve:
            from cli.dash import browser

            words = ["--screen", screen.value, *link.options]
            words += ["--read-only"] if read_only else []
            await browser.serve(words, port)
        elif not (sys.stdin.isatty() and sys.stdout.isatty()) and not DRIVER:
            raise Refused("The dashboard needs a terminal.", hint="regionctl dash --plain")
        else:
            return await _live(link, screen.value, read_only=read_only)
    finally:
        await link.close()
    return None


async def _live(link: Link, screen: str, *, read_only: bool) -> int:
    from cli.dash.app import Dashboard

    dashboard = Dashboard(
        _feed(link), link.name, link.client, link.line, screen=screen, read_only=read_only
    )
    from textual.constants import DRIVER

    watch = asyncio.create_task(_end_with_parent(dashboard)) if DRIVER else None
    await dashboard.run_async()
    if watch is not None:
        watch.cancel()
    return dashboard.return_code or 0


async def _end_with_parent(dashboard: Dashboard) -> None:
    """A dashboard in a browser has nobody left once the program that serves it has gone."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  nobody says when it goes
        await asyncio.sleep(PLAIN_SECONDS)
    dashboard.exit()


def _feed(link: Link) -> Feed:
    from cli.dash.feed import Feed, Sources
    from runtime.clock import SystemClock

    kept = Settings.read().cache_dir / link.kept
    return Feed(Sources(link.overview, link.probe), SystemClock(), kept)


async def _plainly(link: Link) -> None:
    """A block of text now and each 5 s in which something has changed, until it is interrupted."""
    from cli.dash import view

    feed = _feed(link)
    feed.load()
    before: list[str] = []
    while True:
        pause = await feed.poll()
        lines = [cell.text for cell in view.plain(feed.document, feed.contact)]
        if lines[1:] != before[1:] or not before:
            render.out("\n".join(lines) + "\n")
        before = lines
        await asyncio.sleep(max(pause, PLAIN_SECONDS))
