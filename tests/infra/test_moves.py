"""Slots move between two real shards while both are written to."""

from __future__ import annotations

import asyncpg
import pytest

from infra.local.moves import sides
from runtime.clock import SystemClock, wait_until
from runtime.errors import OperationFailed, Refused, Unavailable
from tests.infra import moving
from tests.infra.moving import (
    BATCH,
    BUDGET,
    FIRST,
    LAST,
    S1,
    S2,
    S2B,
    Pair,
    Run,
    Writers,
    batches,
    check_equal,
    end_move,
    hand_over,
    seed,
    under_way,
    users_of,
)

pytestmark = pytest.mark.process


def test_slots_move_there_and_back_under_writers_and_nothing_is_lost(run: Run) -> None:
    async def check(pair: Pair) -> None:
        users = users_of(FIRST, LAST, 60) + users_of(0, 100, 20)
        await seed(pair, users)
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
                for slots in batches():
                    pauses.append(await hand_over(pair, move, slots, back=back))
                    await check_equal(pair, move, slots)
                await writers.more(200)
        await writers.check()
        await end_move(pair, move)
        await writers.check()
        print("\npauses in ms", sorted(round(1000 * each, 1) for each in pauses))
        print(f"{len(writers.acknowledged)} writes, {writers.retries} tries were refused")

    run(check)


def test_a_transaction_that_stays_open_keeps_its_slot_where_it_is(run: Run) -> None:
    async def check(pair: Pair) -> None:
        (user,) = users_of(FIRST, FIRST, 1)
        await seed(pair, [user])
        slots = range(FIRST, FIRST + BATCH)
        async with under_way(pair) as move:
            writer = await pair.connect(S1, "orders")
            async with writer.transaction():
                epoch = pair.map.place(FIRST).epoch
                await writer.execute("SELECT regionctl.guard($1, $2)", FIRST, epoch)
                with pytest.raises(Refused, match="did not end"):
                    await pair.moves.hand_over(move, pair.map, slots, budget_seconds=0.1)
                assert (await pair.owners(slots))["s1"] == set(slots)
                await writer.execute(moving.INSERT_ORDER, user, 77, "77")
            await hand_over(pair, move, slots)
            assert await pair.ask(S2, "SELECT count(*) FROM orders WHERE id = 77") == 1
            with pytest.raises(asyncpg.PostgresError, match="is moved"):
                await writer.execute("SELECT regionctl.guard($1, $2)", FIRST, epoch)
            writer.terminate()

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
        await seed(pair, [user])
        async with under_way(pair) as move:
            await _stray(pair, user, 4711)
            await pair.run(S1, moving.INSERT_ORDER, user, 4711, "good")

            async def stopped() -> bool:
                return not (await pair.moves.progress(move, pair.map)).healthy

            await wait_until(SystemClock(), stopped, what="the conflict", seconds=30)
            found = await pair.moves.progress(move, pair.map)
            assert found.conflict
            assert found.problem is not None
            assert found.problem.startswith("conflict")
            key = "SELECT idempotency_key FROM orders WHERE id = 4711"
            assert (await pair.ask(S1, key), await pair.ask(S2, key)) == ("good", "stray")
            slots = range(FIRST, FIRST + BATCH)
            with pytest.raises(Refused, match="conflict"):
                await pair.moves.hand_over(move, pair.map, slots, budget_seconds=BUDGET)
            await pair.moves.start(move, pair.map)
            await pair.ready(move)
            await hand_over(pair, move, slots)
            assert await pair.ask(S2, key) == "good"

    run(check)


def test_a_held_stream_is_well_and_hands_nothing_over(run: Run) -> None:
    async def check(pair: Pair) -> None:
        slots = range(FIRST, FIRST + BATCH)
        async with under_way(pair) as move:
            await pair.moves.hold(move, pair.map, on=True)
            found = await pair.moves.progress(move, pair.map)
            assert (found.healthy, found.ready) == (True, False)
            with pytest.raises(Refused, match="held"):
                await pair.moves.hand_over(move, pair.map, slots, budget_seconds=BUDGET)
            await pair.moves.hold(move, pair.map, on=False)
            await hand_over(pair, move, slots)

    run(check)


def test_a_move_is_not_begun_where_it_could_not_end(run: Run) -> None:
    async def check(pair: Pair) -> None:
        await seed(pair, users_of(FIRST, FIRST, 3))
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

            await wait_until(SystemClock(), refused, what="it to be old", seconds=30)
        writer.terminate()

        await pair.run(S2, "ALTER TABLE sessions ADD COLUMN extra int")
        with pytest.raises(Refused, match="sessions"):
            await pair.moves.check(move, pair.map)
        await pair.run(S2, "ALTER TABLE sessions DROP COLUMN extra")

        pair.map = pair.map.with_sync("s2", ())
        with pytest.raises(Unavailable, match="standby"):
            await pair.moves.check(move, pair.map)
        pair.map = pair.map.with_sync("s2", (S2B,)).without_move(move.id)

    run(check)


def test_nothing_is_handed_over_while_tables_have_other_columns(run: Run) -> None:
    async def check(pair: Pair) -> None:
        slots = range(FIRST, FIRST + BATCH)
        async with under_way(pair) as move:
            await pair.run(S2, "ALTER TABLE sessions ADD COLUMN extra int")
            for verb in (pair.moves.rehearse, pair.moves.hand_over):
                with pytest.raises(Refused, match="sessions") as refused:
                    await verb(move, pair.map, slots, budget_seconds=BUDGET)
                assert "regionctl up" in (refused.value.hint or "")
            with pytest.raises(Refused, match="sessions"):
                await pair.moves.start(move, pair.map)
            await pair.run(S2, "ALTER TABLE sessions DROP COLUMN extra")
            await hand_over(pair, move, slots)

    run(check)


def test_rows_that_are_owned_are_never_removed(run: Run) -> None:
    async def check(pair: Pair) -> None:
        from infra.local.moves import cleanup, owners

        async with (
            under_way(pair) as move,
            sides.opened(pair.provider.monitor, move, pair.map) as both,
        ):
            claim = await owners.claim(both)
            with pytest.raises(OperationFailed, match="owns slot"):
                await cleanup.remove(pair.provider.monitor, claim, both.source, [FIRST])

    run(check)
