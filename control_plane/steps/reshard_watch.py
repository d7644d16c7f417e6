"""Waiting for a move of slots: patient with failovers and pauses, telling how far it is.

While a failover is under way the provider refuses or does not answer: what is wanted is tried
again, each time with the newest map, for about a minute. A stream that it broke is begun anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from control_plane import decisions
from control_plane.budget import Budget
from control_plane.decisions import Load
from control_plane.plans.reshard_moves import Transfer, owners, transfer_of
from control_plane.steps.provision import newest
from control_plane.world import World
from infra.moves import Progress
from infra.provider import PostgresView
from runtime.errors import OperationFailed, Problem, Refused, TimedOut, Unavailable
from runtime.shardmap import Move, Shard, ShardMap

JSON = dict[str, Any]
T = TypeVar("T")

PAUSES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
"""Seconds between two attempts: a failover of a database takes about one, a standby that comes
back some ten more."""
LOOK_SECONDS = 0.2
TELL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
RESTARTS = 5
STOPPED = "regionctl shard rollback takes back what was handed over; regionctl shard abort keeps it"


def found(shard_map: ShardMap, transfer: Transfer) -> Move | None:
    return next((move for move in shard_map.moves if transfer_of(move) == transfer), None)


def find(shard_map: ShardMap, transfer: Transfer) -> Move:
    """Raises `Refused` when the map has no such move any more."""
    move = found(shard_map, transfer)
    if move is None:
        raise Refused(
            f"No move of slots {transfer.first}-{transfer.last} from {transfer.source} to "
            f"{transfer.target} is in the map.",
            hint="regionctl shard map",
        )
    return move


async def check_wanted(world: World) -> None:
    """Raises `OperationFailed` when somebody aborts the operation: a wait can be long."""
    if await world.store.abort_requested(world.operation_id):
        raise OperationFailed("Stopped, as somebody asked.", hint=STOPPED, runbook="reshard")


async def patiently(
    world: World,
    work: Callable[[], Awaitable[T]],
    what: str,
    passing: tuple[type[Problem], ...] = (Refused, Unavailable, TimedOut),
) -> T:
    """What `work` returns, tried again with growing pauses while it raises one of `passing`: by
    default while it is refused or unanswered."""
    told = ""
    for pause in (*PAUSES, None):
        try:
            return await work()
        except passing as problem:
            if pause is None:
                raise OperationFailed(
                    f"{what} was refused {len(PAUSES) + 1} times: {problem.detail}",
                    hint=problem.hint or f"regionctl op resume {world.operation_id}",
                    runbook="reshard",
                    extra=problem.extra,
                ) from problem
            if problem.detail != told:
                told = problem.detail
                message = f"{what}: {told} Trying again."
                await world.emit({"kind": "move-waits", "message": message})
        await check_wanted(world)
        await world.clock.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


@dataclass
class Watch:
    """What a wait for a move remembers: what it told when, and how often it began anew.

    A wait to go `back` throttles nothing, failing requests do not keep it, and a stream that met a
    conflict is left as it is: the hand-over needs only the one back, and looks at that itself.
    """

    world: World
    transfer: Transfer
    back: bool = False
    held: bool | None = None
    restarts: int = 0
    answered: float = 0.0
    told: float = 0.0
    reason: str | None = None
    budget: Budget = field(init=False)

    def __post_init__(self) -> None:
        self.budget = Budget(self.world)

    async def until_near(self) -> Progress:
        """Waits until the target has all rows and follows closely, and nothing says to wait."""
        self.answered = self.world.clock.monotonic()
        while True:
            await check_wanted(self.world)
            try:
                progress = await self._look()
                self.answered = self.world.clock.monotonic()
                if progress is not None:
                    return progress
            except (Refused, Unavailable, TimedOut) as problem:
                if self.world.clock.monotonic() - self.answered > PATIENCE_SECONDS:
                    raise OperationFailed(
                        f"The move from {self.transfer.source} to {self.transfer.target} does not "
                        f"go on: {problem.detail}",
                        hint=f"regionctl op resume {self.world.operation_id}",
                        runbook="reshard",
                    ) from problem
                await self._say(problem.detail)
            await self.world.clock.sleep(LOOK_SECONDS)

    async def _look(self) -> Progress | None:
        moves = self.world.provider.moves
        shard_map = await newest(self.world)
        move = find(shard_map, self.transfer)
        progress = await moves.progress(move, shard_map)
        if progress.conflict and not self.back:
            raise OperationFailed(
                f"The stream from {move.source} to {move.target} met rows that are not its own: "
                f"{progress.problem}. Both sides are kept.",
                hint=STOPPED,
                runbook="reshard",
            )
        wait = await paused(self.world)
        if not progress.healthy and not progress.conflict:
            # A pause may be longer than the source keeps WAL: it is begun anew when it is over.
            if wait:
                await self._say(wait)
            else:
                await self._begin_anew(move, shard_map, progress.problem)
            return None
        load = await self._load(shard_map, progress)
        limit = self.world.topology.service_levels.error_rate_percent
        if not self.back:
            held = bool(self.held)
            wait = wait or decisions.throttle(load, held=held, error_rate_percent=limit)
        hold = bool(wait) and not self.back
        if hold != self.held:
            await moves.hold(move, shard_map, on=hold)
            self.held = hold
        if not wait and (progress.ready or progress.conflict):
            wait = decisions.not_now(load, error_rate_percent=limit)
            if wait is None:
                return progress
        await self._say(wait)
        await self._tell(progress, shard_map)
        return None

    async def _load(self, shard_map: ShardMap, progress: Progress) -> Load:
        """The lag of both shards' copies, the target's backlog, and failing requests."""
        pair = (self.transfer.source, self.transfer.target)
        primaries = [shard_map.shards[name].primary.instance for name in pair]
        observed = await self.world.provider.observe(primaries)
        views = [view for id in primaries if (view := observed.postgres(id)) is not None]
        lags = [each.lag_bytes for view in views for each in view.followers if each.streaming]
        taker = shard_map.shards[pair[0] if self.back else pair[1]]
        behind = _behind(taker, observed.postgres(taker.primary.instance))
        if self.back:
            return Load(max(lags, default=0), 0, None, behind)
        failed = await self.budget.failed_percent()
        return Load(max(lags, default=0), progress.lag_bytes, failed, behind)

    async def _begin_anew(self, move: Move, shard_map: ShardMap, problem: str | None) -> None:
        self.restarts += 1
        if self.restarts > RESTARTS:
            raise OperationFailed(
                f"The stream from {move.source} to {move.target} broke {self.restarts} times: "
                f"{problem or 'unknown'}. Both sides are kept.",
                hint=STOPPED,
                runbook="reshard",
            )
        await self._say(f"the stream is begun anew: {problem or 'it broke'}")
        await self.world.provider.moves.start(move, shard_map)
        self.held = None

    async def _say(self, reason: str | None) -> None:
        """Why it waits, once for each reason."""
        if reason and reason != self.reason:
            message = f"{self.transfer.source} to {self.transfer.target} waits: {reason}"
            await self.world.emit({"kind": "move-waits", "message": message})
        self.reason = reason

    async def _tell(self, progress: Progress, shard_map: ShardMap) -> None:
        now = self.world.clock.monotonic()
        if now - self.told >= TELL_SECONDS:
            self.told = now
            await self.world.emit(progress_event(self.world, self.transfer, progress, shard_map))


def _behind(shard: Shard, view: PostgresView | None) -> int | None:
    """The most bytes that a replica of the map lacks; None: one does not follow the primary."""
    followers = () if view is None else view.followers
    lags = {each.instance: each.lag_bytes for each in followers if each.streaming}
    if any(end.instance not in lags for end in shard.replicas):
        return None
    return max((lags[end.instance] for end in shard.replicas), default=0)


async def paused(world: World) -> str | None:
    if await world.store.reshard_paused(world.operation_id):
        return "paused; regionctl shard resume goes on"
    return None


def progress_event(
    world: World, transfer: Transfer, progress: Progress, shard_map: ShardMap
) -> JSON:
    """How far it is: {"rows", "copied", "slotsMoved", "slots", "lagBytes", "worstPauseSeconds"}."""
    share = min(1.0, progress.copied / progress.rows) if progress.rows else float(progress.ready)
    moved, slots = slots_moved(world, shard_map)
    worst = max(pauses(world), default=None)
    lag = "" if progress.lag_bytes is None else f", {progress.lag_bytes / 2**20:.1f} MiB behind"
    bar = "█" * round(share * 20) + "░" * (20 - round(share * 20))
    text = (
        f"{transfer.source} to {transfer.target} {bar} {share * 100:.0f} %: "
        f"{progress.copied:,} of {progress.rows:,} rows, {moved} of {slots} slots{lag}"
    )
    return {
        "kind": "move-progress",
        "message": text if worst is None else f"{text}, longest pause {worst * 1000:.0f} ms",
        "source": transfer.source,
        "target": transfer.target,
        "rows": progress.rows,
        "copied": progress.copied,
        "slotsMoved": moved,
        "slots": slots,
        "lagBytes": progress.lag_bytes,
        "worstPauseSeconds": worst,
    }


def slots_moved(world: World, shard_map: ShardMap) -> tuple[int, int]:
    """How many slots of this operation's hand-overs are where they shall be, of how many."""
    owned = owners(shard_map.ranges)
    wanted = [
        (slot, step.args["source" if step.args.get("back") else "target"])
        for step in world.plan.steps
        if step.name == "hand-over"
        for slot in slot_range(step.args["slots"])
    ]
    return sum(owned[slot] == name for slot, name in wanted), len(wanted)


def pauses(world: World) -> list[float]:
    """Of the fences of this operation so far, in seconds."""
    results = [each for each in world.results.values() if isinstance(each, dict)]
    return [each["pauseSeconds"] for each in results if each.get("pauseSeconds")]


def slot_range(slots: Sequence[int]) -> range:
    """Both ends belong to it."""
    return range(slots[0], slots[1] + 1)
