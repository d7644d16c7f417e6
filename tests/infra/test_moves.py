"""Slots move between two real shards while both are written to."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from infra.local.moves import LocalMoves, sides
from infra.provider import Fault
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, Problem, Refused
from runtime.shardmap import Move
from tests.infra import moving
from tests.infra.moving import FIRST, LAST, S1, S1B, S2, S2B, Pair, Writers, users_of

pytestmark = pytest.mark.process

Run = Callable[[Callable[[Pair], Coroutine[Any, Any, Any]]], Any]
BATCH = 16
BUDGET = 0.25


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with moving.pair() as runner:
        yield runner


class Dead(BaseException):
    """The control plane ended here."""


def _batches() -> Iterator[range]:
    for first in range(FIRST, LAST + 1, BATCH):
        yield range(first, first + BATCH)


async def _seed(pair: Pair, users: Sequence[int]) -> None:
    for user in users:
        await pair.run(
            pair.primary("s1"), f"{moving.INSERT_USER} ON CONFLICT DO NOTHING", user, f"{user}@x"
        )


async def _pass(pair: Pair, move: Move, slots: range, *, back: bool = False) -> float:
    """Hands over as the step does it, tried again when refused; returns the pause in seconds."""
    for left in itertools.count(5, -1):
        try:
            done = await pair.moves.hand_over(
                move, pair.map, slots, budget_seconds=BUDGET, back=back
            )
            break
        except Refused:
            if not left:
                raise
    shard = "s1" if back else "s2"
    pair.map = pair.map.with_slots(slots[0], slots[-1], shard, done.epoch)
    return done.pause_seconds


async def _equal(pair: Pair, move: Move, slots: range) -> None:
    compared = await pair.moves.compare(move, pair.map, slots)
    assert compared.equal, compared


@asynccontextmanager
async def _moving(pair: Pair) -> AsyncIterator[Move]:
    """A move that is set up, and at the end taken back and finished."""
    move = pair.begin()
    await pair.moves.start(move, pair.map)
    await pair.ready(move)
    yield move
    for slots in _batches():
        if (await pair.owners(slots))["s2"]:
            await _pass(pair, move, slots, back=True)
    await _end(pair, move)


async def _end(pair: Pair, move: Move) -> None:
    await pair.moves.finish(move, pair.map)
    pair.map = pair.map.without_move(move.id)
    for shard in ("s1", "s2"):
        left = await pair.left_behind(pair.primary(shard))
        assert set(left.values()) == {0}, left
    assert await pair.ask(pair.primary("s2"), "SELECT count(*) FROM users") == 0


def test_slots_move_there_and_back_under_writers_and_nothing_is_lost(run: Run) -> None:
    async def check(pair: Pair) -> None:
        users = users_of(FIRST, LAST, 60) + users_of(0, 100, 20)
        await _seed(pair, users)
        pauses: list[float] = []
        async with Writers(pair, users) as writers:
            await writers.more(100)
            move = pair.begin()
            await pair.moves.check(move, pair.map)
            await pair.moves.start(move, pair.map)
            await pair.ready(move)
            slots = range(FIRST, LAST + 1)
            _, compared = await pair.moves.rehearse(move, pair.map, slots, budget_seconds=BUDGET)
            assert compared.equal
            assert compared.rows > 60
            assert (await pair.owners(slots))["s1"] == set(slots)
            for back in (False, True):
                for slots in _batches():
                    pauses.append(await _pass(pair, move, slots, back=back))
                    await _equal(pair, move, slots)
                await writers.more(200)
        await writers.check()
        await _end(pair, move)
        await writers.check()
        print("\npauses in ms", sorted(round(1000 * each, 1) for each in pauses))
        print(f"{len(writers.acknowledged)} writes, {writers.retries} tries were refused")

    run(check)


def test_a_transaction_that_stays_open_keeps_its_slot_where_it_is(run: Run) -> None:
    async def check(pair: Pair) -> None:
        (user,) = users_of(FIRST, FIRST, 1)
        await _seed(pair, [user])
        slots = range(FIRST, FIRST + BATCH)
        async with _moving(pair) as move:
            writer = await pair.connect(S1, "orders")
            async with writer.transaction():
                epoch = pair.map.place(FIRST).epoch
                await writer.execute("SELECT regionctl.guard($1, $2)", FIRST, epoch)
                with pytest.raises(Refused, match="did not end"):
                    await pair.moves.hand_over(move, pair.map, slots, budget_seconds=0.1)
                assert (await pair.owners(slots))["s1"] == set(slots)
                await writer.execute(moving.INSERT_ORDER, user, 77, "77")
            await _pass(pair, move, slots)
            assert await pair.ask(S2, "SELECT count(*) FROM orders WHERE id = 77") == 1
            with pytest.raises(asyncpg.PostgresError, match="is moved"):
                await writer.execute("SELECT regionctl.guard($1, $2)", FIRST, epoch)
            writer.terminate()

    run(check)


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
        await _seed(pair, users_of(FIRST, FIRST + BATCH - 1, 20))
        async with _moving(pair) as move:
            with monkeypatch.context() as patch:
                _statements(patch, die)
                lives, back, survived = 1, False, False
                while not survived:
                    survived = await attempt(move, slots, back, lives)
                    owners = await pair.owners(slots)
                    assert not owners["s1"] & owners["s2"]
                    await _pass(pair, move, slots, back=back)
                    owners = await pair.owners(slots)
                    assert owners["s1" if back else "s2"] == set(slots)
                    assert not owners["s2" if back else "s1"]
                    lives, back = lives + 1, not back
            await _equal(pair, move, slots)
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
        async with _moving(pair) as move:
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
                    await _pass(pair, move, slots, back=back)
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


async def _stray(pair: Pair, user: int, order: int) -> None:
    """A row on the target that nobody should have written, and that no stream sends back."""
    connection = await pair.connect(S2)
    await connection.execute("SELECT pg_replication_origin_create('stray')")
    await connection.execute("SELECT pg_replication_origin_session_setup('stray')")
    await connection.execute(moving.INSERT_ORDER, user, order, "stray")
    await connection.execute("SELECT pg_replication_origin_session_reset()")
    await connection.execute("SELECT pg_replication_origin_drop('stray')")
    connection.terminate()


def test_a_conflict_stops_the_stream_and_keeps_both_sides(run: Run) -> None:
    async def check(pair: Pair) -> None:
        (user,) = users_of(FIRST, FIRST, 1)
        await _seed(pair, [user])
        async with _moving(pair) as move:
            await _stray(pair, user, 4711)
            await pair.run(S1, moving.INSERT_ORDER, user, 4711, "good")

            async def stopped() -> bool:
                return not (await pair.moves.progress(move, pair.map)).healthy

            await wait_until(SystemClock(), stopped, what="the conflict", seconds=10)
            problem = (await pair.moves.progress(move, pair.map)).problem
            assert problem is not None
            assert problem.startswith("conflict")
            key = "SELECT idempotency_key FROM orders WHERE id = 4711"
            assert (await pair.ask(S1, key), await pair.ask(S2, key)) == ("good", "stray")
            slots = range(FIRST, FIRST + BATCH)
            with pytest.raises(Refused, match="conflict"):
                await pair.moves.hand_over(move, pair.map, slots, budget_seconds=BUDGET)
            await pair.moves.start(move, pair.map)
            await pair.ready(move)
            await _pass(pair, move, slots)
            assert await pair.ask(S2, key) == "good"

    run(check)


def test_a_held_stream_is_well_and_hands_nothing_over(run: Run) -> None:
    async def check(pair: Pair) -> None:
        slots = range(FIRST, FIRST + BATCH)
        async with _moving(pair) as move:
            await pair.moves.hold(move, pair.map, on=True)
            found = await pair.moves.progress(move, pair.map)
            assert (found.healthy, found.ready) == (True, False)
            with pytest.raises(Refused, match="held"):
                await pair.moves.hand_over(move, pair.map, slots, budget_seconds=BUDGET)
            await pair.moves.hold(move, pair.map, on=False)
            await _pass(pair, move, slots)

    run(check)


def test_a_move_is_not_begun_where_it_could_not_end(run: Run) -> None:
    async def check(pair: Pair) -> None:
        move = pair.begin()
        sizes = await pair.moves.sizes(pair.map)
        assert sizes["s1"]
        assert sizes["s2"] == {}
        await pair.moves.check(move, pair.map)

        (user,) = users_of(FIRST, FIRST, 1)
        await pair.run(S2, moving.INSERT_USER, user, "stray@x")
        with pytest.raises(Refused, match="does not own"):
            await pair.moves.check(move, pair.map)
        await pair.run(S2, "DELETE FROM users")

        writer = await pair.connect(S1)
        async with writer.transaction():
            await writer.execute("UPDATE users SET version = version WHERE user_id = $1", user)

            async def refused() -> bool:
                try:
                    await pair.moves.check(move, pair.map)
                except Refused as error:
                    return "has been open" in error.detail
                return False

            await wait_until(SystemClock(), refused, what="it to be old", seconds=5)
        writer.terminate()

        await pair.run(S2, "ALTER TABLE sessions ADD COLUMN extra int")
        with pytest.raises(Refused, match="sessions"):
            await pair.moves.check(move, pair.map)
        await pair.run(S2, "ALTER TABLE sessions DROP COLUMN extra")

        pair.map = pair.map.with_sync("s2", ())
        with pytest.raises(Refused, match="standby"):
            await pair.moves.check(move, pair.map)
        pair.map = pair.map.with_sync("s2", (S2B,)).without_move(move.id)

    run(check)


def test_rows_that_are_owned_are_never_removed(run: Run) -> None:
    async def check(pair: Pair) -> None:
        from infra.local.moves import cleanup, owners

        async with (
            _moving(pair) as move,
            sides.opened(pair.provider.monitor, move, pair.map) as both,
        ):
            claim = await owners.claim(both)
            with pytest.raises(OperationFailed, match="owns slot"):
                await cleanup.remove(pair.provider.monitor, claim, both.source, [FIRST])

    run(check)


def test_a_failover_of_the_source_in_the_middle_of_a_move_is_survived(run: Run) -> None:
    async def check(pair: Pair) -> None:
        users = users_of(FIRST, LAST, 60)
        await _seed(pair, users)
        first, second, *others = _batches()
        async with Writers(pair, users) as writers:
            await writers.more(50)
            async with _moving(pair) as move:
                await _pass(pair, move, first)
                await writers.more(50)
                await pair.provider.inject(Fault("kill", S1))
                await pair.provider.promote(S1B)
                end = pair.provider.endpoint(S1B)
                shard_map = pair.map.with_primary("s1", end, home="us-east-1")
                await pair.provider.set_epoch(S1B, shard_map, "s1")
                pair.map = shard_map
                await writers.more(50)
                found = await pair.moves.progress(move, pair.map)
                assert not found.healthy
                assert "another primary" in (found.problem or "")
                with pytest.raises(Refused, match="another primary"):
                    await pair.moves.hand_over(move, pair.map, second, budget_seconds=BUDGET)
                await pair.moves.start(move, pair.map)
                await pair.ready(move)
                for slots in (second, *others):
                    await _pass(pair, move, slots)
                    await _equal(pair, move, slots)
                await writers.more(50)
        await writers.check()

    run(check)
