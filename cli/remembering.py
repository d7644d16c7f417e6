"""A client of the control plane that keeps the names it is told, for shell completion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli import names
from control_plane.client import JSON, Client


class Remembering(Client):
    """`place` is what the names belong to: the platform's state directory, or its server."""

    def __init__(self, address: str, place: str, **trust: Any) -> None:
        super().__init__(address, **trust)
        self._place = place

    async def status(self) -> JSON:
        found = await super().status()
        instances = [each["id"] for region in found["regions"] for each in region["instances"]]
        self._keep("region", found["regions"])
        self._keep("database", found["shards"])
        names.keep(self._place, "instance", [*instances, found["edge"]["id"], "control-plane"])
        return found

    async def scaling(self) -> JSON:
        found = await super().scaling()
        for kind in ("service", "zone"):
            names.keep(self._place, kind, dict.fromkeys(each[kind] for each in found["items"]))
        return found

    async def operations(self, limit: int = 50) -> list[JSON]:
        found = await super().operations(limit)
        self._keep("operation", found, "id")
        return found

    async def start(self, verb: str, args: Mapping[str, Any], **options: Any) -> JSON:
        operation = await super().start(verb, args, **options)
        before = names.kept(self._place, "operation")
        names.keep(self._place, "operation", dict.fromkeys([operation["id"], *before]))
        return operation

    async def drills(self) -> list[JSON]:
        found = await super().drills()
        self._keep("drill", found)
        return found

    async def tokens(self) -> list[JSON]:
        found = await super().tokens()
        self._keep("token", found, "id")
        self._keep("actor", found)
        return found

    async def backups(self, database: str | None = None) -> list[JSON]:
        found = await super().backups(database)
        if database is None:
            self._keep("backup", found, "id")
        return found

    async def restore_points(self) -> list[JSON]:
        found = await super().restore_points()
        self._keep("point", found)
        return found

    def _keep(self, kind: str, found: list[JSON], key: str = "name") -> None:
        names.keep(self._place, kind, [str(each[key]) for each in found])
