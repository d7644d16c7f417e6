"""A provider whose world is a few dicts: for tests of plans and decisions, and for dry work.

It keeps the two facts that failover is about and leaves out the rest. A database node has a list of
writes (its WAL); a commit is acknowledged only when the primary's rule about synchronous standbys
is met. So a plan that loses an acknowledged write, or lets two nodes acknowledge, can be caught
here in microseconds. One contract suite holds for this provider and the local one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from infra.provider import (
    JSON,
    Fault,
    Fenced,
    Follower,
    Injected,
    InstanceView,
    Observed,
    PostgresView,
    Salvage,
    Signals,
    State,
    ValkeyView,
)
from infra.topology import EDGE, Topology
from runtime.clock import Clock, FakeClock
from runtime.errors import OperationFailed, Refused, Unavailable
from runtime.shardmap import Endpoint, ShardMap

SEGMENT = 1000  # bytes that one write takes in the WAL


@dataclass
class Node:
    """One database server: its role, its history of writes, and whom it follows or waits for."""

    running: bool = False
    frozen: bool = False
    primary: bool = False
    timeline: int = 1
    wal: list[str] = field(default_factory=list)
    upstream: str | None = None
    sync_names: tuple[str, ...] = ()
    epoch: int = 0

    @property
    def answers(self) -> bool:
        return self.running and not self.frozen


class MemoryProvider:
    """See `infra.provider.Provider` for what each verb promises."""

    def __init__(self, topology: Topology, clock: Clock | None = None) -> None:
        self.topology = topology
        self.clock = clock or FakeClock()
        self.supervised: set[str] = set()
        self.servers: dict[str, bool] = {}
        self.queue_primaries: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.maps: dict[str, ShardMap] = {}
        self.route: str | None = None
        self.cut: set[frozenset[str]] = set()
        self.seeded = False
        self.acknowledged: dict[str, str] = {}
        self.salvaged: dict[str, Salvage] = {}
        self.unreachable: set[str] = set()
        self.zones_down: set[str] = set()

    # What clients do.

    def write(self, database: str, id: str) -> bool:
        """One client's write by the routed region's map. True: it was acknowledged."""
        shard_map = self.maps.get(self.route) if self.route else None
        if shard_map is None:
            return False
        shard = shard_map.shards[database]
        return self.write_to(shard.primary.instance, id, epoch=shard.epoch)

    def write_to(self, instance: str, id: str, *, epoch: int) -> bool:
        """A write sent straight to one server by a client with a map of `epoch`."""
        node = self.nodes[instance]
        if not node.answers or not node.primary or node.epoch != epoch:
            return False
        node.wal.append(id)
        self._replicate()
        if node.sync_names and not any(
            name in node.sync_names and self.nodes[name].wal == node.wal
            for name in self._followers(instance)
        ):
            return False
        self.acknowledged[id] = self.topology.instance(instance).component
        return True

    def lost(self) -> list[str]:
        """Acknowledged writes that the primary of the newest map does not have."""
        newest = max(self.maps.values(), key=lambda shard_map: shard_map.version)
        return [
            id
            for id, database in self.acknowledged.items()
            if id not in self.nodes[newest.shards[database].primary.instance].wal
        ]

    # Observing.

    async def observe(self, only: Collection[str] | None = None) -> Observed:
        self._replicate()
        ids = self.topology.by_id if only is None else only
        views = {id: self._view(id) for id in ids}
        dead = {
            region.name for region in self.topology.regions if region.name not in self.supervised
        }
        return Observed(
            at=self.clock.now(),
            instances=views,
            route=self.route,
            unreachable=frozenset(dead | self.unreachable | self.zones_down),
            map_versions={region: known.version for region, known in self.maps.items()},
        )

    async def probe(self, instance: str, seconds: float) -> Signals:
        spec = self.topology.instance(instance)
        if spec.region in self.unreachable:
            return Signals("timeout", "timeout")
        state = self._view(instance).state
        if state == "frozen":
            return Signals("ok", "timeout")
        return Signals("ok", "ok") if state == "running" else Signals("refused", "refused")

    def endpoint(self, instance: str) -> Endpoint:
        spec = self.topology.instance(instance)
        port = 10_000 + list(self.topology.by_id).index(instance)
        return Endpoint(spec.id, spec.region, spec.zone, "127.0.0.1", port)

    def entry_url(self) -> str:
        return "https://127.0.0.1:9999"

    # Regions and servers without data.

    async def ensure_region(self, region: str) -> None:
        self._reach(region)
        self.supervised.add(region)

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

    async def ensure_stopped(self, instances: Sequence[str]) -> None:
        for id in instances:
            self.servers[id] = False

    # Databases.

    async def create_primary(self, instance: str) -> None:
        self._need_supervisor(instance)
        if instance not in self.nodes:
            self.nodes[instance] = Node(primary=True)
        self.nodes[instance].running = True

    async def clone(self, instance: str, upstream: str) -> None:
        self._need_supervisor(instance)
        source = self._answering(upstream)
        self.nodes[instance] = Node(
            running=True,
            timeline=source.timeline,
            wal=list(source.wal),
            upstream=upstream,
            epoch=source.epoch,
        )

    async def start_database(self, instance: str) -> None:
        self._need_supervisor(instance)
        if instance not in self.nodes:
            raise OperationFailed(f"{instance} has no data directory.", hint="regionctl up")
        self.nodes[instance].running = True

    async def stop_database(self, instance: str) -> int:
        node = self.nodes[instance]
        if node.answers:
            self._replicate()
        node.running = False
        return len(node.wal) * SEGMENT

    async def set_sync(self, instance: str, standbys: Sequence[str]) -> None:
        self._answering(instance).sync_names = tuple(standbys)

    async def promote(self, instance: str) -> JSON:
        node = self._answering(instance)
        if not node.primary:
            node.primary, node.upstream, node.sync_names = True, None, ()
            node.timeline += 1
        return {"timeline": node.timeline, "lsn": len(node.wal) * SEGMENT}

    async def set_epoch(self, instance: str, shard_map: ShardMap, database: str) -> None:
        node = self._answering(instance)
        node.epoch = max(node.epoch, shard_map.shards[database].epoch)
        self._replicate()

    async def follow(self, instance: str, upstream: str) -> None:
        node, source = self.nodes[instance], self._answering(upstream)
        self._need_supervisor(instance)
        if node.wal != source.wal[: len(node.wal)]:
            raise Refused(f"{instance} has writes that {upstream} has not.", hint="rejoin it")
        node.running, node.primary, node.upstream, node.sync_names = True, False, upstream, ()
        self._replicate()

    async def rewind(self, instance: str, upstream: str) -> str:
        await self.clone(instance, upstream)
        return "rewind"

    async def salvage(self, instance: str, upstream: str) -> Salvage:
        node, source = self.nodes[instance], self._answering(upstream)
        orphans = tuple(id for id in node.wal if id not in source.wal)
        if instance not in self.salvaged or orphans:
            self.salvaged[instance] = Salvage(f"salvage/{instance}", len(orphans), orphans)
        return self.salvaged[instance]

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
        began, at = self.clock.monotonic(), self.clock.now()
        if fault.kind == "freeze":
            self.nodes[fault.target].frozen = True
        elif fault.kind == "kill" and self.topology.instance(fault.target).kind == "postgres":
            self._kill([fault.target])
        elif fault.kind == "kill-zone":
            zone = [s for s in self.topology.instances() if s.region + s.zone == fault.target]
            self._kill(spec.id for spec in zone if spec.zone)
            self.zones_down.add(fault.target)
        elif fault.kind == "kill-region":
            self._kill(spec.id for spec in self.topology.instances(region=fault.target))
            self.supervised.discard(fault.target)
        elif fault.kind == "cut-link":
            self.cut.add(frozenset(fault.target.split("/")))
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

    async def resend_events(self, database: str) -> int:
        return 0

    async def return_orphan_stock(self) -> int:
        return 0

    async def invariants(self) -> Sequence[JSON]:
        lost = self.lost() if self.maps else []
        return [{"name": "no acknowledged write lost", "held": not lost, "detail": f"{lost}"}]

    async def seed(self) -> None:
        self.seeded = True

    async def logs(self, instances: Iterable[str], lines: int) -> dict[str, list[str]]:
        return {id: [] for id in instances}

    # The world's rules.

    def _view(self, id: str) -> InstanceView:
        spec = self.topology.instance(id)
        address = f"127.0.0.1:{self.endpoint(id).port}"
        if spec.kind == "postgres":
            return InstanceView(id, self._state(id), 1, address, postgres=self._postgres(id))
        if spec.kind == "supervisor":
            state: State = "running" if spec.region in self.supervised else "absent"
            return InstanceView(id, state, 1, address)
        state = "absent" if id not in self.servers else "stopped"
        if self.servers.get(id):
            state = "running"
        valkey = None
        if spec.kind == "valkey":
            leader = self.queue_primaries.get(spec.region, id)
            replica = spec.component == "queue" and leader != id
            valkey = ValkeyView("replica" if replica else "primary", leader if replica else None)
        return InstanceView(id, state, 1, address, valkey=valkey)

    def _state(self, id: str) -> State:
        node = self.nodes.get(id)
        if node is None:
            return "absent"
        if not node.running:
            return "stopped"
        return "frozen" if node.frozen else "running"

    def _postgres(self, id: str) -> PostgresView | None:
        node = self.nodes.get(id)
        if node is None:
            return None
        if not node.answers:
            return PostgresView("primary" if node.primary else "standby", upstream=node.upstream)
        followers = tuple(
            Follower(
                name,
                streaming=True,
                sync=name in node.sync_names,
                lag_bytes=(len(node.wal) - len(self.nodes[name].wal)) * SEGMENT,
                lag_seconds=0.0,
            )
            for name in self._followers(id)
        )
        position = len(node.wal) * SEGMENT
        return PostgresView(
            "primary" if node.primary else "standby",
            timeline=node.timeline,
            position=position,
            replayed=position,
            upstream=node.upstream,
            sync_names=node.sync_names,
            followers=followers,
            epoch=node.epoch,
        )

    def _followers(self, upstream: str) -> list[str]:
        """The standbys that stream from `upstream` right now."""
        source = self.nodes[upstream]
        return [
            id
            for id, node in self.nodes.items()
            if node.upstream == upstream
            and node.answers
            and source.answers
            and not self._cut_between(id, upstream)
            and node.wal == source.wal[: len(node.wal)]
        ]

    def _replicate(self) -> None:
        for upstream, source in self.nodes.items():
            for id in self._followers(upstream):
                node = self.nodes[id]
                node.wal, node.epoch = list(source.wal), source.epoch
                node.timeline = source.timeline

    def _cut_between(self, one: str, other: str) -> bool:
        regions = {self.topology.instance(one).region, self.topology.instance(other).region}
        return frozenset(regions) in self.cut

    def _answering(self, instance: str) -> Node:
        node = self.nodes.get(instance)
        if node is None or not node.answers:
            raise Unavailable(f"{instance} does not answer.", hint="regionctl status")
        return node

    def _reach(self, region: str) -> None:
        if region in self.unreachable:
            raise Unavailable(f"Region {region} cannot be reached.", hint="regionctl status")

    def _need_supervisor(self, instance: str) -> None:
        spec = self.topology.instance(instance)
        self._reach(spec.region)
        if spec.region and spec.region not in self.supervised:
            raise Unavailable(f"The supervisor of {spec.region} does not run.", hint="regionctl up")
        if spec.region + spec.zone in self.zones_down:
            raise Unavailable(f"Zone {spec.region}{spec.zone} is down.", hint="regionctl status")

    def _kill(self, instances: Iterable[str]) -> None:
        for id in instances:
            if id in self.nodes:
                self.nodes[id].running = self.nodes[id].frozen = False
            elif id in self.servers and id != EDGE:
                self.servers[id] = False
