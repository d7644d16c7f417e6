"""The platform on AWS: what `infra up` made, observed and operated by AWS' own APIs.

Pulumi makes and removes things; this moves writers, routes, tasks and rows between them. What AWS
cannot do is refused, with the reason (`infra/aws/limits.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from infra import oauth_clients, rows
from infra.aws import databases, maps, observe, snapshots
from infra.aws.clients import Cloud, Mode
from infra.aws.limits import refused
from infra.aws.naming import CLIENTS
from infra.aws.operate import breaking, fence, promote, queue, reroute, scale
from infra.aws.sessions import Sessions
from infra.aws.site import site_of
from infra.backups import Backups
from infra.moves import Moves
from infra.provider import (
    JSON,
    Fault,
    Fenced,
    Injected,
    Observed,
    PostgresView,
    Salvage,
    Signals,
)
from infra.repair import Repairs
from infra.topology import Topology
from infra.traffic import Traffic
from infra.usage import Usage
from runtime.clock import wait_until
from runtime.errors import Refused, Unavailable
from runtime.shardmap import CATALOG, Endpoint, ShardMap

FOLLOW_SECONDS = 900.0
MADE_BY_PULUMI = "regionctl infra up --topology "


class Refusing:
    """Stands where AWS has nothing: whatever is asked of it is refused as `what`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        async def refuse(*_: Any, **__: Any) -> None:
            raise refused(self._what)

        return refuse


