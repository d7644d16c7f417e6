"""The platform on AWS as it is: every service of every region asked at once.

A region whose API does not answer is `unreachable`, and whatever of it only that API could tell is
"failed": it may run, nobody knows. Which region writes a database, every region's API can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from infra.aws import compute, databases, maps, route, stores
from infra.aws.clients import JSON
from infra.aws.databases import Global
from infra.aws.operate import rules
from infra.aws.site import Site
from infra.provider import Follower, InstanceView, Observed, PostgresView, State
from infra.topology import InstanceSpec
from runtime.errors import NotFound, Problem, Unavailable

# "Viewing DB instance status", Aurora User Guide: in these a server answers queries.
SERVING = {
    "available",
    "backing-up",
    "configuring-enhanced-monitoring",
    "configuring-iam-database-auth",
    "configuring-log-exports",
    "modifying",
    "renaming",
    "resetting-master-credentials",
    "storage-optimization",
}
LOG_WINDOW = timedelta(minutes=2)
STOPPED = {"stopped", "stopping", "starting", "rebooting", "creating", "deleting"}


@dataclass(frozen=True)
class Region:
    """What a region's API said. `servers` by identifier, `lags` (s) by database. `barred`: it is
    fenced, its databases run and let no service in."""

    answers: bool = True
    barred: bool = False
    servers: Mapping[str, JSON] = field(default_factory=dict)
    clusters: Mapping[str, JSON] = field(default_factory=dict)
    lags: Mapping[str, float] = field(default_factory=dict)


async def observe(site: Site, only: Collection[str] | None = None) -> Observed:
    """With `only` some instances the route is not looked at.

    Raises `Unauthorized` or `Forbidden` when AWS knows the caller not, or not well enough."""
    specs = [spec for spec in site.topology.instances() if only is None or spec.id in only]
    of_kind: dict[str, list[InstanceSpec]] = {}
    for spec in specs:
        of_kind.setdefault(spec.kind, []).append(spec)
    nodes = of_kind.get("postgres", [])
    names = sorted({spec.component for spec in nodes})
    found, globals_, views, way, versions = await asyncio.gather(
        asyncio.gather(*(_region(site, region, names) for region in site.regions)),
        asyncio.gather(*(_global(site, name) for name in names)),
        _others(site, of_kind),
        _route(site, wanted=only is None),
        maps.versions(site),
    )
    regions = dict(zip(site.regions, found, strict=True))
    known = dict(zip(names, globals_, strict=True))
    all_views = [_database(site, spec, regions, known[spec.component]) for spec in nodes]
    all_views += views
    return Observed(
        at=site.cloud.clock.now(),
        instances={view.id: view for view in all_views},
        route=way,
        unreachable=frozenset(name for name, region in regions.items() if not region.answers),
        map_versions=versions,
    )


async def _route(site: Site, *, wanted: bool) -> str | None:
    """Route 53 takes five requests a second of a whole account: it is asked for the whole only."""
    found: str | None = await _unless_silent(route.read(site)) if wanted else None
    return found


async def _unless_silent(asked: Any) -> Any:
    """None when it does not answer, or is not there."""
    try:
        return await asked
    except (Unavailable, NotFound):
        return None


async def _region(site: Site, region: str, names: Sequence[str]) -> Region:
    try:
        servers, clusters = await asyncio.gather(
            site.cloud.pages("rds", region, "describe_db_instances", "DBInstances"),
            site.cloud.pages("rds", region, "describe_db_clusters", "DBClusters"),
        )
    except Unavailable:
        return Region(answers=False)
    if not names:
        return Region()
    lags, barred = await asyncio.gather(
        _unless_silent(databases.lags(site, names, region)),
        _unless_silent(rules.barred(site, region)),
    )
    return Region(
        barred=bool(barred),
        servers={each["DBInstanceIdentifier"]: each for each in servers},
        clusters={each["DBClusterIdentifier"]: each for each in clusters},
        lags=lags or {},
    )


async def _global(site: Site, database: str) -> Global | None:
    found: Global | None = await _unless_silent(databases.read(site, database, site.regions[0]))
    return found


def _database(
    site: Site, spec: InstanceSpec, regions: Mapping[str, Region], known: Global | None
) -> InstanceView:
    region = regions[spec.region]
    server = region.servers.get(site.server(spec))
    if not region.answers:
        return InstanceView(spec.id, "failed")
    if server is None:
        return InstanceView(spec.id, "absent")
    state = state_of(server["DBInstanceStatus"])
    if region.barred and state == "running":
        state = "frozen"
    endpoint = server.get("Endpoint") or {}
    address = f"{endpoint['Address']}:{endpoint['Port']}" if endpoint else None
    writer = _writer(site, spec.component, regions, known)
    if writer == spec.id:
        # The cluster's address follows what Aurora does by itself.
        whole = region.clusters[site.names.cluster(spec.component, spec.region)]
        address = f"{whole['Endpoint']}:{whole['Port']}"
        followers = _followers(site, spec, regions, known)
        sync = tuple(each.instance for each in followers if each.sync)
        view = PostgresView("primary", sync_names=sync, followers=followers)
    else:
        view = PostgresView("standby", upstream=writer)
    return InstanceView(spec.id, state, address=address, postgres=view)


def state_of(status: str) -> State:
    if status in SERVING:
        return "running"
    return "stopped" if status in STOPPED else "failed"


def _writer(
    site: Site, database: str, regions: Mapping[str, Region], known: Global | None
) -> str | None:
    """The server that writes: the writer of the cluster that the global database names. Each
    secondary cluster names a writer too, which writes nothing."""
    for member in known.members if known else ():
        if member.writer and member.region in regions:
            name = site.names.cluster(database, member.region)
            identifier = databases.writer_of(regions[member.region].clusters.get(name, {}))
            return site.node(identifier, database) if identifier else None
    return None


def _followers(
    site: Site, writer: InstanceSpec, regions: Mapping[str, Region], known: Global | None
) -> tuple[Follower, ...]:
    """Servers beside the writer read the very volume that it writes: they lack nothing, ever. Those
    of another region are as far behind as CloudWatch says. No position is known, so `lag_bytes`
    claims nothing."""
    apart = {each.region for each in known.members if each.connected is False} if known else set()
    found = []
    for node in site.topology.database_nodes(writer.component):
        if node.id == writer.id:
            continue
        server = regions[node.region].servers.get(site.server(node), {})
        runs = state_of(server.get("DBInstanceStatus", "")) == "running"
        beside = node.region == writer.region
        lag = 0.0 if beside else regions[node.region].lags.get(node.component)
        streams = runs and node.region not in apart
        found.append(Follower(node.id, streams, beside and runs, 0, lag))
    return tuple(found)


async def _others(site: Site, of_kind: Mapping[str, Sequence[InstanceSpec]]) -> list[InstanceView]:
    """Everything that is no database."""
    tasks = [*of_kind.get("service", []), *(s for s in of_kind.get("envoy", []) if s.region)]
    edges = [spec for spec in of_kind.get("envoy", []) if not spec.region]
    parts = await asyncio.gather(
        _by_region(site, tasks, compute.views),
        _by_region(site, of_kind.get("valkey", []), stores.views),
        asyncio.gather(*(_edge(site, spec) for spec in edges)),
    )
    return [view for views in parts for view in views]


async def _by_region(site: Site, specs: Sequence[InstanceSpec], ask: Any) -> list[InstanceView]:
    """`ask(site, region, specs)` of each region that has some; all "failed" where it is silent."""

    async def one(region: str) -> list[InstanceView]:
        here = [spec for spec in specs if spec.region == region]
        try:
            views: list[InstanceView] = await ask(site, region, here) if here else []
        except Unavailable:
            return [InstanceView(spec.id, "failed") for spec in here]
        return views

    found = await asyncio.gather(*(one(region) for region in site.regions))
    return [view for views in found for view in views]


async def _edge(site: Site, spec: InstanceSpec) -> InstanceView:
    """The edge is the failover pair of records that CloudFront follows."""
    try:
        records = await route.records(site)
    except Unavailable:
        return InstanceView(spec.id, "failed")
    except Problem as problem:
        if isinstance(problem, NotFound):
            return InstanceView(spec.id, "absent")
        raise
    whole = set(records) >= set(site.regions)
    return InstanceView(spec.id, "running" if whole else "failed", address=site.names.entry())


async def logs(site: Site, instances: Sequence[str], lines: int) -> dict[str, list[str]]:
    """The last lines of each component's log group, of the last minutes; tasks of both zones write
    to one."""
    specs = [site.topology.instance(id) for id in instances]

    async def one(spec: InstanceSpec) -> list[str]:
        if spec.kind not in ("service", "envoy") or not spec.region:
            return []
        group = site.names.log_group(spec.component, spec.region)
        events = await _unless_silent(
            site.cloud.pages(
                "logs",
                spec.region,
                "filter_log_events",
                "events",
                logGroupName=group,
                startTime=int((site.cloud.clock.now() - LOG_WINDOW).timestamp() * 1000),
            )
        )
        return [event["message"] for event in events or []][-lines:]

    found = await asyncio.gather(*(one(spec) for spec in specs))
    return dict(zip(instances, found, strict=True))
