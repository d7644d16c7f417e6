"""How many requests fail right now: what moving slots may not cost the customers.

The orders services count their answers by status; two looks a few seconds apart tell the share.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence

import httpx

from control_plane.world import World
from runtime.shardmap import CATALOG

EVERY_SECONDS = 5.0
TIMEOUT_SECONDS = 1.0
LEAST_REQUESTS = 20
COUNTER = re.compile(r'regionctl_request_seconds_count\{.*status="(\d+)".*\} ([0-9.e+]+)')


class Budget:
    """Looks at most every `EVERY_SECONDS`; in between the last answer holds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.looked = float("-inf")
        self.before: tuple[float, float] | None = None
        self.percent: float | None = None

    async def failed_percent(self) -> float | None:
        """The share of answers with a 5xx; None when too few were given, or nobody can say."""
        now = self.world.clock.monotonic()
        if self.world.topology.provider != "local" or now - self.looked < EVERY_SECONDS:
            return self.percent
        self.looked = now
        counts = await _counts(await self._addresses())
        if counts is not None and self.before is not None:
            answers, failed = counts[0] - self.before[0], counts[1] - self.before[1]
            enough = answers >= LEAST_REQUESTS and failed >= 0
            self.percent = 100.0 * failed / answers if enough else None
        self.before = counts
        return self.percent

    async def _addresses(self) -> list[str]:
        shard_map = await self.world.store.shard_map()
        home = shard_map.shards[CATALOG].home if shard_map else None
        specs = self.world.topology.instances(component="orders", region=home)
        observed = await self.world.provider.observe([spec.id for spec in specs])
        return [view.address for view in observed.instances.values() if view.address]


async def _counts(addresses: Sequence[str]) -> tuple[float, float] | None:
    """All answers, and those with a 5xx, since the services began; None: one did not say."""
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        try:
            answers = await asyncio.gather(
                *(client.get(f"http://{address}/metrics") for address in addresses)
            )
        except httpx.HTTPError:
            return None
    return sum_up(answer.text for answer in answers)


def sum_up(pages: Iterable[str]) -> tuple[float, float]:
    """(all answers, answers with a 5xx) in these services' metrics."""
    found = [match for page in pages for match in COUNTER.findall(page)]
    failed = sum(float(count) for status, count in found if status.startswith("5"))
    return sum(float(count) for _, count in found), failed
