"""The quiet moment: the owner refuses writers, those inside have left, the other side has all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import asyncpg

from infra.local.cluster import CLOCK
from infra.local.monitor import LOST
from infra.local.moves import owners, streams
from infra.local.moves.compare import Mark, Snapshots
from infra.local.moves.owners import Claim
from infra.local.moves.sides import Direction, Side, ranges_of
from infra.local.site import Site
from infra.moves import Pause
from runtime.errors import Problem, Refused

# A way this quick makes a pause that is not noticed; one that is calm for a moment a short one.
PROBE_SECONDS = 0.05
CALM_SECONDS = 0.015
PROBES = 3
CALM_TRIES = 60
PROBE_TRIES = 100
POLL_SECONDS = 0.001
# What a commit may take beyond the budget, before the servers are held to be in trouble.
GRACE_SECONDS = 2.0
LULL_SECONDS = 0.1
_HOLDERS = """
SELECT array_agg(virtualtransaction || '.' || pid) FROM pg_locks
WHERE locktype = 'advisory' AND classid = 7411 AND objsubid = 2 AND mode = 'ShareLock' AND granted
  AND objid::bigint = ANY($1::bigint[])
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_MARK = "INSERT INTO regionctl.fence (move_id, kind, epoch) VALUES ($1, $2, $3)"
_COMMIT = "SELECT pg_logical_emit_message(true, 'regionctl', 'probe')"
_MARKED = "SELECT 1 FROM regionctl.fence WHERE move_id = $1 AND kind = $2 AND epoch = $3"


async def require_streams(
    site: Site, claim: Claim, ways: Sequence[Direction], slots: Sequence[int]
) -> None:
    """Each of the streams is whole, follows, and shows all of `slots`. Raises `Refused`."""
    sides = claim.sides
    for way in ways:
        stream = await streams.look(site, sides, way)
        problem = stream.problem or ("it is held" if stream.held else None)
        if problem is None and not stream.ready:
            problem = "it has not copied every table yet"
        if problem is not None:
            raise Refused(
                f"The stream {streams.name_of(sides, way)} is not fit for a hand-over: {problem}.",
                hint="regionctl op resume sets it up again; or wait for its copy.",
                extra={"move": sides.move.id, "direction": way},
            )
        await _show(claim, way, stream, slots)


async def show_again(site: Site, claim: Claim, slots: Sequence[int]) -> None:
    """What the source will write to `slots`, which it takes back, goes to the target once more.

    A stream forward that is lost or met a conflict stays so: only `start` makes it anew. Raises
    `Refused` while it copies, as it would copy what the target owns.
    """
    stream = await streams.look(site, claim.sides, "fwd")
    if stream.problem is not None and not stream.interrupted:
        return
    if set(stream.states.values()) != {"r"}:
        raise Refused(
            f"The stream {streams.name_of(claim.sides, 'fwd')} has not copied every table yet.",
            hint="Wait for its copy.",
            extra={"move": claim.sides.move.id, "direction": "fwd"},
        )
    await _show(claim, "fwd", stream, slots)


async def _show(claim: Claim, way: Direction, stream: streams.Stream, slots: Sequence[int]) -> None:
    """A stream that was begun anew in the middle of the move, and has copied the rows that its
    subscriber lacked, shows those of all slots."""
    shown = {slot for first, last in stream.covered for slot in range(first, last + 1)}
    if not set(slots) <= shown:
        await streams.publish(claim.sides, way, ranges_of(claim.sides.slots))


async def probe(claim: Claim, old: Side, new: Side, direction: Direction) -> None:
    """All that a pause waits for goes quickly, three times in a row: a marker's commit, its way
    to `new`, and a commit there. Disks have moments in which they are slow, so it is tried for a
    while at their best. Raises `Refused`: the pause would be long.
    """
    row = 0
    took = 0.0
    for number in range(PROBE_TRIES):
        began = CLOCK.monotonic()
        mark = (claim.sides.move.id, f"{direction}-probe", claim.attempt * 1000 + number)
        await old.connection.execute(_MARK, *mark)
        arrived = await _arrived(new, mark, began + 1)
        await new.connection.execute(_COMMIT)
        took = CLOCK.monotonic() - began
        limit = CALM_SECONDS if number < CALM_TRIES else PROBE_SECONDS
        row = row + 1 if arrived and took < limit else 0
        if row == PROBES:
            return
    raise Refused(
        f"The stream from {old.instance} to {new.instance} lags ({took * 1000:.0f} ms): handing "
        "over now would hold up writers for too long.",
        hint="Try again when less is written; nothing was changed.",
        extra={"seconds": took},
    )


