"""Tokens: made once, good for a while, known by their hash alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from control_plane import access, tokens
from control_plane.access import ANONYMOUS, ROOT, Actor, Asked
from control_plane.audit import Audit
from control_plane.store import Store
from control_plane.tokens import Tokens
from runtime.errors import Forbidden, Invalid, NotFound, Refused, Unauthorized
from tests.control_plane.toys import new_store

BY = Asked("root", "admin", "token create", reason="new colleague")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with new_store(tmp_path) as opened:
        yield opened


async def test_a_token_proves_who_it_was_made_for_until_it_expires(store: Store) -> None:
    known = Tokens(store.database, store.clock)
    made, secret = await known.create("ada", "operator", timedelta(days=30), BY)
    found = await known.find(secret)
    assert tokens.check_good(found, store.clock.now()) == Actor("ada", "operator", made.id)
    store.clock.advance(30 * 86400 - 1)  # type: ignore[attr-defined]
    assert await known.still_good(Actor("ada", "operator", made.id))
    store.clock.advance(1)  # type: ignore[attr-defined]
    assert not await known.still_good(Actor("ada", "operator", made.id))
    with pytest.raises(Unauthorized, match="expired"):
        tokens.check_good(await known.find(secret), store.clock.now())
    assert [each.state(store.clock.now()) for each in await known.list()] == ["expired"]


async def test_the_secret_is_nowhere_in_the_database(store: Store) -> None:
    known = Tokens(store.database, store.clock)
    _, secret = await known.create("ada", "viewer", None, BY)
    async with store.database.read() as connection:
        for table in ("token", "audit", "event"):
            rows = (await connection.execute(text(f"SELECT * FROM {table}"))).all()
            assert secret.split("_", 2)[2] not in str(rows)


async def test_no_text_but_the_right_one_is_a_token(store: Store) -> None:
    known = Tokens(store.database, store.clock)
    made, secret = await known.create("ada", "viewer", None, BY)
    for wrong in ("", "rct", "rct_", f"rct_{made.id}_", secret[:-1], secret + "x", f"{made.id}"):
        with pytest.raises(Unauthorized):
            await known.find(wrong)


async def test_a_name_is_used_by_one_active_token_and_is_free_again_after_it(store: Store) -> None:
    known = Tokens(store.database, store.clock)
    made, _ = await known.create("ada", "viewer", None, BY)
    with pytest.raises(Refused, match=made.id):
        await known.create("ada", "admin", None, BY)
    assert (await known.revoke(made.id, BY)).revoked_by == "root"
    again, _ = await known.create("ada", "admin", None, BY)
    assert {each.id for each in await known.list()} == {made.id, again.id}
    with pytest.raises(NotFound):
        await known.revoke("00000000", BY)
    kinds = [entry.kind for entry in await Audit(store.database).entries()]
    assert kinds == ["asked"] * 3


@pytest.mark.parametrize(
    "name", ["", "-x", "a b", "root", "sentinel", "keeper", "op-12", "a\0", "x" * 65, "é"]
)
async def test_a_name_that_would_mislead_is_refused(store: Store, name: str) -> None:
    with pytest.raises(Invalid):
        await Tokens(store.database, store.clock).create(name, "viewer", None, BY)


async def test_a_role_that_no_token_has_is_refused(store: Store) -> None:
    for role in ("system", "nobody", "root", ""):
        with pytest.raises(Invalid):
            await Tokens(store.database, store.clock).create("ada", role, None, BY)


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", "/v1/tokens", "viewer"),
        ("POST", "/v1/plans/decommission", "viewer"),
        ("POST", "/v1/operations", "operator"),
        ("POST", "/v1/tokens", "admin"),
        ("POST", "/v1/tokens/1/revoke", "admin"),
        ("POST", "/v1/tokens-of-a-new-kind", "operator"),
        ("DELETE", "/v1/anything", "operator"),
    ],
)
def test_each_request_needs_the_least_role_that_may(
    method: str, path: str, least: access.Role
) -> None:
    assert access.needed(method, path) == least
    for role in access.ROLES:
        actor = Actor("ada", role)
        if access.ROLES.index(role) < access.ROLES.index(least):
            with pytest.raises(Forbidden, match="needs the role") as refused:
                access.check(actor, least, path)
            assert refused.value.exit == 3
        else:
            access.check(actor, least, path)
    access.check(ROOT, least, path)
    assert (access.needed_for("failover"), access.needed_for("decommission")) == (
        "operator",
        "admin",
    )


@pytest.mark.parametrize("body", [None, 1, [], "x", {}, {"verb": ["x"], "args": 3, "reason": {}}])
def test_any_body_can_be_told_of(body: object) -> None:
    asked = access.asked(ANONYMOUS, "POST", "/v1/operations", body)
    assert asked == Asked("anonymous", "nobody", "POST /v1/operations")


def test_what_is_told_is_short_and_fit_for_every_database() -> None:
    body = {"verb": "failover", "args": {"target": "s\0\ud800"}, "reason": "x" * 5000}
    asked = access.asked(ROOT, "POST", "/v1/operations", body)
    assert (asked.action, asked.target) == ("failover", "s\N{REPLACEMENT CHARACTER}?")
    assert len(asked.reason) == access.KEPT_CHARACTERS