class AwsProvider:
    """See `infra.provider.Provider` for what each verb promises."""

    def __init__(
        self, topology: Topology, cloud: Cloud | None = None, sessions: Sessions | None = None
    ) -> None:
        """Raises `Invalid` for a topology that is not on AWS."""
        self.site = site_of(topology, cloud)
        self.sessions = sessions or Sessions(self.site)
        self.moves = cast(Moves, Refusing("moves"))
        self.repairs = cast(Repairs, Refusing("repairs"))
        self.backups: Backups = snapshots.AwsBackups(self.site)

    @property
    def topology(self) -> Topology:
        return self.site.topology

    @property
    def mode(self) -> Mode:
        return self.site.cloud.mode

    async def set_shards(self, count: int) -> None:
        if count != len(self.topology.shards):
            raise refused("set_shards", f"change shards, then {MADE_BY_PULUMI}{self.topology.name}")

    async def set_instances(self, service: str, zone: str, count: int) -> None:
        raise refused("set_instances", "services.minimum in the topology, then regionctl infra up")

    async def usage(self) -> Mapping[str, Usage]:
        """Nobody here scales by it (`limits`)."""
        return {}

    # Observing.

    async def observe(self, only: Collection[str] | None = None) -> Observed:
        observed = await observe.observe(self.site, only)
        self.sessions.learn(observed)
        primaries = [
            id
            for id, view in observed.instances.items()
            if view.postgres and view.postgres.role == "primary" and view.state == "running"
        ]
        told = await asyncio.gather(*(self.sessions.look(id) for id in primaries))
        views = dict(observed.instances)
        for id, looked in zip(primaries, told, strict=True):
            view = views[id].postgres
            if view is not None and looked is not None:
                views[id] = replace(views[id], postgres=_with(view, *looked))
        return replace(observed, instances=views)

    async def probe(self, instance: str, seconds: float) -> Signals:
        if self.topology.instance(instance).kind == "postgres":
            return await self.sessions.probe(instance, seconds)
        try:
            async with asyncio.timeout(seconds):
                running = (await observe.observe(self.site, [instance])).running(instance)
        except Exception:
            return Signals("timeout", "timeout")
        return Signals("ok", "ok") if running else Signals("refused", "refused")

    def endpoint(self, instance: str) -> Endpoint:
        spec = self.topology.instance(instance)
        return Endpoint(instance, spec.region, spec.zone, *self.sessions.address(instance))

    def entry_url(self) -> str:
        return f"https://{self.site.names.entry()}"

    # Regions and servers without data.

    async def ensure_region(self, region: str) -> None:
        """Its databases let its services in, and where everything listens is known."""
        self.topology.region(region)
        await fence.lift(self.site, region)
        await self.observe()

    async def remove_region(self, region: str) -> None:
        raise refused("remove_region", "regionctl infra down")

    async def ensure_running(self, instances: Sequence[str]) -> None:
        """Services and gateways have the tasks that the topology gives a region that serves, or one
        that waits. Everything else is made by Pulumi, and is looked at."""
        aws = self.topology.aws
        wanted = {
            (spec.region, spec.component)
            for spec in map(self.topology.instance, instances)
            if spec.kind in ("service", "envoy") and spec.region
        }
        if wanted and aws:
            known = await databases.read(
                self.site, self.topology.databases[0], self.topology.primary_region.name
            )
            serving = known.writer.region
            for region, component in sorted(wanted):
                size = aws.gateway if component == "gateway" else aws.services
                count = size.minimum if region == serving else size.standby
                await scale.scale(self.site, region, component, count)
        others = [id for id in instances if _of_pulumi(self.topology, id)]
        if others:
            observed = await self.observe(others)
            await self._made([id for id in others if not observed.running(id)])

    async def ensure_stopped(self, instances: Sequence[str]) -> None:
        raise refused("ensure_stopped")

    # Databases.

    async def _made(self, missing: Sequence[str]) -> None:
        """Raises `Refused` when something is not there: Pulumi makes it, nobody else."""
        if missing:
            raise Refused(
                f"{', '.join(missing)} does not run, and only Pulumi makes it.",
                hint=MADE_BY_PULUMI + self.topology.name,
            )

    async def create_primary(self, instance: str) -> None:
        """The cluster is Pulumi's; its database gets roles and schema."""
        view = (await self.observe([instance])).postgres(instance)
        await self._made([] if view and view.role == "primary" else [instance])
        await self.sessions.prepare(instance)

    async def clone(self, instance: str, upstream: str) -> None:
        await self.follow(instance, upstream)

    async def start_database(self, instance: str) -> None:
        observed = await self.observe([instance])
        await self._made([] if observed.running(instance) else [instance])

    async def stop_database(self, instance: str) -> int:
        raise refused("stop_database", "regionctl switchover run --to REGION")

    async def remove_database(self, instance: str) -> None:
        raise refused("remove_database", MADE_BY_PULUMI + self.topology.name)

    async def set_sync(self, instance: str, standbys: Sequence[str]) -> None:
        """Commits always wait for four of six copies of the volume, which readers beside it read.

        Raises `Refused` for a standby that does not: one of another region.
        """
        spec = self.topology.instance(instance)
        far = [id for id in standbys if self.topology.instance(id).region != spec.region]
        if far:
            raise Refused(
                f"No commit on {instance} can wait for {', '.join(far)}.",
                hint="Aurora copies to other regions asynchronously.",
            )
        await self.follow_all(standbys, instance)

    async def follow_all(self, instances: Sequence[str], upstream: str) -> None:
        for id in instances:
            await self.follow(id, upstream)

    async def promote(self, instance: str, *, accept_data_loss: bool = False) -> JSON:
        done = await promote.promote(self.site, instance, accept_data_loss=accept_data_loss)
        await self.observe([instance])
        return done

    async def set_epoch(self, instance: str, shard_map: ShardMap, database: str) -> None:
        await rows.set_epoch(self.sessions, instance, shard_map, database)

    async def follow(self, instance: str, upstream: str) -> None:
        """Aurora has every server follow its writer by itself; this looks whether it does."""

        async def follows() -> bool:
            observed = await observe.observe(self.site, [instance, upstream])
            view = observed.postgres(instance)
            if observed.unreachable & {self.topology.instance(instance).region}:
                raise Refused(
                    f"{instance} follows nobody yet: its region does not answer. Aurora leads it "
                    "back by itself when it does.",
                    hint="regionctl status -w",
                )
            return view is not None and view.upstream == upstream and observed.running(instance)

        cloud = self.site.cloud
        await wait_until(
            cloud.clock,
            follows,
            what=f"{instance} to follow {upstream}",
            seconds=FOLLOW_SECONDS,
            every=cloud.pause,
            hint="Aurora leads a server back by itself: regionctl status -w",
        )

    async def rewind(self, instance: str, upstream: str) -> str:
        raise refused("rewind")

    async def salvage(self, instance: str, upstream: str) -> Salvage:
        """Beside its successor a server has nothing of its own: they share the volume."""
        if self.topology.instance(instance).region == self.topology.instance(upstream).region:
            return Salvage(None, 0)
        raise refused("salvage", "aws rds describe-db-cluster-snapshots")

    # Routing and fencing.

    async def publish_map(self, shard_map: ShardMap) -> None:
        await maps.publish(self.site, shard_map)

    async def open_route(self, region: str) -> None:
        await reroute.open_route(self.site, region)

    async def close_route(self) -> None:
        await reroute.close_route(self.site)

    async def fence(self, instance: str) -> Fenced:
        return await fence.fence(self.site, instance)

    async def fence_region(self, region: str) -> Fenced:
        return await fence.fence_region(self.site, self.sessions, region)

    async def promote_queue(self, instance: str) -> None:
        await queue.promote_queue(self.site, instance)

    # Breaking and checking.

    async def inject(self, fault: Fault) -> Injected:
        return await breaking.inject(self.site, self.sessions, fault)

    async def heal(self, fault: Fault) -> None:
        await breaking.heal(self.site, fault)

    async def dead_letters(self, region: str) -> Sequence[JSON]:
        self.topology.region(region)
        raise refused("queues")

    async def replay_dead(self, region: str, ids: Sequence[str]) -> int:
        raise refused("queues")

    async def drop_dead(self, region: str, ids: Sequence[str]) -> int:
        raise refused("queues")

    async def event_lag(self, region: str) -> Mapping[str, Mapping[str, int]]:
        self.topology.region(region)
        raise refused("queues")

    async def answers(self, region: str) -> tuple[int, int] | None:
        return None

    async def traffic(self) -> Mapping[str, Traffic]:
        """No front door says so (`limits`)."""
        return {}

    async def resend_events(self, database: str) -> int:
        return await rows.resend_events(self.sessions, await self._primaries(), database)

    async def return_orphan_stock(self) -> int:
        return await rows.return_orphan_stock(self.sessions, await self._primaries())

    async def restore_directory(self) -> int:
        return await rows.restore_directory(self.sessions, await self._primaries())

    async def invariants(self) -> Sequence[JSON]:
        known = await maps.newest(self.site)
        await self._look(known)
        return await rows.invariants(self.sessions, known)

    async def seed(self) -> None:
        """The clients' secrets are those that `infra up` made."""
        known = oauth_clients.hashes(await self.sessions.secret(CLIENTS))
        await rows.seed(self.sessions, (await self._primaries())[CATALOG], known)

    async def logs(self, instances: Iterable[str], lines: int) -> dict[str, list[str]]:
        return await observe.logs(self.site, list(instances), lines)

    async def _primaries(self) -> Mapping[str, str]:
        """database → primary, by the newest map that any region has."""
        known = await maps.newest(self.site)
        await self._look(known)
        return {name: shard.primary.instance for name, shard in known.shards.items()}

    async def _look(self, known: ShardMap) -> None:
        """Where the primaries listen is known. Raises `Unavailable`."""
        ids = [shard.primary.instance for shard in known.shards.values()]
        if unknown := [id for id in ids if id not in self.sessions.addresses]:
            await self.observe(unknown)
        missing = [id for id in ids if id not in self.sessions.addresses]
        if missing:
            raise Unavailable(f"{', '.join(missing)} does not answer.", hint="regionctl status")


def _with(view: PostgresView, epoch: int | None, position: int) -> PostgresView:
    """What only a session tells. Of a server in another region no position is known: it is said to
    lack everything, where one beside the writer lacks nothing."""
    followers = tuple(
        each if each.sync else replace(each, lag_bytes=position) for each in view.followers
    )
    return replace(view, epoch=epoch, position=position, followers=followers)


def _of_pulumi(topology: Topology, instance: str) -> bool:
    spec = topology.instance(instance)
    return spec.kind == "valkey" or not spec.region
