"""Valkey: the cache (least recently used, no disk) and the queue (append-only, with a replica).

Its file is 0600 because it holds the password. Valkey rewrites the queue's own file when its role
changes (`CONFIG REWRITE`), so a queue that comes back is what it was last told to be.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from infra.local import binaries
from infra.local import layout as files
from infra.local.ports import HOST
from infra.local.site import Site
from infra.local.supervisor import Program
from infra.provider import ValkeyView
from runtime.errors import Unavailable


def config_file(site: Site, instance: str) -> Path:
    return site.layout.data(site.spec(instance).region, instance) / "valkey.conf"


def render(site: Site, instance: str, upstream: str | None) -> str:
    """The text of valkey.conf; `upstream` is the queue that a replica copies."""
    folder = config_file(site, instance).parent
    common = [
        f"bind {HOST}",
        f"port {site.port(instance)}",
        f'dir "{folder}"',
        f"requirepass {site.secrets.valkey}",
        f"masterauth {site.secrets.valkey}",
        "daemonize no",
        "protected-mode yes",
        "tcp-keepalive 10",
    ]
    if site.spec(instance).component == "cache":
        return "\n".join(
            [
                *common,
                "maxmemory 64mb",
                "maxmemory-policy allkeys-lru",
                'save ""',
                "appendonly no",
            ]
        )
    lines = [
        *common,
        "maxmemory-policy noeviction",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "repl-diskless-sync-delay 0",
        "repl-timeout 10",
        "replica-read-only yes",
    ]
    if upstream:
        lines.append(f"replicaof {HOST} {site.port(upstream)}")
    return "\n".join(lines)


def prepare(site: Site, instance: str, upstream: str | None) -> None:
    """Its folder and file exist. A queue keeps the file that it has: that says what it is."""
    path = config_file(site, instance)
    if path.exists() and site.spec(instance).component == "queue":
        return
    files.make_folder(path.parent, mode=0o700)
    files.replace_file(path, render(site, instance, upstream) + "\n")


def program(site: Site, instance: str) -> Program:
    spec = site.spec(instance)
    return Program(
        instance,
        (str(binaries.valkey()), str(config_file(site, instance))),
        environment={"REGIONCTL_INSTANCE": instance, "REGIONCTL_REGION": spec.region},
        priority=200,
    )


async def command(site: Site, instance: str, *words: str, seconds: float = 2.0) -> str:
    """One command and its answer as text. Raises `OSError` or `TimeoutError` when there is none."""
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(HOST, site.port(instance))
        try:
            writer.write(_encode("AUTH", site.secrets.valkey) + _encode(*words))
            await writer.drain()
            first = await reader.readline()
            if not first.startswith(b"+OK"):
                raise ConnectionError(first.decode(errors="replace").strip() or "hung up")
            answer = await reader.readline()
            if answer.startswith(b"-") or not answer:
                raise ConnectionError(answer.decode(errors="replace").strip() or "hung up")
            if answer.startswith(b"$"):
                return (await reader.readexactly(int(answer[1:]))).decode(errors="replace")
            return answer[1:].decode(errors="replace").strip()
        finally:
            writer.close()


def _encode(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [f"${len(word.encode())}\r\n{word}\r\n".encode() for word in words]
    return b"".join(parts)


async def view(site: Site, instance: str, seconds: float = 1.0) -> ValkeyView:
    text = await command(site, instance, "INFO", "replication", seconds=seconds)
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if values.get("role") != "slave":
        return ValkeyView("primary")
    ports = {site.port(spec.id): spec.id for spec in site.topology.instances(kind="valkey")}
    return ValkeyView("replica", ports.get(int(values.get("master_port", 0))))


async def promote(site: Site, instance: str) -> None:
    """`instance` takes writes; the region's other queues are told to follow it, now if they run,
    by their file if they do not."""
    try:
        await command(site, instance, "REPLICAOF", "NO", "ONE")
        await command(site, instance, "CONFIG", "REWRITE")
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"The queue {instance} does not answer: {error}.",
            hint="regionctl status; then try again.",
            extra=site.evidence(instance),
        ) from error
    region = site.spec(instance).region
    for other in site.topology.instances(component="queue", region=region):
        if other.id == instance:
            continue
        try:
            await command(site, other.id, "REPLICAOF", HOST, str(site.port(instance)))
            await command(site, other.id, "CONFIG", "REWRITE")
        except (OSError, TimeoutError):
            path = config_file(site, other.id)
            if path.exists():
                files.replace_file(path, render(site, other.id, instance) + "\n")
