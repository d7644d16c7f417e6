"""The audit log: nothing is missing, nothing can be changed, and a forgery is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from control_plane import audit
from control_plane import chain as chains
from control_plane.access import Asked
from control_plane.audit import Audit
from control_plane.chain import FIRST, Entry
from control_plane.decisions import Intent
from control_plane.opening import Opener
from control_plane.operations import Operation, run
from control_plane.store import Store
from runtime.errors import Refused
from tests.control_plane.platform import Platform
from tests.control_plane.toys import new_store, toy, toy_handlers, world_of

WHO = Asked("ada", "operator", "reshard pause", reason="lunch")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path) as opened:
        yield opened


def chain(length: int) -> list[Entry]:
    """Entries as `append` makes them."""
    entries: list[Entry] = []
    for number in range(1, length + 1):
        entry = Entry(
            sequence=number,
            at="2026-01-01T00:00:00+00:00",
            kind="asked",
            actor="ada",
            role="operator",
            action="failover",
            target=f"s{number}",
            reason="",
            operation=None,
            plan=None,
            steps=("fence", "promote"),
            outcome=None,
            previous=entries[-1].hash if entries else FIRST,
            hash="",
        )
        entries.append(replace(entry, hash=chains.seal(entry.to_json())))
    return entries


def test_a_chain_that_nobody_touched_is_whole() -> None:
    assert chains.first_broken(chain(5)) is None
    assert chains.first_broken([]) is None


@given(number=st.integers(0, 4), field=st.sampled_from(["actor", "reason", "at", "outcome"]))
def test_a_changed_entry_is_named_even_when_its_own_hash_was_made_anew(
    number: int, field: str
) -> None:
    entries = chain(6)
    forged = replace(entries[number], **{field: "somebody else"})
    broken = chains.first_broken([*entries[:number], forged, *entries[number + 1 :]])
    assert broken is not None
    assert broken.sequence == number + 1
    forged = replace(forged, hash=chains.seal(forged.to_json()))
    broken = chains.first_broken([*entries[:number], forged, *entries[number + 1 :]])
    assert broken is not None
    assert broken.sequence == number + 2


@given(number=st.integers(0, 4))
def test_a_removed_or_repeated_entry_is_named(number: int) -> None:
    entries = chain(6)
    gone = chains.first_broken([*entries[:number], *entries[number + 1 :]])
    twice = chains.first_broken([*entries[: number + 1], *entries[number:]])
    assert gone is not None
    assert twice is not None
    assert (gone.sequence, twice.sequence) == (number + 1, number + 2)


async def test_an_operation_is_told_of_from_the_wish_to_the_end(store: Store) -> None:
    plan = toy("a", "b")
    operation = await store.create_operation(plan, "INC-1", None, "ada", role="operator")
    claim = await store.claim(operation.id, "w")
    assert claim
    handlers = toy_handlers({}, "a")
    await run(store, claim, handlers, world_of(store, store.clock))
    by = Asked("bob", "admin", "operation resume", operation.id)
    await store.resume(operation.id, by)
    claim = await store.claim(operation.id, "w")
    assert claim
    await run(store, claim, toy_handlers({}, "a", "b"), world_of(store, store.clock))
    entries = await Audit(store.database).entries(operation=operation.id)
    asked, failed, resumed, ended = entries
    assert (asked.kind, asked.actor, asked.role, asked.reason) == (
        *("asked", "ada", "operator", "INC-1"),
    )
    assert (asked.action, asked.plan, asked.steps) == ("toy", plan.digest(), ("set-a", "set-b"))
    assert (failed.kind, failed.actor) == ("ended", "ada")
    assert (failed.outcome or "").startswith("failed: This version of regionctl has no step")
    assert (resumed.kind, resumed.actor, resumed.action) == ("asked", "bob", "operation resume")
    assert (ended.kind, ended.actor, ended.outcome) == ("ended", "ada", "succeeded")


async def test_what_is_refused_leaves_no_wish_behind(store: Store) -> None:
    first = await store.create_operation(toy("a", locks=("x",)), "", None, "ada")
    with pytest.raises(Refused):
        await store.create_operation(toy("b", locks=("x",)), "", None, "bob")
    entries = await Audit(store.database).entries()
    assert [(entry.actor, entry.operation) for entry in entries] == [("ada", first.id)]


async def test_another_generation_than_the_expected_is_refused(store: Store) -> None:
    seen = await store.generation()
    both = [
        store.create_operation(toy("a"), "", None, name, generation=seen) for name in ("ada", "bob")
    ]
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert [type(each) for each in ended] == [Operation, Refused]
    with pytest.raises(Refused, match="generation"):
        await store.create_operation(toy("b"), "", None, "bob", generation=seen)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE sequence = 1",
    ],
)
async def test_the_database_refuses_to_change_an_entry(store: Store, statement: str) -> None:
    for _ in range(2):
        await store.refuse(WHO, "no")
    with pytest.raises(SQLAlchemyError, match="append-only"):
        async with store.database.write() as connection:
            await connection.execute(text(statement))
    verdict = await Audit(store.database).verify()
    assert (verdict.entries, verdict.broken) == (2, None)


async def test_a_forgery_behind_the_trigger_is_found_and_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)
    for _ in range(8):
        await store.refuse(WHO, "no")
    log = Audit(store.database)
    whole = await log.verify()
    assert (whole.entries, whole.broken) == (8, None)
    async with store.database.write() as connection:
        await connection.execute(text("DROP TRIGGER audit_update"))
        await connection.execute(text("UPDATE audit SET reason = 'none' WHERE sequence = 5"))
    verdict = await log.verify()
    assert verdict.broken is not None
    assert verdict.broken.sequence == 5
    assert verdict.head == (await log.entries())[3].hash


async def test_the_sentinel_is_an_actor_and_its_refusal_is_told_once(platform: Platform) -> None:
    store = platform.store
    opener = Opener("sentinel", platform.provider, store)
    intent = Intent("switchover", "s1", {"target": "s1"}, "it is slow")
    observed, shard_map = await platform.provider.observe(), await platform.map()
    assert await opener.open(intent, observed, shard_map)
    for _ in range(3):
        assert not await opener.open(intent, observed, shard_map)
    asked, refused = await Audit(store.database).entries(actor="sentinel")
    assert (asked.kind, asked.role, asked.reason) == ("asked", "system", "it is slow")
    assert (refused.kind, refused.action, refused.target) == ("refused", "switchover", "s1")
    assert "holds" in (refused.outcome or "")
