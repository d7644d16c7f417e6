"""Carries out operations inside the control plane process, each in a task of its own.

Operations whose locks conflict cannot both be unfinished (`create_operation` refuses the second),
so everything that waits may run at once: a drill beside the failover that it provokes. One control
plane runs on a state directory, so at its start every operation recorded as running belongs to a
dead worker and is claimed again at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from control_plane.operations import ACTIVE, Handler, Operation, Superseded, run
from control_plane.store import Store
from control_plane.world import World

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class Worker:
    """Start `run()` as a task; cancel it to stop. What was in flight goes on at the next start."""

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        world_of: Callable[[Operation, Mapping[int, Any]], World],
        name: str,
    ) -> None:
        self.store = store
        self.handlers = handlers
        self.world_of = world_of
        self.name = name
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Runs what is unfinished, then whatever is created, as soon as it is created."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.store.waiting.clear()
                for operation in reversed(await self.store.operations(states=ACTIVE)):
                    if operation.id not in self.tasks:
                        task = group.create_task(self._carry_out(operation.id), name=operation.id)
                        self.tasks[operation.id] = task
                await self.store.waiting.wait()

    async def _carry_out(self, id: str) -> None:
        try:
            claim = await self.store.claim(id, self.name)
            if claim is not None:
                operation = await run(self.store, claim, self.handlers, self.world_of)
                log.info("%s %s: %s", id, operation.kind, operation.state)
        except Superseded as superseded:
            log.info("%s", superseded.detail)
        except Exception:
            # The database could not be read or written, so the outcome is not recorded: claim the
            # operation again, which repeats the step in flight.
            log.exception("%s could not be recorded; it is tried again", id)
            await self.store.clock.sleep(RETRY_SECONDS)
            self.store.waiting.set()
        finally:
            del self.tasks[id]
            # It may have been resumed between its last record and now.
            self.store.waiting.set()
