"""Starts operations and waits for them, through everything that may happen on the way.

The operation lives in the control plane; waiting is only looking. So when the control plane goes
away (it is restarted by its supervisor) the wait takes up again after the last event seen, and
Ctrl-C or a time-out end the wait and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cli import find, progress, render
from cli.leaf import Run
from cli.render import Output, Table
from cli.settings import Settings
from runtime.errors import (
    Exit,
    MeasurementVoid,
    NotFound,
    OperationFailed,
    Problem,
    Refused,
    TimedOut,
    Unavailable,
)

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]
PATIENCE_SECONDS = 60.0
# A control plane that died is back by itself sooner; one that was never there is reported then.
RESTART_SECONDS = 5.0
RETRY_SECONDS = 0.2


@asynccontextmanager
async def connect(run: Run) -> AsyncIterator[Client]:
    """A client of the control plane that is meant. Raises `Unavailable` when nothing is there."""
    async with client_of(run.state_dir) as client:
        yield client


def client_of(state_dir: Path | None) -> Client:
    """That of the server which the settings name, else of the platform on this machine.

    `--state-dir` means a platform on this machine, whatever the settings name.
    """
    from cli.remembering import Remembering

    settings = Settings.read()
    token, authority = settings.token_file, settings.ca_file
    if settings.server and state_dir is None:
        return Remembering(settings.server, settings.server, token_file=token, ca_file=authority)
    platform = find.platform(state_dir)
    home = platform.state_dir
    if not _may_have_token(platform, settings):
        token = None
    return Remembering(
        platform.address, str(home), state_dir=home, token_file=token, ca_file=authority
    )


def _may_have_token(platform: find.Platform, settings: Settings) -> bool:
    """Whether the person's own token may go to a platform that was found by its directory.

    The directory says where that is and whose certificate is good there. So one that came with a
    download, or that leads off this machine, gets the token which is in the directory itself.
    """
    from control_plane import listen

    theirs = settings.of_project and platform.state_dir == settings.state_dir
    return not theirs and listen.is_loopback(urlsplit(platform.address).hostname or "")


async def perform(
    run: Run, client: Client, verb: str, args: Mapping[str, Any], *, show_empty: bool = True
) -> JSON | None:
    """Plans `verb`, starts it and waits: the operation as it ended; None when nothing is to do.

    With `--dry-run` the plan is printed, with `--detach` the operation as it began, and with
    `show_empty` the plan without steps; None too.
    """
    if run.idempotency_key is not None and not run.dry_run:
        # What it began may have made its own plan impossible by now.
        return await start(run, client, verb, args)
    plan = await patiently(lambda: client.plan(verb, args, run.reason), RESTART_SECONDS)
    if run.dry_run or (show_empty and not plan["steps"]):
        show_plan(run.output, plan)
        return None
    if not plan["steps"]:
        render.note("nothing to do")
        return None
    return await start(run, client, verb, args)


async def start(run: Run, client: Client, verb: str, args: Mapping[str, Any]) -> JSON | None:
    """Starts an operation; waits for it unless `--detach`, which prints it and returns None."""
    operation = await client.start(
        verb,
        args,
        reason=run.reason,
        idempotency_key=run.idempotency_key,
        expect_generation=run.expect_generation,
    )
    if run.detach:
        show_operation(run.output, operation)
        render.note(f"started; watch it with: regionctl op watch {operation['id']}")
        return None
    return await wait(run, client, operation)


async def wait(run: Run, client: Client, operation: JSON) -> JSON:
    """Follows the operation to its end, showing its steps.

    Raises what ended it badly (`OperationFailed`, `Refused`, `MeasurementVoid`), `TimedOut` after
    `--timeout` seconds, `Unavailable` when the control plane stays away.
    """
    run.operation = operation["id"]
    render.note(f"{operation['kind']} {operation['target']}: operation {operation['id']}")
    try:
        async with asyncio.timeout(run.timeout):
            with progress.of(operation) as shown:
                async for event in client.follow(operation["id"]):
                    shown.tell(event)
            ended = await patiently(lambda: client.operation(operation["id"]))
    except TimeoutError:
        raise TimedOut(
            f"Waited {run.timeout:g} s; operation {run.operation} is still running.",
            hint=f"regionctl op watch {run.operation}",
        ) from None
    _raise_failure(ended)
    return ended


async def patiently(ask: Callable[[], Awaitable[JSON]], seconds: float = PATIENCE_SECONDS) -> JSON:
    """The answer to `ask`, again and again while the control plane is being restarted."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await ask()
        except Unavailable:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(RETRY_SECONDS)


def _raise_failure(operation: JSON) -> None:
    """Nothing when the operation succeeded; else what stopped it, as a Problem."""
    id = operation["id"]
    if operation["state"] == "succeeded":
        return
    if operation["state"] == "aborted":
        raise OperationFailed(
            f"Operation {id} was aborted.", hint=f"regionctl op show {id}", extra={"operation": id}
        )
    cause = Problem.from_document(operation.get("problem") or {})
    untouched = not any(step["state"] == "succeeded" for step in operation.get("steps", []))
    if isinstance(cause, MeasurementVoid) or (isinstance(cause, Refused | NotFound) and untouched):
        raise cause
    raise OperationFailed(
        cause.detail,
        hint=cause.hint or f"regionctl op show {id}",
        runbook=cause.runbook,
        extra=cause.extra,
    )


def show_plan(output: Output, plan: JSON) -> None:
    """The steps that would be carried out, which are those that are."""
    document = {"apiVersion": "regionctl/v1", **plan, "kind": "Plan", "verb": plan["kind"]}
    rows = [
        (number, step["name"], progress.subject(step["args"]))
        for number, step in enumerate(plan["steps"], start=1)
    ]
    expected = ", ".join(
        f"{key} {value}"
        for key, value in plan.get("expected", {}).items()
        if not isinstance(value, dict | list)
    )
    foot = [f"expected: {expected}"] if expected else []
    foot.append(f"generation: {plan['generation']}")
    title = f"plan: {plan['kind']} {plan['target']}: {len(rows)} steps"
    if not rows:
        title, foot = "nothing to do", []
    render.show(
        output,
        document,
        tables=[Table(("#", "step", "about"), rows, title=title, foot=foot)] if rows else [],
        names=[step["name"] for step in plan["steps"]],
    )
    if not rows:
        render.note(title)


def show_operation(output: Output, operation: JSON) -> None:
    """One operation with its steps."""
    rows = [
        (
            step.get("number", number) + 1,
            step["name"],
            progress.subject(step.get("args", {})),
            step["state"],
            render.seconds(step.get("seconds")),
        )
        for number, step in enumerate(operation.get("steps", []))
    ]
    title = f"{operation['id']}: {operation['kind']} {operation['target']}: {operation['state']}"
    foot = [f"reason: {operation['reason']}"] if operation.get("reason") else []
    if operation.get("problem"):
        foot.append(f"problem: {operation['problem'].get('detail', '')}")
    render.show(
        output,
        {"apiVersion": "regionctl/v1", **operation},
        tables=[Table(("#", "step", "about", "state", "time"), rows, title=title, foot=foot)],
        names=[operation["id"]],
    )


def exit_of_plan(plan: JSON, *, asked: bool) -> Exit:
    """With `--exit-code` the exit code says whether anything would be done."""
    return Exit.CHANGES if asked and plan["steps"] else Exit.OK
