"""The engine: claims, records, resume and abort, over a toy plan."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.operations import Claim, Operation, Superseded, conflicts, run
from control_plane.plan import Plan, Step
from control_plane.settings import Settings
from control_plane.store import Store
from control_plane.world import World
from runtime.clock import FakeClock
from runtime.errors import Invalid, OperationFailed, Refused, TimedOut
from tests.control_plane.toys import new_store, toy, toy_handlers, world_of

LOCKS = st.sets(st.sampled_from(["platform", "drill", "database:s1", "database:s2", "queue"]))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path) as opened:
        yield opened


async def create(store: Store, *names: str, locks: tuple[str, ...] = ()) -> Operation:
    return await store.create_operation(toy(*names, locks=locks), "test", None, "pytest")


async def claimed(store: Store, id: str, worker: str = "w") -> Claim:
    claim = await store.claim(id, worker)
    assert claim is not None
    return claim


@given(LOCKS, LOCKS)
def test_lock_conflicts_are_symmetric(one: set[str], other: set[str]) -> None:
    assert conflicts(one, other) == conflicts(other, one)


@given(LOCKS, LOCKS)
def test_operations_that_share_a_lock_conflict(one: set[str], other: set[str]) -> None:
    if one & other:
        assert conflicts(one, other)


@given(LOCKS, LOCKS)
def test_platform_suffers_nothing_beside_it_but_a_drill(one: set[str], other: set[str]) -> None:
    if "platform" in one and other:
        alone = other == {"drill"} and "drill" not in one
        assert conflicts(one, other) != alone


@given(LOCKS, LOCKS)
def test_without_platform_only_shared_locks_conflict(one: set[str], other: set[str]) -> None:
    if "platform" not in one | other:
        assert conflicts(one, other) == bool(one & other)


async def test_every_step_runs_once_and_in_order(store: Store) -> None:
    world: dict[str, str] = {}
    operation = await create(store, "a", "b", "c")
    claim = await claimed(store, operation.id)
    ended = await run(
        store, claim, toy_handlers(world, "a", "b", "c"), world_of(store, FakeClock())
    )
    assert ended.state == "succeeded"
    assert list(world) == ["a", "b", "c"]
    assert [step.attempts for step in ended.steps] == [1, 1, 1]
    assert ended.results == {0: {"set": "a"}, 1: {"set": "b"}, 2: {"set": "c"}}


async def test_an_empty_plan_succeeds_when_claimed(store: Store) -> None:
    operation = await create(store)
    assert await store.claim(operation.id, "w") is None
    assert (await store.operation(operation.id)).state == "succeeded"


async def test_a_superseded_worker_records_nothing(store: Store) -> None:
    operation = await create(store, "a", "b")
    old = await claimed(store, operation.id, "old")
    new = await claimed(store, operation.id, "new")
    with pytest.raises(Superseded):
        await store.record_success(old, 0, {"from": "old"})
    with pytest.raises(Superseded):
        await store.record_failure(old, 0, {"title": "late"})
    assert await store.record_success(new, 0, {"from": "new"}) == 1
    assert (await store.operation(operation.id)).steps[0].result == {"from": "new"}


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["claim", "record", "late"]), min_size=1, max_size=12))
async def test_only_the_newest_claim_ever_records(moves: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with new_store(Path(folder)) as store:
            operation = await create(store, *(f"k{number}" for number in range(12)))
            claims = [await claimed(store, operation.id)]
            done = 0
            for move in moves:
                if move == "claim":
                    claims.append(await claimed(store, operation.id))
                elif move == "record":
                    await store.record_success(claims[-1], done, claims[-1].epoch)
                    done += 1
                elif len(claims) > 1:
                    with pytest.raises(Superseded):
                        await store.record_success(claims[-2], done, "late")
            now = await store.operation(operation.id)
            assert [claim.epoch for claim in claims] == list(range(1, len(claims) + 1))
            assert sum(step.state == "succeeded" for step in now.steps) == done
            assert "late" not in now.results.values()


async def test_an_unknown_step_fails_the_operation_and_says_so(store: Store) -> None:
    operation = await create(store, "a", "b")
    claim = await claimed(store, operation.id)
    ended = await run(store, claim, toy_handlers({}, "a"), world_of(store, FakeClock()))
    assert ended.state == "failed"
    assert ended.problem is not None
    assert "no step 'set-b'" in ended.problem["detail"]
    assert ended.problem["extra"]["resume"] == f"regionctl op resume {operation.id}"


async def test_a_result_that_is_not_json_fails_the_step(store: Store) -> None:
    async def strange(_: World) -> object:
        return object()

    plan = Plan("toy", "x", (Step("strange"),))
    operation = await store.create_operation(plan, "", None, "test")
    claim = await claimed(store, operation.id)
    ended = await run(store, claim, {"strange": strange}, world_of(store, FakeClock()))
    assert ended.state == "failed"
    assert ended.problem is not None
    assert "JSON" in ended.problem["detail"]


@pytest.mark.parametrize(
    ("error", "log", "lines"),
    [
        (TimedOut("slow"), "control-plane.log", ["8", "9"]),
        (RuntimeError("odd"), "control-plane.log", ["8", "9"]),
        (OperationFailed("broken", extra={"log": "s1.log", "lines": ["x"]}), "s1.log", ["x"]),
        (Refused("no"), "", None),
    ],
)
async def test_a_failed_step_names_a_log_and_its_last_lines_unless_a_guard_refused(
    store: Store, tmp_path: Path, error: Exception, log: str, lines: list[str] | None
) -> None:
    async def fails(_: World) -> None:
        raise error

    file = Settings(tmp_path, "", 18000).log_file
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"{number}\n" for number in range(10)))
    plan = Plan("toy", "x", (Step("fails"),))
    operation = await store.create_operation(plan, "", None, "test")
    make = world_of(store, FakeClock(), state_dir=tmp_path)
    ended = await run(store, await claimed(store, operation.id), {"fails": fails}, make)
    assert ended.problem is not None
    extra = ended.problem["extra"]
    assert Path(extra.get("log", "")).name == log
    assert (extra["lines"][-2:] if lines else extra.get("lines")) == lines
    assert extra["step"] == "fails"


async def test_a_failed_operation_resumes_at_the_step_that_failed(store: Store) -> None:
    world: dict[str, str] = {}
    operation = await create(store, "a", "b", "c")
    handlers = toy_handlers(world, "a", "b", "c")
    broken = {**handlers}
    del broken["set-b"]
    make = world_of(store, FakeClock())
    await run(store, await claimed(store, operation.id), broken, make)
    await store.resume(operation.id)
    ended = await run(store, await claimed(store, operation.id), handlers, make)
    assert ended.state == "succeeded"
    assert [step.attempts for step in ended.steps] == [1, 2, 1]


async def test_an_unfinished_operation_refuses_another_with_its_lock(store: Store) -> None:
    first = await create(store, "a", locks=("database:s1",))
    with pytest.raises(Refused, match=first.id):
        await create(store, "b", locks=("database:s1", "queue"))
    await create(store, "c", locks=("database:s2",))


async def test_a_drill_runs_beside_the_recovery_that_it_provokes(store: Store) -> None:
    await create(store, "a", locks=("drill",))
    await create(store, "b", locks=("platform",))


async def test_a_failed_operation_holds_no_lock_but_takes_it_again_to_resume(store: Store) -> None:
    first = await create(store, "a", locks=("database:s1",))
    claim = await claimed(store, first.id)
    await store.record_failure(claim, 0, {"title": "broken"})
    second = await create(store, "b", locks=("database:s1",))
    with pytest.raises(Refused, match=second.id):
        await store.resume(first.id)


async def test_the_same_key_creates_one_operation(store: Store) -> None:
    plan = toy("a", locks=("platform",))
    first = await store.create_operation(plan, "why", "key-1", "me")
    again = await store.create_operation(plan, "why", "key-1", "me")
    assert again.id == first.id
    with pytest.raises(Invalid):
        await store.create_operation(toy("a", kind="other"), "why", "key-1", "me")


async def test_a_running_operation_is_aborted_when_its_step_has_ended(store: Store) -> None:
    operation = await create(store, "a", "b")
    claim = await claimed(store, operation.id)
    assert (await store.abort(operation.id, "enough")).state == "running"
    assert await store.record_success(claim, 0, None) is None
    ended = await store.operation(operation.id)
    assert ended.state == "aborted"
    assert [step.state for step in ended.steps] == ["succeeded", "pending"]


async def test_what_nobody_runs_is_aborted_at_once(store: Store) -> None:
    operation = await create(store, "a")
    assert (await store.abort(operation.id, "enough")).state == "aborted"
    assert await store.claim(operation.id, "w") is None
    with pytest.raises(Refused):
        await store.abort(operation.id, "again")
    with pytest.raises(Refused):
        await store.resume(operation.id)


async def test_every_change_is_told_as_an_event(store: Store) -> None:
    operation = await create(store, "a")
    make = world_of(store, FakeClock())
    await run(store, await claimed(store, operation.id), toy_handlers({}, "a"), make)
    events = await store.events(operation_id=operation.id)
    assert [event.kind for event in events] == [
        "operation-created",
        "operation-claimed",
        "step-started",
        "step-succeeded",
        "operation-succeeded",
    ]
    assert [event.sequence for event in events] == sorted(event.sequence for event in events)


async def test_a_promotion_is_not_resumed_after_others_have_worked_on_the_same_database(
    store: Store,
) -> None:
    plan = Plan("failover", "s1", (Step("fence"), Step("promote")), locks=("database:s1",))
    operation = await store.create_operation(plan, "", None, "test")
    await store.record_failure(await claimed(store, operation.id), 0, {"title": "broken"})
    await store.resume(operation.id)
    await store.record_failure(await claimed(store, operation.id), 0, {"title": "broken"})
    await create(store, locks=("database:s2",))
    other = await create(store, locks=("database:s1",))
    await store.claim(other.id, "w")
    with pytest.raises(Refused, match=other.id):
        await store.resume(operation.id)


@pytest.mark.parametrize(
    ("locks", "waits"),
    [
        (("database:s1",), False),  # its failover, its rejoin
        (("queue:us-east-1",), False),
        (("platform", "region-failover"), False),
        (("platform",), True),  # provision, decommission, a switchover of a region
        (("reshard",), True),
        (("drill",), False),
    ],
)
def test_moving_slots_keeps_no_failover_waiting(locks: tuple[str, ...], waits: bool) -> None:
    assert conflicts(locks, ("reshard",)) == waits
    assert conflicts(("reshard",), locks) == waits
