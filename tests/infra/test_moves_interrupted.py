"""Moves between two real shards in whose middle the control plane or a primary ends."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from infra.local.moves import LocalMoves, owners, sides
from infra.provider import Fault
from runtime.errors import OperationFailed, Problem, Refused
from runtime.shardmap import Move
from tests.infra.moving import (
    BATCH,
    BUDGET,
    FIRST,
    LAST,
    S1,
    S1B,
    S2,
    S2B,
    Pair,
    Run,
    Writers,
    batches,
    check_equal,
    hand_over,
    seed,
    under_way,
    users_of,
)

pytestmark = pytest.mark.process


class Dead(BaseException):
    """The control plane ended here."""


def _statements(
    monkeypatch: pytest.MonkeyPatch, after: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """`after` runs behind every statement that is sent to any server."""
    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        original = getattr(asyncpg.Connection, name)

        async def patched(self: Any, *args: Any, _original: Any = original, **kw: Any) -> Any:
            value = await _original(self, *args, **kw)
            await after()
            return value

        monkeypatch.setattr(asyncpg.Connection, name, patched)


def test_a_control_plane_may_die_behind_any_statement_of_a_hand_over(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(pair: Pair) -> None:
        left = -1

        async def die() -> None:
            nonlocal left
            left -= left > 0
            if left == 0:
                raise Dead

        async def attempt(move: Move, slots: range, back: bool, lives: int) -> bool:
            nonlocal left
            moves = LocalMoves(pair.provider.site, pair.provider.monitor, pair.provider.cluster)
            left = lives
            try:
                await moves.hand_over(move, pair.map, slots, budget_seconds=BUDGET, back=back)
            except Dead:
                return False
            finally:
                left = -1
                await moves.close()
            return True

        slots = range(FIRST, FIRST + BATCH)
        await seed(pair, users_of(FIRST, FIRST + BATCH - 1, 20))
        async with under_way(pair) as move:
            with monkeypatch.context() as patch:
                _statements(patch, die)
                lives, back, survived = 1, False, False
                while not survived:
                    survived = await attempt(move, slots, back, lives)
                    owners = await pair.owners(slots)
                    assert not owners["s1"] & owners["s2"]
                    await hand_over(pair, move, slots, back=back)
                    owners = await pair.owners(slots)
                    assert owners["s1" if back else "s2"] == set(slots)
                    assert not owners["s2" if back else "s1"]
                    lives, back = lives + 1, not back
            await check_equal(pair, move, slots)
            print(f"\ndied behind each of {lives - 2} statements")
            assert lives > 30

    run(check)


def test_a_control_plane_that_wakes_up_late_changes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "IDLE_MILLISECONDS", 50)
    late: contextvars.ContextVar[bool] = contextvars.ContextVar("late", default=False)

    async def check(pair: Pair) -> None:
        awake, asleep = asyncio.Event(), asyncio.Event()
        left = 0

        async def sleep() -> None:
            nonlocal left
            if late.get():
                left -= 1
                if left == 0:
                    asleep.set()
                    await awake.wait()

        async def first(move: Move, slots: range, back: bool) -> None:
            late.set(True)
            moves = LocalMoves(pair.provider.site, pair.provider.monitor, pair.provider.cluster)
            try:
                await moves.hand_over(move, pair.map, slots, budget_seconds=BUDGET, back=back)
            finally:
                asleep.set()
                await moves.close()

        async def states() -> list[Any]:
            query = (
                "SELECT array_agg(slot || state || epoch ORDER BY slot) FROM regionctl.slot_owner "
                f"WHERE slot BETWEEN {FIRST} AND {FIRST + BATCH - 1}"
            )
            return [await pair.ask(instance, query) for instance in (S1, S2)]

        slots = range(FIRST, FIRST + BATCH)
        refused = 0
        async with under_way(pair) as move:
            with monkeypatch.context() as patch:
                _statements(patch, sleep)
                for number in range(1, 60, 2):
                    back = bool((await pair.owners(slots))["s2"])
                    awake.clear()
                    asleep.clear()
                    left = number
                    task = asyncio.create_task(first(move, slots, back))
                    await asleep.wait()
                    ended = task.done()
                    await hand_over(pair, move, slots, back=back)
                    before = await states()
                    awake.set()
                    (outcome,) = await asyncio.gather(task, return_exceptions=True)
                    assert await states() == before
                    refused += isinstance(outcome, Problem)
                    if ended and outcome is None:
                        break
        print(f"\n{refused} woke up too late")
        assert refused > 10

    run(check)


def test_the_target_takes_nothing_behind_a_fence_that_the_standby_lacks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fence waits for nobody; were it lost with the source, there would be two owners."""

    async def check(pair: Pair) -> None:
        slots = range(FIRST, FIRST + BATCH)
        freeze = Fault("freeze", S1B)
        raised = owners.fence

        async def behind_a_frozen_standby(*args: Any, **kw: Any) -> None:
            await pair.provider.inject(freeze)
            await raised(*args, **kw)

        async with under_way(pair) as move:
            try:
                with monkeypatch.context() as patch:
                    patch.setattr(owners, "fence", behind_a_frozen_standby)
                    with pytest.raises(Problem):
                        await pair.moves.hand_over(move, pair.map, slots, budget_seconds=0.1)
                assert (await pair.owners(slots))["s2"] == set()
            finally:
                await pair.provider.heal(freeze)
            await hand_over(pair, move, slots)
            assert await pair.owners(slots) == {"s1": set(), "s2": set(slots)}

    run(check)


