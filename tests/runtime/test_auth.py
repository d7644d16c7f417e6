"""Tokens: got, renewed, stolen, ended; and what is written down about it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from joserfc.jws import extract_compact

from runtime import checks
from runtime.clock import SystemClock, wait_until
from runtime.shardmap import Endpoint
from tests.runtime.conftest import TOKEN_KEY, Platform
from tests.runtime.customers import PASSWORD, log_in, register
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process

EMAIL = "ada@example.org"


@pytest.fixture
async def auth(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with platform.service("auth") as client:
        yield client


async def ask(
    auth: httpx.AsyncClient, headers: dict[str, str] | None = None, **fields: str
) -> httpx.Response:
    return await auth.post("/oauth/token", data=fields, headers=headers)


async def renew(auth: httpx.AsyncClient, token: str, key: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else None
    return await ask(auth, headers, grant_type="refresh_token", refresh_token=token)


async def add_client(catalog_db: checks.Database, id: str, role: str, secret: str) -> None:
    await catalog_db.execute(
        "INSERT INTO oauth_clients (id, secret_hash, role) VALUES ($1, $2, $3)",
        id, hashlib.sha256(secret.encode()).digest(), role,
    )  # fmt: skip


async def audited(catalog_db: checks.Database) -> list[tuple[str, str]]:
    rows = await catalog_db.fetch("SELECT action, outcome FROM audit_log ORDER BY id")
    return [(row[0], row[1]) for row in rows]


async def test_a_login_gives_tokens_that_every_service_believes(
    platform: Platform, auth: httpx.AsyncClient
) -> None:
    user = await register(platform, EMAIL)
    answer = await log_in(auth, "  ADA@Example.org ")
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()
    assert (token["token_type"], token["expires_in"], token["user_id"]) == ("Bearer", 600, user)
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    async with platform.service("users") as users:
        assert (await users.get(f"/api/v1/users/{user}", headers=headers)).status_code == 200
    keys = (await auth.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["crv"] for key in keys] == ["P-256"]
    assert not {"d"} & set(keys[0])
    metadata = (await auth.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["token_endpoint"].endswith("/oauth/token")


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(
    platform: Platform, auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await register(platform, EMAIL)
    answers = [
        await log_in(auth, EMAIL, "not the password"),
        await log_in(auth, "nobody@example.org", PASSWORD),
        await log_in(auth, "no address", PASSWORD),
    ]
    for answer in answers:
        assert answer.status_code == 400
        document = answer.json()
        assert document["error"] == "invalid_grant"
        assert document["error_description"] == answers[0].json()["error_description"]
    text = str(await catalog_db.fetch("SELECT * FROM audit_log"))
    assert (await audited(catalog_db)).count(("login", "denied")) == 3
    assert PASSWORD not in text
    assert "not the password" not in text


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "invalid_request"),
        (b"grant_type=password", "invalid_request"),
        (b"grant_type=password&username=a&username=b&password=c", "invalid_request"),
        (b"grant_type=password&username=a%00&password=c", "invalid_request"),
        (b"grant_type=password&username=%ff&password=c", "invalid_request"),
        (b"\xff", "invalid_request"),
        (b"&".join(b"f%d=1" % n for n in range(50)), "invalid_request"),
        (b"grant_type=implicit", "unsupported_grant_type"),
        (b"grant_type=refresh_token&refresh_token=x", "invalid_grant"),
        (b"grant_type=refresh_token&refresh_token=%C3%A9", "invalid_grant"),
        (b"grant_type=password&username=a&password=b&scope=all", "invalid_scope"),
        (b"grant_type=client_credentials", "invalid_client"),
        (b"grant_type=client_credentials&client_id=x&client_secret=y", "invalid_client"),
        (b"grant_type=client_credentials&client_id=%C3%A9&client_secret=y", "invalid_client"),
    ],
)
async def test_a_malformed_token_request_is_refused_in_the_words_of_the_standard(
    auth: httpx.AsyncClient, body: bytes, error: str
) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = await auth.post("/oauth/token", content=body, headers=kind)
    assert answer.json()["error"] == error
    assert answer.status_code == (401 if error == "invalid_client" else 400)
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)


async def test_a_client_proves_itself_by_header_or_by_body(
    auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await add_client(catalog_db, "probe", "service", "s3cret")
    by_body = await ask(
        auth, grant_type="client_credentials", client_id="probe", client_secret="s3cret"
    )
    basic = {"Authorization": "Basic " + base64.b64encode(b"probe:s3cret").decode()}
    by_header = await ask(auth, basic, grant_type="client_credentials")
    for answer in (by_body, by_header):
        assert answer.status_code == 200, answer.text
        assert "refresh_token" not in answer.json()
    twice = await ask(
        auth, basic, grant_type="client_credentials", client_id="probe", client_secret="s3cret"
    )
    assert twice.json()["error"] == "invalid_request"
    pretending = await ask(
        auth, grant_type="password", username=EMAIL, password=PASSWORD, client_id="probe"
    )
    assert pretending.json()["error"] == "invalid_client"
    wrong = {"Authorization": "Basic " + base64.b64encode(b"probe:wrong").decode()}
    assert (await ask(auth, wrong, grant_type="client_credentials")).status_code == 401
    assert (await audited(catalog_db)).count(("client.grant", "denied")) == 2


async def test_a_refresh_token_is_good_once_and_its_second_use_ends_the_session(
    platform: Platform, auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    user = await register(platform, EMAIL)
    first = (await log_in(auth, EMAIL)).json()
    second = (await renew(auth, first["refresh_token"])).json()
    third = (await renew(auth, second["refresh_token"])).json()
    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    # The first token is two rotations old: even then its return is noticed.
    stolen = await renew(auth, first["refresh_token"])
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert (await renew(auth, third["refresh_token"])).status_code == 400
    assert ("session.reuse", "denied") in await audited(catalog_db)
    headers = {"Authorization": f"Bearer {third['access_token']}"}
    async with platform.service("users") as users:

        async def refused() -> bool:
            answer = await users.get(f"/api/v1/users/{user}", headers=headers)
            return answer.status_code == 401

        await wait_until(SystemClock(), refused, what="the revocation", seconds=30)


async def test_a_renewal_whose_answer_was_lost_is_repeated_under_its_key(
    platform: Platform, auth: httpx.AsyncClient
) -> None:
    await register(platform, EMAIL)
    first = (await log_in(auth, EMAIL)).json()["refresh_token"]
    lost = (await renew(auth, first, "one")).json()["refresh_token"]
    again = await renew(auth, first, "one")
    assert again.status_code == 200
    assert (await renew(auth, again.json()["refresh_token"], "two")).status_code == 200
    assert (await renew(auth, lost, "three")).status_code == 400


async def test_of_two_renewals_at_once_one_is_theft(
    platform: Platform, auth: httpx.AsyncClient
) -> None:
    await register(platform, EMAIL)
    token = (await log_in(auth, EMAIL)).json()["refresh_token"]
    answers = await asyncio.gather(*[renew(auth, token) for _ in range(4)])
    assert sorted(answer.status_code for answer in answers) == [200, 400, 400, 400]


async def test_a_revoked_session_cannot_be_renewed_and_revoking_says_nothing_of_garbage(
    platform: Platform, auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await register(platform, EMAIL)
    for kind in ("refresh_token", "access_token"):
        login = (await log_in(auth, EMAIL)).json()
        for _ in range(2):
            revoked = await auth.post("/oauth/revoke", data={"token": login[kind]})
            assert revoked.status_code == 200
        assert (await renew(auth, login["refresh_token"])).status_code == 400
    assert (await auth.post("/oauth/revoke", data={"token": "garbage"})).status_code == 200
    assert (await auth.post("/oauth/revoke", data={})).json()["error"] == "invalid_request"
    assert ("session.revoke", "allowed") in await audited(catalog_db)


async def test_one_first_key_is_made_however_many_need_it_at_once(
    platform: Platform, catalog_db: checks.Database
) -> None:
    user = await register(platform, EMAIL)
    async with platform.service("auth") as one, platform.service("auth", "b") as two:
        answers = await asyncio.gather(*[log_in(each, EMAIL) for each in (one, two)])
        assert [answer.status_code for answer in answers] == [200, 200]
        assert await catalog_db.fetchval("SELECT count(*) FROM signing_keys") == 1
        assert {answer.json()["user_id"] for answer in answers} == {user}
    sealed = await catalog_db.fetchval("SELECT sealed FROM signing_keys")
    assert '"d"' not in sealed


async def test_a_new_key_is_published_before_it_signs_and_the_old_one_stays(
    platform: Platform, auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await register(platform, EMAIL)
    before = (await log_in(auth, EMAIL)).json()["access_token"]
    assert (await auth.post("/oauth/keys")).status_code == 401
    plain = await bearer(platform, user_id=1)
    assert (await auth.post("/oauth/keys", headers=plain)).status_code == 403
    assert ("keys.rotate", "denied") in await audited(catalog_db)
    admin = await bearer(platform, role="admin", client="operator")
    made = await auth.post("/oauth/keys", headers=admin)
    assert made.status_code == 201, made.text
    kid = made.json()["kid"]

    async def published() -> bool:
        keys = (await auth.get("/.well-known/jwks.json")).json()["keys"]
        return kid in {key["kid"] for key in keys}

    await wait_until(SystemClock(), published, what="the key", seconds=30)
    after = (await log_in(auth, EMAIL)).json()["access_token"]
    assert header_of(after)["kid"] != kid
    await catalog_db.execute("UPDATE signing_keys SET active_from = now() WHERE kid = $1", kid)

    async def signs() -> bool:
        return bool(header_of((await log_in(auth, EMAIL)).json()["access_token"])["kid"] == kid)

    await wait_until(SystemClock(), signs, what="the new key to sign", seconds=30, every=0.5)
    old = {"Authorization": f"Bearer {before}"}
    assert (await auth.get("/api/v1/audit", headers=old)).status_code == 403
    assert ("keys.rotate", "allowed") in await audited(catalog_db)


def header_of(token: str) -> dict[str, Any]:
    return dict(extract_compact(token.encode()).headers())


async def test_admins_read_the_audit_log_page_by_page_and_nobody_changes_it(
    platform: Platform, auth: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    await register(platform, EMAIL)
    for _ in range(3):
        assert (await log_in(auth, EMAIL)).status_code == 200
    admin = await bearer(platform, role="admin", client="operator")
    asked: dict[str, str] = {"limit": "2", "action": "login"}
    first = (await auth.get("/api/v1/audit", params=asked, headers=admin)).json()
    rest = await auth.get("/api/v1/audit", params=asked | {"cursor": first["next"]}, headers=admin)
    events = first["events"] + rest.json()["events"]
    assert [event["outcome"] for event in events] == ["allowed"] * 3
    assert rest.json()["next"] is None
    user = await bearer(platform, user_id=1)
    assert (await auth.get("/api/v1/audit", headers=user)).status_code == 403
    assert ("audit.read", "denied") in await audited(catalog_db)
    with pytest.raises(Exception, match="append-only"):
        await catalog_db.execute("DELETE FROM audit_log")


async def test_logins_and_renewals_go_on_after_the_catalog_was_away(
    platform: Platform, auth: httpx.AsyncClient
) -> None:
    await register(platform, EMAIL)
    login = (await log_in(auth, EMAIL)).json()
    whole = platform.first_map(version=2)
    gone = replace(
        whole.shards["catalog"], primary=Endpoint("catalog.x", "us-east-1", "a", "127.0.0.1", 1)
    )
    platform.publish(replace(whole, shards={**whole.shards, "catalog": gone}))

    async def gone_is_known() -> bool:
        return bool((await auth.get("/health/ready")).json()["mapVersion"] == 2)

    await wait_until(SystemClock(), gone_is_known, what="the map", seconds=30)
    # A renewal asks only the user's shard.
    renewed = await asyncio.wait_for(renew(auth, login["refresh_token"]), 30)
    assert renewed.status_code == 200
    waiting = asyncio.create_task(log_in(auth, EMAIL))
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    platform.publish(platform.first_map(version=3))
    assert (await asyncio.wait_for(waiting, 30)).status_code == 200


async def test_a_hash_of_yesterdays_cost_is_made_anew_at_the_next_login(
    platform: Platform, auth: httpx.AsyncClient, shard_db: checks.Database
) -> None:
    await register(platform, EMAIL)
    cheap = PasswordHasher(memory_cost=8, time_cost=1, parallelism=1).hash(PASSWORD)
    await shard_db.execute("UPDATE users SET password_hash = $1", cheap)
    for _ in range(2):
        assert (await log_in(auth, EMAIL)).status_code == 200
    stored = await shard_db.fetchval("SELECT password_hash FROM users")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_no_log_line_and_no_audit_row_has_a_password_or_a_token(
    platform: Platform,
    auth: httpx.AsyncClient,
    catalog_db: checks.Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    await register(platform, EMAIL)
    await add_client(catalog_db, "probe", "service", "s3cret-of-probe")
    login = (await log_in(auth, EMAIL)).json()
    renewed = (await renew(auth, login["refresh_token"])).json()
    await renew(auth, login["refresh_token"])
    await log_in(auth, PASSWORD, EMAIL)
    await ask(auth, grant_type="client_credentials", client_id="x", client_secret="s3cret-of-x")
    await ask(
        auth, grant_type="client_credentials", client_id="probe", client_secret="s3cret-of-probe"
    )
    tokens = [each[kind] for each in (login, renewed) for kind in ("access_token", "refresh_token")]
    rows = str(await catalog_db.fetch("SELECT * FROM audit_log"))
    for secret in (PASSWORD, "s3cret-of", TOKEN_KEY, *tokens):
        assert secret not in caplog.text
        assert secret not in rows
