"""Effects that change how many instances a service has."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from control_plane.world import World

JSON = dict[str, Any]


async def set_instances(world: World, *, service: str, zone: str, count: int) -> JSON:
    """No request fails by it: see `Provider.set_instances`."""
    await world.provider.set_instances(service, zone, count)
    return {"instances": count}


async def ensure_instances(world: World, *, service: str, zone: str, least: int) -> JSON:
    """At least so many: somebody may have asked for more since the plan was made."""
    count = max(least, world.topology.count(service, zone))
    await world.provider.set_instances(service, zone, count)
    return {"instances": count}


async def hold_scaling(world: World, *, seconds: float) -> JSON:
    """Until when; the newest record of this step is what the autoscaler keeps to."""
    return {"until": (world.clock.now() + timedelta(seconds=seconds)).isoformat()}
