"""The platform on this machine: real servers from wheels, one supervisord for each region."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import yaml

from infra import rows
from infra.backups import Backups
from infra.local import (
    answers,
    binaries,
    breaking,
    clients,
    corrupting,
    fencing,
    layout,
    monitoring,
    observe,
    ports,
    postgres,
    queues,
    regions,
    scaling,
    servers,
    valkey,
)
from infra.local import rows as local_rows
from infra.local import traffic as counts
from infra.local.backups.repair import LocalRepairs
from infra.local.cluster import CLOCK, Cluster
from infra.local.layout import Layout, State
from infra.local.monitor import Monitor, knock
from infra.local.site import Site
from infra.moves import Moves
from infra.provider import JSON, Fault, Fenced, Injected, Observed, Salvage, Signal, Signals
from infra.repair import Repairs
from infra.topology import Topology
from infra.traffic import Traffic
from infra.usage import Usage
from runtime import migrations
from runtime.errors import Invalid, Problem, Unavailable
from runtime.shardmap import CATALOG, Endpoint, ShardMap

LINK_SECONDS = 2.0


class LocalProvider:
    """See `infra.provider.Provider` for what each verb promises."""

    mode: Literal["applied"] = "applied"

    def __init__(self, topology: Topology, root: Path) -> None:
        """The platform in the state directory `root`, which `layout.create` has made."""
        state: State = layout.read_state(root)
        paths = Layout(root)
        user = layout.database_user()
        self.topology = topology = replace(topology, counts=scaling.read(paths))
        self.site = Site(
            topology,
            paths,
            ports.table(topology, state.portOffset),
            layout.read_secrets(paths),
            user,
            binaries.postgres(paths, user, state.postgresBin),
        )
        self.monitor = Monitor(self.site)
        self.cluster = Cluster(self.site, self.monitor)
        self._locks: dict[tuple[str, asyncio.AbstractEventLoop], asyncio.Lock] = {}

    async def close(self) -> None:
        """Lets go of the kept connections. The platform goes on."""
        await self.monitor.close()

    # Observing.

    async def observe(self, only: Collection[str] | None = None) -> Observed:
        return await observe.observe(self.site, self.monitor, only)

    async def probe(self, instance: str, seconds: float) -> Signals:
        if self.site.spec(instance).kind == "postgres":
            return await self.monitor.probe(instance, seconds)
        tcp = await knock(self.site.port(instance), seconds)
        answer: Signal = "ok"
        try:
            await valkey.command(self.site, instance, "PING", seconds=seconds)
        except TimeoutError:
            answer = "timeout"
        except OSError:
            answer = "refused"
        return Signals(tcp, answer)

    def endpoint(self, instance: str) -> Endpoint:
        return self.site.endpoint(instance)

    def entry_url(self) -> str:
        return self.site.entry_url

    async def logs(self, instances: Iterable[str], lines: int) -> dict[str, list[str]]:
        return {id: self.site.tail(id, lines) for id in instances}

    @cached_property
    def moves(self) -> Moves:
        made: Moves = importlib.import_module("infra.local.moves").LocalMoves(*self._parts)
        return made

    @cached_property
    def backups(self) -> Backups:
        module = importlib.import_module("infra.local.backups.local")
        made: Backups = module.LocalBackups(*self._parts)
        return made

    @cached_property
    def repairs(self) -> Repairs:
        return LocalRepairs(*self._parts, self.backups)

    @property
    def _parts(self) -> tuple[Site, Monitor, Cluster]:
        return self.site, self.monitor, self.cluster

    # Regions and servers without data.

    async def set_shards(self, count: int) -> None:
        wanted = self.topology.with_shards(count)
        path = self.site.layout.topology
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if document["shards"] != len(wanted.shards):
            known = self.site.ports.all()
            table = ports.table(wanted, self.site.ports.control - ports.BASE).all()
            fresh = {port: use for port, use in table.items() if port not in known}
            await asyncio.to_thread(ports.require_free, fresh)
            document["shards"] = len(wanted.shards)
            layout.replace_file(path, yaml.safe_dump(document, sort_keys=False))

    async def ensure_region(self, region: str) -> None:
        self.topology.region(region)
        async with self._alone(region):
            await regions.ensure(self.site, region)

    async def remove_region(self, region: str) -> None:
        if servers.read_route(self.site) == region:
            await self.close_route()
        await self.site.supervisors[region].shutdown(seconds=90)
        instances = [spec.id for spec in self.topology.instances(region=region)]
        await fencing.kill(self.site, instances, keep_down=False)

    async def ensure_running(self, instances: Sequence[str]) -> None:
        fencing.require_reachable(self.site, instances)
        if any(not self.site.spec(instance).region for instance in instances):
            await self._ensure_global()
        await servers.start(self.site, instances)

    async def _ensure_global(self) -> None:
        """The supervisor of edge and peers runs; `bootstrap` has written its file, or we do."""
        supervisor = self.site.supervisors[""]
        if not await supervisor.alive():
            if not supervisor.file.exists():
                supervisor.write(servers.global_programs(self.site))
            servers.prepare_global(self.site)
            await supervisor.start()

    async def ensure_stopped(self, instances: Sequence[str]) -> None:
        await servers.stop(self.site, instances)

    async def set_instances(self, service: str, zone: str, count: int) -> None:
        async with self._alone(f"instances of {zone[:-1]}"):
            wanted = self.topology.with_instances(service, zone, count)
            region, letter = zone[:-1], zone[-1]
            own = wanted.instances(component=service, region=region, zone=letter)
            fencing.require_reachable(self.site, [own[0].id])
            await self.site.supervisors[region].info()
            leaving = [spec for id, spec in self.topology.by_id.items() if id not in wanted.by_id]
            former = self.topology.count(service, zone)
            if not leaving:
                await self._adopt(service, zone, count)
            try:
                await servers.start(self.site, [spec.id for spec in own])
                await scaling.ready(self.site, own)
                await scaling.tell_gateways(self.site, region, service, without=leaving)
            except Problem:
                if fresh := own[former:]:
                    await scaling.give_up(self.site, fresh)
                    await self._adopt(service, zone, former)
                raise
            if leaving:
                await scaling.drained(self.site, leaving)
                await servers.stop(self.site, [spec.id for spec in leaving])
                await self._adopt(service, zone, count)

    async def _adopt(self, service: str, zone: str, count: int) -> None:
        """For good, and known to the supervisor. Regions change beside each other."""
        wanted = self.topology.with_instances(service, zone, count)
        site = scaling.changed(self.site, wanted)
        scaling.record(site.layout, wanted)
        monitoring.follow(site.layout, wanted, site.ports)
        self.site, self.topology = site, wanted
        async with self._alone(zone[:-1]):
            await scaling.tell_supervisor(self.site, zone[:-1])

    async def usage(self) -> Mapping[str, Usage]:
        return await scaling.usage(self.site)

    # Databases.

    def _alone(self, instance: str) -> asyncio.Lock:
        """One at a time replaces a node's data or has it follow: the sentinel may open a rejoin of
        a node that a reshard is just making."""
        loop = asyncio.get_running_loop()
        return self._locks.setdefault((instance, loop), asyncio.Lock())

    async def _introduce(self, instance: str) -> None:
        """Its supervisor knows it: a region that ran before the topology grew takes it on."""
        fencing.require_reachable(self.site, [instance])
        if instance not in await self.site.supervisor(instance).info():
            await self.ensure_region(self.site.spec(instance).region)

    async def create_primary(self, instance: str) -> None:
        await self._introduce(instance)
        await self.cluster.create_primary(instance)
        await migrations.upgrade(
            "catalog" if self.site.spec(instance).component == CATALOG else "shard",
            host=ports.HOST,
            port=self.site.port(instance),
            user=postgres.SUPERUSER,
            password=self.site.secrets.superuser,
            database=postgres.DATABASE,
        )

    async def clone(self, instance: str, upstream: str) -> None:
        await self._introduce(instance)
        await self._await_link(instance, upstream)
        async with self._alone(instance):
            await self.cluster.clone(instance, upstream)

    async def _await_link(self, instance: str, upstream: str) -> None:
        """A link takes a moment to learn of a node. What is cut on purpose is refused as ever."""
        port = self.site.dial_port(self.site.spec(instance).region, upstream)
        deadline = CLOCK.monotonic() + LINK_SECONDS
        while await knock(port, 1.0) == "refused" and CLOCK.monotonic() < deadline:
            await CLOCK.sleep(0.02)

    async def start_database(self, instance: str) -> None:
        fencing.require_reachable(self.site, [instance])
        async with self._alone(instance):
            await self.cluster.start(instance)

    async def stop_database(self, instance: str) -> int:
        return await self.cluster.stop(instance)

    async def remove_database(self, instance: str) -> None:
        async with self._alone(instance):
            await self.cluster.remove(instance)

    async def set_sync(self, instance: str, standbys: Sequence[str]) -> None:
        await self.cluster.set_sync(instance, standbys)

    async def promote(self, instance: str, *, accept_data_loss: bool = False) -> JSON:
        return await self.cluster.promote(instance)

    async def set_epoch(self, instance: str, shard_map: ShardMap, database: str) -> None:
        await rows.set_epoch(self.monitor, instance, shard_map, database)

    async def follow(self, instance: str, upstream: str) -> None:
        fencing.require_reachable(self.site, [instance])
        async with self._alone(instance):
            await self.cluster.follow(instance, upstream)

    async def rewind(self, instance: str, upstream: str) -> str:
        fencing.require_reachable(self.site, [instance])
        async with self._alone(instance):
            return await self.cluster.rewind(instance, upstream)

    async def salvage(self, instance: str, upstream: str) -> Salvage:
        fencing.require_reachable(self.site, [instance])
        async with self._alone(instance):
            return await local_rows.salvage(
                self.site, self.monitor, self.cluster, instance, upstream
            )

    # Routing and fencing.

    async def publish_map(self, shard_map: ShardMap) -> None:
        text = json.dumps(shard_map.to_json())
        # Writers of slots that change hands wait for this, so no supervisor is asked; and nothing
        # is awaited: two databases that fail over at the same time publish at the same time, and
        # the older map must not be the last one written. Nor is the disk waited for: after a power
        # cut every process is gone, and `up` publishes the map that the store has.
        for region in self.topology.regions:
            known = observe.map_version(self.site, region.name)
            newer = known is None or known < shard_map.version
            if newer and self.site.supervisors[region.name].present():
                path = self.site.layout.shard_map(region.name)
                layout.replace_file(path, text, mode=0o644, durable=False)

    async def open_route(self, region: str) -> None:
        self.topology.region(region)
        await servers.write_route(self.site, region)

    async def close_route(self) -> None:
        await servers.close_route(self.site)

    async def fence(self, instance: str) -> Fenced:
        return await fencing.fence(self.site, instance)

    async def fence_region(self, region: str) -> Fenced:
        return await fencing.fence_region(self.site, region)

    async def promote_queue(self, instance: str) -> None:
        await valkey.promote(self.site, instance)

    # Breaking and checking.

    async def inject(self, fault: Fault) -> Injected:
        if fault.kind == "corrupt":
            primary = self._primaries()[self._shard(fault.target)]
            return await corrupting.corrupt(self.monitor, primary, fault)
        return await breaking.inject(self.site, fault)

    async def heal(self, fault: Fault) -> None:
        if fault.kind == "corrupt":
            await corrupting.forget(self.monitor, self._primaries()[self._shard(fault.target)])
            return
        await breaking.heal(self.site, fault)

    def _shard(self, name: str) -> str:
        if name not in self.topology.shards:
            raise Invalid(
                f"There is no shard {name!r}.", hint=f"Shards: {', '.join(self.topology.shards)}"
            )
        return name

    async def dead_letters(self, region: str) -> Sequence[JSON]:
        return await queues.dead_letters(self._queue(region), self.site.secrets.valkey)

    async def replay_dead(self, region: str, ids: Sequence[str]) -> int:
        return await queues.replay_dead(self._queue(region), self.site.secrets.valkey, ids)

    async def drop_dead(self, region: str, ids: Sequence[str]) -> int:
        return await queues.drop_dead(self._queue(region), self.site.secrets.valkey, ids)

    async def event_lag(self, region: str) -> Mapping[str, Mapping[str, int]]:
        return await queues.lag(self._queue(region), self.site.secrets.valkey)

    def _queue(self, region: str) -> Endpoint:
        """The queue that services of `region` write to. Raises `NotFound`, `Unavailable`."""
        self.topology.region(region)
        known = self._map().queues.get(region)
        return known or self.endpoint(
            self.topology.instances(component="queue", region=region)[0].id
        )

    async def answers(self, region: str) -> tuple[int, int] | None:
        return await answers.answers(self.site, region)

    async def traffic(self) -> Mapping[str, Traffic]:
        return await counts.traffic(self.site)

    async def resend_events(self, database: str) -> int:
        return await rows.resend_events(self.monitor, self._primaries(), database)

    async def return_orphan_stock(self) -> int:
        return await rows.return_orphan_stock(self.monitor, self._primaries())

    async def restore_directory(self) -> int:
        return await rows.restore_directory(self.monitor, self._primaries())

    async def invariants(self) -> Sequence[JSON]:
        return await rows.invariants(self.monitor, self._map())

    async def seed(self) -> None:
        known = clients.hashes(self.site.secrets)
        await rows.seed(self.monitor, self._primaries()[CATALOG], known)

    def _primaries(self) -> Mapping[str, str]:
        """database → primary, by the newest map that any region has."""
        return {name: shard.primary.instance for name, shard in self._map().shards.items()}

    def _map(self) -> ShardMap:
        newest: ShardMap | None = None
        for region in self.topology.regions:
            try:
                document = json.loads(self.site.layout.shard_map(region.name).read_text("utf-8"))
                found = ShardMap.from_json(document)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if newest is None or found.version > newest.version:
                newest = found
        if newest is None:
            raise Unavailable("No shard map is published yet.", hint="regionctl up")
        return newest
