from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.control_plane.platform import Platform


@pytest_asyncio.fixture
async def empty_platform() -> AsyncIterator[Platform]:
    async with Platform.open() as platform:
        yield platform


@pytest_asyncio.fixture
async def platform(empty_platform: Platform) -> Platform:
    await empty_platform.run("provision")
    return empty_platform
