"""What every service is given: its settings, and the ways to its databases, cache and streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from runtime.cache import Cache
from runtime.clock import Clock
from runtime.identity import Identity
from runtime.routing import Routing
from runtime.settings import Settings
from runtime.shards import Shards
from runtime.streams import Streams

# What a service runs beside its routes, by name; each is begun anew when it fails.
Background = Mapping[str, Callable[[], Awaitable[None]]]


@dataclass(frozen=True)
class Context:
    settings: Settings
    clock: Clock
    routing: Routing
    shards: Shards
    cache: Cache
    streams: Streams
    identity: Identity