async def quiet(
    claim: Claim,
    old: Side,
    new: Side,
    direction: Direction,
    slots: Sequence[int],
    snapshots: Snapshots,
    *,
    budget_seconds: float,
) -> Pause:
    """Writers of `slots` are refused by `old`, all their rows are on `new`, snapshots are taken.

    Otherwise `old` goes on as before, and `Refused` says what did not happen within the budget. The
    marker is visible on the other side only behind everything before it, so nothing else is
    awaited: the commit by which `new` takes the slots lies behind all that in its WAL, and waits
    for its standby. The marker's own commit has waited for that of `old`, which so has the fence.
    """
    await _await_lull(old, slots)
    pause = Pause(CLOCK)
    deadline = pause.began + budget_seconds
    mark = (claim.sides.move.id, direction, claim.attempt)
    try:
        async with asyncio.timeout(budget_seconds + GRACE_SECONDS):
            await owners.fence(claim, old, slots, seconds=budget_seconds)
            pause.passed("fence")
            await _drain(old, slots, deadline)
            pause.passed("drain")
            if not await _marked(old, new, mark, snapshots, deadline):
                raise _not_in_time(old, "the stream did not deliver the last of its rows")
            pause.passed("marker")
    except asyncpg.LockNotAvailableError as error:
        raise _not_in_time(old, "a transaction holds the owner rows") from error
    except BaseException:
        await _release(claim, old, slots)
        raise
    return pause


async def _release(claim: Claim, old: Side, slots: Sequence[int]) -> None:
    """Best effort: whoever claims the move next does the same."""
    with contextlib.suppress(Problem, *LOST):
        async with asyncio.timeout(GRACE_SECONDS):
            await owners.unfence(claim, old, slots)


async def _await_lull(old: Side, slots: Sequence[int]) -> None:
    """Until nobody writes to the slots, but not for long: who is inside makes a pause longer."""
    deadline = CLOCK.monotonic() + LULL_SECONDS
    while await _holders(old, slots) and CLOCK.monotonic() < deadline:
        await CLOCK.sleep(POLL_SECONDS)


async def _drain(old: Side, slots: Sequence[int], deadline: float) -> None:
    """Whoever held the guard of a slot when the fence went up has ended.

    Those who came later have seen the fence: they hold the lock until they have been refused.
    """
    inside = await _holders(old, slots)
    while inside:
        if CLOCK.monotonic() >= deadline:
            raise _not_in_time(old, "a transaction that writes to the slots did not end")
        await CLOCK.sleep(POLL_SECONDS)
        inside &= await _holders(old, slots)


async def _holders(old: Side, slots: Sequence[int]) -> set[str]:
    return set(await old.connection.fetchval(_HOLDERS, list(slots)) or ())


async def _marked(old: Side, new: Side, mark: Mark, snapshots: Snapshots, deadline: float) -> bool:
    """The marker is on disk on `old` and its standby, and in the snapshot of `new`; in time?

    All at once. Each is awaited even when another one fails: a connection must not be left busy.
    """

    async def arrived() -> bool:
        while not await snapshots.open_behind(new, mark):
            if CLOCK.monotonic() >= deadline:
                return False
            await CLOCK.sleep(POLL_SECONDS)
        return True

    found = await asyncio.gather(
        arrived(),
        snapshots.open(old),
        old.connection.execute(_MARK, *mark),
        return_exceptions=True,
    )
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return bool(found[0])


async def _arrived(new: Side, mark: Mark, deadline: float) -> bool:
    while not await new.connection.fetchval(_MARKED, *mark):
        if CLOCK.monotonic() >= deadline:
            return False
        await CLOCK.sleep(POLL_SECONDS)
    return True


def _not_in_time(old: Side, what: str) -> Refused:
    return Refused(
        f"{old.instance}: {what} within the budget. The fence was taken down again.",
        hint="It is tried again; a transaction that stays open must be ended.",
        extra={"instance": old.instance},
    )
