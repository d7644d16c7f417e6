"""Users as they are read: from the region's cache, from their shard, or from all shards."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from itertools import islice

from runtime.batches import read_by_shard
from runtime.context import Context
from runtime.entries import Found, entry_key
from runtime.pool import Connection
from runtime.shardmap import Placement
from runtime.shards import of_user
from runtime.users import store
from runtime.users.rules import User
from runtime.users.schemas import document

KEEP_SECONDS = 3600.0


def found(user: User) -> Found:
    return Found(user.version, json.dumps(document(user), separators=(",", ":")).encode())


def key_of(place: Placement, user_id: int) -> str:
    return entry_key("user", place, user_id)


async def fetch(context: Context, user_id: int) -> tuple[Found | None, Placement]:
    """The profile from the cache, else from the primary; None when there is none."""
    place = context.routing.map.locate(user_id)

    async def load() -> Found | None:
        done = await context.shards.read(
            of_user(user_id), lambda connection, _: store.get(connection, user_id)
        )
        return found(done.value) if done.value else None

    if not context.routing.map.all_at_home_in(context.settings.region):
        return await load(), place
    return await context.cache.fetch(key_of(place, user_id), load, KEEP_SECONDS), place


class Changing:
    """Around a change of one user: forgotten before the commit, put as it is after it."""

    def __init__(self, context: Context, user_id: int) -> None:
        self._cache = context.cache
        self._id = user_id
        self._key = key_of(context.routing.map.locate(user_id), user_id)
        self._mark = ""

    async def begin(self) -> None:
        self._mark = await self._cache.forget([self._key])

    async def end(self, place: Placement, user: User | None) -> None:
        """None: nothing changed."""
        if user is None or key_of(place, self._id) != self._key:
            await self._cache.lift([self._key], self._mark)
        else:
            now = found(user)
            await self._cache.put(self._key, now.version, now.body, KEEP_SECONDS, self._mark)


async def page(context: Context, after: int, limit: int) -> list[User]:
    """The first `limit` users with greater ids, over all shards."""

    async def of_one(connection: Connection, slots: Sequence[int]) -> list[User]:
        return await store.page(connection, after, limit, slots)

    pages = await read_by_shard(context.shards, context.routing, of_one)
    return list(islice(heapq.merge(*pages, key=lambda user: user.id), limit))
