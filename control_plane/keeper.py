"""Keeps backups and history: opens the operations that `control_plane.schedule` says are due, and
forgets what has outlived the topology's policy (`control_plane.retention`).

It looks every few seconds. What the object storage has is asked for only when a backup or a pruning
has ended since, and now and then: listing is the one thing here that costs anything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from control_plane import retention
from control_plane.opening import Opener
from control_plane.operations import ACTIVE, FINISHED, Operation
from control_plane.plans import reshard_end
from control_plane.schedule import WATCHED, Attempt, backups_due
from control_plane.store import Store
from infra.backups import Backup
from infra.provider import Provider
from runtime.clock import Clock
from runtime.errors import Problem
from runtime.shardmap import ShardMap

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
LISTED_FOR_SECONDS = 900.0
REMEMBERED = 50
TIDIED_EVERY_SECONDS = 3600.0


class Keeper:
    """Start `run()` as a task; cancel it to stop. What goes wrong is logged and tried again."""

    def __init__(self, provider: Provider, store: Store, clock: Clock) -> None:
        self.provider = provider
        self.store = store
        self.clock = clock
        self.up_since: datetime | None = None
        self.opener = Opener("keeper", provider, store)
        self.said = ""
        self._tidy_at = 0.0
        self._listed: tuple[float, Sequence[Attempt], Sequence[Backup]] | None = None

    async def run(self) -> None:
        while True:
            await self.clock.sleep(EVERY_SECONDS)
            try:
                await self.look()
                await self.tidy()
            except Problem as problem:
                self._say(f"cannot look for what is due: {problem.detail}")
            except Exception:
                log.exception("could not look for what is due")

    async def look(self) -> None:
        """Opens what is due now. Nothing is before the platform is up."""
        shard_map = await self.store.shard_map()
        if shard_map is None:
            return
        primaries = [shard.primary.instance for shard in shard_map.shards.values()]
        observed = await self.provider.observe(primaries)
        if self.up_since is None:
            coming = await self.store.operations(states=ACTIVE, kinds=["provision"], limit=1)
            if coming or not all(observed.running(id) for id in primaries):
                return
            self.up_since = self.clock.now()
        operations = await self.store.operations(kinds=WATCHED, limit=REMEMBERED)
        attempts = [attempt_of(each) for each in operations]
        intents = backups_due(
            self.provider.topology.backups,
            await self._backups(attempts),
            await self.provider.backups.archives(),
            self.clock.now(),
            self.up_since,
            attempts,
            await self._moved_at(shard_map),
        )
        for intent in intents:
            await self.opener.open(intent, observed, shard_map)

    async def _moved_at(self, shard_map: ShardMap) -> datetime | None:
        """When the last reshard was over for good."""
        if shard_map.moves:
            return None
        ended = await self.store.operations(kinds=reshard_end.VERBS, states=FINISHED, limit=1)
        return ended[0].finished_at if ended else None

    async def tidy(self) -> None:
        """Forgets a batch of what has outlived the policy; if there was any, again at the next
        look."""
        now = self.clock.monotonic()
        if now < self._tidy_at:
            return
        policy = self.provider.topology.history
        forgotten = await retention.forget(self.store.database, policy, self.clock.now())
        if forgotten.anything:
            log.info("history: %s", forgotten)
        else:
            self._tidy_at = now + TIDIED_EVERY_SECONDS

    async def _backups(self, attempts: Sequence[Attempt]) -> Sequence[Backup]:
        now = self.clock.monotonic()
        if self._listed is not None:
            at, then, known = self._listed
            if then == attempts and now < at + LISTED_FOR_SECONDS:
                return known
        found = await self.provider.backups.list()
        self._listed = now, attempts, found
        return found

    def _say(self, text: str) -> None:
        """Once, not at every look."""
        if text != self.said:
            log.info("%s", text)
        self.said = text


def attempt_of(operation: Operation) -> Attempt:
    return Attempt(
        operation.kind,
        operation.target,
        operation.finished_at if operation.finished else None,
        operation.state == "succeeded",
    )
