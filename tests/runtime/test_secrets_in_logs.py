"""No secret is written to a log, whatever goes well or wrong."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import envoy_replies
from runtime import checks
from runtime.auth.sealing import unseal
from runtime.clock import SystemClock, wait_until
from runtime.settings import Settings
from runtime.telemetry import JsonLines
from tests.ports import free_port
from tests.runtime.conftest import TOKEN_KEY, Platform
from tests.runtime.customers import with_key
from tests.runtime.platform_server import whole
from tests.runtime.servers import PASSWORD as SERVER_PASSWORD

USER_PASSWORD = "a password that nobody may read"
NEW_PASSWORD = "another password, as secret"
CLIENT_SECRET = "the-secret-of-the-client"
WEBHOOK_KEY = base64.b64encode(b"what webhooks are signed with").decode()
SECRETS = {
    "tokenKey": TOKEN_KEY,
    "gatewayKey": "the-key-of-the-payment-gateway",
    "webhookSecret": f"whsec_{WEBHOOK_KEY}",
    "objectsKey": "the-access-key-of-objects",
    "objectsSecret": "the-secret-key-of-objects",
    "smtpUser": "the-user-of-smtp",
    "smtpPassword": "the-password-of-smtp",
    "database": "the-password-of-databases",
    "valkey": "the-password-of-queues",
}
HEADERS = ("$argon2", "authorization", "set-cookie", "bearer ", "basic ")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What every logger of this process says at INFO and above, as services write it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines("test"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


async def post_form(client: httpx.AsyncClient, path: str, **form: str) -> httpx.Response:
    return await client.post(path, data=form)


@dataclasses.dataclass
class Visit:
    """All that a user and a client do, with what must not be found afterwards."""

    client: httpx.AsyncClient
    secrets: set[str] = dataclasses.field(default_factory=set)

    async def token(self, status: int = 200, **form: str) -> dict[str, Any]:
        answer = await post_form(self.client, "/oauth/token", **form)
        assert answer.status_code == status, answer.text
        document: dict[str, Any] = answer.json()
        given = {name: document.get(name, "") for name in ("access_token", "refresh_token")}
        self.secrets |= {each for each in given.values() if each}
        return document

    async def shop(self) -> None:
        new = {"email": "ada@example.org", "name": "Ada", "password": USER_PASSWORD}
        made = await self.client.post("/api/v1/users", json=new, headers=with_key("k"))
        assert made.status_code == 201, made.text
        taken = new | {"password": NEW_PASSWORD}
        await self.client.post("/api/v1/users", json=taken)
        await self.client.post("/api/v1/users", json={"password": NEW_PASSWORD, "x": USER_PASSWORD})
        login = {"grant_type": "password", "username": "ada@example.org"}
        first = await self.token(**login, password=USER_PASSWORD)
        await self.token(400, **login, password=NEW_PASSWORD)
        fresh = await self.token(grant_type="refresh_token", refresh_token=first["refresh_token"])
        sent = {"Authorization": f"Bearer {fresh['access_token']}"}
        items = [{"sku": "MUG-ONCALL", "quantity": 1}]
        placed = await self.client.post("/api/v1/orders", json={"items": items}, headers=sent)
        assert placed.status_code == 201, placed.text
        change = {"password": NEW_PASSWORD, "current_password": USER_PASSWORD}
        path = f"/api/v1/users/{made.json()['id']}"
        assert (await self.client.patch(path, json=change, headers=sent)).status_code == 200
        # The rotated token comes back: the session ends.
        await self.token(400, grant_type="refresh_token", refresh_token=first["refresh_token"])
        await post_form(self.client, "/oauth/revoke", token=fresh["refresh_token"])
        forged = fresh["access_token"][:-8] + "AAAAAAAA"
        self.secrets.add(forged)
        headers = {"Authorization": f"Bearer {forged}"}
        assert (await self.client.get("/api/v1/orders", headers=headers)).status_code == 401

    async def administer(self) -> None:
        client = {"grant_type": "client_credentials", "client_id": "probe"}
        given = await self.token(**client, client_secret=CLIENT_SECRET)
        await self.token(401, **client, client_secret=CLIENT_SECRET + "x")
        headers = {"Authorization": f"Bearer {given['access_token']}"}
        assert (await self.client.post("/oauth/keys", headers=headers)).status_code == 201
        basic = base64.b64encode(f"probe:{CLIENT_SECRET}".encode()).decode()
        self.secrets.add(basic)
        await self.client.post(
            "/oauth/token",
            data={"grant_type": "client_credentials"},
            headers={"Authorization": f"Basic {basic}"},
        )

    async def webhooks(self) -> None:
        hook = {
            "webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": f"v1,{WEBHOOK_KEY}",
        }  # fmt: skip
        for headers in ({}, hook, hook | {"webhook-signature": "v1,%%%"}):
            answer = await self.client.post("/api/v1/payments/webhook", json={}, headers=headers)
            assert answer.status_code == 401


async def private_parts(catalog_db: checks.Database) -> set[str]:
    """Of the keys that sign tokens, and these as they are stored."""
    sealed = [row["sealed"] for row in await catalog_db.fetch("SELECT sealed FROM signing_keys")]
    assert sealed
    return {str(unseal(TOKEN_KEY, each).as_dict(private=True)["d"]) for each in sealed} | {*sealed}


@pytest.mark.process
async def test_no_log_line_of_any_service_has_a_secret(
    platform: Platform, catalog_db: checks.Database, lines: io.StringIO
) -> None:
    await catalog_db.execute(
        "INSERT INTO oauth_clients (id, secret_hash, role) VALUES ('probe', $1, 'admin')",
        hashlib.sha256(CLIENT_SECRET.encode()).digest(),
    )
    # Nobody answers at these: failing calls are what is most likely to be told too much of.
    away = free_port()
    changes: dict[str, Any] = {
        "secrets": SECRETS,
        "payment_gateway": f"http://127.0.0.1:{away}",
        "objects": f"http://127.0.0.1:{away}",
        "smtp": ("127.0.0.1", away),
    }
    async with (
        whole(platform, **changes) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        visit = Visit(client)
        await visit.shop()
        await visit.administer()
        await visit.webhooks()

        async def complained() -> bool:
            text = lines.getvalue()
            return '"group": "payments"' in text and '"group": "notifications"' in text

        await wait_until(SystemClock(), complained, what="consumers to miss servers", seconds=30)
        logging.getLogger("proof").info("the log is read")
    text = lines.getvalue()
    assert "the log is read" in text
    secrets = visit.secrets | await private_parts(catalog_db) | set(SECRETS.values())
    secrets |= {USER_PASSWORD, NEW_PASSWORD, CLIENT_SECRET, WEBHOOK_KEY, "ada@example.org"}
    assert [each for each in sorted(secrets) if each in text] == []
    assert f'"{SERVER_PASSWORD}"' not in text
    assert [name for name in HEADERS if name in text.lower()] == []


def test_settings_show_no_secret() -> None:
    settings = Settings(
        "auth", "auth.x", "r", "a", Path("map"), "the-database's", "the-valkey's", secrets=SECRETS
    )
    for secret in ("the-database's", "the-valkey's", *SECRETS.values()):
        assert secret not in repr(settings)
        assert secret not in str(dataclasses.replace(settings, zone="b"))


def test_every_setting_that_sounds_secret_is_kept_out_of_the_repr() -> None:
    words = ("password", "secret", "key", "token")
    named = [each for each in dataclasses.fields(Settings) if any(w in each.name for w in words)]
    assert named
    assert not [each.name for each in named if each.repr]


def test_the_access_log_of_proxies_has_no_header_or_query_that_may_hold_a_token() -> None:
    def strings(part: Any) -> Iterator[str]:
        if isinstance(part, Mapping):
            for value in part.values():
                yield from strings(value)
        elif isinstance(part, str):
            yield part

    found = [each for each in strings(envoy_replies.trouble_log()) if "%" in each]
    assert found
    headers = {each for each in found if "REQ(" in each or "RESP(" in each}
    assert headers <= {"%REQ(X-REQUEST-ID)%", "%REQ(:METHOD)%"}
    assert "%PATH(NQ)%" in found
    assert not [each for each in found if "PATH" in each and "NQ" not in each]
    assert json.dumps(found).lower().count("authorization") == 0
