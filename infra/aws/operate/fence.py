"""What proves that a region, or a server, writes no more.

Of Aurora's own means none is enough: no API stops one server for good, a cluster of a global
database cannot be stopped, `default_transaction_read_only` binds nobody who does not want it, and
the old writer of a lost region is fenced by Aurora only when that region is back. What writes are
the services, so those are taken away, in three ways that need each other:

- the rules of the security groups by which services reach these databases are revoked, those of
  this region and of all others, so that nobody gets a new session;
- every task of the region's services ends; load starts none again;
- every session that is still open is ended at the servers themselves (`evict`): a security group
  lets connections that are open go on, and what would end the tasks of the other regions would end
  the platform.

The control plane's own rule stays, so that what the region has can be looked at. Not stopped is who
connects as the administrator, from inside the database group or by a rule that a person has added;
and nothing of a region whose API does not answer: then it is said so, and a person decides.
"""

from __future__ import annotations

import asyncio

from infra.aws import databases
from infra.aws.operate import rules, scale
from infra.aws.operate.evict import evict
from infra.aws.sessions import Sessions
from infra.aws.site import Site
from infra.provider import Fenced
from runtime.errors import NotFound, Refused, TimedOut, Unavailable


async def fence_region(site: Site, sessions: Sessions, region: str) -> Fenced:
    """Not fenced when the region does not answer, a task has not ended in time, or nobody can prove
    that a database there has no open session of a service any more."""
    site.topology.region(region)
    try:
        await rules.revoke(site, region)
        if still := await rules.shut_others(site, region):
            return Fenced(False, f"services of {', '.join(still)} may still write there")
        stopped = await asyncio.gather(
            *(scale.stop(site, region, service) for service in site.topology.services)
        )
        open_ = [each.how for each in await evict(site, sessions, region) if not each.fenced]
        if open_:
            return Fenced(False, "; ".join(open_))
        if not await rules.barred(site, region):
            return Fenced(False, f"services of {region} may connect to its databases again")
    except Unavailable:
        return Fenced(False, f"the API of {region} does not answer")
    except TimedOut as late:
        return Fenced(False, late.detail)
    return Fenced(
        True,
        f"no task of the {len(stopped)} services of {region} lives, its databases let no service "
        "of any region in, and no session with them is open",
    )


async def lift(site: Site, region: str) -> None:
    """Services of `region` may connect to its databases again; none is started.

    Raises `Refused` when a cluster there is not part of its global database: it would take writes
    that nobody else gets.
    """
    for database in site.topology.databases:
        try:
            known = await databases.read(site, database, region)
        except NotFound:
            continue  # What is not there takes no writes.
        try:
            known.member(region)
        except NotFound as apart:
            raise Refused(
                f"{site.names.cluster(database, region)} is not part of {known.id} any more: its "
                "writes would be nobody else's.",
                hint="regionctl infra plan; it has to be made anew as a secondary",
                runbook="region-failure",
            ) from apart
    await asyncio.gather(
        *(rules.open_way(site, other, region) for other in rules.others(site, region))
    )
    await rules.let_in(site, region)


async def fence(site: Site, instance: str) -> Fenced:
    """A reader writes nothing. A writer is not stopped: whoever is promoted in its region stops it,
    as their volume takes writes of one server."""
    spec = site.spec(instance, "postgres")
    known = await databases.read(site, spec.component, spec.region)
    if not any(member.writer and member.region == spec.region for member in known.members):
        return Fenced(True, f"{known.id} is written in another region")
    try:
        document = await databases.cluster(site, spec.component, spec.region)
    except Unavailable:
        return Fenced(False, f"the API of {spec.region} does not answer")
    if databases.writer_of(document) != site.server(spec):
        return Fenced(True, "it is a reader of its cluster")
    return Fenced(False, "Aurora stops no single server; a promotion in its region does")
