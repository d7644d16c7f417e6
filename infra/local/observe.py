"""The world as it is: every process and every server asked at once, none longer than a second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from datetime import UTC, datetime

import psutil

from infra.local import envoy, postgres, servers, valkey
from infra.local.fencing import alive, held_zones, orphans
from infra.local.monitor import LOST, Monitor
from infra.local.ports import HOST, PORTLESS
from infra.local.site import Site
from infra.local.supervisor import Info
from infra.provider import Follower, InstanceView, Observed, PostgresView
from infra.topology import InstanceSpec
from runtime.errors import Unavailable

SECONDS = 1.0

# `position` is read before what the standbys have confirmed, so position - lag_bytes is never more
# than a standby has. The lag in seconds is an estimate on the high side: the age of the standby's
# last report, which is up to a second where nothing is written, and the WAL's age in that report.
_QUERY = """
WITH source AS MATERIALIZED (
    SELECT pg_is_in_recovery() AS standby,
           CASE WHEN pg_is_in_recovery()
                THEN greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'),
                              coalesce(pg_last_wal_replay_lsn(), '0/0'))
                ELSE pg_current_wal_flush_lsn() END AS wal)
SELECT standby,
       wal - '0/0'::pg_lsn AS position,
       CASE WHEN standby THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE wal END
           - '0/0'::pg_lsn AS replayed,
       CASE WHEN standby
            THEN coalesce((SELECT received_tli FROM pg_stat_wal_receiver),
                          (SELECT ('x' || substr(max(name), 1, 8))::bit(32)::int
                           FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'))
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END AS timeline,
       current_setting('synchronous_standby_names') AS sync_names,
       current_setting('regionctl.upstream', true) AS upstream,
       to_regclass('regionctl.slot_owner') IS NOT NULL AS fenced,
       (SELECT coalesce(json_agg(json_build_object(
            'instance', application_name,
            'streaming', state = 'streaming',
            'sync', sync_state IN ('sync', 'quorum'),
            'lag_bytes', greatest(0, wal - coalesce(flush_lsn, '0/0')),
            'lag_seconds', CASE WHEN flush_lsn >= wal THEN 0 WHEN state = 'streaming' THEN
                extract(epoch FROM clock_timestamp() - reply_time)
                + coalesce(extract(epoch FROM flush_lag), 0) END
        )), '[]')
        FROM pg_stat_replication WHERE application_name = ANY($1::text[]))::text AS followers
FROM source
"""
_EPOCH = "SELECT max(epoch) AS epoch FROM regionctl.slot_owner"


async def observe(site: Site, monitor: Monitor, only: Collection[str] | None) -> Observed:
    specs = [spec for spec in site.topology.instances() if only is None or spec.id in only]
    regions = sorted({spec.region for spec in specs})
    answers = await asyncio.gather(*(_info(site, region) for region in regions))
    programs = dict(zip(regions, answers, strict=True))
    strays: dict[str, int] = {}
    if any(known is None for known in answers):
        strays = await asyncio.to_thread(orphans, site)
    views = await asyncio.gather(
        *(_view(site, monitor, spec, programs[spec.region], strays) for spec in specs)
    )
    dead = {region for region in regions if region and programs[region] is None}
    return Observed(
        at=datetime.now(UTC),
        instances={view.id: view for view in views},
        route=servers.read_route(site),
        unreachable=frozenset(dead | held_zones(site)),
        map_versions={
            region.name: version
            for region in site.topology.regions
            if (version := map_version(site, region.name)) is not None
        },
        targets={
            spec.id: _targets(site, spec)
            for spec in specs
            if spec.component == "gateway" and site.layout.envoy(spec.region, spec.id).exists()
        },
    )


def _targets(site: Site, gateway: InstanceSpec) -> dict[str, frozenset[str]]:
    """service → instances, as the gateway's files have them."""
    folder = site.layout.envoy(gateway.region, gateway.id)
    ids = {(HOST, port): id for id, port in site.ports.instances.items()}
    found = {service: envoy.told(folder, service) for service in site.topology.services}
    return {
        service: frozenset(ids.get(each, f"{each[0]}:{each[1]}") for each in addresses)
        for service, addresses in found.items()
        if addresses is not None
    }


def map_version(site: Site, region: str) -> int | None:
    """The version of the map that the region's services read; 0: its file is damaged."""
    try:
        text = site.layout.shard_map(region).read_bytes()
    except OSError:
        return None
    try:
        return int(json.loads(text)["version"])
    except (ValueError, KeyError, TypeError):
        return 0


async def _info(site: Site, region: str) -> dict[str, Info] | None:
    try:
        return await site.supervisors[region].info()
    except Unavailable:
        return None


async def _view(
    site: Site,
    monitor: Monitor,
    spec: InstanceSpec,
    programs: dict[str, Info] | None,
    strays: dict[str, int],
) -> InstanceView:
    if spec.kind == "postgres":
        return await _database(site, monitor, spec.id)
    if spec.kind == "supervisor":
        return await _supervisor(site, spec, programs is not None)
    address = f"{HOST}:{site.port(spec.id)}" if spec.kind not in PORTLESS else None
    info = (programs or {}).get(spec.id)
    pid = info.pid if info is not None and info.runs else strays.get(spec.id)
    if pid is None or not alive(pid):
        if info is not None and info.state in ("BACKOFF", "FATAL"):
            return InstanceView(spec.id, "failed", address=address)
        made = site.log(spec.id).exists()
        return InstanceView(spec.id, "stopped" if made else "absent", address=address)
    if is_stopped(pid):
        return InstanceView(spec.id, "frozen", pid, address)
    if spec.kind == "valkey":
        try:
            shown = await valkey.view(site, spec.id, SECONDS)
        except TimeoutError:
            return InstanceView(spec.id, "frozen", pid, address)
        except OSError:
            return InstanceView(spec.id, "failed", pid, address)
        return InstanceView(spec.id, "running", pid, address, valkey=shown)
    healthy = await servers.is_healthy(site, spec.id, SECONDS)
    return InstanceView(spec.id, "running" if healthy else "failed", pid, address)


async def _supervisor(site: Site, spec: InstanceSpec, answers: bool) -> InstanceView:
    supervisor = site.supervisors[spec.region]
    address = f"{HOST}:{supervisor.port}"
    if answers:
        return InstanceView(spec.id, "running", await supervisor.pid(), address)
    made = supervisor.file.exists()
    return InstanceView(spec.id, "stopped" if made else "absent", None, address)


async def _database(site: Site, monitor: Monitor, instance: str) -> InstanceView:
    address = f"{HOST}:{site.port(instance)}"
    pid = site.postmaster(instance)
    resting = _resting(site, instance)
    if pid is None:
        return InstanceView(instance, "stopped" if resting else "absent", None, address, resting)
    if is_stopped(pid):
        return InstanceView(instance, "frozen", pid, address, resting)
    ids = list(site.topology.by_id)
    try:
        row = await monitor.row(instance, _QUERY, ids, seconds=SECONDS)
        epoch = None
        if row["fenced"]:
            epoch = (await monitor.row(instance, _EPOCH, seconds=SECONDS))["epoch"]
    except TimeoutError:
        return InstanceView(instance, "frozen", pid, address, resting)
    except LOST:
        return InstanceView(instance, "failed", pid, address, resting)
    standby = bool(row["standby"])
    shown = PostgresView(
        "standby" if standby else "primary",
        timeline=row["timeline"],
        position=int(row["position"]),
        replayed=int(row["replayed"]),
        upstream=(row["upstream"] or None) if standby else None,
        sync_names=postgres.parse_sync(row["sync_names"]),
        followers=tuple(Follower(**follower) for follower in json.loads(row["followers"])),
        epoch=epoch,
    )
    return InstanceView(instance, "running", pid, address, shown)


def _resting(site: Site, instance: str) -> PostgresView | None:
    """What the files alone say; None when there is no whole data directory."""
    if not site.complete(instance):
        return None
    standby = postgres.is_standby(site, instance)
    try:
        config = postgres.read_config(site, instance)
    except OSError:
        config = postgres.Config()
    return PostgresView(
        "standby" if standby else "primary",
        upstream=config.upstream if standby else None,
        sync_names=config.sync_names,
    )


def is_stopped(pid: int) -> bool:
    """Whether the process is held by SIGSTOP."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
