"""Which database owns a user's rows, where its primary is, and under which epoch.

A user belongs to one of 1024 slots; a range of slots belongs to a shard; a shard is one
PostgreSQL database with a primary and replicas. The catalog (products, stock, e-mail directory)
is one more database without slots.

Epochs only grow. All epochs of one map are drawn from one counter, so a shard or a slot range that
changes hands always gets an epoch that no other owner ever had. The database keeps the epoch in
its fence row and refuses a writer that comes with another one (`StaleEpoch`).

Everything here is pure; a map is immutable and every change returns a new one, one version up.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

SLOTS = 1024
CATALOG = "catalog"


def slot_of(user_id: int) -> int:
    """The slot (0..1023) of a 63-bit user id.

    The same number as PostgreSQL 18's `crc32(int8send(user_id)) % 1024`, so that the database can
    filter by slot without help from us.
    """
    return zlib.crc32(struct.pack(">q", user_id)) % SLOTS


def slot_of_order(order_id: int) -> int:
    """The slot that an order's id carries: its user's, in bits 12 to 21."""
    return (order_id >> 12) & (SLOTS - 1)


@dataclass(frozen=True)
class Endpoint:
    """One server: instance id, where it stands, and the address to dial."""

    instance: str
    region: str
    zone: str
    host: str
    port: int


@dataclass(frozen=True)
class Shard:
    """A database: its primary, its replicas, the region that owns its writes, and its epoch.

    `sync` names the standbys whose confirmation a commit waits for; empty means that commits are
    acknowledged by the primary alone.
    """

    name: str
    epoch: int
    home: str
    primary: Endpoint
    replicas: tuple[Endpoint, ...] = ()
    sync: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlotRange:
    """Slots `first`..`last` (both included) belong to `shard` under `epoch`."""

    first: int
    last: int
    shard: str
    epoch: int


@dataclass(frozen=True)
class Placement:
    """Where one user's writes go."""

    slot: int
    epoch: int
    shard: Shard


@dataclass(frozen=True)
class Move:
    """Slots `first`..`last` go from shard `source` to shard `target`, a batch at a time.

    `id` is unique for ever: the version of the map that first had the move. `soak_until` (ISO
    8601) is set when the last batch was handed over: until then the source follows the target, and
    the move can be taken back.
    """

    id: int
    source: str
    target: str
    first: int
    last: int
    soak_until: str | None = None


