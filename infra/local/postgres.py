"""One PostgreSQL server's files: making them, its configuration, its control file.

Whatever must hold when somebody starts the server by hand lies in the data directory:
`postgresql.conf` has what is equal everywhere and includes `regionctl.conf`, which has what this
server is: its port, whom it follows, and which standbys its commits wait for. So a deposed primary
that is started by hand still waits for a standby that has left it, and acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.local import faults
from infra.local import layout as files
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import Program
from infra.lsn import parse_lsn
from infra.topology import Topology
from runtime import settings
from runtime.errors import OperationFailed
from runtime.shards import POOL_SIZE

DATABASE = settings.DATABASE
SUPERUSER = "regionctl"
# Of the control plane, of moves and restores, and those that PostgreSQL keeps for superusers.
OTHER_CONNECTIONS = 64
REPLICATION = "replicator"
# What writes into a data directory beside the server.
# A whole database over a distance; a control plane that dies meanwhile begins it anew.
COPY_SECONDS = 6 * 3600.0
HELPERS = ("initdb", "pg_basebackup", "pg_rewind")

COMMON = f"""\
# Written by regionctl; the same for every server. What differs is in regionctl.conf.
listen_addresses = '{HOST}'
unix_socket_directories = ''
superuser_reserved_connections = 10
shared_buffers = 16MB
io_method = sync
max_worker_processes = 20
max_logical_replication_workers = 12
max_sync_workers_per_subscription = 2
autovacuum_worker_slots = 4
max_parallel_workers = 0
max_parallel_workers_per_gather = 0
jit = off
password_encryption = scram-sha-256
timezone = UTC
log_timezone = UTC
log_line_prefix = '%m [%p] %a '
log_checkpoints = off

fsync = on
full_page_writes = on
synchronous_commit = on
wal_level = logical
summarize_wal = on
wal_summary_keep_time = 10d
min_wal_size = 48MB
max_wal_size = 512MB
wal_keep_size = 512MB
max_slot_wal_keep_size = 1GB
max_wal_senders = 40
max_replication_slots = 40
max_active_replication_origins = 40
wal_sender_timeout = 10s

hot_standby = on
recovery_target_timeline = latest
wal_receiver_status_interval = 1s
wal_receiver_timeout = 10s
wal_retrieve_retry_interval = 200ms
max_standby_streaming_delay = 5s

