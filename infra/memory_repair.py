"""Rows in memory, their corruption and their repair, beside `infra/memory_backups.py`.

Each shard has a few settled orders with a line and a payment. A restored copy has them as they were
before the corruption when it was restored to before it, else as they are. Of the writes of
`infra/memory_world.py` a copy has what the archive had.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import zlib
from collections.abc import Mapping, Sequence

from infra.backups import Backups
from infra.memory_world import SEGMENT, MemoryWorld
from infra.provider import Fault, Injected
from infra.repair import JSON, TABLES, Change, Difference, Inspected
from runtime.errors import Unavailable
from runtime.shardmap import CATALOG

Rows = dict[str, dict[tuple[object, ...], JSON]]
ORDERS = 8


class MemoryRepairs:
    """See `infra.repair.Repairs` for what each verb promises."""

    def __init__(self, world: MemoryWorld, backups: Backups) -> None:
        self.world = world
        self.backups = backups
        self.rows: dict[str, Rows] = {
            shard: _rows(number) for number, shard in enumerate(world.topology.shards, start=1)
        }
        self.corrupted: dict[str, tuple[int, Injected, Rows]] = {}
        self.forgotten: set[str] = set()  # ids that no copy has
        self.unnoticed: set[str] = set()  # kinds of damage that no restore sees

    def corrupt(self, fault: Fault) -> Injected:
        """Half of the orders get another total, the other half loses lines and payments."""
        known = self.corrupted.get(fault.target)
        if known and known[0] == fault.seed:
            return known[1]
        clock, rows = self.world.clock, self.rows[fault.target]
        began, at, before = clock.monotonic(), clock.now(), copy.deepcopy(rows)
        keys = sorted(rows["orders"], key=str)
        random.Random(fault.seed).shuffle(keys)  # noqa: S311  replayable, not a secret
        changed, deleted = keys[: len(keys) // 2], keys[len(keys) // 2 :]
        for key in changed:
            rows["orders"][key]["total_cents"] += 1
        for user, order in deleted:
            del rows["order_items"][(user, order, "tea")]
            del rows["payments"][(user, order)]
        detail = {
            "lsn": self._position(fault.target),
            "changed": {"orders": len(changed)},
            "deleted": {"order_items": len(deleted), "payments": len(deleted)},
        }
        injected = Injected(began, clock.monotonic(), at, detail=detail)
        self.corrupted[fault.target] = (fault.seed, injected, before)
        return injected

    def broken(self) -> list[str]:
        """Orders whose total is not that of their lines, or that have no payment."""
        return [
            str(order)
            for rows in self.rows.values()
            for (user, order), row in rows["orders"].items()
            if (user, order) not in rows["payments"]
            or row["total_cents"]
            != sum(
                line["quantity"] * line["unit_price_cents"]
                for (owner, of, _), line in rows["order_items"].items()
                if (owner, of) == (user, order)
            )
        ]

    async def differences(self, id: str, instance: str) -> Sequence[Difference]:
        self._answering(instance)
        then = await self._copy(id)
        now = self.rows.get(self.world.topology.instance(instance).component, {})
        return [
            Difference(table, dict(row), now[table].get(key) and dict(now[table][key]))
            for table, rows in then.items()
            for key, row in rows.items()
            if key not in now[table] or _lasting(table, row) != _lasting(table, now[table][key])
        ]

    async def repair(self, instance: str, changes: Sequence[Change]) -> int:
        self._answering(instance)
        rows = self.rows[self.world.topology.instance(instance).component]
        done = 0
        for change in changes:
            key = tuple(change.row[name] for name in TABLES[change.table].key)
            wanted = {name: change.row[name] for name in change.columns}
            there = rows[change.table].get(key)
            if there is None and not change.columns:
                rows[change.table][key] = dict(change.row)
                done += 1
            elif there is not None and any(there[n] != value for n, value in wanted.items()):
                there |= wanted
                done += 1
        return done

    async def inspect(self, id: str, orders: Sequence[str], users: Sequence[str]) -> Inspected:
        found = await self._copy(id)
        database = (await self.backups.restored(id)).database
        there = {each for each in (*orders, *users) if self._has(database, each)}
        return Inspected(
            rows={table: len(rows) for table, rows in found.items()},
            checksums={table: _digest(rows) for table, rows in found.items()},
            problems=(),
            missing=tuple(each for each in (*orders, *users) if each not in there),
            served=len(there.intersection(orders)),
        )

    def _has(self, database: str, id: str) -> bool:
        """Clients' orders and users are dealt out to the shards; nobody has one forgotten."""
        shards = self.world.topology.shards
        mine = shards[zlib.crc32(id.encode()) % len(shards)] == database
        return mine and id not in self.forgotten

    async def noticed(self, database: str, kind: str) -> str | None:
        return None if kind in self.unnoticed else f"{database}: the {kind} is damaged"

    async def _copy(self, id: str) -> Rows:
        restored = await self.backups.restored(id)
        if restored.database == CATALOG:
            return {}
        _, injected, before = self.corrupted.get(restored.database, (0, None, {}))
        if injected is not None and restored.reached_lsn <= injected.detail["lsn"]:
            return before
        return self.rows[restored.database]

    def _position(self, database: str) -> int:
        newest = max(self.world.maps.values(), key=lambda shard_map: shard_map.version)
        return len(self._answering(newest.shards[database].primary.instance)) * SEGMENT

    def _answering(self, instance: str) -> Sequence[str]:
        node = self.world.nodes.get(instance)
        if node is None or not node.answers or not node.primary:
            raise Unavailable(f"{instance} does not answer.", hint="regionctl status")
        return node.wal


def _rows(number: int) -> Rows:
    rows: Rows = {"orders": {}, "order_items": {}, "payments": {}}
    for each in range(ORDERS):
        user, order, cents = number, 100 * number + each, 250 + each
        rows["orders"][(user, order)] = {
            **dict.fromkeys(TABLES["orders"].lasting, ""),
            "user_id": user,
            "id": order,
            "status": "confirmed",
            "total_cents": cents,
        }
        rows["order_items"][(user, order, "tea")] = {
            "user_id": user,
            "order_id": order,
            "sku": "tea",
            "quantity": 1,
            "unit_price_cents": cents,
            "name": "Tea",
        }
        rows["payments"][(user, order)] = {
            "user_id": user,
            "order_id": order,
            "amount_cents": cents,
            "status": "captured",
            "created_at": "",
        }
    return rows


def _lasting(table: str, row: Mapping[str, object]) -> list[object]:
    return [row[name] for name in TABLES[table].lasting]


def _digest(rows: Mapping[tuple[object, ...], JSON]) -> str:
    text = json.dumps(sorted(map(str, rows.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
