"""Ends the sessions that are open with a region's databases, and says how that is known.

A rule of a security group that is revoked lets connections that are open go on ("Untracked and
tracked connections", VPC User Guide). So whatever is still open is ended at the servers themselves,
after the rules are revoked:

- by SQL, when the administrator gets in: every session but his own and Amazon's own is ended, and
  it is looked again until there is none twice, a pause apart, as a changed rule takes moments to
  hold everywhere;
- else by a restart, which ends every session there is: AWS says "rebooting" after it was asked, and
  "available" after that.

Looked at is the server that each cluster names as its writer, also where AWS says by now that
another region writes: a region that was lost takes writes until Aurora has led it back. The
readers beside it write nothing.
"""

from __future__ import annotations

import asyncio

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.sessions import Sessions
from infra.aws.site import Site
from infra.provider import Fenced
from runtime.clock import wait_until
from runtime.errors import NotFound, OperationFailed, Problem, Refused, TimedOut, Unavailable

LOOK_SECONDS, SQL_SECONDS, RESTART_SECONDS = 5.0, 60.0, 300.0
REBOOTING = "rebooting"
CLEAN_LOOKS = 2
# Whoever is just logging in has no name yet, and cannot be ended before he has.
OTHERS = """
SELECT a.pid, a.usename IS NOT NULL AS named
FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
  AND a.usename IS DISTINCT FROM current_user AND NOT coalesce(r.rolsuper, false)
"""
END = "SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid"


async def evict(site: Site, sessions: Sessions, region: str) -> list[Fenced]:
    """Of each database that the region has: whether all sessions that it had open are ended.

    Raises `Unavailable` when the region's API does not answer.
    """
    found = await asyncio.gather(
        *(_writer(site, sessions, database, region) for database in site.topology.databases)
    )
    return [each for each in found if each is not None]


async def _writer(site: Site, sessions: Sessions, database: str, region: str) -> Fenced | None:
    try:
        document = await databases.cluster(site, database, region)
    except NotFound:
        return None  # What is not there takes no writes.
    server = databases.writer_of(document)
    if server is None:
        return Fenced(False, f"{document['DBClusterIdentifier']} names no writer at this moment")
    try:
        return await _by_sql(site, sessions, database, region, server)
    except (Unavailable, NotFound, Refused, OperationFailed):
        return await _by_restart(site, region, server)


async def _by_sql(
    site: Site, sessions: Sessions, database: str, region: str, server: str
) -> Fenced:
    """Raises what says that the administrator does not get in, or may not do it."""
    instance = site.node(server, database)
    if instance is None:
        raise NotFound(f"{server} is not in the topology.")
    endpoint = (await _described(site, region, server)).get("Endpoint") or {}
    at = (str(endpoint["Address"]), int(endpoint["Port"])) if endpoint else None
    ended: set[int] = set()
    clean = 0

    async def none_left() -> bool:
        nonlocal clean
        async with sessions.session(instance, at=at) as session, asyncio.timeout(LOOK_SECONDS):
            open_ = await session.fetch(OTHERS)
            named = [row["pid"] for row in open_ if row["named"]]
            await session.execute(END, named)
        ended.update(named)
        clean = 0 if open_ else clean + 1
        return clean >= CLEAN_LOOKS

    try:
        await wait_until(
            site.cloud.clock,
            none_left,
            what=f"{server} to have no session of a service",
            seconds=SQL_SECONDS,
            every=site.cloud.pause,
        )
    except TimedOut:
        return Fenced(False, f"sessions with {server} come back when they are ended")
    return Fenced(True, f"{len(ended)} sessions with {server} were ended")


async def _by_restart(site: Site, region: str, server: str) -> Fenced:
    try:
        answer = await site.cloud.call(
            "rds", region, "reboot_db_instance", DBInstanceIdentifier=server
        )
        began = bool(answer["DBInstance"]["DBInstanceStatus"] == REBOOTING)

        async def again() -> bool:
            nonlocal began
            status = (await _described(site, region, server))["DBInstanceStatus"]
            began = began or status == REBOOTING
            return began and bool(status == databases.AVAILABLE)

        await wait_until(
            site.cloud.clock,
            again,
            what=f"{server} to have restarted",
            seconds=RESTART_SECONDS,
            every=site.cloud.pause,
        )
    except Unavailable:
        raise
    except Problem as problem:
        return Fenced(False, f"sessions with {server} may be open: {problem.detail.rstrip('.')}")
    return Fenced(True, f"{server} was restarted")


async def _described(site: Site, region: str, server: str) -> JSON:
    answer = await site.cloud.call(
        "rds", region, "describe_db_instances", DBInstanceIdentifier=server
    )
    found: JSON = answer["DBInstances"][0]
    return found
