"""Gives services more or fewer instances as they need them: `control_plane.scaling` decides.

It looks every few seconds at what each process of a service has used of its core. Nothing of what
it has seen is durable: a control plane that was started again looks for as long as the topology's
`scaling` says before it changes anything. How many there should be is, by the provider.

Nothing is changed while an operator holds it (`control_plane.plans.scale.hold`), in a zone that
cannot be reached, during the failover of a region, or beside an operation that would be in the way
(`control_plane.operations.conflicts`), such as a drill.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.decisions import Intent
from control_plane.opening import Opener
from control_plane.operations import ACTIVE, REGION_FAILOVER, Operation, conflicts
from control_plane.plans.scale import HOLD, service_lock
from control_plane.scaling import Decision, Look, decide, used_between
from control_plane.store import Store
from infra.provider import Observed, Provider
from infra.topology import Topology
from infra.usage import Usage
from runtime.clock import Clock
from runtime.errors import Problem
from runtime.shardmap import ShardMap

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0
# Percent: one that uses more than its limit is being started, which nobody asked of it as work.
STARTING = 120.0
UNFINISHED = 100


@dataclass(frozen=True, order=True)
class Group:
    """The instances of one service in one zone ("us-east-1a")."""

    zone: str
    service: str

    @property
    def name(self) -> str:
        return f"{self.service}.{self.zone}"


class Autoscaler:
    """Start `run()` as a task; cancel it to stop. `decisions` and `usage` are the newest."""

    def __init__(self, provider: Provider, store: Store, clock: Clock) -> None:
        self.provider = provider
        self.store = store
        self.clock = clock
        self.opener = Opener("autoscaler", provider, store)
        self.decisions: dict[Group, Decision] = {}
        self.usage: Mapping[str, Usage] = {}
        self.looks: dict[Group, deque[Look]] = {}
        self.said = ""
        self._looked_at: float | None = None

    @property
    def topology(self) -> Topology:
        return self.provider.topology

    async def run(self) -> None:
        while True:
            await self.clock.sleep(EVERY_SECONDS)
            try:
                await self.look()
                self.said = ""
            except Problem as problem:
                if problem.detail != self.said:
                    log.info("cannot look at what services use: %s", problem.detail)
                self.said = problem.detail
            except Exception:
                log.exception("could not look at what services use")

    async def look(self) -> None:
        """Notes what is used, decides for each service and zone, and opens what is to be done."""
        await self._note()
        shard_map = await self.store.shard_map()
        if shard_map is None:
            return
        supervisors = [spec.id for spec in self.topology.instances(kind="supervisor")]
        observed = await self.provider.observe(supervisors)
        active = await self.store.operations(states=ACTIVE, limit=UNFINISHED)
        by_hand, now = await self._held(), self.clock.monotonic()
        for group in groups(self.topology):
            held = by_hand or why_held(self.topology, group, observed, active)
            count = self.topology.count(group.service, group.zone)
            looks = tuple(self.looks.get(group, ()))
            policy = self.topology.scaling
            limit = policy.cpu_limit(group.service)
            whole = "a core" if limit >= 1 else f"its {limit:g} cores"
            decision = decide(policy, count, looks, now, held, whole)
            self.decisions[group] = decision
            if decision.count != count:
                await self._open(group, decision, observed, shard_map)

    async def _held(self) -> str | None:
        """Who holds everything, and until when."""
        holds = await self.store.operations(states=["succeeded"], kinds=[HOLD], limit=1)
        for each in holds:
            until = datetime.fromisoformat(each.results[0]["until"])
            if until > self.clock.now():
                return f"held until {until:%H:%M:%S} UTC ({each.id}, {each.reason or 'no reason'})"
        return None

    async def _note(self) -> None:
        usage, now = await self.provider.usage(), self.clock.monotonic()
        if self._looked_at is not None:
            policy = self.topology.scaling
            used = used_between(self.usage, usage, now - self._looked_at)
            oldest = now - max(policy.hold_seconds, policy.cool_seconds) - 2 * EVERY_SECONDS
            for group in groups(self.topology):
                looks = self.looks.setdefault(group, deque())
                limit = policy.cpu_limit(group.service)
                mine = [used[id] / limit for id in instances(self.topology, group) if id in used]
                if limit < 1:
                    mine = [share for share in mine if share <= STARTING]
                count = self.topology.count(group.service, group.zone)
                looks.append(Look(now, count, tuple(mine)))
                while looks[0].at < oldest:
                    looks.popleft()
        self.usage, self._looked_at = usage, now

    async def _open(
        self, group: Group, decision: Decision, observed: Observed, shard_map: ShardMap
    ) -> None:
        asked = {"service": group.service, "zone": group.zone, "to": decision.count}
        intent = Intent("scale", group.name, asked, decision.because)
        if await self.opener.open(intent, observed, shard_map):
            # If that fails, it is tried again when as many looks have asked for it once more.
            self.looks[group].clear()


def groups(topology: Topology) -> list[Group]:
    return [
        Group(region.name + letter, service)
        for region in topology.regions
        for letter in region.zones
        for service in topology.services
    ]


def instances(topology: Topology, group: Group) -> list[str]:
    """Those that there should be."""
    region, letter = group.zone[:-1], group.zone[-1]
    found = topology.instances(kind="service", component=group.service, region=region, zone=letter)
    return [spec.id for spec in found]


def why_held(
    topology: Topology, group: Group, observed: Observed, active: Sequence[Operation]
) -> str | None:
    """Why nothing may change now; None: it may."""
    if not topology.scaling.automatic:
        return "scaling.automatic is false"
    if {group.zone, group.zone[:-1]} & observed.unreachable:
        return f"{group.zone} cannot be reached"
    lock = (service_lock(group.service, group.zone),)
    for operation in active:
        locks = operation.plan.locks
        if conflicts(lock, locks) or REGION_FAILOVER in locks:
            return f"{operation.id} ({operation.kind} {operation.target}) runs"
    return None
