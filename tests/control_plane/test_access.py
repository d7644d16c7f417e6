"""Who may send what, on every route of the API; and what of it is recorded."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from control_plane import access
from control_plane.app import build
from control_plane.client import Client
from control_plane.settings import Settings
from tests.control_plane.served import TOKEN, served, state_dir

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = ("get", "/health/live")
ROUTES = sorted(
    (method, path)
    for path, item in build(Settings(Path("/nonexistent"), "", 1)).openapi()["paths"].items()
    for method in item
    if (method, path) != OPEN
)
CHANGES = [(method, path) for method, path in ROUTES if access.changes(method.upper(), path)]
READS = [route for route in ROUTES if route not in CHANGES]
BODIES = {
    "/v1/tokens": {"name": "another", "role": "viewer"},
    "/v1/operations": {"verb": "switchover", "args": {"target": "s1"}},
    "/v1/plans/{verb}": {"args": {}},
    "/v1/dead-letters/replay": {"ids": ["1-0"]},
    "/v1/dead-letters/drop": {"ids": ["1-0"]},
}


@dataclass
class Plane:
    """A control plane with one token of each role, and one each that is good no more."""

    http: httpx.AsyncClient
    tokens: dict[str, str]

    async def ask(self, method: str, path: str, token: str | None) -> tuple[int, str]:
        """Status and beginning of the answer: some have no end."""
        headers = {"Authorization": f"Bearer {token}".strip()} if token is not None else {}
        address = re.sub(r"\{[a-z_]+\}", "unknown", path)
        body = BODIES.get(path, {}) if method == "post" else None
        async with self.http.stream(method, address, json=body, headers=headers) as answer:
            if answer.headers["content-type"].startswith("text/event-stream"):
                return answer.status_code, ""
            return answer.status_code, (await answer.aread()).decode()

    async def audit(self) -> list[dict[str, str]]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        found = await self.http.get("/v1/audit", params={"limit": 10_000}, headers=headers)
        return list(found.json())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Plane]:
    folder = state_dir(tmp_path_factory.mktemp("access") / "state")
    async with (
        served(folder) as address,
        Client(address, token=TOKEN) as client,
        httpx.AsyncClient(base_url=address) as http,
    ):
        operation = await client.start("provision", {})
        async for _ in client.follow(operation["id"]):
            pass
        made = {role: await client.create_token(role, role) for role in access.ROLES}
        made["revoked"] = await client.create_token("revoked", "admin")
        await client.revoke_token(made["revoked"]["id"], "left the company")
        yield Plane(http, {name: token["token"] for name, token in made.items()})


async def test_the_walk_meets_reads_and_changes_of_every_kind() -> None:
    paths = {path for _, path in CHANGES}
    assert {"/v1/operations", "/v1/tokens", "/v1/reshard/pause", "/v1/dead-letters/drop"} <= paths
    assert ("post", "/v1/plans/{verb}") in READS
    assert ("get", "/v1/events") in READS


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_viewer_changes_nothing_and_the_refusal_is_recorded(
    plane: Plane, method: str, path: str
) -> None:
    before = await plane.audit()
    status, text = await plane.ask(method, path, plane.tokens["viewer"])
    assert status == 403
    assert "needs the role" in text
    [entry] = (await plane.audit())[len(before) :]
    assert (entry["kind"], entry["actor"], entry["role"]) == ("refused", "viewer", "viewer")


@pytest.mark.parametrize(("method", "path"), READS)
async def test_a_viewer_reads_and_plans_everything_and_nothing_of_it_is_recorded(
    plane: Plane, method: str, path: str
) -> None:
    before = await plane.audit()
    status, text = await plane.ask(method, path, plane.tokens["viewer"])
    assert status in (200, 404, 422), text
    assert await plane.audit() == before


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_a_token_that_is_good_nothing_is_answered(
    plane: Plane, method: str, path: str
) -> None:
    for token in (None, "", "wrong", "rct_wrong", "rct_00000000_wrong", plane.tokens["revoked"]):
        status, _ = await plane.ask(method, path, token)
        assert status == 401, token


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_what_an_operator_asks_for_is_recorded_whatever_becomes_of_it(
    plane: Plane, method: str, path: str
) -> None:
    before = await plane.audit()
    status, text = await plane.ask(method, path, plane.tokens["operator"])
    entries = (await plane.audit())[len(before) :]
    mine = [entry["kind"] for entry in entries if entry["actor"] == "operator"]
    mine = [kind for kind in mine if kind != "ended"]
    assert mine == ["asked" if status < 400 else "refused"], text
    assert (status == 403) == path.startswith("/v1/tokens")
