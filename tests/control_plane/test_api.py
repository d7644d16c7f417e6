"""The HTTP API, over a platform in memory: documents, problems, event streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from control_plane.client import Client
from runtime.errors import Invalid, NotFound, Refused, Unauthorized
from tests.control_plane.served import TOKEN, served, state_dir


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with (
        served(state_dir(tmp_path / "state")) as address,
        Client(address, token=TOKEN) as client,
    ):
        yield client


async def provision(client: Client) -> str:
    operation = await client.start("provision", {}, reason="test")
    kinds = [event["kind"] async for event in client.follow(operation["id"])]
    assert kinds[-1] == "operation-succeeded"
    return str(operation["id"])


async def test_status_is_down_before_the_first_provision_and_healthy_after(client: Client) -> None:
    assert (await client.status())["state"] == "down"
    await provision(client)
    status = await client.status()
    assert (status["kind"], status["state"]) == ("PlatformStatus", "healthy")
    assert {shard["primary"] for shard in status["shards"]} == {
        "s1.us-east-1a",
        "s2.us-east-1a",
        "catalog.us-east-1a",
    }
    ids = [each["id"] for region in status["regions"] for each in region["instances"]]
    assert len(ids) == len(set(ids))
    assert "orders.us-west-2a" in ids


async def test_a_dry_run_changes_nothing_and_equals_what_is_carried_out(client: Client) -> None:
    plan = await client.plan("provision", {})
    assert await client.operations() == []
    operation = await client.operation(await provision(client))
    assert [(step["name"], step["args"]) for step in operation["steps"]] == [
        (step["name"], step["args"]) for step in plan["steps"]
    ]
    assert (await client.plan("provision", {}))["steps"] == []


async def test_the_same_idempotency_key_starts_one_operation(client: Client) -> None:
    first = await client.start("provision", {}, idempotency_key="once")
    async for _ in client.follow(first["id"]):
        pass
    again = await client.start("provision", {}, idempotency_key="once")
    assert again["id"] == first["id"]
    assert len(await client.operations()) == 1


async def test_a_key_is_good_for_what_it_was_first_used_for_only(client: Client) -> None:
    await provision(client)
    first = await client.start("switchover", {"target": "s1"}, idempotency_key="once")
    async for _ in client.follow(first["id"]):
        pass
    others: list[tuple[str, dict[str, str]]] = [
        ("switchover", {"target": "s2"}),
        ("switchover", {"to": "us-west-2"}),
        ("failover", {"target": "s1"}),
    ]
    for verb, args in others:
        with pytest.raises(Invalid, match=f"belongs to {first['id']}, switchover s1") as refused:
            await client.start(verb, args, idempotency_key="once")
        assert "new key" in (refused.value.hint or "")
    again = await client.start("switchover", {"target": "s1", "to": None}, idempotency_key="once")
    assert again["id"] == first["id"]


async def test_of_requests_at_once_with_one_key_all_but_the_same_are_refused(
    client: Client,
) -> None:
    """They differ in nothing that the plan's verb or target would show."""
    await provision(client)
    asked = [{"to": 4, "batch": 32}, {"to": 4, "batch": 32}, {"to": 4, "batch": 64}]
    ended = await asyncio.gather(
        *(client.start("reshard", args, idempotency_key="once") for args in asked),
        return_exceptions=True,
    )
    begun = {each["id"] for each in ended if isinstance(each, dict)}
    refused = [each for each in ended if not isinstance(each, dict)]
    assert len(begun) == 1
    assert refused
    assert {type(each) for each in refused} == {Invalid}
    assert len([each for each in await client.operations() if each["kind"] == "reshard"]) == 1


async def test_problems_come_back_as_their_classes_with_hints(client: Client) -> None:
    await provision(client)
    with pytest.raises(NotFound, match="op-99"):
        await client.operation("op-99")
    with pytest.raises(NotFound, match="verb"):
        await client.plan("explode", {})
    with pytest.raises(Invalid, match="target"):
        await client.plan("failover", {})
    with pytest.raises(Refused) as refused:
        await client.plan("failover", {"target": "s1"})
    assert "switchover" in (refused.value.hint or "")
    with pytest.raises(Refused):
        await client.resume("op-1")
    with pytest.raises(NotFound):
        await client.report("op-1")
    with pytest.raises(NotFound, match="nowhere"):
        await client.logs(["nowhere"], 5)


async def test_every_error_is_a_problem_document(client: Client) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=client.address, headers=headers) as http:
        for method, path, body in (
            ("GET", "/v1/nothing", None),
            ("PUT", "/v1/status", None),
            ("POST", "/v1/operations", {"verb": 1}),
            ("POST", "/v1/operations", {"verb": "provision", "extra": 1}),
            ("GET", "/v1/operations?limit=0", None),
        ):
            answer = await http.request(method, path, json=body)
            assert answer.is_error, path
            assert answer.headers["content-type"] == "application/problem+json", path
            assert answer.json()["status"] == answer.status_code


async def test_without_the_token_nothing_but_liveness_is_answered(client: Client) -> None:
    async with Client(client.address, token="wrong") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.status()
        with pytest.raises(Unauthorized):
            [event async for event in stranger.events()]
    async with httpx.AsyncClient(base_url=client.address) as http:
        assert (await http.get("/health/live")).json()["status"] == "live"


async def test_a_stream_goes_on_after_the_last_event_seen(client: Client) -> None:
    id = await provision(client)
    every = [event async for event in client.events(id)]
    middle = every[len(every) // 2]["sequence"]
    rest = [event async for event in client.events(id, after=middle)]
    assert [event["sequence"] for event in rest] == [
        event["sequence"] for event in every if event["sequence"] > middle
    ]
    assert [event async for event in client.events(id, after=every[-1]["sequence"])] == []
    past = await client.past_events(id, limit=3)
    assert past == every[-3:]


async def test_drills_and_the_verdict_sheet_have_their_rows(client: Client) -> None:
    names = {drill["name"] for drill in await client.drills()}
    assert {"service-outage", "database-failure", "zone-failure", "region-failure"} <= names
    sheet = await client.dr()
    assert {row["scenario"]: row["state"] for row in sheet["items"]} == dict.fromkeys(
        ("service-outage", "database-failure", "region-failure", "data-corruption"), "not proven"
    )
    assert await client.drill_history() == []


async def test_an_acknowledged_failover_is_recorded(client: Client) -> None:
    assert await client.acknowledge("s1", "seen") == {"database": "s1", "acknowledged": 0}
    with pytest.raises(NotFound):
        await client.acknowledge("s9", "seen")


async def test_logs_answer_for_every_instance_and_the_control_plane(client: Client) -> None:
    found = await client.logs([], 5)
    assert {"edge", "s1.us-east-1a", "control-plane"} <= set(found)
    assert set(await client.logs(["edge"], 5)) == {"edge"}
