"""Who may send what, on every route of the API; and what of it is recorded."""

from __future__ import annotations

import re
from asyncio import timeout
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from control_plane import access
from control_plane.app import build
from control_plane.client import Client
from control_plane.plan import Plan, Step
from control_plane.settings import Settings
from control_plane.store import open_store
from runtime.clock import SystemClock
from runtime.errors import Forbidden, Refused, Unauthorized
from tests.control_plane.served import TOKEN, served, state_dir

pytestmark = pytest.mark.asyncio(loop_scope="module")

JSON = dict[str, Any]
CLOCK = SystemClock()
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
    client: Client
    tokens: dict[str, str]
    folder: Path

    async def ask(self, method: str, path: str, token: str | None) -> tuple[int, str]:
        """Status and beginning of the answer: some have no end."""
        headers = {"Authorization": f"Bearer {token}".strip()} if token is not None else {}
        address = re.sub(r"\{[a-z_]+\}", "unknown", path)
        body = BODIES.get(path, {}) if method == "post" else None
        async with self.http.stream(method, address, json=body, headers=headers) as answer:
            if answer.headers["content-type"].startswith("text/event-stream"):
                return answer.status_code, ""
            return answer.status_code, (await answer.aread()).decode()

    async def audit(self) -> list[JSON]:
        return await self.client.audit(limit=10_000)


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
        texts = {name: token["token"] for name, token in made.items()}
        yield Plane(http, client, texts, folder)


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


async def test_only_an_admin_decommissions_or_goes_on_with_that(plane: Plane) -> None:
    async with Client(plane.client.address, token=plane.tokens["operator"]) as operator:
        with pytest.raises(Forbidden, match="needs the role admin"):
            await operator.start("decommission", {}, reason="cheaper")
        entry = (await plane.audit())[-1]
        assert (entry["action"], entry["reason"]) == ("decommission", "cheaper")
        assert "needs the role admin" in entry["outcome"]
        store = await open_store(f"sqlite+aiosqlite:///{plane.folder}/control/control.db", CLOCK)
        try:
            plan = Plan("decommission", "two-regions", (Step("nothing"),))
            operation = await store.create_operation(plan, "", None, "root")
            claim = await store.claim(operation.id, "test")
            assert claim
            await store.record_failure(claim, 0, {"detail": "no"})
        finally:
            await store.database.close()
        with pytest.raises(Forbidden, match="needs the role admin"):
            await operator.resume(operation.id)
        assert (await operator.abort(operation.id, "never mind"))["state"] == "aborted"


async def test_the_record_names_who_asked_and_the_plan_and_how_it_ended(plane: Plane) -> None:
    async with Client(plane.client.address, token=plane.tokens["operator"]) as operator:
        plan = await operator.plan("switchover", {"target": "s2"})
        operation = await operator.start(
            "switchover", {"target": "s2"}, reason="INC-7", expect_generation=plan["generation"]
        )
        assert operation["requestedBy"] == "operator"
        async for _ in operator.follow(operation["id"]):
            pass
        with pytest.raises(Refused, match="generation"):
            await operator.start(
                "switchover", {"target": "s2"}, expect_generation=plan["generation"]
            )
    asked, ended = await plane.client.audit(operation=operation["id"])
    assert (asked["actor"], asked["role"], asked["reason"]) == ("operator", "operator", "INC-7")
    assert (asked["action"], asked["target"]) == ("switchover", "s2")
    assert asked["plan"] == plan["digest"]
    assert asked["steps"] == [step["name"] for step in plan["steps"]]
    assert (ended["kind"], ended["outcome"]) == ("ended", "succeeded")
    verdict = await plane.client.verify_audit()
    assert verdict["broken"] is None
    assert verdict["entries"] == len(await plane.audit())


async def test_a_stream_ends_when_its_token_is_revoked(plane: Plane) -> None:
    made = await plane.client.create_token("watcher", "viewer")
    async with Client(plane.client.address, token=made["token"]) as watcher, timeout(5):
        stream = watcher.events()
        await anext(stream)
        await plane.client.revoke_token(made["id"])
        async for _ in stream:
            pass
        with pytest.raises(Unauthorized, match="was revoked"):
            await watcher.status()


async def test_a_bad_token_that_goes_on_asking_is_recorded_now_and_then(plane: Plane) -> None:
    made = await plane.client.create_token("poller", "viewer")
    await plane.client.revoke_token(made["id"])
    for _ in range(5):
        assert (await plane.ask("get", "/v1/status", made["token"]))[0] == 401
    told = [entry for entry in await plane.audit() if entry["actor"] == "poller"]
    assert [(each["kind"], each["action"]) for each in told] == [("refused", "authenticate")]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"reason": "\\ud800"}', b'{"reason": "\\u0000"}']
)
async def test_what_no_database_can_keep_is_refused(plane: Plane, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    for path in ("/v1/reshard/pause", "/v1/plans/failover", "/v1/operations"):
        answer = await plane.http.post(path, content=body, headers=headers)
        assert answer.status_code in (400, 422), answer.text
    long = await plane.http.post("/v1/reshard/pause", content=b" " * 2_000_000, headers=headers)
    assert (long.status_code, "longer than" in long.text) == (422, True)
    assert (await plane.http.get("/v1/reports/%00", headers=headers)).status_code == 422