def test_a_hand_over_that_the_map_does_not_have_keeps_every_row(run: Run) -> None:
    """The target has taken the slots; that the source has left them was never written."""

    async def check(pair: Pair) -> None:
        slots = range(FIRST, FIRST + BATCH)
        users = users_of(FIRST, FIRST + BATCH - 1, 20)
        await seed(pair, users)
        count = "SELECT count(*) FROM users WHERE user_id = ANY($1::bigint[])"
        async with under_way(pair) as move:
            done = await pair.moves.hand_over(move, pair.map, slots, budget_seconds=5)
            await pair.run(
                pair.primary("s1"),
                "UPDATE regionctl.slot_owner SET state = 'fencing' WHERE slot = ANY($1::int[])",
                list(slots),
            )
            with pytest.raises(OperationFailed, match=r"map says s1") as refused:
                await pair.moves.finish(move, pair.map)
            assert refused.value.extra["slots"] == list(slots)
            for shard in ("s1", "s2"):
                assert await pair.ask(pair.primary(shard), count, users) == len(users)
            found = await pair.moves.owners(move, pair.map)
            assert {slot for slot, (shard, _) in found.items() if shard == "s2"} == set(slots)
            assert {found[slot][1] for slot in slots} == {done.epoch}
            pair.map = pair.map.with_slots(slots[0], slots[-1], "s2", done.epoch)
            await check_equal(pair, move, slots)
        assert await pair.ask(pair.primary("s1"), count, users) == len(users)

    run(check)


def test_a_failover_of_the_target_before_its_comparison_is_survived(run: Run) -> None:
    """The snapshots went with the primary, and both streams: they are begun anew for others."""

    async def check(pair: Pair) -> None:
        users = users_of(FIRST, LAST, 60)
        await seed(pair, users)
        first, second, *others = batches()
        async with Writers(pair, users) as writers:
            await writers.more(50)
            async with under_way(pair) as move:
                await hand_over(pair, move, first)
                await writers.more(50)
                await pair.provider.inject(Fault("kill", S2))
                await pair.provider.promote(S2B)
                end = pair.provider.endpoint(S2B)
                shard_map = pair.map.with_primary("s2", end, home="us-east-1")
                await pair.provider.set_epoch(S2B, shard_map, "s2")
                pair.map = shard_map
                await writers.more(50)
                with pytest.raises(Refused, match="another primary"):
                    await pair.moves.compare(move, pair.map, first)
                with pytest.raises(Refused, match="another primary"):
                    await pair.moves.hand_over(
                        move, pair.map, first, budget_seconds=BUDGET, back=True
                    )
                await pair.moves.start(move, pair.map)
                await pair.ready(move)
                await check_equal(pair, move, first)
                await hand_over(pair, move, first, back=True)
                for slots in (first, second, *others):
                    await hand_over(pair, move, slots)
                    await check_equal(pair, move, slots)
                await writers.more(50)
        await writers.check()

    run(check)


def test_a_failover_of_the_source_in_the_middle_of_a_move_is_survived(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies when the target has just taken slots, and has no time to leave them."""

    async def check(pair: Pair) -> None:
        async def dies(*_: Any) -> None:
            await pair.provider.inject(Fault("kill", S1))
            raise Dead

        users = users_of(FIRST, LAST, 60)
        await seed(pair, users)
        first, second, third, *others = batches()
        async with Writers(pair, users) as writers:
            await writers.more(50)
            async with under_way(pair) as move:
                await hand_over(pair, move, first)
                await writers.more(50)
                with monkeypatch.context() as patch:
                    patch.setattr(owners, "leave", dies)
                    with pytest.raises(Dead):
                        await pair.moves.hand_over(move, pair.map, second, budget_seconds=5)
                await pair.provider.promote(S1B)
                end = pair.provider.endpoint(S1B)
                shard_map = pair.map.with_primary("s1", end, home="us-east-1")
                await pair.provider.set_epoch(S1B, shard_map, "s1")
                pair.map = shard_map
                states = (
                    "SELECT array_agg(DISTINCT state) FROM regionctl.slot_owner "
                    "WHERE slot = ANY($1)"
                )
                assert await pair.ask(S1B, states, list(second)) == ["fencing"]
                await hand_over(pair, move, second)
                assert await pair.ask(S1B, states, list(second)) == ["moved"]
                await writers.more(50)
                found = await pair.moves.progress(move, pair.map)
                assert not found.healthy
                assert "another primary" in (found.problem or "")
                with pytest.raises(Refused, match="another primary"):
                    await pair.moves.hand_over(move, pair.map, third, budget_seconds=BUDGET)
                await pair.moves.start(move, pair.map)
                await pair.ready(move)
                for slots in (third, *others):
                    await hand_over(pair, move, slots)
                    await check_equal(pair, move, slots)
                await writers.more(50)
        await writers.check()

    run(check)
