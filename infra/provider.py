"""Makes a topology exist, observes it, breaks it; decides nothing.

Every verb may be repeated: called again after it took effect, it changes nothing and returns the
same answer. A verb returns when its effect can be observed, or raises a `Problem` whose `extra`
names the log file and its last lines. Three providers exist, `memory` (a world in a dict),
`local` (real processes) and `aws`; one contract suite holds for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from infra.backups import Backups
from infra.faults import Fault as Fault
from infra.faults import FaultKind as FaultKind
from infra.faults import Injected as Injected
from infra.moves import Moves
from infra.repair import Repairs
from infra.topology import Topology
from infra.traffic import Traffic
from infra.usage import Usage
from runtime.shardmap import Endpoint, ShardMap

State = Literal["absent", "stopped", "running", "frozen", "failed"]
JSON = dict[str, Any]


@dataclass(frozen=True)
class Follower:
    """A standby as its upstream sees it. `sync` is pg_stat_replication.sync_state = 'sync'.

    The upstream's position less `lag_bytes` is never more than what the standby has on disk.
    `lag_seconds` is an estimate; 0 when the standby has everything, None when nothing is known.
    """

    instance: str
    streaming: bool
    sync: bool
    lag_bytes: int
    lag_seconds: float | None


@dataclass(frozen=True)
class PostgresView:
    """A database server. Positions (LSN) are bytes since the start of the WAL.

    `role` is what the server is, or, when it is stopped, what its data directory would start as.
    `position` is what it has written (primary) or received (standby). `upstream` is the instance
    that a standby is told to follow, `sync_names` the standbys that commits here wait for, and
    `epoch` the highest epoch in its fence rows. Unknown values of a server that does not answer
    are None.
    """

    role: Literal["primary", "standby"]
    timeline: int | None = None
    position: int | None = None
    replayed: int | None = None
    upstream: str | None = None
    sync_names: tuple[str, ...] = ()
    followers: tuple[Follower, ...] = ()
    epoch: int | None = None


@dataclass(frozen=True)
class ValkeyView:
    role: Literal["primary", "replica"]
    upstream: str | None = None


@dataclass(frozen=True)
class InstanceView:
    """One server as it is. `absent`: was never made. `failed`: runs, but does not answer."""

    id: str
    state: State
    pid: int | None = None
    address: str | None = None
    postgres: PostgresView | None = None
    valkey: ValkeyView | None = None


@dataclass(frozen=True)
class Observed:
    """The world at one moment. `route` is the region that the edge sends clients to.

    `unreachable` has the regions ("us-east-1") whose supervisor does not answer and the zones
    ("us-east-1a") that a fault holds down: nothing can be started there until that is healed.
    `map_versions` says which map each region's services read, `targets` to which instances of each
    service each gateway was told to send requests (gateway → service → ids; an address of no
    instance is itself, "127.0.0.1:18252").
    """

    at: datetime
    instances: Mapping[str, InstanceView]
    route: str | None = None
    unreachable: frozenset[str] = frozenset()
    map_versions: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)

    def state(self, id: str) -> State:
        view = self.instances.get(id)
        return view.state if view else "absent"

    def running(self, id: str) -> bool:
        return self.state(id) == "running"

    def postgres(self, id: str) -> PostgresView | None:
        view = self.instances.get(id)
        return view.postgres if view else None


@dataclass(frozen=True)
class Fenced:
    """Whether an instance or region is proven unable to write, and how that is known."""

    fenced: bool
    how: str


Signal = Literal["ok", "refused", "timeout"]


@dataclass(frozen=True)
class Signals:
    """What a probe saw: whether a TCP connection opened, and whether a query was answered.

    `refused` means that somebody said no or hung up (nobody listens, the connection was lost);
    `timeout` means silence, as from a frozen process or a cut network.
    """

    tcp: Signal
    sql: Signal


@dataclass(frozen=True)
class Salvage:
    """Rows that only a deposed primary has, written to `path` (JSON lines) before it is rewound."""

    path: str | None
    rows: int
    orders: tuple[str, ...] = ()


class Provider(Protocol):
    """`topology` is what this provider works on, `moves` and `backups` what it does to slots of
    users and to archives, `repairs` what a restored copy gives back to live rows."""

    @property
    def topology(self) -> Topology: ...

    @property
    def mode(self) -> Literal["applied", "emulated"]:
        """What a measurement here is worth: nothing on "emulated", where servers only pretend."""
        ...

    @property
    def moves(self) -> Moves: ...

    @property
    def backups(self) -> Backups: ...

    @property
    def repairs(self) -> Repairs: ...

    async def set_shards(self, count: int) -> None:
        """The topology on record has `count` shards from now on.

        A running control plane may have to be started again before its own `topology` says so.
        Nothing is made and nothing ended by this. Raises `Invalid` for an impossible count.
        """
        ...

    async def observe(self, only: Collection[str] | None = None) -> Observed:
        """The whole world, or only these instances (the rest is then missing in the answer)."""
        ...

    async def probe(self, instance: str, seconds: float) -> Signals:
        """One quick look at a database or queue, at most `seconds` long. Never raises."""
        ...

    def endpoint(self, instance: str) -> Endpoint:
        """The address that services dial for `instance`."""
        ...

    def entry_url(self) -> str:
        """The address of the edge, for clients."""
        ...

    # Regions and servers without data.

    async def ensure_region(self, region: str) -> None:
        """Its folder and its supervisor exist and run; nothing inside it is started."""
        ...

    async def remove_region(self, region: str) -> None:
        """Nothing of the region runs any more. Its data stays on disk."""
        ...

    async def ensure_running(self, instances: Sequence[str]) -> None:
        """Services, gateways, links, caches and queues are configured, started and healthy.

        A queue in the region's first zone starts as the primary, one in a second zone as its
        replica, unless its data says otherwise.
        """
        ...

    async def ensure_stopped(self, instances: Sequence[str]) -> None: ...

    async def set_instances(self, service: str, zone: str, count: int) -> None:
        """`zone` ("us-east-1a") has `count` instances of `service` from now on, says `topology`.

        A new one is sent requests when it is well; one too many is sent no new ones, ends those
        it has, then stops. Raises as `Topology.with_instances`; `Unavailable`: the zone is down.
        """
        ...

    async def usage(self) -> Mapping[str, Usage]:
        """What the processes of services have used of the machine, by instance."""
        ...

    # Databases.

    async def create_primary(self, instance: str) -> None:
        """An empty database with roles and schema, running as a primary of its own."""
        ...

    async def clone(self, instance: str, upstream: str) -> None:
        """A fresh copy of `upstream`, streaming from it. What `instance` had before is replaced."""
        ...

    async def start_database(self, instance: str) -> None:
        """Runs, as whatever its data directory is (primary or standby)."""
        ...

    async def stop_database(self, instance: str) -> int:
        """Stopped cleanly, after all streaming standbys got everything. Returns the final LSN."""
        ...

    async def remove_database(self, instance: str) -> None:
        """The data of a stopped node is gone. Raises `Refused` while the node runs."""
        ...

    async def set_sync(self, instance: str, standbys: Sequence[str]) -> None:
        """Commits on `instance` wait for any one of these standbys; none: wait for nobody."""
        ...

    async def promote(self, instance: str, *, accept_data_loss: bool = False) -> JSON:
        """A standby becomes a primary that waits for nobody: {"timeline": int, "lsn": int}.

        `accept_data_loss`: the plan was agreed to although something may be lost. Where the
        platform itself can tell, a promotion that may lose something is `Refused` without it.
        """
        ...

    async def set_epoch(self, instance: str, shard_map: ShardMap, database: str) -> None:
        """The fence rows of `database` on this primary say what the map says. Epochs never fall."""
        ...

    async def follow(self, instance: str, upstream: str) -> None:
        """A standby, running or stopped, now streams from `upstream`.

        Raises `Refused` when its history has diverged: then `rewind` or `clone`.
        """
        ...

    async def rewind(self, instance: str, upstream: str) -> str:
        """A stopped former primary follows `upstream`: "rewind" by pg_rewind, or "copy"."""
        ...

    async def salvage(self, instance: str, upstream: str) -> Salvage:
        """Exports the rows that only `instance`, a stopped former primary, has."""
        ...

    # Routing and fencing.

    async def publish_map(self, shard_map: ShardMap) -> None:
        """Every reachable region's services read this map. An older one never replaces a newer."""
        ...

    async def open_route(self, region: str) -> None:
        """The edge sends every client to `region`."""
        ...

    async def close_route(self) -> None:
        """The edge sends nobody anywhere: requests get 503."""
        ...

    async def fence(self, instance: str) -> Fenced:
        """`instance` can write no more: its processes are gone and nothing starts it again."""
        ...

    async def fence_region(self, region: str) -> Fenced: ...

    async def promote_queue(self, instance: str) -> None:
        """`instance` takes the region's stream writes; its other queues follow it when they run."""
        ...

    # Breaking and checking.

    async def inject(self, fault: Fault) -> Injected: ...

    async def heal(self, fault: Fault) -> None:
        """The fault itself is gone. What it broke stays broken until an operation mends it."""
        ...

    async def dead_letters(self, region: str) -> Sequence[JSON]:
        """Events that a consumer of `region` set aside, oldest first, at most 1000.

        Each is {"id", "event", "kind", "payload", "group", "reason", "entry", "at"}: `id` is what
        `replay_dead` and `drop_dead` take, `event` the event's own id (text), `entry` the place
        in the stream that it was taken from, `at` when it was set aside (ISO 8601). Raises
        `Unavailable` when the queue does not answer.
        """
        ...

    async def replay_dead(self, region: str, ids: Sequence[str]) -> int:
        """These are given once more to the group that set them aside. Returns how many were there.

        Each in one go: it is never lost, and never replayed twice.
        """
        ...

    async def drop_dead(self, region: str, ids: Sequence[str]) -> int:
        """These are forgotten. Returns how many were there."""
        ...

    async def event_lag(self, region: str) -> Mapping[str, Mapping[str, int]]:
        """consumer group → {"lag": events not yet handed out, "pending": not yet acknowledged}."""
        ...

    async def answers(self, region: str) -> tuple[int, int] | None:
        """(requests that the region's orders services have answered, those with a 5xx), since they
        began; None when one of them does not say."""
        ...

    async def traffic(self) -> Mapping[str, Traffic]:
        """instance → what it has counted, of the edge and of every gateway that says so. An edge
        that was started and lets no client in is there too, and does not serve."""
        ...

    async def resend_events(self, database: str) -> int:
        """Events of `database` not yet seen by their consumer are sent again. Returns how many."""
        ...

    async def return_orphan_stock(self) -> int:
        """Stock taken by orders that no shard has any more is put back. Returns how many orders."""
        ...

    async def restore_directory(self) -> int:
        """The catalog's e-mail directory says which users the shards have. Returns rows mended.

        Missing rows are made; a confirmed row without a user becomes a reservation again, which
        the next registration of the address goes on with. Services may run meanwhile.
        """
        ...

    async def invariants(self) -> Sequence[JSON]:
        """[{"name": str, "held": bool, "detail": str}], over all databases together."""
        ...

    async def seed(self) -> None:
        """The catalog has its sample products and the clients that may log in."""
        ...

    async def logs(self, instances: Iterable[str], lines: int) -> dict[str, list[str]]:
        """The last lines of each instance's log."""
        ...
