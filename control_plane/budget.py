"""How many requests fail right now: what moving slots may not cost the customers.

The services count their answers; two looks a few seconds apart tell the share that failed.
"""

from __future__ import annotations

from control_plane.world import World
from runtime.shardmap import CATALOG

EVERY_SECONDS = 5.0
LEAST_REQUESTS = 20


class Budget:
    """Looks at most every `EVERY_SECONDS`; in between the last answer holds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.looked = float("-inf")
        self.before: tuple[int, int] | None = None
        self.percent: float | None = None

    async def failed_percent(self) -> float | None:
        """The share of answers with a 5xx; None when too few were given, or nobody can say."""
        now = self.world.clock.monotonic()
        if now - self.looked < EVERY_SECONDS:
            return self.percent
        self.looked = now
        shard_map = await self.world.store.shard_map()
        if shard_map is None:
            return None
        counts = await self.world.provider.answers(shard_map.shards[CATALOG].home)
        self.percent = failed_between(self.before, counts)
        self.before = counts
        return self.percent


def failed_between(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """The percentage of the answers between two counts that failed; None: not known."""
    if before is None or after is None:
        return None
    given, failed = after[0] - before[0], after[1] - before[1]
    if given < LEAST_REQUESTS or failed < 0:  # a service that was started again counts from 0
        return None
    return 100.0 * failed / given
