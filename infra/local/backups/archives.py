"""How each database's WAL is being archived, from what the archivers say of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from infra.backups import Archive
from infra.local.backups import program
from infra.local.site import Site
from infra.lsn import format_lsn
from runtime.errors import NotFound


def archives(site: Site) -> Sequence[Archive]:
    """One for each database: of the archiver that receives it, else of none."""
    found: dict[str, Archive] = {}
    for spec in site.topology.instances(kind="archiver"):
        try:
            said = program.status(site, spec.region)
        except NotFound:
            continue
        for database, known in cast(Mapping[str, Mapping[str, Any]], said["databases"]).items():
            each = _archive(database, known, alarm=bool(said["alarm"]))
            if database not in found or (each.received or 0) > (found[database].received or 0):
                found[database] = each
    silent = {
        name: Archive(name, False, None, None, None, 0, None) for name in site.topology.databases
    }
    return [found.get(name, silent[name]) for name in site.topology.databases]


def _archive(database: str, known: Mapping[str, Any], *, alarm: bool) -> Archive:
    gap = known["gap"]
    return Archive(
        database=database,
        running=known["running"],
        timeline=known["timeline"],
        received=known["received"],
        uploaded=known["uploaded"],
        spool_bytes=known["spoolBytes"],
        age_seconds=known["ageSeconds"],
        gap=_gap(gap) if gap else None,
        alarm=alarm and known["spoolBytes"] > 0,
    )


def _gap(gap: Mapping[str, Any]) -> str:
    begin, end = format_lsn(gap["begin"]), format_lsn(gap["end"])
    return f"{begin} to {end} on timeline {gap['timeline']}: {gap['why']}"
