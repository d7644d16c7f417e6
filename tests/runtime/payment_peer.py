"""The payment gateway's stand-in as a process, and what the tests ask of it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from runtime.clock import SystemClock, wait_until
from tests.ports import free_port

GATEWAY_KEY = "the gateway's key in tests"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"the secret of the webhooks in tests").decode()
SECRETS = {"gatewayKey": GATEWAY_KEY, "webhookSecret": WEBHOOK_SECRET}
AUTHORIZED = {"Authorization": f"Bearer {GATEWAY_KEY}"}


@dataclass
class PaymentPeer:
    root: Path
    webhook_url: str = ""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        secrets = self.root / "peer-secrets.json"
        secrets.write_text(json.dumps(SECRETS))
        self.process = subprocess.Popen(  # noqa: ASYNC220
            [
                sys.executable, "-m", "runtime.peers.payment_gateway", "--port", str(self.port),
                "--state", str(self.root / "peer.db"), "--secrets", str(secrets),
                "--webhook-url", self.webhook_url,
            ]
        )  # fmt: skip

        async def live() -> bool:
            assert self.process is not None
            assert self.process.poll() is None
            async with httpx.AsyncClient() as client:
                try:
                    return (await client.get(f"{self.url}/health/live")).is_success
                except httpx.HTTPError:
                    return False

        await wait_until(SystemClock(), live, what="the payment gateway", seconds=30)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(40)

    async def call(
        self, method: str, path: str, body: Any = None, key: str = "", timeout: float = 20
    ) -> httpx.Response:
        headers = AUTHORIZED | ({"Idempotency-Key": key} if key else {})
        async with httpx.AsyncClient(timeout=timeout) as client:
            return await client.request(method, self.url + path, json=body, headers=headers)

    async def charge(self, reference: str, method: str = "card", **options: Any) -> httpx.Response:
        body = {"amount_cents": 500, "currency": "USD", "method": method, "reference": reference}
        return await self.call("POST", "/v1/charges", body, **{"key": reference, **options})

    async def charges(self, reference: str | int) -> list[dict[str, Any]]:
        answer = await self.call("GET", f"/v1/charges?reference={reference}")
        found: list[dict[str, Any]] = answer.json()["charges"]
        return found

    async def break_for(self, seconds: float, mode: str = "down") -> None:
        answer = await self.call("POST", "/v1/faults", {"mode": mode, "seconds": seconds})
        assert answer.status_code == 200, answer.text


@asynccontextmanager
async def payment_peer(root: Path, webhook_url: str = "") -> AsyncIterator[PaymentPeer]:
    peer = PaymentPeer(root, webhook_url)
    try:
        await peer.start()
        yield peer
    finally:
        peer.kill()
