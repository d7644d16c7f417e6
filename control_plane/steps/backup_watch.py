"""Tells how far a backup or a restore is, while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from control_plane.world import World
from infra.backups import Work

JSON = dict[str, Any]
T = TypeVar("T")
EVERY_SECONDS = 1.0
MIB = 2**20


async def told(world: World, on: str, making: Coroutine[Any, Any, T]) -> T:
    """What `making` returns; each second that it takes, an event says how far it is."""
    task = asyncio.ensure_future(making)
    before: Work | None = None
    try:
        while not (await asyncio.wait({task}, timeout=EVERY_SECONDS))[0]:
            work = await world.provider.backups.working(on)
            if work is not None and work != before:
                await world.emit(work_event(on, work))
            before = work
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def work_event(on: str, work: Work) -> JSON:
    """{"kind", "message", "target", "phase", "done", "all"}, in bytes."""
    far = f" {work.done / MIB:,.0f} of {work.all / MIB:,.0f} MiB" if work.all else ""
    return {
        "kind": "work-progress",
        "message": f"{on}: {work.phase}{far}",
        "target": on,
        "phase": work.phase,
        "done": work.done,
        "all": work.all,
    }
