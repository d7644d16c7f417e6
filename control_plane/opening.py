"""Opens the operations that a watcher, not a person, asks for."""

from __future__ import annotations

import logging

from control_plane.access import PLATFORM, Asked
from control_plane.decisions import Intent
from control_plane.plans import PLANNERS
from control_plane.store import Store
from infra.provider import Observed, Provider
from runtime.errors import Refused
from runtime.shardmap import ShardMap

log = logging.getLogger(__name__)


class Opener:
    """`name` is who asks, for the record. A refusal is recorded once, not at every look."""

    def __init__(self, name: str, provider: Provider, store: Store) -> None:
        self.name = name
        self.provider = provider
        self.store = store
        self._refused: dict[tuple[str, str], str] = {}

    async def open(self, intent: Intent, observed: Observed, shard_map: ShardMap) -> bool:
        """False when there is nothing to do, or a guard or another operation's lock refuses."""
        try:
            plan = PLANNERS[intent.verb](
                self.provider.topology, observed, shard_map, **intent.asked
            )
            if not plan.steps:
                return False
            await self.store.create_operation(
                plan, reason=intent.because, idempotency_key=None, requested_by=self.name
            )
        except Refused as refused:
            if self._refused.get(intent.key) != refused.detail:
                log.info("%s of %s not opened: %s", intent.verb, intent.target, refused.detail)
                self._refused[intent.key] = refused.detail
                asked = Asked(self.name, PLATFORM.role, intent.verb, intent.target, intent.because)
                await self.store.refuse(asked, refused.detail)
            return False
        self._refused.pop(intent.key, None)
        log.warning("opened %s of %s: %s", intent.verb, intent.target, intent.because)
        return True
