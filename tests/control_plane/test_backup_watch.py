"""Who waits for a backup hears how far it is."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.steps import backup_watch
from control_plane.steps.backup_watch import told
from infra.backups import Work
from runtime.errors import OperationFailed
from tests.control_plane.platform import Platform
from tests.control_plane.scenarios import provisioned
from tests.control_plane.toys import world_of

MIB = 2**20


async def test_work_is_told_as_it_goes_on_and_what_it_comes_to_is_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backup_watch, "EVERY_SECONDS", 0.01)
    async with Platform.open() as platform:
        await provisioned(platform)
        plan = await platform.plan("backup", database="s1")
        operation = await platform.store.create_operation(plan, "test", None, "pytest")
        world = world_of(platform.store, platform.clock, platform.provider)(operation, {})
        works = platform.provider.backups.works

        async def made() -> str:
            works["s1"] = Work("upload", 10 * MIB, 40 * MIB)
            async with asyncio.timeout(10):
                while True:
                    rung = platform.store.bell.listen()
                    events = await platform.store.events()
                    if any(event.kind == "work-progress" for event in events):
                        return "listed"
                    await rung.wait()

        assert await told(world, "s1", made()) == "listed"
        (event,) = [e for e in await platform.store.events() if e.kind == "work-progress"]
        assert event.data["message"] == "s1: upload 10 of 40 MiB"

        async def failed() -> None:
            raise OperationFailed("the disk is full")

        with pytest.raises(OperationFailed, match="the disk is full"):
            await told(world, "s1", failed())
