"""Moving slots between real PostgreSQL servers by filtered logical replication.

`begin` sets the streams up and takes them down, `handover` changes owners behind the `fence`,
`compare` proves both sides equal, `cleanup` removes rows that are not owned.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from infra.local.cluster import Cluster
from infra.local.monitor import LOST, Monitor
from infra.local.moves import begin, checks, handover, streams
from infra.local.moves import compare as comparing
from infra.local.moves import owners as owning
from infra.local.moves import progress as progressing
from infra.local.moves import sizes as sizing
from infra.local.moves.compare import Snapshots
from infra.local.moves.sides import opened, ranges_of
from infra.local.site import Site
from infra.moves import Compared, Handover, Progress
from runtime.errors import NotFound
from runtime.shardmap import CATALOG, Move, ShardMap


class LocalMoves:
    """See `infra.moves.Moves` for what each verb promises.

    Only snapshots for `compare` are kept here, and estimates; everything else is in the databases,
    so another control plane can go on.
    """

    def __init__(self, site: Site, monitor: Monitor, cluster: Cluster) -> None:
        self._site = site
        self._monitor = monitor
        self._cluster = cluster
        self._snapshots: dict[tuple[int, int, int], Snapshots] = {}
        self._expected: dict[int, dict[str, int]] = {}

    async def close(self) -> None:
        """Lets go of the snapshots."""
        for snapshots in self._snapshots.values():
            snapshots.close()
        self._snapshots.clear()

    async def sizes(self, shard_map: ShardMap) -> dict[str, dict[int, tuple[int, int]]]:
        async def of(shard: str) -> sizing.Sizes:
            instance = shard_map.shards[shard].primary.instance
            async with self._monitor.session(instance) as connection:
                return await sizing.sizes(connection)

        names = [name for name in shard_map.shards if name != CATALOG]
        return dict(zip(names, await asyncio.gather(*map(of, names)), strict=True))

    async def check(self, move: Move, shard_map: ShardMap) -> None:
        async with opened(self._monitor, move, shard_map) as sides:
            await checks.check(self._site, sides, shard_map)

    async def start(self, move: Move, shard_map: ShardMap) -> None:
        await begin.start(self._site, self._monitor, move, shard_map)
        self._expected.pop(move.id, None)

    async def progress(self, move: Move, shard_map: ShardMap) -> Progress:
        async with opened(self._monitor, move, shard_map) as sides:
            if move.id not in self._expected:
                self._expected[move.id] = await progressing.count(sides)
            return await progressing.progress(self._site, sides, self._expected[move.id])

    async def hold(self, move: Move, shard_map: ShardMap, *, on: bool) -> None:
        async with opened(self._monitor, move, shard_map) as sides:
            stream = await streams.look(self._site, sides, "fwd")
            if not stream.states:
                raise NotFound(f"Move {move.id} has no stream.", hint="regionctl shard map")
            if stream.held != on:
                await streams.hold(sides, "fwd", on=on)

    async def rehearse(
        self, move: Move, shard_map: ShardMap, slots: Sequence[int], *, budget_seconds: float
    ) -> tuple[Handover, Compared]:
        done, snapshots = await handover.rehearse(
            *(self._site, self._monitor, move, shard_map, slots), budget_seconds=budget_seconds
        )
        try:
            return done, await comparing.compare(snapshots, ranges_of(slots))
        finally:
            snapshots.close()

    async def hand_over(
        self,
        move: Move,
        shard_map: ShardMap,
        slots: Sequence[int],
        *,
        budget_seconds: float,
        back: bool = False,
    ) -> Handover:
        done, snapshots = await handover.hand_over(
            *(self._site, self._monitor, move, shard_map, slots),
            budget_seconds=budget_seconds,
            back=back,
        )
        if snapshots is not None:
            self._forget(move, slots)
            self._snapshots[_key(move, slots)] = snapshots
        return done

    async def compare(self, move: Move, shard_map: ShardMap, slots: Sequence[int]) -> Compared:
        kept = self._snapshots.pop(_key(move, slots), None)
        if kept is not None:
            try:
                if kept.usable:
                    with contextlib.suppress(*LOST):
                        return await comparing.compare(kept, ranges_of(slots))
            finally:
                kept.close()
        _, found = await self.rehearse(move, shard_map, slots, budget_seconds=COMPARE_SECONDS)
        return found

    async def owners(self, move: Move, shard_map: ShardMap) -> dict[int, tuple[str, int]]:
        async with opened(self._monitor, move, shard_map) as sides:
            return await owning.settled(sides)

    async def finish(self, move: Move, shard_map: ShardMap) -> None:
        for key in [key for key in self._snapshots if key[0] == move.id]:
            self._snapshots.pop(key).close()
        await begin.finish(self._monitor, move, shard_map)
        self._expected.pop(move.id, None)

    def _forget(self, move: Move, slots: Sequence[int]) -> None:
        kept = self._snapshots.pop(_key(move, slots), None)
        if kept is not None:
            kept.close()


# The fence of a comparison whose snapshots are gone is not up for longer.
COMPARE_SECONDS = 0.25


def _key(move: Move, slots: Sequence[int]) -> tuple[int, int, int]:
    return move.id, min(slots), max(slots)
