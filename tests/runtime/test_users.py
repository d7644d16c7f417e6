"""Users: registered once however they race, read and changed by whom they concern."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runtime import checks
from tests.runtime.conftest import Platform
from tests.runtime.customers import PASSWORD, log_in, new_user, register, with_key
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process

EMAIL = "ada@example.org"
NEW = "another correct horse"


@pytest.fixture
async def users(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with platform.service("users") as client:
        yield client


async def test_of_many_who_register_one_address_at_once_one_gets_it(
    platform: Platform, users: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    spellings = [EMAIL, "ADA@example.org", "Ada@Example.Org"]
    answers = await asyncio.gather(
        *[
            users.post("/api/v1/users", json=new_user(email), headers=with_key(f"k{n}"))
            for n, email in enumerate(spellings)
        ]
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert await shard_db.fetchval("SELECT count(*) FROM users") == 1


async def test_a_registration_is_repeated_under_its_key_with_the_same_password_only(
    users: httpx.AsyncClient, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    first, again = await asyncio.gather(
        *[users.post("/api/v1/users", json=new_user(), headers=with_key("same")) for _ in range(2)]
    )
    assert (first.status_code, first.json()) == (201, again.json())
    assert {"idempotent-replay" in each.headers for each in (first, again)} == {True, False}
    other = new_user() | {"password": NEW}
    assert (
        await users.post("/api/v1/users", json=other, headers=with_key("same"))
    ).status_code == 422
    stored = await shard_db.fetchval("SELECT password_hash FROM users")
    assert stored.startswith("$argon2id$")
    assert await catalog_db.fetchval("SELECT count(*) FROM audit_log") >= 1


async def test_a_key_that_two_crashes_left_at_two_addresses_is_no_fault_of_the_service(
    users: httpx.AsyncClient, shard_db: checks.Database, catalog_db: checks.Database
) -> None:
    """The first crash left a reservation, the second a user of another key, which goes on."""
    answer = await users.post("/api/v1/users", json=new_user(), headers=with_key("second"))
    assert answer.status_code == 201
    await catalog_db.execute("UPDATE emails SET state = 'reserved', idempotency_key = 'first'")
    other = new_user("eve@example.org")
    assert (
        await users.post("/api/v1/users", json=other, headers=with_key("second"))
    ).status_code == 201
    for key, status in (("first", 409), ("second", 422), ("third", 409)):
        answer = await users.post("/api/v1/users", json=new_user(), headers=with_key(key))
        assert answer.status_code == status, (key, answer.text)
    states = await catalog_db.fetch("SELECT DISTINCT state FROM emails")
    assert [row[0] for row in states] == ["confirmed"]


async def test_who_knows_the_key_of_a_registration_cannot_try_many_passwords(
    users: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    made = await users.post("/api/v1/users", json=new_user(), headers=with_key("known"))
    assert made.status_code == 201
    await shard_db.execute("UPDATE users SET created_at = created_at - interval '2 minutes'")
    statuses = []
    for n in range(6):
        guess = new_user() | {"password": f"guess number {n}"}
        answer = await users.post("/api/v1/users", json=guess, headers=with_key("known"))
        statuses.append(answer.status_code)
    assert statuses == [422] * 5 + [429]
    again = await users.post("/api/v1/users", json=new_user(), headers=with_key("known"))
    assert again.status_code == 429


@pytest.mark.parametrize(
    "change",
    [
        {"password": "short"},
        {"password": "x" * 129},
        {"password": "Ada@example.org "},
        {"password": None},
        {"email": "a b@c"},
        {"email": "a@ü..x"},
        {"name": ""},
        {"role": "admin"},
    ],
)
async def test_a_bad_registration_is_refused_and_its_password_not_repeated(
    users: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    answer = await users.post("/api/v1/users", json=new_user() | change)
    assert answer.status_code == 422
    assert "xxxxxxxxxx" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_refusal_is_short_and_names_no_host_that_the_client_made_up(
    users: httpx.AsyncClient,
) -> None:
    named = await users.post("/api/v1/users", json=new_user() | {"x" * 50_000: ""})
    assert named.status_code == 422
    assert len(named.content) < 2000
    many = dict.fromkeys(map(str, range(100_000)), 0)
    assert (await users.post("/api/v1/users", json=many)).status_code == 413
    elsewhere = await users.get("/api/v1/users/", headers={"Host": "elsewhere.example"})
    assert elsewhere.status_code == 404
    assert "elsewhere" not in str(elsewhere.headers)


async def test_an_address_in_any_script_is_registered_and_logs_in(
    platform: Platform, users: httpx.AsyncClient
) -> None:
    made = await users.post("/api/v1/users", json=new_user("Jörg@Bücher.example"))
    assert made.json()["email"] == "jörg@xn--bcher-kva.example"
    async with platform.service("auth") as auth:
        assert (await log_in(auth, "JÖRG@xn--bcher-kva.example")).status_code == 200


async def test_a_profile_is_read_by_its_user_admins_and_services_and_hidden_from_others(
    platform: Platform, users: httpx.AsyncClient
) -> None:
    id = await register(platform)
    path = f"/api/v1/users/{id}"
    assert (await users.get(path)).status_code == 401
    own = await users.get(path, headers=await bearer(platform, user_id=id))
    assert own.json()["email"] == EMAIL
    assert set(own.json()) == {"id", "email", "name", "role", "created_at"}
    for role in ("admin", "service"):
        answer = await users.get(path, headers=await bearer(platform, role=role))
        assert answer.json() == own.json()
    stranger = await bearer(platform, user_id=int(id) ^ 1)
    for method, body in (("GET", None), ("PATCH", {"name": "Eve"})):
        hidden = await users.request(method, path, headers=stranger, json=body)
        assert hidden.status_code == 404
    admin = await bearer(platform, role="admin")
    absent = await users.get(f"/api/v1/users/{int(id) ^ 1}", headers=admin)
    assert absent.status_code == 404


async def test_a_profile_is_cached_validated_by_tag_and_never_old(
    platform: Platform, users: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    id = await register(platform)
    path, token = f"/api/v1/users/{id}", await bearer(platform, user_id=id)
    first = await users.get(path, headers=token)
    assert first.headers["cache-control"] == "private, no-cache"
    # Behind everybody's back: only the cache still has the old name.
    await shard_db.execute("UPDATE users SET name = 'Hidden'")
    assert (await users.get(path, headers=token)).json() == first.json()
    fresh = await users.get(path, headers=token | {"Cache-Control": "no-cache"})
    assert fresh.json()["name"] == "Hidden"
    tag = {"If-None-Match": first.headers["etag"]}
    same = await users.get(path, headers=token | tag)
    assert (same.status_code, same.content) == (304, b"")
    changed = await users.patch(path, headers=token, json={"name": "Ada L."})
    assert changed.json()["name"] == "Ada L."
    after = await users.get(path, headers=token | tag)
    assert (after.status_code, after.json()) == (200, changed.json())


async def test_a_new_password_needs_the_old_one_and_ends_the_other_sessions(
    platform: Platform, users: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    id = await register(platform)
    path = f"/api/v1/users/{id}"
    async with platform.service("auth") as auth:
        mine = (await log_in(auth)).json()
        other = (await log_in(auth)).json()
        token = {"Authorization": f"Bearer {mine['access_token']}"}
        alone = await users.patch(path, headers=token, json={"password": NEW})
        assert alone.status_code == 422
        wrong = {"password": NEW, "current_password": "not the password"}
        assert (await users.patch(path, headers=token, json=wrong)).status_code == 403
        right = {"password": NEW, "current_password": PASSWORD}
        # Sent twice: whoever did not get the answer may ask again.
        for _ in range(2):
            done = await users.patch(path, headers=token, json=right)
            assert done.status_code == 200, done.text
        assert (await log_in(auth, EMAIL, PASSWORD)).status_code == 400
        assert (await log_in(auth, EMAIL, NEW)).status_code == 200
        statuses = []
        for login in (other, mine):
            form = {"grant_type": "refresh_token", "refresh_token": login["refresh_token"]}
            statuses.append((await auth.post("/oauth/token", data=form)).status_code)
        assert statuses == [400, 200]
    rows = await catalog_db.fetch(
        "SELECT outcome, detail FROM audit_log WHERE action = 'user.password' ORDER BY id"
    )
    assert [row["outcome"] for row in rows] == ["denied", "allowed", "allowed"]
    assert "horse" not in str(rows)
    assert await catalog_db.fetchval("SELECT count(*) FROM revocations") == 1


async def test_guessing_the_current_password_is_slowed_down(
    platform: Platform, users: httpx.AsyncClient
) -> None:
    id = await register(platform)
    token = await bearer(platform, user_id=id)
    wrong = {"password": NEW, "current_password": "not the password"}
    answers = await asyncio.gather(
        *[users.patch(f"/api/v1/users/{id}", headers=token, json=wrong) for _ in range(6)]
    )
    assert sorted(answer.status_code for answer in answers) == [403] * 5 + [429]


async def test_only_an_admin_changes_a_role_which_counts_from_the_next_login(
    platform: Platform, users: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    id = await register(platform)
    path = f"/api/v1/users/{id}"
    wish = {"role": "admin"}
    for token in (
        await bearer(platform, user_id=id),
        await bearer(platform, role="service", client="probe"),
    ):
        assert (await users.patch(path, headers=token, json=wish)).status_code == 403
    admin = await bearer(platform, role="admin", client="operator")
    assert (await users.patch(path, headers=admin, json={})).status_code == 422
    for bad in ({"role": "service"}, {"role": "root"}, {"email": "x@y"}):
        assert (await users.patch(path, headers=admin, json=bad)).status_code == 422
    async with platform.service("auth") as auth:
        before = (await log_in(auth)).json()
        assert (await users.patch(path, headers=admin, json=wish)).json()["role"] == "admin"
        form = {"grant_type": "refresh_token", "refresh_token": before["refresh_token"]}
        assert (await auth.post("/oauth/token", data=form)).status_code == 400
        token = {"Authorization": f"Bearer {(await log_in(auth)).json()['access_token']}"}
    assert (await users.get("/api/v1/users", headers=token)).status_code == 200
    rows = await catalog_db.fetch(
        "SELECT outcome, actor, detail::text FROM audit_log WHERE action = 'user.role' ORDER BY id"
    )
    assert [tuple(row)[:2] for row in rows] == [
        ("denied", f"user:{id}"),
        ("denied", "client:probe"),
        ("allowed", "client:operator"),
    ]
    assert '"before": "user"' in rows[-1]["detail"]


async def test_users_are_listed_page_by_page_for_admins_and_services_only(
    platform: Platform, users: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    await shard_db.execute(
        "INSERT INTO users (user_id, email, name, idempotency_key, request_hash, created_at) "
        "SELECT n, n || '@x.org', 'N', n, '', now() FROM generate_series(1, 5) n"
    )
    plain = await bearer(platform, user_id=1)
    assert (await users.get("/api/v1/users", headers=plain)).status_code == 403
    assert (await users.get("/api/v1/users")).status_code == 401
    token = await bearer(platform, role="service", client="probe")
    seen: list[str] = []
    asked: dict[str, str] = {"limit": "2"}
    while True:
        page = (await users.get("/api/v1/users", params=asked, headers=token)).json()
        seen += [user["id"] for user in page["users"]]
        if page["next"] is None:
            break
        asked["cursor"] = page["next"]
    assert seen == ["1", "2", "3", "4", "5"]
