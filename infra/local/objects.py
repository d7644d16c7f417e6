"""SeaweedFS: the object store of a region, one process with an S3 API.

Its parts (master, volumes, filer, S3) speak to each other by ports of their own, all on loopback;
only the S3 port asks for credentials, so nothing else is dialled by services.
"""

from __future__ import annotations

import json
from pathlib import Path

from infra.local import binaries
from infra.local import layout as files
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import Program

VOLUME_MEGABYTES = 256
HEALTH = "/healthz"
ENVIRONMENT = {
    "GOMEMLIMIT": "96MiB",
    "GOGC": "50",
    # Volumes made at once for a bucket.
    "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
}


def _folder(site: Site, instance: str) -> Path:
    return site.layout.data(site.spec(instance).region, instance)


def prepare(site: Site, instance: str) -> None:
    """Its folder and the file of its credentials exist."""
    folder = _folder(site, instance)
    files.make_folder(folder, mode=0o700)
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
        "dir": folder,
        "master.port": parts["master"],
        "master.port.grpc": parts["master grpc"],
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": VOLUME_MEGABYTES,
        "master.electionTimeout": "1s",
        "volume.port": parts["volume"],
        "volume.port.grpc": parts["volume grpc"],
        "volume.max": 100,
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": parts["filer"],
        "filer.port.grpc": parts["filer grpc"],
        "filer.localSocket": folder / "filer.sock",
        "filer.exposeDirectoryData": "false",
        "s3": "true",
        "s3.port": site.port(instance),
        "s3.port.grpc": parts["s3 grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
    }
    command = [str(binaries.seaweedfs()), "-logtostderr=true", "server"]
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
