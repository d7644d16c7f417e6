"""A runbook in its drill: the drill breaks the platform, and the runbook is taken meanwhile.

The drill measures the recovery that the platform makes by itself, so nothing may help it: until the
drill has ended the runbook only looks. What it would have changed it changes afterwards.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import render, work
from cli.drill import VERDICTS
from cli.leaf import Run
from runtime.errors import Exit, OperationFailed

if TYPE_CHECKING:
    from control_plane.client import Client

JSON = dict[str, Any]
FAULTS = frozenset({"inject-fault", "kill-during-move", "assume-loss"})
"""The steps of drills that break something."""


@dataclass
class Rehearsal:
    """One drill, which was started by `begin`. `verdict` is "running" until it has ended."""

    id: str
    drill: str
    verdict: str = "running"

    @property
    def exit(self) -> Exit:
        return VERDICTS.get(self.verdict, Exit.VOID)

    def document(self) -> JSON:
        return {"operation": self.id, "name": self.drill, "verdict": self.verdict}

    async def ended(self, run: Run) -> None:
        """Waits for the end of the drill. Raises what made it fail."""
        if self.verdict != "running":
            return
        render.note(f"waiting for the end of {self.id}: the platform recovers by itself first")
        async with work.connect(run) as client:
            await work.wait(run, client, await work.patiently(lambda: client.operation(self.id)))
            report = await work.patiently(lambda: client.report(self.id))
        run.operation = None
        self.verdict = report["verdict"]
        render.note(f"{self.drill}: {self.verdict}")


async def begin(run: Run, drill: str, reason: str) -> Rehearsal:
    """Starts the drill and waits until it has broken what it breaks."""
    async with work.connect(run) as client:
        args = {"drill": drill, "seed": secrets.randbelow(2**31)}
        operation = await client.start("drill", args, reason=reason)
        render.note(f"drill {drill}: operation {operation['id']}")
        await _broken(client, operation)
    return Rehearsal(operation["id"], drill)


async def _broken(client: Client, operation: JSON) -> None:
    async for event in client.follow(operation["id"]):
        step = (event.get("data") or {}).get("step")
        if event["kind"] == "step-succeeded" and step in FAULTS:
            return
    raise OperationFailed(
        f"The drill {operation['id']} ended before it broke anything.",
        hint=f"regionctl op show {operation['id']}",
    )
