"""The status document says what serves, and what is missing beside it."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane import status
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import provisioned


async def seen(platform: Platform) -> dict[str, Any]:
    return status.document(
        platform.topology,
        await platform.provider.observe(),
        await platform.store.shard_map(),
        entry_url="https://127.0.0.1:18001",
        pid=1,
        address="http://127.0.0.1:18000",
    )


async def test_a_whole_platform_is_healthy_and_lists_its_stand_ins_beside_the_edge() -> None:
    async with Platform.open() as platform:
        await provisioned(platform)
        document = await seen(platform)
        assert document["state"] == "healthy"
        assert document["edge"]["id"] == "edge"
        assert [each["id"] for each in document["peers"]] == ["payment-gateway", "mailbox"]
        assert {each["state"] for each in document["peers"]} == {"running"}


@pytest.mark.parametrize(
    "instance", ["payment-gateway", "mailbox", "objects.us-east-1a", "payments.us-east-1b"]
)
async def test_orders_are_taken_without_a_store_a_stand_in_or_one_service(instance: str) -> None:
    async with Platform.open() as platform:
        await provisioned(platform)
        await platform.provider.ensure_stopped([instance])
        assert (await seen(platform))["state"] == "degraded"


async def test_nobody_is_served_without_the_edge() -> None:
    async with Platform.open() as platform:
        await provisioned(platform)
        await platform.provider.ensure_stopped(["edge"])
        assert (await seen(platform))["state"] == "down"
