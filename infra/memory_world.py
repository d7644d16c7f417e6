"""The world of the provider in memory: its servers, and the rules by which they replicate.

It keeps the two facts that failover is about and leaves out the rest. A database node has a list of
writes (its WAL); a commit is acknowledged only when the primary's rule about synchronous standbys
is met. So a plan that loses an acknowledged write, or lets two nodes acknowledge, can be caught
here in microseconds.

A write that belongs to a user is "SLOT/ID" in the history, "SLOT~ID" where a stream between two
shards brought it, and "-SLOT" removes a slot's rows; every other write belongs to its database as a
whole and never moves.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.provider import Follower, InstanceView, PostgresView, Salvage, State, ValkeyView
from infra.topology import EDGE, Topology
from infra.traffic import Traffic
from runtime.clock import Clock, FakeClock
from runtime.errors import Unavailable
from runtime.shardmap import Endpoint, ShardMap

SEGMENT = 1000  # bytes that one write takes in the WAL
WRITE_MILLISECONDS = 8.0
ROW = re.compile(r"(\d+)[/~](.+)|-(\d+)")


@dataclass
class Node:
    """One database server: its role, its history of writes, and whom it follows or waits for.

    `fences` has the state and the epoch of each slot that is known here, `attempts` the newest
    attempt at a hand-over by move; both are replaced, never changed, and replicate like writes.
    """

    running: bool = False
    frozen: bool = False
    crashed: bool = False
    primary: bool = False
    timeline: int = 1
    wal: list[str] = field(default_factory=list)
    upstream: str | None = None
    sync_names: tuple[str, ...] = ()
    epoch: int = 0
    fences: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    attempts: Mapping[int, int] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        return self.running and not self.frozen

    def rows(self) -> dict[int, list[str]]:
        """slot → ids of its rows, in the order in which they came."""
        found: dict[int, list[str]] = {}
        for entry in self.wal:
            row = ROW.fullmatch(entry)
            if row and row[3]:
                found.pop(int(row[3]), None)
            elif row:
                found.setdefault(int(row[1]), []).append(row[2])
        return found


class MemoryWorld:
    """What exists, what clients get of it, and how it looks from outside."""

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
        self.deaths: Counter[str] = Counter()
        self.counted: dict[str, Traffic] = {}
        self._ports: tuple[Topology, dict[str, int]] | None = None
        self.dead: dict[str, dict[str, dict[str, Any]]] = {}  # region → id → a dead letter
        self.told: dict[str, dict[str, frozenset[str]]] = {}  # gateway → service → its instances
        self.demand: dict[str, float] = {}  # service and zone, "orders.us-east-1a" → cores
        self.used: dict[str, float] = {}  # seconds of a core, by instance
        self._used_until = self.clock.monotonic()

    # What clients do.

    def write(self, database: str, id: str) -> bool:
        """One client's write by the routed region's map. True: it was acknowledged."""
        shard_map = self.maps.get(self.route) if self.route else None
        if shard_map is None:
            return self._count(acknowledged=False)
        shard = shard_map.shards[database]
        written = self.write_to(shard.primary.instance, id, epoch=shard.epoch)
        return self._count(acknowledged=written)

    def write_to(self, instance: str, id: str, *, epoch: int) -> bool:
        """A write sent straight to one server by a client with a map of `epoch`."""
        node = self.nodes[instance]
        if not node.answers or not node.primary or node.epoch != epoch:
            return False
        return self._acknowledge(instance, id)

    def write_slot(self, slot: int, id: str) -> bool:
        """One write for a user of `slot` by the routed region's map. True: acknowledged."""
        shard_map = self.maps.get(self.route) if self.route else None
        if shard_map is None:
            return self._count(acknowledged=False)
        place = shard_map.place(slot)
        primary = place.shard.primary.instance
        return self._count(acknowledged=self.write_slot_to(primary, slot, id, epoch=place.epoch))

    def write_slot_to(self, instance: str, slot: int, id: str, *, epoch: int) -> bool:
        """A write for a user of `slot` sent straight to one server, under the slot's fence."""
        node = self.nodes.get(instance)
        if node is None or not node.answers or not node.primary:
            return False
        return node.fences.get(slot) == ("owned", epoch) and self._acknowledge(
            instance, f"{slot}/{id}"
        )

    def _count(self, *, acknowledged: bool) -> bool:
        """The edge counts a write, and so does the first gateway behind it that runs."""
        behind = self.topology.instances(component="gateway", region=self.route or EDGE)
        for id in (EDGE, *[spec.id for spec in behind if self.servers.get(spec.id)][:1]):
            known = self.counted.get(id, Traffic())
            self.counted[id] = known.with_request(WRITE_MILLISECONDS, failed=not acknowledged)
        return acknowledged

    def _acknowledge(self, instance: str, entry: str) -> bool:
        self.nodes[instance].wal.append(entry)
        if not self._commit(instance):
            return False
        self.acknowledged[entry] = instance.partition(".")[0]
        return True

    def _commit(self, instance: str) -> bool:
        """What `instance` has is where its rule about standbys wants it."""
        self._replicate()
        node = self.nodes[instance]
        return not node.sync_names or any(
            name in node.sync_names and self.nodes[name].wal == node.wal
            for name in self._followers(instance)
        )

    def owners(self, slot: int) -> list[str]:
        """The primaries that would take a write for `slot` from somebody with their epoch."""
        return [
            id
            for id, node in self.nodes.items()
            if node.answers and node.primary and node.fences.get(slot, ("", 0))[0] == "owned"
        ]

    def lost(self) -> list[str]:
        """Acknowledged writes that the primary of the newest map does not have."""
        newest = max(self.maps.values(), key=lambda shard_map: shard_map.version)
        rows = {
            name: self.nodes[shard.primary.instance].rows() for name, shard in newest.shards.items()
        }
        lost = []
        for entry, database in self.acknowledged.items():
            slot, slash, id = entry.partition("/")
            if slash and slot.isdigit():
                kept = id in rows[newest.place(int(slot)).shard.name].get(int(slot), ())
            else:
                shard = newest.shards.get(database)
                kept = shard is not None and entry in self.nodes[shard.primary.instance].wal
            if not kept:
                lost.append(entry)
        return lost

    # How it looks.

    def endpoint(self, instance: str) -> Endpoint:
        spec = self.topology.instance(instance)
        if self._ports is None or self._ports[0] is not self.topology:
            order = self.topology.in_growing_order()
            ports = {each.id: 10_000 + n for n, each in enumerate(order)}
            ports |= {each.id: 20_000 + place for place, each in self.topology.further()}
            self._ports = self.topology, ports
        return Endpoint(spec.id, spec.region, spec.zone, "127.0.0.1", self._ports[1][instance])

    def _view(self, id: str, following: Mapping[str, list[str]] | None = None) -> InstanceView:
        spec = self.topology.instance(id)
        address = f"127.0.0.1:{self.endpoint(id).port}"
        pid = 1 + self.deaths[id]  # another process after each death
        if spec.kind == "postgres":
            seen = self._postgres(id, following)
            return InstanceView(id, self._state(id), pid, address, postgres=seen)
        if spec.kind == "supervisor":
            state: State = "running" if spec.region in self.supervised else "absent"
            return InstanceView(id, state, pid, address)
        state = "absent" if id not in self.servers else "stopped"
        if self.servers.get(id):
            state = "running"
        valkey = None
        if spec.kind == "valkey":
            leader = self.queue_primaries.get(spec.region, id)
            replica = spec.component == "queue" and leader != id
            valkey = ValkeyView("replica" if replica else "primary", leader if replica else None)
        return InstanceView(id, state, pid, address, valkey=valkey)

    def _state(self, id: str) -> State:
        node = self.nodes.get(id)
        if node is None:
            return "absent"
        if not node.running:
            return "stopped"
        return "frozen" if node.frozen else "running"

    def _postgres(
        self, id: str, following: Mapping[str, list[str]] | None = None
    ) -> PostgresView | None:
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
            for name in self._followers(id, following)
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
            epoch=max([node.epoch, *(epoch for _, epoch in node.fences.values())]),
        )

    def _work(self) -> None:
        """Services have worked until now: what a zone asks of one is shared out evenly, and a
        process does no more than one core can, or the part of one that it is limited to."""
        now = self.clock.monotonic()
        seconds, self._used_until = now - self._used_until, now
        running = [
            spec for spec in self.topology.instances(kind="service") if self.servers.get(spec.id)
        ]
        sharing = Counter((spec.component, spec.region + spec.zone) for spec in running)
        for spec in running:
            zone = spec.region + spec.zone
            asked = self.demand.get(f"{spec.component}.{zone}", 0.0)
            most = self.topology.scaling.cpu_limit(spec.component)
            share = min(most, asked / sharing[spec.component, zone])
            self.used[spec.id] = self.used.get(spec.id, 0.0) + share * seconds

    # Replication.

    def _following(self) -> dict[str, list[str]]:
        """upstream → the standbys that are told to follow it."""
        found: dict[str, list[str]] = {}
        for id, node in self.nodes.items():
            if node.upstream is not None:
                found.setdefault(node.upstream, []).append(id)
        return found

    def _followers(
        self, upstream: str, following: Mapping[str, list[str]] | None = None
    ) -> list[str]:
        """The standbys that stream from `upstream` right now. Who asks about many servers brings
        `_following` along."""
        source = self.nodes[upstream]
        if following is None:
            following = self._following()
        return [
            id
            for id in following.get(upstream, ())
            if (node := self.nodes[id]).answers
            and source.answers
            and not self._cut_between(id, upstream)
            and node.wal == source.wal[: len(node.wal)]
        ]

    def _replicate(self) -> None:
        following = self._following()
        for upstream, source in self.nodes.items():
            for id in self._followers(upstream, following):
                node = self.nodes[id]
                node.wal, node.epoch = list(source.wal), source.epoch
                node.timeline = source.timeline
                node.fences, node.attempts = source.fences, source.attempts

    def _cut_between(self, one: str, other: str) -> bool:
        # By name: a database that the topology has no more may still run.
        regions = {id.partition(".")[2][:-1] for id in (one, other)}
        return frozenset(regions) in self.cut

    # What can be reached.

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
                self.deaths[id] += self.nodes[id].running
                self.nodes[id].crashed |= self.nodes[id].running
                self.nodes[id].running = self.nodes[id].frozen = False
            elif id in self.servers and id != EDGE:
                self.deaths[id] += self.servers[id]
                self.servers[id] = False
                self.counted.pop(id, None)
                self.used.pop(id, None)
