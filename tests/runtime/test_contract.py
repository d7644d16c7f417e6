"""The services keep to their OpenAPI document, whatever is sent (schemathesis, over real HTTP)."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from runtime import openapi
from tests.runtime.conftest import Platform
from tests.runtime.customers import register
from tests.runtime.platform_server import whole
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process

WEBHOOK_SECRET = "whsec_" + "c2VjcmV0IG9mIHRlc3Rz"
# What a schema cannot say (a password change needs the old one, an e-mail its domain) is refused
# with 422, so data that fits the schema need not be accepted.
CHECKS = "all"
NOT_CHECKED = "positive_data_acceptance"
FULL = "coverage,stateful"
BRIEF = "examples,fuzzing"


async def schemathesis(
    port: int, folder: Path, *arguments: str, headers: dict[str, str]
) -> tuple[int, str]:
    """The exit code and what it printed."""
    given = [each for name, value in headers.items() for each in ("-H", f"{name}: {value}")]
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", str(openapi.FILE),
        "--url", f"http://127.0.0.1:{port}", "--checks", CHECKS, "--exclude-checks", NOT_CHECKED,
        "--no-color", "--warnings", "off", *given, *arguments,
    ]  # fmt: skip
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, capture_output=True, text=True, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("role", "phases", "examples"),
    [("service", FULL, 2), ("admin", BRIEF, 2), ("user", BRIEF, 2), ("", BRIEF, 2)],
)
async def test_every_operation_does_what_its_description_says(
    platform: Platform, tmp_path: Path, role: str, phases: str, examples: int
) -> None:
    user = await register(platform)
    secrets = {**platform.settings("payments").secrets, "webhookSecret": WEBHOOK_SECRET}
    headers: dict[str, str] = {}
    if role:
        headers = await bearer(platform, user_id=user if role == "user" else None, role=role)
    async with whole(platform, secrets=secrets) as port:
        code, printed = await schemathesis(
            port, tmp_path, "--phases", phases, "-n", str(examples),
            "--generation-deterministic", headers=headers,
        )  # fmt: skip
    assert code == 0, printed


async def test_every_operation_that_needs_a_token_refuses_without_a_good_one(
    platform: Platform,
) -> None:
    forged = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.eyJzdWIiOiJhZG1pbiJ9."
    tried = 0
    async with (
        whole(platform) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for path, item in openapi.merged()["paths"].items():
            for method, operation in item.items():
                if not operation["security"]:
                    continue
                address = re.sub(r"\{[a-z_]+\}", "1", path) + "?q=x"
                body = {"items": [{"sku": "A", "quantity": 1}]} if path.endswith("orders") else {}
                for token in ("", forged):
                    headers = {"Authorization": f"Bearer {token}"} if token else {}
                    json = body if method in ("post", "patch") else None
                    answer = await client.request(method, address, json=json, headers=headers)
                    assert answer.status_code == 401, (method, path, answer.text)
                    assert answer.headers["www-authenticate"].startswith("Bearer "), path
                    assert answer.headers["content-type"] == "application/problem+json", path
                    tried += 1
    assert tried >= 2 * 14
