"""A page that many ask for is made once: whoever asks while it is being made, or soon after, gets
the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from control_plane.events import Bell
from runtime.clock import Clock

KEPT_SECONDS = 0.5


class Pages:
    """The page is made anew once it is older than `KEPT_SECONDS`, or when `bell` has rung."""

    def __init__(self, clock: Clock, bell: Bell) -> None:
        self.clock = clock
        self.bell = bell
        self._turn = asyncio.Lock()
        self._page: tuple[float, asyncio.Event, bytes] | None = None

    async def get(self, make: Callable[[], Awaitable[bytes]]) -> bytes:
        async with self._turn:
            if self._page is not None:
                made_at, rung, page = self._page
                if not rung.is_set() and self.clock.monotonic() < made_at + KEPT_SECONDS:
                    return page
            rung = self.bell.listen()
            page = await make()
            self._page = self.clock.monotonic(), rung, page
            return page
