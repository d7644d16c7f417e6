"""Effects of a planned hand-over: nothing is promoted that lacks anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.steps.provision import newest, together
from control_plane.world import World
from infra.provider import PostgresView
from runtime.clock import wait_until
from runtime.errors import Refused

JSON = dict[str, Any]
NEAR_BYTES = 4 * 1024 * 1024


async def catch_up(world: World, *, moves: Sequence[Mapping[str, str]], seconds: float) -> JSON:
    """The nodes that will take over are at most 4 MiB of WAL behind: the pause will be short.

    An old primary that does not answer was already stopped by the next step of this operation.
    """

    async def near() -> bool:
        observed = await world.provider.observe([move["from"] for move in moves])
        return all(_near(observed.postgres(move["from"]), move["to"]) for move in moves)

    await wait_until(
        world.clock,
        near,
        what="the standbys to catch up",
        seconds=seconds,
        hint="regionctl status shows the lag",
    )
    return {}


def _near(view: PostgresView | None, standby: str) -> bool:
    if view is None or view.position is None or view.role == "standby":
        return True
    return any(
        follower.instance == standby and follower.streaming and follower.lag_bytes < NEAR_BYTES
        for follower in view.followers
    )


async def check_caught_up(world: World, *, moves: Sequence[Mapping[str, str]]) -> JSON:
    """Raises `Refused` when a standby lacks anything that its old primary wrote.

    The old primaries are started again first: a hand-over that does not happen must not end the
    service.
    """
    shard_map = await newest(world)
    primaries = {shard.primary.instance for shard in shard_map.shards.values()}
    seen: JSON = {}
    for move in moves:
        if move["to"] in primaries:
            continue
        final = await world.provider.stop_database(move["from"])
        view = (await world.provider.observe([move["to"]])).postgres(move["to"])
        received = view.position if view and view.position is not None else -1
        if received < final:
            await together(*(world.provider.start_database(each["from"]) for each in moves))
            raise Refused(
                f"{move['to']} has received up to {received}, {move['from']} ended at {final}.",
                hint="nothing was promoted and the old primaries run; look at the lag in "
                "regionctl status, then try again",
            )
        seen[move["to"]] = received
    return seen
