"""Watches databases and queues, and opens the operations that cannot wait for a person.

Two loops. The quick one probes every watched server ten times a second and opens failovers; a lost
connection wakes it at once. The slow one observes the whole world and opens rejoins. All decisions
are in `control_plane.decisions`; this file only looks, and asks the store for an operation. What
goes wrong here is logged and tried again: a watcher that ends would be a failure nobody sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from control_plane import decisions
from control_plane.decisions import Health, Intent, PastFailover, Probe, Tries
from control_plane.opening import Opener
from control_plane.plans import reshard_end
from control_plane.store import Store
from infra.provider import Provider
from infra.topology import Topology
from runtime.clock import Clock
from runtime.errors import Problem
from runtime.shardmap import ShardMap

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.1
PROBE_SECONDS = 0.5
REPAIR_SECONDS = 1.0
KEPT_PROBES = 32
URGENT_SECONDS = 2.0


class Sentinel:
    """Start `run()` as a task; cancel it to stop watching."""

    def __init__(self, provider: Provider, store: Store, clock: Clock) -> None:
        self.provider = provider
        self.store = store
        self.clock = clock
        self.probes: dict[str, deque[Probe]] = {}
        self.opener = Opener("sentinel", provider, store)
        self.tries: dict[tuple[str, str], Tries] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for id in self._watched() - self.probes.keys():
                    self.probes[id] = deque(maxlen=KEPT_PROBES)
                    group.create_task(self._watch(id))
                await self._repair()

    @property
    def topology(self) -> Topology:
        return self.provider.topology

    def _watched(self) -> set[str]:
        """Resharding adds databases, and removes some."""
        databases = self.topology.instances(kind="postgres")
        queues = self.topology.instances(component="queue")
        return {spec.id for spec in (*databases, *queues)}

    def verdicts(self, since: float) -> Mapping[str, Health]:
        """The health of every server that was looked at since then; the others are in doubt.

        Who dies together is not seen to die in one instant: a standby counts as healthy only when
        it has answered after its primary stopped answering.
        """
        return {
            id: decisions.health(tuple(probes))
            if probes and probes[-1].began >= since
            else "doubtful"
            for id, probes in self.probes.items()
        }

    async def _watch(self, instance: str) -> None:
        """Each server has a watcher of its own, so that a silent one delays nobody else."""
        probes = self.probes[instance]
        gone_since: float | None = None
        while instance in self.topology.by_id:
            began = self.clock.monotonic()
            signals = await self.provider.probe(instance, PROBE_SECONDS)
            probes.append(Probe(began, self.clock.monotonic(), signals))
            health = decisions.health(tuple(probes))
            if health in decisions.GONE:
                gone_since = gone_since or began
                try:
                    await self._act(gone_since)
                except Exception:
                    log.exception("could not act on %s, which is %s", instance, health)
            else:
                gone_since = None
            urgent = health != "healthy" and began - (gone_since or began) < URGENT_SECONDS
            await self.clock.sleep(EVERY_SECONDS / 4 if urgent else EVERY_SECONDS)
        del self.probes[instance]

    async def _act(self, since: float) -> None:
        shard_map = await self.store.shard_map()
        if shard_map is None:
            return
        past = [
            PastFailover(each["database"], each["at"], each["acknowledged"])
            for each in await self.store.failovers()
            if each["kind"] == "failover"
        ]
        verdicts = self.verdicts(since)
        intents = decisions.urgent(self.topology, shard_map, verdicts, past, self.clock.now())
        if intents:
            observed = decisions.observed_from(self.topology, shard_map, verdicts, self.clock.now())
            for intent in intents:
                await self.opener.open(intent, observed, shard_map)

    async def _repair(self) -> None:
        await self.clock.sleep(REPAIR_SECONDS)
        try:
            await self._repair_once()
        except Problem as problem:
            log.warning("cannot repair now: %s", problem.detail)
        except Exception:
            log.exception("could not look for repairs")

    async def _repair_once(self) -> None:
        shard_map = await self.store.shard_map()
        if shard_map is None:
            return
        nodes = [spec.id for spec in self.topology.instances(kind="postgres")]
        observed = await self.provider.observe(nodes)
        if decisions.map_is_behind(observed, shard_map):
            # A region whose supervisor was too busy to answer when the map was published. Whoever
            # reads it before its fence rows are written is refused by them and waits.
            await self.provider.publish_map(shard_map)
        intents = [
            *decisions.repairs(self.topology, observed, shard_map),
            *decisions.due_finish(shard_map, self.clock.now()),
            *await self._left_behind(shard_map),
        ]
        needed = {intent.key for intent in intents}
        self.tries = {key: tries for key, tries in self.tries.items() if key in needed}
        for intent in intents:
            now = self.clock.monotonic()
            tries = self.tries.get(intent.key, Tries(0, now))
            if now >= tries.next_at and await self.opener.open(intent, observed, shard_map):
                self.tries[intent.key] = tries.again(now)

    async def _left_behind(self, shard_map: ShardMap) -> list[Intent]:
        if set(self.topology.shards) <= shard_map.shards.keys():
            return []
        kinds = ("reshard", *reshard_end.VERBS)
        newest = await self.store.operations(kinds=kinds, limit=1)
        found = [decisions.left_behind(self.topology, shard_map, o.kind, o.state) for o in newest]
        return [intent for intents in found for intent in intents]
