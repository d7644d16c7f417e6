"""Orders found by words: PostgreSQL full text on the shards.

`find` is all that the rest of the service knows of it, so another engine (OpenSearch, fed from
the same events) takes over by a function with this signature.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runtime.context import Context
from runtime.orders.rules import Order
from runtime.orders.store import COLUMNS, order_of
from runtime.pool import Connection
from runtime.position import Position
from runtime.shardmap import CATALOG, Placement
from runtime.shards import Locate, of_slot, of_user

FIND = f"""
SELECT {COLUMNS} FROM orders o
WHERE o.search @@ websearch_to_tsquery('simple', $1) AND ($2::bigint IS NULL OR o.user_id = $2)
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

    async def matching(connection: Connection, _: Placement) -> list[Order]:
        rows = await connection.fetch(FIND, query, user_id, before, limit)
        return [order_of(row) for row in rows]

    places: Sequence[Locate]
    if user_id is not None:
        places = [of_user(user_id)]
    else:
        shard_map = context.routing.map
        owned = [shard_map.slots_of(name) for name in shard_map.shards if name != CATALOG]
        places = [of_slot(ranges[0].first) for ranges in owned if ranges]
    answers = await asyncio.gather(
        *(context.shards.read(place, matching, position=position) for place in places)
    )
    # An order that is being moved between shards may be on both.
    found = {order.id: order for answer in answers for order in answer.value}
    return sorted(found.values(), key=lambda order: -order.id)[:limit]
