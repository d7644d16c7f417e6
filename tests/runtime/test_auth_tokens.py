"""Which access tokens a service believes."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from joserfc.jwk import ECKey

from runtime import checks
from runtime.clock import FakeClock, SystemClock, wait_until
from runtime.errors import Unauthorized
from runtime.identity import Identity
from runtime.shards import Shards
from tests.runtime.conftest import Platform
from tests.runtime.tokens import KEY_ID, bearer, claims, publish_key, sign, signing_key

pytestmark = pytest.mark.process


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """Of a service where any good token passes: without a body that is a 422."""
    await publish_key(platform)
    async with platform.service("users") as users:
        yield users


async def status(client: httpx.AsyncClient, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    answer = await client.get("/api/v1/nowhere", headers=headers)
    if answer.status_code == 401:
        assert answer.headers["content-type"] == "application/problem+json"
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert token[:20] not in answer.text or not token
    return answer.status_code


GOOD = 404


async def test_a_good_token_passes_and_its_kinds_of_harm_do_not(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    good = claims(platform, user_id=7)
    now = int(time.time())
    assert await status(client, sign(good)) == GOOD
    harms: dict[str, Any] = {
        "expired": {"exp": now - 31},
        "made in the future": {"iat": now + 33},
        "another audience": {"aud": "elsewhere"},
        "another issuer": {"iss": "https://127.0.0.1:1"},
        "a role that is none": {"role": "root"},
        "a subject that is none": {"sub": "x"},
        "a session that is none": {"sid": "x"},
        "an expiry that is none": {"exp": "never"},
    }
    for harm, change in harms.items():
        assert await status(client, sign(good | change)) == 401, harm
    for missing in ("exp", "iat", "iss", "aud", "sub", "role", "client_id"):
        left = {name: value for name, value in good.items() if name != missing}
        assert await status(client, sign(left)) == 401, missing


class Catalog:
    """A catalog that has one key; `revoked`: what one copy after the other says."""

    def __init__(self, *revoked: dict[int, float]) -> None:
        self._revoked = list(revoked)

    async def read(self, locate: object, work: object, **options: object) -> Any:
        keys = {KEY_ID: signing_key().as_dict(private=False)}
        if not self._revoked:
            raise asyncio.CancelledError
        return SimpleNamespace(value=(keys, self._revoked.pop(0)))


@pytest.mark.parametrize(
    ("change", "believed"),
    [({"exp": -29}, True), ({"exp": -31}, False), ({"iat": 29}, True), ({"iat": 31}, False)],
)
async def test_clocks_may_differ_by_thirty_seconds(
    platform: Platform, change: dict[str, int], believed: bool
) -> None:
    clock = FakeClock()
    now = int(clock.now().timestamp())
    identity = Identity(platform.settings("users"), cast("Shards", Catalog({})), clock)
    plain = claims(platform, user_id=7) | {"iat": now - 100, "exp": now + 100}
    token = sign(plain | {name: now + seconds for name, seconds in change.items()})
    if believed:
        assert (await identity.authenticate(token)).user_id == 7
        clock.advance(200)
    with pytest.raises(Unauthorized):
        await identity.authenticate(token)


async def test_a_copy_that_is_behind_takes_no_revocation_back(platform: Platform) -> None:
    clock = FakeClock()
    now = clock.now().timestamp()
    copies = Catalog({}, {70: now + 60}, {}, {71: now + 60})
    identity = Identity(platform.settings("users"), cast("Shards", copies), clock)
    with suppress(asyncio.CancelledError):
        await identity.run()
    times = {"iat": int(now), "exp": int(now) + 600}
    for session in (70, 71):
        token = sign(claims(platform, user_id=7, session=session) | times)
        with pytest.raises(Unauthorized, match="ended"):
            await identity.authenticate(token)
    other = sign(claims(platform, user_id=7, session=72) | times)
    assert (await identity.authenticate(other)).session == 72


async def test_tokens_signed_otherwise_than_by_our_keys_are_refused(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    good = claims(platform, user_id=7)
    key = signing_key()

    def part(document: dict[str, Any]) -> str:
        return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    nobody = part({"alg": "none", "typ": "at+jwt", "kid": key.kid}) + "." + part(good) + "."
    assert await status(client, nobody) == 401
    signed = part({"alg": "HS256", "typ": "at+jwt", "kid": key.kid}) + "." + part(good)
    mac = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    confused = f"{signed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert await status(client, confused) == 401
    stranger = ECKey.generate_key("P-256", {"kid": KEY_ID})
    assert await status(client, sign(good, stranger)) == 401
    own_key = {"jwk": stranger.as_dict(private=False)}
    assert await status(client, sign(good, stranger, own_key)) == 401
    unknown = ECKey.generate_key("P-256", {"kid": "unknown"})
    assert await status(client, sign(good, unknown)) == 401
    assert await status(client, sign(good, header={"typ": "JWT"})) == 401
    head, body, signature = sign(good).split(".")
    forged = part(good | {"role": "admin"})
    assert await status(client, f"{head}.{forged}.{signature}") == 401
    for garbage in ("", "a", "..", "a.b.c", f"{head}.{body}.", "é", "x" * 10_000):
        headers = [(b"Authorization", f"Bearer {garbage}".encode())]
        answer = await client.get("/api/v1/nowhere", headers=headers)
        assert answer.status_code == 401, garbage


async def test_a_key_that_was_just_made_is_found_by_the_first_token_that_names_it(
    platform: Platform, client: httpx.AsyncClient
) -> None:
    fresh = ECKey.generate_key("P-256", {"kid": "fresh"})
    good = claims(platform, user_id=7)
    assert await status(client, sign(good)) == GOOD
    await publish_key(platform, fresh)
    assert await status(client, sign(good, fresh)) == GOOD


async def test_an_ended_session_ends_its_tokens_and_a_withdrawn_key_all_of_its_tokens(
    platform: Platform, client: httpx.AsyncClient, catalog_db: checks.Database
) -> None:
    ended = sign(claims(platform, user_id=7, session=70))
    other = sign(claims(platform, user_id=7, session=71))
    assert [await status(client, token) for token in (ended, other)] == [GOOD, GOOD]
    await catalog_db.execute(
        "INSERT INTO revocations VALUES (70, now(), now() + interval '11 minutes')"
    )

    async def refused(token: str) -> bool:
        return await status(client, token) == 401

    await wait_until(SystemClock(), lambda: refused(ended), what="the revocation", seconds=30)
    assert await status(client, other) == GOOD
    await catalog_db.execute("TRUNCATE signing_keys")
    await wait_until(SystemClock(), lambda: refused(other), what="the withdrawal", seconds=30)


async def test_no_token_is_no_error_until_one_is_needed(platform: Platform) -> None:
    basic = {"Authorization": "Basic dTpw"}
    async with platform.service("users") as users:
        assert (await users.get("/api/v1/nowhere")).status_code == 404
        assert (await users.get("/api/v1/nowhere", headers=basic)).status_code == 404
        good = await bearer(platform, role="service", client="probe")
        assert (await users.get("/api/v1/nowhere", headers=good)).status_code == 404
        schemes = (await users.get("/openapi.json")).json()["components"]["securitySchemes"]
        assert schemes["oauth2"]["flows"]["password"]["tokenUrl"].endswith("/oauth/token")
