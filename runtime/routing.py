"""The last good shard map, read again whenever its file changes.

The control plane replaces the file atomically; services never ask it for anything else, so they
go on with the last good map when it is dead. A map never goes back to an older version, and a
file that cannot be read changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

from runtime.clock import Clock
from runtime.errors import Unavailable
from runtime.shardmap import ShardMap
from runtime.telemetry import MAP_VERSION

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.25
WAITING_SECONDS = 0.05


class Routing:
    """Holds the newest map of `path`; `subscribe`d functions are called at each change."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._map: ShardMap | None = None
        self._seen: tuple[int, int, int] | None = None
        self._listeners: list[Callable[[ShardMap], None]] = []

    @property
    def loaded(self) -> bool:
        return self._map is not None

    @property
    def map(self) -> ShardMap:
        """Raises `Unavailable` when no map could be read since the process began."""
        if self._map is None:
            raise Unavailable(
                "This service has not read a shard map yet.",
                hint="`regionctl status` says whether a map was published.",
            )
        return self._map

    def subscribe(self, listener: Callable[[ShardMap], None]) -> None:
        self._listeners.append(listener)

    def refresh(self) -> bool:
        """Reads the file if it changed. True when that brought a newer map."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return False
            found = ShardMap.from_json(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("shard map not read", extra={"data": {"reason": repr(error)}})
            return False
        self._seen = seen
        if self._map is not None and found.version <= self._map.version:
            return False
        self._map = found
        MAP_VERSION.set(found.version)
        log.info("shard map", extra={"data": {"version": found.version}})
        for listener in self._listeners:
            listener(found)
        return True

    async def wait_for_newer(
        self, version: int, seconds: float, *, every: float = WAITING_SECONDS
    ) -> bool:
        """True as soon as a map newer than `version` is here, false after `seconds`.

        The file is looked at each `every` seconds.
        """
        deadline = self._clock.monotonic() + seconds
        while True:
            self.refresh()
            if self._map is not None and self._map.version > version:
                return True
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return False
            await self._clock.sleep(min(every, left))

    async def run(self) -> None:
        """Follows the file until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(IDLE_SECONDS)
