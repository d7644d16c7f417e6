"""The archiver among a region's servers: how it is run, and what it is told."""

from __future__ import annotations

import json
import sys
import time

from infra.local import layout as files
from infra.local.ports import HOST
from infra.local.postgres import REPLICATION
from infra.local.site import Site
from infra.local.supervisor import Program
from runtime.errors import NotFound

STATUS = "status.json"
NEEDS = ("backupKey", "objectsKey", "objectsSecret")
# It gives way to the requests; and what a fresh platform does first is to come up.
NICE = 10
SETTLE_SECONDS = 15.0
STALE_SECONDS = 5.0


def name(region: str) -> str:
    return f"archiver.{region}"


def program(site: Site, instance: str) -> Program:
    region = site.spec(instance).region
    config = str(site.layout.etc(region) / "archiver.json")
    return Program(
        instance,
        (sys.executable, "-m", "infra.local.backups.archiver", config),
        environment={"REGIONCTL_INSTANCE": instance, "REGIONCTL_REGION": region},
        autostart=True,
        nice=NICE,
        priority=990,
    )


def prepare(site: Site, region: str) -> None:
    """The region's archiver finds its folder, its configuration and the secrets that it needs."""
    instance = name(region)
    if instance not in site.topology.by_id:
        return
    layout = site.layout
    files.make_folder(layout.data(region, instance), mode=0o700)
    known = vars(site.secrets)
    secrets = {each: known[each] for each in NEEDS}
    files.replace_file(layout.secrets_of(region, "archiver"), json.dumps(secrets))
    passfile = layout.etc(region) / "archiver.pgpass"
    files.replace_file(passfile, f"*:*:*:{REPLICATION}:{site.secrets.replication}\n")
    (objects,) = site.topology.instances(kind="objects", region=region)
    document = {
        "region": region,
        "folder": str(layout.data(region, instance)),
        "shardMap": str(layout.shard_map(region)),
        "secrets": str(layout.secrets_of(region, "archiver")),
        "passfile": str(passfile),
        "bin": str(site.postgres_bin),
        "objects": f"http://{HOST}:{site.port(objects.id)}",
        "spoolBytes": site.topology.backups.spool_megabytes << 20,
        "settleSeconds": SETTLE_SECONDS,
        "alone": len(site.topology.regions) == 1,
        "dial": {
            node.id: site.dial_port(region, node.id)
            for node in site.topology.instances(kind="postgres")
        },
    }
    files.replace_file(layout.etc(region) / "archiver.json", json.dumps(document, indent=1))


def status(site: Site, region: str) -> dict[str, object]:
    """What the archiver of `region` last said of itself. Raises `NotFound` when it has been silent
    for seconds."""
    path = site.layout.data(region, name(region)) / STATUS
    try:
        document: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        age = time.monotonic() - float(str(document["monotonic"]))
    except (OSError, ValueError, KeyError):
        age = -1.0
    if not 0 <= age <= STALE_SECONDS:
        raise NotFound(
            f"The archiver of {region} says nothing.", hint=f"regionctl logs {name(region)}"
        )
    return document


def is_healthy(site: Site, region: str) -> bool:
    try:
        status(site, region)
    except NotFound:
        return False
    return True
