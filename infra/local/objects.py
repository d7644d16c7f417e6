"""SeaweedFS: the object store of a region, one process with an S3 API.

Its parts (master, volumes, filer, S3) speak to each other by ports of their own, all on loopback;
only the S3 port asks for credentials, so nothing else is dialled by services.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from infra.local import binaries
from infra.local import layout as files
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import Program

VOLUME_MEGABYTES = 64
HEALTH = "/healthz"
# On a machine that it shares with services, orders go before the backups that it takes in.
NICE = 5
# Below that limit it collects garbage all the time.
ENVIRONMENT = {"GOMEMLIMIT": "200MiB", "GOGC": "15", "GOMAXPROCS": "2"}
MASTER = """\
[master.volume_growth]
copy_1 = 1
[master.maintenance]
scripts = ""
"""
# The store that it would take otherwise keeps 285 MB of memory for itself.
FILER = """\
[sqlite]
enabled = true
dbFile = "{folder}/data/filer.db"
"""


def _folder(site: Site, instance: str) -> Path:
    return site.layout.data(site.spec(instance).region, instance)


def prepare(site: Site, instance: str) -> None:
    """Its folders, its configuration and the file of its credentials exist."""
    folder = _folder(site, instance)
    for each in (folder, folder / "data", folder / "etc"):
        files.make_folder(each, mode=0o700)
    files.replace_file(folder / "etc" / "master.toml", MASTER)
    files.replace_file(folder / "etc" / "filer.toml", FILER.format(folder=folder))
    identity = {
        "name": "services",
        "credentials": [
            {"accessKey": site.secrets.objectsKey, "secretKey": site.secrets.objectsSecret}
        ],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    files.replace_file(folder / "s3.json", json.dumps({"identities": [identity]}))


def program(site: Site, instance: str) -> Program:
    spec = site.spec(instance)
    folder, parts = _folder(site, instance), site.ports.parts[instance]
    switches = {
        "ip": HOST,
        "ip.bind": HOST,
        "dir": folder / "data",
        "master.port": parts["master"],
        "master.port.grpc": parts["master grpc"],
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": VOLUME_MEGABYTES,
        "master.electionTimeout": "1s",
        "volume.port": parts["volume"],
        "volume.port.grpc": parts["volume grpc"],
        "volume.max": 64,
        "volume.minFreeSpace": "1GiB",
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": parts["filer"],
        "filer.port.grpc": parts["filer grpc"],
        "filer.localSocket": folder / "filer.sock",
        "filer.disableDirListing": "true",
        "filer.exposeDirectoryData": "false",
        "s3": "true",
        "s3.port": site.port(instance),
        "s3.port.grpc": parts["s3 grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",
    }
    nice = shutil.which("nice")
    patient = [nice, "-n", str(NICE)] if nice else []
    command = [*patient, str(binaries.seaweedfs()), "-logtostderr=true"]
    command += [f"-config_dir={folder / 'etc'}", "server"]
    command += [f"-{name}={value}" for name, value in switches.items()]
    environment = {"REGIONCTL_INSTANCE": instance, "REGIONCTL_REGION": spec.region}
    return Program(
        instance,
        tuple(command),
        environment=environment | ENVIRONMENT,
        priority=200,
        # What it has answered it has written; asked to end, it waits for its own connections.
        stop_wait_seconds=2,
    )
