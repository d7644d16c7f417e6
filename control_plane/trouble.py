"""What is wrong, by rule: one line why, with value and threshold, and one command to try. Pure.

Every command is one that exists (`tests/control_plane/test_overview.py` asks the console).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from control_plane.glances import Glance
from control_plane.traffic import ERRORS, LATENCY, Measured, Rates
from infra.provider import Observed
from infra.topology import InstanceSpec, Topology
from runtime.shardmap import Shard, ShardMap

JSON = dict[str, Any]

MOST_LAG_SECONDS = 10.0
NAMED = 3


@dataclass(frozen=True)
class Trouble:
    why: str
    command: str


@dataclass(frozen=True)
class World:
    """What the rules look at. `operations`: newest first. `specs`: the instances of each region,
    those of no region under ""; `archives` is None when nobody can say."""

    topology: Topology
    observed: Observed
    shard_map: ShardMap | None
    operations: Sequence[Glance]
    measured: Measured
    archives: Sequence[JSON] | None
    settling: bool
    specs: Mapping[str, Sequence[InstanceSpec]]

    def missing(self, region: str) -> list[InstanceSpec]:
        """The region's instances that do not run."""
        views = self.observed.instances
        return [
            spec
            for spec in self.specs.get(region, ())
            if (view := views.get(spec.id)) is None or view.state != "running"
        ]

    @cached_property
    def lags(self) -> dict[str, float]:
        """region → how far the worst of its replicas is behind, in seconds, as far as known."""
        found: dict[str, float] = {}
        for shard in self.shards:
            regions = {end.instance: end.region for end in shard.replicas}
            view = self.observed.postgres(shard.primary.instance)
            for each in view.followers if view else ():
                region, lag = regions.get(each.instance), each.lag_seconds
                if region is not None and lag is not None and lag >= found.get(region, 0.0):
                    found[region] = lag
        return found

    @cached_property
    def primaries(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for shard in self.shards:
            found[shard.primary.region] = found.get(shard.primary.region, 0) + 1
        return found

    @cached_property
    def slots(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for owned in self.shard_map.ranges if self.shard_map else ():
            found[owned.shard] = found.get(owned.shard, 0) + owned.last - owned.first + 1
        return found

    @property
    def shards(self) -> Sequence[Shard]:
        return tuple(self.shard_map.shards.values()) if self.shard_map else ()

    def of_platform(self) -> list[Trouble]:
        """What concerns no single region or database."""
        if self.shard_map is None:
            return [
                Trouble("platform.map: no shard map, so nothing is provisioned", "regionctl up")
            ]
        found = []
        if self.observed.route is None:
            why = "edge.route: 0 regions are open to clients, who get 503; 1 must be"
            found.append(Trouble(why, self._any() or "regionctl op list"))
        else:
            found += self._gateways(self.observed.route)
        for spec in self.missing(""):
            why = f"{spec.id}.state: {self.observed.state(spec.id)}, must be running"
            found.append(Trouble(why, f"regionctl logs {spec.id} -n 50"))
        return found + self._archives()

    def _gateways(self, route: str) -> list[Trouble]:
        gateways = [s.id for s in self.specs.get(route, ()) if s.component == "gateway"]
        if any(map(self.observed.running, gateways)):
            return []
        why = f"gateways.running: 0 of {len(gateways)} of {route}, at least 1 must"
        return [Trouble(why, f"regionctl logs {gateways[0]} -n 50")]

    def _archives(self) -> list[Trouble]:
        status = "regionctl backup status"
        archivers = any(s.kind == "archiver" for specs in self.specs.values() for s in specs)
        if self.archives is None:
            unknown = [Trouble("archive.state: unknown, must be running", status)]
            return [] if self.settling or not archivers else unknown
        gaps = [each["database"] for each in self.archives if each["gap"]]
        idle = [each["database"] for each in self.archives if not each["running"]]
        found = []
        if gaps:
            why = f"archive.gaps: {_named(gaps)} until the next full backup; none is allowed"
            found.append(Trouble(why, status))
        if idle and not self.settling:
            why = f"archive.running: {_named(idle)} not archived; all must be"
            found.append(Trouble(why, status))
        return found

    def of_region(self, region: str) -> list[Trouble]:
        """Its servers first, then what clients get from it, then its replicas."""
        found = [self._servers(region), self._errors(region), self._latency(region)]
        lag = self.lags.get(region, 0.0)
        if lag > MOST_LAG_SECONDS:
            why = f"replication.lag: {lag:.1f} s > {MOST_LAG_SECONDS:g} s"
            found.append(Trouble(why, f"regionctl region show {region}"))
        return [each for each in found if each is not None]

    def _servers(self, region: str) -> Trouble | None:
        missing = self.missing(region)
        if not missing:
            return None
        all_of = len(self.specs.get(region, ()))
        running = all_of - len(missing)
        if not running:
            why = f"instances.running: 0 of {all_of}, all must"
            serves = self.shard_map and (
                self.observed.route == region or self.primaries.get(region)
            )
            command = f"regionctl failover plan {region}" if serves else "regionctl up"
            return Trouble(why, self._watch(region) or command)
        why = f"instances.running: {running} of {all_of}, all must"
        why += f" ({_named([f'{s.id} {self.observed.state(s.id)}' for s in missing])})"
        first = next((spec for spec in missing if spec.kind != "supervisor"), missing[0])
        if first.kind == "supervisor":
            return Trouble(why, "regionctl up")
        return Trouble(why, self._watch(region) or f"regionctl logs {first.id} -n 50")

    def _errors(self, region: str) -> Trouble | None:
        since = self.measured.over_since.get((region, ERRORS))
        ratio = self.measured.regions.get(region, Rates()).error_ratio
        if since is None or ratio is None:
            return None
        limit = self.topology.service_levels.error_rate_percent
        why = f"errors.ratio: {100 * ratio:.2f} % > {limit:g} % (serviceLevels.errorRatePercent)"
        return Trouble(f"{why} since {_clock(since)}", self._look(region))

    def _latency(self, region: str) -> Trouble | None:
        since = self.measured.over_since.get((region, LATENCY))
        p99 = self.measured.regions.get(region, Rates()).p99_ms
        if since is None or p99 is None:
            return None
        limit = self.topology.service_levels.p99_milliseconds
        why = f"latency.p99: {p99:.0f} ms > {limit:g} ms (serviceLevels.p99Milliseconds)"
        return Trouble(f"{why} since {_clock(since)}", self._look(region))

    def _look(self, region: str) -> str:
        gateways = [s.id for s in self.specs.get(region, ()) if s.component == "gateway"]
        return (
            f"regionctl logs {gateways[0]} -n 50" if gateways else f"regionctl region show {region}"
        )

    def of_shard(self, shard: Shard) -> Trouble | None:
        """The gravest one."""
        primary = shard.primary.instance
        watch = self._watch(shard.name, shard.home)
        if not self.observed.running(primary):
            why = f"shard.primary: {primary} is {self.observed.state(primary)}, must be running"
            return Trouble(why, watch or f"regionctl failover plan {shard.name}")
        view = self.observed.postgres(primary)
        streaming = {each.instance for each in view.followers if each.streaming} if view else set()
        astray = [end.instance for end in shard.replicas if end.instance not in streaming]
        if not shard.sync:
            why = "shard.sync: 0 standbys in sync, at least 1 must be: commits wait for nobody"
            about = astray or [end.instance for end in shard.replicas] or [primary]
            return Trouble(why, watch or f"regionctl logs {about[0]} -n 50")
        if astray:
            count = len(shard.replicas)
            why = f"shard.replicas: {count - len(astray)} of {count} follow, all must"
            why += f" ({_named(astray)} not)"
            return Trouble(why, watch or f"regionctl logs {astray[0]} -n 50")
        return None

    def _watch(self, *targets: str) -> str | None:
        """About the newest operation on one of these: to follow it, or to see why it failed."""
        for operation in self.operations:
            if operation.target in targets:
                if not operation.finished:
                    return f"regionctl op watch {operation.id}"
                return f"regionctl op show {operation.id}" if operation.state == "failed" else None
        return None

    def _any(self) -> str | None:
        """To follow the newest operation that runs, whatever it is about."""
        running = [each.id for each in self.operations if not each.finished]
        return f"regionctl op watch {running[0]}" if running else None


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _clock(at: datetime) -> str:
    return at.strftime("%H:%M:%SZ")