tcp_keepalives_idle = 5
tcp_keepalives_interval = 2
tcp_keepalives_count = 3
include 'regionctl.conf'
"""
_HBA = f"""\
host all all {HOST}/32 scram-sha-256
host replication {REPLICATION},{SUPERUSER} {HOST}/32 scram-sha-256
"""


@dataclass(frozen=True)
class Config:
    """What one server is. `upstream` is an instance id; `sync_names` are too."""

    upstream: str | None = None
    sync_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlData:
    """The control file of a stopped server. `checkpoint` is where its last checkpoint record
    begins, in bytes; `clean` says that nothing was written after that record."""

    clean: bool
    timeline: int
    checkpoint: int


def common(topology: Topology) -> str:
    """The text of postgresql.conf: what is equal for every server of a platform."""
    return f"{COMMON}max_connections = {most_connections(topology)}\n"


def most_connections(topology: Topology) -> int:
    """Room for every service instance that a region may ever have, each with its whole pool. A
    standby must allow as many as its primary, so how many there are now does not matter."""
    zones = max(len(region.zones) for region in topology.regions)
    services = zones * len(topology.services) * topology.scaling.max_instances
    return OTHER_CONNECTIONS + services * POOL_SIZE


def hba() -> str:
    """The text of pg_hba.conf of a server of the platform."""
    return _HBA


def render(site: Site, instance: str, config: Config) -> str:
    """The text of regionctl.conf."""
    lines = [
        "# Written by regionctl; overwritten when the server's part changes.",
        f"port = {site.port(instance)}",
        f"cluster_name = '{instance}'",
        f"regionctl.upstream = '{config.upstream or ''}'",
        f"synchronous_standby_names = '{render_sync(config.sync_names)}'",
    ]
    if config.upstream:
        conninfo = (
            f"{dial(site, instance, config.upstream)} user={REPLICATION} "
            f"application_name={instance} passfile={site.pgdata(instance)}/pgpass "
            "connect_timeout=3 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 "
            "tcp_user_timeout=6000"
        )
        lines.append(f"primary_conninfo = '{conninfo}'")
    return "\n".join(lines) + "\n"


def render_sync(names: tuple[str, ...]) -> str:
    """The value of synchronous_standby_names: any one of `names`, or empty."""
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"ANY 1 ({quoted})" if names else ""


def parse_sync(value: str) -> tuple[str, ...]:
    return tuple(re.findall(r'"([^"]+)"', value))


def dial(site: Site, instance: str, upstream: str) -> str:
    """How `instance` reaches `upstream`, as libpq key words."""
    return f"host={HOST} port={site.dial_port(site.spec(instance).region, upstream)}"


def write_config(site: Site, instance: str, config: Config) -> None:
    files.replace_file(
        site.pgdata(instance) / "regionctl.conf", render(site, instance, config), owner=site.user
    )


def read_config(site: Site, instance: str) -> Config:
    """What regionctl.conf says. Raises `OSError` when there is none."""
    text = (site.pgdata(instance) / "regionctl.conf").read_text(encoding="utf-8")
    values = dict(re.findall(r"^([\w.]+) = '(.*)'$", text, re.MULTILINE))
    return Config(
        values.get("regionctl.upstream") or None,
        parse_sync(values.get("synchronous_standby_names", "")),
    )


def is_standby(site: Site, instance: str) -> bool:
    """What its data directory would start as."""
    return (site.pgdata(instance) / "standby.signal").exists()


def make_standby(site: Site, instance: str, upstream: str) -> None:
    """The data directory starts as a standby of `upstream`."""
    folder = site.pgdata(instance)
    password = f"*:*:*:{REPLICATION}:{site.secrets.replication}\n"
    files.replace_file(folder / "pgpass", password, owner=site.user)
    write_config(site, instance, Config(upstream))
    files.replace_file(folder / "standby.signal", "", owner=site.user)


def wipe(site: Site, instance: str) -> Path:
    """An empty data directory of the right owner; whatever was there is gone."""
    site.mark(instance, complete=False)
    folder = site.pgdata(instance)
    with files.explain_disk(folder):
        if folder.exists():
            shutil.rmtree(folder)
        files.make_folder(folder, owner=site.user, mode=0o700)
    return folder


def clear_lock(folder: Path) -> None:
    """A lock file whose process id belongs to another program by now does not prevent a start.

    Any other is left to PostgreSQL, which also finds by it the orphans of a killed postmaster: two
    servers on one data directory would destroy it.
    """
    path = folder / "postmaster.pid"
    try:
        taken = psutil.pid_exists(int(path.read_text(encoding="ascii").split("\n", 1)[0]))
    except FileNotFoundError:
        return
    except ValueError:
        taken = True
    if taken:
        path.unlink(missing_ok=True)


def end_helpers(site: Site, instance: str) -> None:
    """No program of a control plane that died still writes into this data directory.

    They outlive it, and what is begun anew would be mixed with what they go on to write. Raises
    `TimedOut` when one does not end.
    """
    folder = str(site.pgdata(instance))
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() in HELPERS and folder in process.cmdline():
                found.append(process.pid)
    if found:
        faults.kill_tree(found)


async def initialise(site: Site, instance: str) -> None:
    """A fresh cluster with data checksums, not yet started."""
    await asyncio.to_thread(end_helpers, site, instance)
    folder = wipe(site, instance)
    password = folder.parent / "password"
    files.replace_file(password, site.secrets.superuser, owner=site.user)
    try:
        await site.run(
            "initdb",
            *("-D", str(folder), "--username", SUPERUSER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--data-checksums", "--encoding", "UTF8"),
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            instance=instance,
        )
    finally:
        password.unlink(missing_ok=True)
    files.replace_file(folder / "postgresql.conf", common(site.topology), owner=site.user)
    files.replace_file(folder / "pg_hba.conf", _HBA, owner=site.user)
    write_config(site, instance, Config())
    site.mark(instance, complete=True)


async def copy(site: Site, instance: str, upstream: str) -> None:
    """A base backup of `upstream` that starts as its standby."""
    await asyncio.to_thread(end_helpers, site, instance)
    folder = wipe(site, instance)
    await site.run(
        "pg_basebackup",
        *("-D", str(folder), "-X", "stream", "--checkpoint", "fast"),
        *("-d", f"{dial(site, instance, upstream)} user={REPLICATION} dbname=replication"),
        instance=instance,
        password=site.secrets.replication,
        seconds=COPY_SECONDS,
    )
    make_standby(site, instance, upstream)
    site.mark(instance, complete=True)


async def rewind(site: Site, instance: str, upstream: str) -> None:
    """The stopped server's data directory is led back to the history of `upstream`.

    The directory is not whole while this runs: pg_rewind also copies the other one's settings.
    """
    await asyncio.to_thread(end_helpers, site, instance)
    site.mark(instance, complete=False)
    await site.run(
        "pg_rewind",
        *("--target-pgdata", str(site.pgdata(instance))),
        "--source-server",
        f"{dial(site, instance, upstream)} user={SUPERUSER} dbname={DATABASE}",
        instance=instance,
        password=site.secrets.superuser,
        seconds=COPY_SECONDS,
    )
    make_standby(site, instance, upstream)
    site.mark(instance, complete=True)


async def control_data(site: Site, instance: str) -> ControlData:
    text = await site.run(
        "pg_controldata", "-D", str(site.pgdata(instance)), instance=instance, seconds=20
    )
    values = dict(re.findall(r"^([^:\n]+):\s+(.*)$", text, re.MULTILINE))
    try:
        return ControlData(
            clean=values["Database cluster state"] == "shut down",
            timeline=int(values["Latest checkpoint's TimeLineID"]),
            checkpoint=parse_lsn(values["Latest checkpoint location"]),
        )
    except (KeyError, ValueError) as error:
        raise OperationFailed(
            f"The control file of {instance} is unreadable.",
            hint="regionctl up makes it again as a fresh copy of its primary.",
            extra={"instance": instance, "lines": text.splitlines()[:8]},
        ) from error


def final_position(instance: str, data: ControlData, *, standby: bool) -> int:
    """A position that only a server with everything of the stopped `instance` has reached.

    Raises `OperationFailed` for a primary that was killed or crashed: its control file names an
    older checkpoint, which a standby that lacks acknowledged commits has reached too.
    """
    if not data.clean and not standby:
        raise OperationFailed(
            f"{instance} was not stopped cleanly: where its history ends is not known.",
            hint="regionctl up starts it again; then repeat the command.",
        )
    return data.checkpoint + 1


def program(site: Site, instance: str) -> Program:
    """How the supervisor runs it: never by itself, stopped fast but cleanly."""
    spec = site.spec(instance)
    return Program(
        instance,
        (str(site.postgres_bin / "postgres"), "-D", str(site.pgdata(instance))),
        environment={"REGIONCTL_INSTANCE": instance, "REGIONCTL_REGION": spec.region},
        user=site.user.name if site.user else None,
        autorestart=False,
        start_seconds=0,
        stop_signal="INT",
        stop_wait_seconds=60,
    )
