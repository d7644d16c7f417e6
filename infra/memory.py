"""A provider whose world is a few dicts: for tests of plans and decisions, and for dry work.

The verbs are here, the world that they work on is in `infra/memory_world.py`. One contract suite
holds for this provider and the local one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from infra.memory_backups import MemoryBackups
from infra.memory_moves import MemoryMoves
from infra.memory_repair import MemoryRepairs
from infra.memory_world import ROW, SEGMENT, MemoryWorld, Node
from infra.provider import JSON, Fault, Fenced, Injected, Observed, Salvage, Signals
from infra.topology import EDGE, Topology
from infra.traffic import Traffic
from infra.usage import Usage
from runtime.clock import Clock
from runtime.errors import Invalid, OperationFailed, Refused, Unavailable
from runtime.shardmap import ShardMap


class MemoryProvider(MemoryWorld):
    """See `infra.provider.Provider` for what each verb promises."""

    mode: Literal["applied"] = "applied"

    def __init__(self, topology: Topology, clock: Clock | None = None) -> None:
        super().__init__(topology, clock)
        self.moves = MemoryMoves(self)
        self.answered: tuple[int, int] | None = None
        self.backups = MemoryBackups(self)
        self.repairs = MemoryRepairs(self, self.backups)

    # Observing.

    async def observe(self, only: Collection[str] | None = None) -> Observed:
        self._replicate()
        ids = self.topology.by_id if only is None else only
        following = self._following()
        views = {id: self._view(id, following) for id in ids}
        dead = {
            region.name for region in self.topology.regions if region.name not in self.supervised
        }
        return Observed(
            at=self.clock.now(),
            instances=views,
            route=self.route,
            unreachable=frozenset(dead | self.unreachable | self.zones_down),
            map_versions={region: known.version for region, known in self.maps.items()},
            targets={id: dict(found) for id, found in self.told.items() if id in views},
        )

    async def probe(self, instance: str, seconds: float) -> Signals:
        spec = self.topology.instance(instance)
        if spec.region in self.unreachable:
            return Signals("timeout", "timeout")
        state = self._view(instance).state
        if state == "frozen":
            return Signals("ok", "timeout")
        return Signals("ok", "ok") if state == "running" else Signals("refused", "refused")

    def entry_url(self) -> str:
        return "https://127.0.0.1:9999"

    # Regions and servers without data.

    async def ensure_region(self, region: str) -> None:
        self._reach(region)
        self.supervised.add(region)
        for id in set(self.nodes) - set(self.topology.by_id):
            if id.partition(".")[2][:-1] == region:
                del self.nodes[id]

    async def set_shards(self, count: int) -> None:
        self.topology = self.topology.with_shards(count)

    async def remove_region(self, region: str) -> None:
        self._kill(spec.id for spec in self.topology.instances(region=region))
        self.supervised.discard(region)
        if self.route == region:
            self.route = None

    async def ensure_running(self, instances: Sequence[str]) -> None:
        for id in instances:
            spec = self.topology.instance(id)
            self._need_supervisor(id)
            self.servers[id] = True
            if spec.component == "queue":
                self.queue_primaries.setdefault(spec.region, id)
            if spec.component == "gateway":
                self.told[id] = {
                    service: self._instances(service, spec.region)
                    for service in self.topology.services
                }

    async def ensure_stopped(self, instances: Sequence[str]) -> None:
        for id in instances:
            self.servers[id] = False

    async def set_instances(self, service: str, zone: str, count: int) -> None:
        before = set(self.topology.by_id)
        wanted = self.topology.with_instances(service, zone, count)
        self._work()
        own = [s.id for s in wanted.instances(component=service) if s.region + s.zone == zone]
        self._need_supervisor(own[0])
        for id in own:
            self.servers[id] = True
        self.topology = wanted
        for spec in wanted.instances(component="gateway", region=zone[:-1]):
            if spec.id in self.told:
                self.told[spec.id][service] = self._instances(service, spec.region)
        for id in before - set(wanted.by_id):
            self.servers.pop(id, None)
            self.used.pop(id, None)

    def _instances(self, service: str, region: str) -> frozenset[str]:
        found = self.topology.instances(component=service, region=region)
        return frozenset(spec.id for spec in found)

    async def usage(self) -> Mapping[str, Usage]:
        self._work()
        return {
            spec.id: Usage(1 + self.deaths[spec.id], self.used.get(spec.id, 0.0), 100 << 20, 8)
            for spec in self.topology.instances(kind="service")
            if self.servers.get(spec.id)
        }

    # Databases.

    async def create_primary(self, instance: str) -> None:
        self._need_supervisor(instance)
        if instance not in self.nodes:
            self.nodes[instance] = Node(primary=True)
        await self.start_database(instance)

    async def clone(self, instance: str, upstream: str) -> None:
        self._need_supervisor(instance)
        source = self._answering(upstream)
        self.nodes[instance] = Node(
            running=True,
            timeline=source.timeline,
            wal=list(source.wal),
            upstream=upstream,
            epoch=source.epoch,
            fences=source.fences,
            attempts=source.attempts,
        )

    async def start_database(self, instance: str) -> None:
        self._need_supervisor(instance)
        if instance not in self.nodes:
            raise OperationFailed(f"{instance} has no data directory.", hint="regionctl up")
        self.nodes[instance].running, self.nodes[instance].crashed = True, False

    async def stop_database(self, instance: str) -> int:
        node = self.nodes[instance]
        if node.crashed and node.primary:
            raise OperationFailed(
                f"{instance} was not stopped cleanly: where its history ends is not known.",
                hint="regionctl up starts it again; then repeat the command.",
            )
        if node.answers:
            self._replicate()
        node.running = False
        return len(node.wal) * SEGMENT

    async def remove_database(self, instance: str) -> None:
        node = self.nodes.get(instance)
        if node is not None and node.running:
            raise Refused(f"{instance} runs: its data stays.", hint="regionctl status")
        self.nodes.pop(instance, None)

    async def set_sync(self, instance: str, standbys: Sequence[str]) -> None:
        self._answering(instance).sync_names = tuple(standbys)

    async def promote(self, instance: str, *, accept_data_loss: bool = False) -> JSON:
        node = self._answering(instance)
        if not node.primary:
            node.primary, node.upstream, node.sync_names = True, None, ()
            node.timeline += 1
        return {"timeline": node.timeline, "lsn": len(node.wal) * SEGMENT}

    async def set_epoch(self, instance: str, shard_map: ShardMap, database: str) -> None:
        node = self._answering(instance)
        node.epoch = max(node.epoch, shard_map.shards[database].epoch)
        # Where slots move, only a hand-over changes who owns them; elsewhere it is as the map says.
        moving = {
            slot
            for move in shard_map.moves
            if move.soak_until is None
            for slot in range(move.first, move.last + 1)
        }
        known = {
            slot: (state if slot in moving else "moved", epoch)
            for slot, (state, epoch) in node.fences.items()
        }
        for owned in shard_map.slots_of(database):
            for slot in range(owned.first, owned.last + 1):
                state, epoch = known.get(slot, ("absent", owned.epoch))
                state = state if slot in moving else "owned"
                known[slot] = (state, max(epoch, owned.epoch))
        node.fences = known
        self._replicate()

    async def follow(self, instance: str, upstream: str) -> None:
        node, source = self.nodes[instance], self._answering(upstream)
        self._need_supervisor(instance)
        if node.wal != source.wal[: len(node.wal)]:
            raise Refused(f"{instance} has writes that {upstream} has not.", hint="rejoin it")
        node.running, node.primary, node.upstream, node.sync_names = True, False, upstream, ()
        node.crashed = False
        self._replicate()

    async def rewind(self, instance: str, upstream: str) -> str:
        await self.clone(instance, upstream)
        return "rewind"

    async def salvage(self, instance: str, upstream: str) -> Salvage:
        node, source = self.nodes[instance], self._answering(upstream)
        orphans = tuple(id for id in node.wal if id not in source.wal and self._saved(node, id))
        if instance not in self.salvaged or orphans:
            self.salvaged[instance] = Salvage(f"salvage/{instance}", len(orphans), orphans)
        return self.salvaged[instance]

    def _saved(self, node: Node, entry: str) -> bool:
        """Whether it is somebody's: rows of a slot that its owner has elsewhere are not."""
        row = ROW.fullmatch(entry)
        if row is None:
            return True
        state = node.fences.get(int(row[1] or row[3]), ("absent", 0))[0]
        return not row[3] and state in ("owned", "fencing")

    # Routing and fencing.

    async def publish_map(self, shard_map: ShardMap) -> None:
        for region in self.supervised - self.unreachable:
            known = self.maps.get(region)
            if known is None or known.version < shard_map.version:
                self.maps[region] = shard_map

    async def open_route(self, region: str) -> None:
        self.route = region

    async def close_route(self) -> None:
        self.route = None

    async def fence(self, instance: str) -> Fenced:
        spec = self.topology.instance(instance)
        if spec.region in self.unreachable:
            return Fenced(False, f"{spec.region} cannot be reached")
        self._kill([instance])
        return Fenced(True, "its processes are gone")

    async def fence_region(self, region: str) -> Fenced:
        if region in self.unreachable:
            return Fenced(False, f"{region} cannot be reached")
        self._kill(spec.id for spec in self.topology.instances(region=region))
        return Fenced(True, "no process of the region runs")

    async def promote_queue(self, instance: str) -> None:
        self.queue_primaries[self.topology.instance(instance).region] = instance

    # Breaking and checking.

    async def inject(self, fault: Fault) -> Injected:
        if fault.kind == "corrupt":
            return self.repairs.corrupt(fault)
        began, at = self.clock.monotonic(), self.clock.now()
        if fault.kind == "freeze":
            self.nodes[fault.target].frozen = True
        elif fault.kind == "kill":
            self._kill([fault.target])
            if fault.target in self.servers:
                self.servers[fault.target] = True  # its supervisor starts it again at once
        elif fault.kind == "kill-zone":
            zone = [s for s in self.topology.instances() if s.region + s.zone == fault.target]
            self._kill(spec.id for spec in zone if spec.zone)
            self.zones_down.add(fault.target)
        elif fault.kind == "kill-region":
            self._kill(spec.id for spec in self.topology.instances(region=fault.target))
            self.supervised.discard(fault.target)
        elif fault.kind == "cut-link":
            self.cut.add(frozenset(fault.target.split("/")))
        elif fault.kind in ("drop-cache", "drop-queue"):
            spec = self.topology.instance(fault.target)
            if spec.component != fault.kind.removeprefix("drop-"):
                raise Invalid(f"{fault.target} is no {fault.kind.removeprefix('drop-')}.")
            if spec.component == "queue":
                self.dead.pop(spec.region, None)
        return Injected(began, self.clock.monotonic(), at)

    async def heal(self, fault: Fault) -> None:
        if fault.kind == "freeze":
            self.nodes[fault.target].frozen = False
        elif fault.kind == "kill-zone":
            self.zones_down.discard(fault.target)
            for spec in self.topology.instances():
                if spec.region + spec.zone == fault.target and spec.id in self.servers:
                    self.servers[spec.id] = True
        elif fault.kind == "cut-link":
            self.cut.discard(frozenset(fault.target.split("/")))

    async def dead_letters(self, region: str) -> Sequence[JSON]:
        return list(self._dead_of(region).values())

    async def replay_dead(self, region: str, ids: Sequence[str]) -> int:
        return await self.drop_dead(region, ids)

    async def drop_dead(self, region: str, ids: Sequence[str]) -> int:
        dead = self._dead_of(region)
        return len([id for id in ids if dead.pop(id, None) is not None])

    async def event_lag(self, region: str) -> Mapping[str, Mapping[str, int]]:
        self._dead_of(region)
        return {}

    def _dead_of(self, region: str) -> dict[str, JSON]:
        queue = self.queue_primaries.get(self.topology.region(region).name)
        if queue is None or not self.servers[queue]:
            raise Unavailable(f"The queue of {region} does not answer.", hint="regionctl status")
        return self.dead.setdefault(region, {})

    async def answers(self, region: str) -> tuple[int, int] | None:
        return self.answered

    async def traffic(self) -> Mapping[str, Traffic]:
        doors = (spec.id for spec in self.topology.instances(kind="envoy"))
        found = {id: self.counted.get(id, Traffic()) for id in doors if self.servers.get(id)}
        if self.servers.get(EDGE) is False:
            found[EDGE] = Traffic(serves=False)
        return found

    async def resend_events(self, database: str) -> int:
        return 0

    async def return_orphan_stock(self) -> int:
        return 0

    async def restore_directory(self) -> int:
        return 0

    async def invariants(self) -> Sequence[JSON]:
        lost = self.lost() if self.maps else []
        broken = self.repairs.broken()
        return [
            {"name": "no acknowledged write lost", "held": not lost, "detail": f"{lost}"},
            {"name": "totals-match", "held": not broken, "detail": f"{broken}"},
        ]

    async def seed(self) -> None:
        self.seeded = True

    async def logs(self, instances: Iterable[str], lines: int) -> dict[str, list[str]]:
        return {id: [] for id in instances}
