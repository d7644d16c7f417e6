"""From a key to a plan, and from an answer to the screen that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.dash import intents
from cli.dash.actions import Abort, Consent
from cli.dash.intents import Intent
from cli.dash.modals import Choice, Page
from cli.dash.view import RUNNING
from runtime.errors import Problem

if TYPE_CHECKING:
    from cli.dash.app import Dashboard

JSON = dict[str, Any]
SHARDS = (1, 2, 3, 4, 6, 8, 12, 16)


async def plan(app: Dashboard, verb: str) -> None:
    """Asks for what is still open, shows the plan, and goes to the operation that it became."""
    document = app.feed.document
    why = intents.blocked(verb, document, app.feed.contact)
    if why or document is None or app.read_only:
        app.notify(why or "This dashboard is read-only.", severity="warning")
        return
    try:
        intent = await _intent(app, verb, document)
    except Problem as problem:
        _tell(app, problem)
        return
    if intent is None:
        return
    consent = Consent(intent, app.connect, document.get("generation"), app.line)
    started = await app.push_screen_wait(consent)
    if started:
        app.notify(f"{started} {intent.title}", title="started", timeout=4)
        app.feed.hurry()
        app.jump("operations", started)


async def _intent(app: Dashboard, verb: str, document: JSON) -> Intent | None:
    """None when the person went back."""
    databases = [each["name"] for each in document["shards"]]
    regions = [each["name"] for each in document["regions"]]
    row = app.board.grid.chosen if app.board.grid else None
    target = row.key if row and row.key in (*databases, *regions) else ""
    if verb == "failback":
        return intents.failback()
    if verb == "drill":
        drills = await (await app.connect()).drills()
        shown = [(each["name"], f"{each['name']:<18} {each['title']}") for each in drills]
        name = await app.push_screen_wait(Choice("Which drill?", shown))
        return intents.drill(name) if name else None
    if verb == "reshard":
        shown = [(str(count), f"{count} shards") for count in SHARDS]
        answer = await app.push_screen_wait(Choice("To how many shards?", shown))
        return intents.reshard(int(answer)) if answer else None
    places = databases if verb == "backup" else databases + regions
    if target not in places:
        shown = [(name, name) for name in places]
        target = await app.push_screen_wait(Choice(f"{verb.capitalize()} of what?", shown))
    if not target:
        return None
    if verb == "backup":
        return intents.backup(target)
    if verb == "failover":
        return intents.failover(target)
    return intents.switchover(target, region=target in regions)


async def abort(app: Dashboard) -> None:
    """Aborts the operation under the cursor if it runs, else the one that matters most."""
    document = app.feed.document or {"operations": []}
    running = [each for each in document["operations"] if each["state"] in RUNNING]
    row = app.board.grid.chosen if app.board.grid else None
    chosen = next((each for each in running if row and each["id"] == row.key), None)
    activity = document.get("activity") or {}
    most = next((each for each in running if each["id"] == activity.get("operation")), None)
    operation = chosen or most
    if operation is None or app.read_only:
        return
    reason = await app.push_screen_wait(Abort(operation, app.line))
    if reason is None:
        return
    try:
        await (await app.connect()).abort(operation["id"], reason)
        app.notify(f"{operation['id']} stops after its step", title="aborted")
    except Problem as problem:
        _tell(app, problem)


async def show_report(app: Dashboard, id: str) -> None:
    """The report of a drill; without one the operation's own details."""
    from control_plane import report_text

    try:
        report = await (await app.connect()).report(id)
    except Problem as problem:
        _tell(app, problem)
        return
    await app.push_screen(Page(f"Report of {id}", report_text.markdown(report), markdown=True))


def show_details(app: Dashboard) -> None:
    """What the documents say about the row under the cursor, as YAML."""
    import yaml

    row = app.board.grid.chosen if app.board.grid else None
    if row is None:
        return
    thing = app.board.thing(row.key)
    if thing is not None:
        text = yaml.safe_dump(thing, sort_keys=False, allow_unicode=True)
        app.push_screen(Page(row.key, text))


def _tell(app: Dashboard, problem: Problem) -> None:
    hint = f"\ntry: {problem.hint}" if problem.hint else ""
    app.notify(problem.detail + hint, severity="error", timeout=10)
