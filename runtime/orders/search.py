"""Orders found by words: PostgreSQL full text on the shards.

`find` is all that the rest of the service knows of it, so another engine (OpenSearch, fed from
the same events) takes over by a function with this signature.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.batches import read_by_shard
from runtime.context import Context
from runtime.orders.rules import Order
from runtime.orders.store import COLUMNS, order_of
from runtime.pool import Connection
from runtime.position import Position
from runtime.shards import of_user

FIND = f"""
SELECT {COLUMNS} FROM orders o
WHERE o.search @@ websearch_to_tsquery('simple', $1) AND ($2::bigint IS NULL OR o.user_id = $2)
  AND ($5::bigint[] IS NULL OR crc32(int8send(o.user_id)) % 1024 = ANY($5))
  AND o.id < $3 ORDER BY o.id DESC LIMIT $4
"""  # noqa: S608


async def find(
    context: Context,
    query: str,
    *,
    user_id: int | None,
    before: int,
    limit: int,
    position: Position | None = None,
) -> list[Order]:
    """The newest orders below `before` that `query` matches: words, "phrases", or, -not.

    Of one user, or for None of all: then every shard is asked, and the answers are merged.
    """

    async def matching(connection: Connection, slots: Sequence[int] | None) -> list[Order]:
        rows = await connection.fetch(FIND, query, user_id, before, limit, slots)
        return [order_of(row) for row in rows]

    if user_id is not None:
        done = await context.shards.read(
            of_user(user_id), lambda connection, _: matching(connection, None), position=position
        )
        return done.value
    answers = await read_by_shard(context.shards, context.routing, matching, position=position)
    found = [order for answer in answers for order in answer]
    return sorted(found, key=lambda order: -order.id)[:limit]
