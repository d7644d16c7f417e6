"""Rows of a restored server beside those of the database that it was taken from.

What is looked at is decided here, what becomes of a difference in `control_plane/merging.py`. A
column is lasting when no service ever changes it after the row was made; the others live on. Rows
of all tables here are never deleted by a service, so one that is gone was lost. Sessions are: they
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

JSON = dict[str, Any]
# A bit of a stored object is turned ("flip"), or of its contents before they were sealed, so that
# only the manifest, or recovery itself, can tell ("forge").
DAMAGES = (
    "flip-full",
    "flip-incremental",
    "flip-wal",
    "forge-full",
    "forge-incremental",
    "forge-wal",
    "drop-segment",
    "truncate-manifest",
    "wrong-timeline",
)


@dataclass(frozen=True)
class Table:
    """`key` is its primary key, `lasting` its other columns that never change. `versioned`: it has
    a version that grows with every change, by which caches tell newer from older."""

    name: str
    key: tuple[str, ...]
    lasting: tuple[str, ...]
    versioned: bool = False


TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table("users", ("user_id",), ("email", "idempotency_key", "request_hash", "created_at")),
        Table(
            "orders",
            ("user_id", "id"),
            (
                "idempotency_key",
                "request_hash",
                "currency",
                "total_cents",
                "created_at",
                "payment_method",
                "keywords",
            ),
            versioned=True,
        ),
        Table(
            "order_items",
            ("user_id", "order_id", "sku"),
            ("quantity", "unit_price_cents", "name"),
        ),
        Table("outbox", ("user_id", "event_id"), ("kind", "payload", "created_at")),
        Table("payments", ("user_id", "order_id"), ("created_at",), versioned=True),
        Table(
            "notifications",
            ("user_id", "event_id"),
            ("kind", "recipient", "status", "reason", "created_at"),
        ),
    )
}


@dataclass(frozen=True)
class Difference:
    """A row of the restored copy that is not as it was any more: `then` and `now` (None: gone).

    Both have all columns, as PostgreSQL's to_jsonb writes them. They may hold secrets, so they
    are in no file and no log.
    """

    table: str
    then: JSON
    now: JSON | None

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.then[name] for name in TABLES[self.table].key)


@dataclass(frozen=True)
class Change:
    """What is done to one row: `columns` get the values of `row`, or the whole row comes back
    (`columns` empty)."""

    table: str
    row: JSON = field(repr=False)
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspected:
    """A restored database, only read. `rows` by table; `checksums`: one over all rows of each
    table; `problems`: invariants that do not hold in it; `missing`: which of the orders and users
    that were asked for it lacks; `served`: for how many orders the service's own query gave the
    whole order."""

    rows: Mapping[str, int]
    checksums: Mapping[str, str]
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    served: int


class Repairs(Protocol):
    """`id` is a restored server (`infra.backups`), `instance` the primary of its database."""

    async def differences(self, id: str, instance: str) -> Sequence[Difference]:
        """Rows of the copy whose lasting columns the primary has otherwise, or that it lacks.

        Only of slots that the primary owns now. Rows that only the primary has are no difference.
        """
        ...

    async def repair(self, instance: str, changes: Sequence[Change]) -> int:
        """Carries `changes` out, a batch a transaction, guarded like a service's writes.

        A change that is there already changes nothing. Returns how many rows were changed. Raises
        `Refused` when a slot is not owned there any more: then look for differences again.
        """
        ...

    async def inspect(self, id: str, orders: Sequence[str], users: Sequence[str]) -> Inspected:
        """Reads the whole copy; `orders` and `users` are ids that it should have."""
        ...

    async def noticed(self, database: str, kind: str) -> str | None:
        """What a restore of `database` says when its archive is damaged; None: it says nothing.

        Only a copy of the archive is damaged. `kind` is one of `DAMAGES`. Raises `Refused` without
        an incremental backup of the database.
        """
        ...
