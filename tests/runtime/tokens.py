"""Access tokens for tests: signed with a real key, which is put where services look for it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import asyncpg
from joserfc import jwt
from joserfc.jwk import ECKey

from runtime.auth.sealing import seal
from runtime.identity import ALGORITHM, AUDIENCE, TOKEN_SECONDS, TOKEN_TYPE
from tests.runtime.conftest import TOKEN_KEY, Platform

KEY_ID = "test-key"
INSERT = """
INSERT INTO signing_keys (kid, public_jwk, sealed, created_at, active_from, expires_at)
VALUES ($1, $2, $3, now(), now(), now() + interval '31 days') ON CONFLICT DO NOTHING
"""


@cache
def signing_key() -> ECKey:
    return ECKey.generate_key("P-256", {"kid": KEY_ID, "use": "sig", "alg": ALGORITHM})


async def publish_key(platform: Platform, key: ECKey | None = None) -> None:
    """Services accept tokens signed with `key` (the tests' own, if None)."""
    key = key or signing_key()
    connection = await asyncpg.connect(**platform.catalog.dsn())
    try:
        public = json.dumps(key.as_dict(private=False))
        await connection.execute(INSERT, key.kid, public, seal(TOKEN_KEY, key))
    finally:
        await connection.close()


def sign(
    claims: Mapping[str, Any], key: ECKey | None = None, header: Mapping[str, Any] | None = None
) -> str:
    key = key or signing_key()
    head = {"alg": ALGORITHM, "typ": TOKEN_TYPE, "kid": key.kid, **(header or {})}
    return jwt.encode(head, dict(claims), key)


def claims(
    platform: Platform,
    *,
    user_id: int | str | None = None,
    role: str = "user",
    client: str = "tests",
    session: int = 1,
) -> dict[str, Any]:
    """The claims of a good token: of a user, or of a client when `user_id` is None."""
    now = int(time.time())
    made = {
        "iss": platform.settings("auth").entry_url,
        "aud": AUDIENCE,
        "sub": client if user_id is None else str(user_id),
        "role": role,
        "client_id": client,
        "iat": now,
        "exp": now + TOKEN_SECONDS,
        "jti": f"{client}-{now}",
    }
    return made if user_id is None else made | {"sid": str(session)}


async def bearer(
    platform: Platform,
    *,
    user_id: int | str | None = None,
    role: str = "user",
    client: str = "tests",
    session: int = 1,
) -> dict[str, str]:
    """The header of a request by this user, or by a client (role service or admin)."""
    await publish_key(platform)
    token = sign(claims(platform, user_id=user_id, role=role, client=client, session=session))
    return {"Authorization": f"Bearer {token}"}
