"""What `:` finds: screens, regions, databases, operations, and what can be planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from cli.dash.view import JSON

if TYPE_CHECKING:
    from cli.dash.app import Dashboard

ACTIONS = {
    "failover": "Failover of the row",
    "switchover": "Switchover of the row",
    "drill": "Run a drill",
    "reshard": "Reshard",
    "failback": "Failback",
    "backup": "Back up the row",
}


class Places(Provider):
    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for text, does in self._all():
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), does)

    async def discover(self) -> Hits:
        for text, does in self._all():
            yield DiscoveryHit(text, does)

    def _all(self) -> Iterator[tuple[str, Callable[[], object]]]:
        app = cast("Dashboard", self.app)
        for name in app.boards:
            yield f"screen {name}", partial(app.jump, name)
        if not app.read_only:
            for verb, text in ACTIONS.items():
                yield f"plan: {text}", partial(app.plan, verb)
        document: JSON = app.feed.document or {"regions": (), "shards": (), "operations": ()}
        for each in document["regions"]:
            yield f"region {each['name']}", partial(app.jump, "region", each["name"])
        for each in document["shards"]:
            yield f"logs {each['primary']}", partial(app.jump, "logs", each["primary"])
        for each in document["operations"]:
            text = f"operation {each['id']} {each['kind']} {each['target']}"
            yield text, partial(app.jump, "operations", each["id"])