@dataclass(frozen=True)
class ShardMap:
    """One version of the map. `queues` has the events' stream server of each region, `moves` what
    is being moved or can still be taken back, `spent` the highest epoch of shards that are gone."""

    version: int
    ranges: tuple[SlotRange, ...]
    shards: Mapping[str, Shard]
    queues: Mapping[str, Endpoint]
    moves: tuple[Move, ...] = ()
    spent: int = 0

    def locate(self, user_id: int) -> Placement:
        return self.place(slot_of(user_id))

    def place(self, slot: int) -> Placement:
        """The placement of `slot`. Raises `KeyError` for a slot outside 0..1023."""
        for owned in self.ranges:
            if owned.first <= slot <= owned.last:
                return Placement(slot, owned.epoch, self.shards[owned.shard])
        raise KeyError(slot)

    def slots_of(self, shard: str) -> tuple[SlotRange, ...]:
        return tuple(owned for owned in self.ranges if owned.shard == shard)

    def all_at_home_in(self, region: str) -> bool:
        """Whether every writer is in `region`, and so tells that region's cache."""
        return all(shard.home == region for shard in self.shards.values())

    def next_epoch(self) -> int:
        """An epoch that is higher than every one in this map, and in those before it."""
        return 1 + max(
            self.spent,
            *(shard.epoch for shard in self.shards.values()),
            *(owned.epoch for owned in self.ranges),
        )

    def with_primary(
        self, name: str, primary: Endpoint, *, home: str, sync: Iterable[str] = ()
    ) -> ShardMap:
        """The map after `primary` took over `name`: same slots, one new epoch for all of them.

        The old primary becomes a replica of the new one; whether it really follows is for the
        observer to say.
        """
        shard = self.shards[name]
        epoch = self.next_epoch()
        others = {end.instance: end for end in (shard.primary, *shard.replicas)}
        others.pop(primary.instance, None)
        moved = replace(
            shard,
            epoch=epoch,
            home=home,
            primary=primary,
            replicas=tuple(others[key] for key in sorted(others)),
            sync=tuple(sync),
        )
        ranges = tuple(
            replace(owned, epoch=epoch) if owned.shard == name else owned for owned in self.ranges
        )
        return replace(
            self,
            version=self.version + 1,
            ranges=_joined(ranges),
            shards={**self.shards, name: moved},
        )

    def with_sync(self, name: str, sync: Iterable[str]) -> ShardMap:
        """The map after `name` began to wait for exactly these standbys. No epoch changes."""
        shard = replace(self.shards[name], sync=tuple(sync))
        return replace(self, version=self.version + 1, shards={**self.shards, name: shard})

    def with_queue(self, region: str, queue: Endpoint) -> ShardMap:
        return replace(self, version=self.version + 1, queues={**self.queues, region: queue})

    def with_shard(self, shard: Shard) -> ShardMap:
        """The map with one more shard, which owns nothing yet."""
        return replace(self, version=self.version + 1, shards={**self.shards, shard.name: shard})

    def without_shard(self, name: str) -> ShardMap:
        """The map without a shard. Raises `ValueError` while it owns or moves slots."""
        if self.slots_of(name) or any(name in (m.source, m.target) for m in self.moves):
            raise ValueError(f"{name} still owns or moves slots")
        left = {key: shard for key, shard in self.shards.items() if key != name}
        spent = max(self.spent, self.shards[name].epoch)
        return replace(self, version=self.version + 1, shards=left, spent=spent)

    def with_slots(self, first: int, last: int, shard: str, epoch: int) -> ShardMap:
        """The map after slots `first`..`last` became `shard`'s under `epoch`.

        Neighbours of one owner and epoch are joined. Raises `ValueError` when `epoch` is not
        higher than every epoch of the map: an epoch is never had by two owners.
        """
        if epoch < self.next_epoch():
            raise ValueError(f"epoch {epoch} is not new")
        parts = [SlotRange(first, last, shard, epoch)]
        for owned in self.ranges:
            if owned.first < first:
                parts.append(replace(owned, last=min(owned.last, first - 1)))
            if owned.last > last:
                parts.append(replace(owned, first=max(owned.first, last + 1)))
        return replace(self, version=self.version + 1, ranges=_joined(parts))

    def with_move(self, move: Move) -> ShardMap:
        """The map with `move` added, or changed when it has one of its id."""
        others = tuple(each for each in self.moves if each.id != move.id)
        return replace(self, version=self.version + 1, moves=(*others, move))

    def without_move(self, id: int) -> ShardMap:
        left = tuple(each for each in self.moves if each.id != id)
        return replace(self, version=self.version + 1, moves=left)

    def to_json(self) -> dict[str, Any]:
        """Made by hand: writers wait for it, and `dataclasses.asdict` takes ten times as long."""
        return {
            "version": self.version,
            "ranges": tuple(vars(owned).copy() for owned in self.ranges),
            "shards": {
                name: {
                    **vars(shard),
                    "primary": vars(shard.primary).copy(),
                    "replicas": tuple(vars(end).copy() for end in shard.replicas),
                }
                for name, shard in self.shards.items()
            },
            "queues": {region: vars(end).copy() for region, end in self.queues.items()},
            "moves": tuple(vars(move).copy() for move in self.moves),
            "spent": self.spent,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> ShardMap:
        """The map of a document made by `to_json`. Raises `KeyError` or `TypeError` on another."""
        return ShardMap(
            version=document["version"],
            ranges=tuple(SlotRange(**owned) for owned in document["ranges"]),
            shards={
                name: Shard(
                    name=shard["name"],
                    epoch=shard["epoch"],
                    home=shard["home"],
                    primary=Endpoint(**shard["primary"]),
                    replicas=tuple(Endpoint(**end) for end in shard["replicas"]),
                    sync=tuple(shard["sync"]),
                )
                for name, shard in document["shards"].items()
            },
            queues={region: Endpoint(**end) for region, end in document["queues"].items()},
            moves=tuple(Move(**move) for move in document.get("moves", ())),
            spent=document.get("spent", 0),
        )


def _joined(parts: Iterable[SlotRange]) -> tuple[SlotRange, ...]:
    """In the order of slots; neighbours of one owner and epoch are one."""
    ranges: list[SlotRange] = []
    for part in sorted(parts, key=lambda each: each.first):
        before = ranges[-1] if ranges else None
        if before and (before.shard, before.epoch) == (part.shard, part.epoch):
            ranges[-1] = replace(before, last=part.last)
        else:
            ranges.append(part)
    return tuple(ranges)


def even_ranges(shards: Iterable[str], epoch: int) -> tuple[SlotRange, ...]:
    """All slots dealt out in equal runs, in the order of `shards`."""
    names = list(shards)
    bounds = [SLOTS * index // len(names) for index in range(len(names) + 1)]
    return tuple(
        SlotRange(bounds[index], bounds[index + 1] - 1, name, epoch)
        for index, name in enumerate(names)
    )
