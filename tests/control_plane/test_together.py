"""A step that does several things at once ends when all of them have ended."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.steps.provision import together
from runtime.errors import Refused


async def test_a_failed_work_is_told_only_when_the_others_have_ended() -> None:
    go, ended = asyncio.Event(), []

    async def fails() -> None:
        raise Refused("no")

    async def slow() -> None:
        await go.wait()
        ended.append("slow")

    step = asyncio.ensure_future(together(fails(), slow()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not step.done()
    go.set()
    with pytest.raises(Refused):
        await step
    assert ended == ["slow"]
