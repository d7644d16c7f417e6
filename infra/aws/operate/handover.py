"""The writer of a global database moves to another region: the part that both ways share."""

from __future__ import annotations

from infra.aws import databases
from infra.aws.clients import JSON
from infra.aws.databases import AVAILABLE, Global, Member
from infra.aws.site import Site
from runtime.clock import wait_until
from runtime.errors import NotFound, OperationFailed, Refused, Unavailable

# A switchover waits for secondaries and changes roles of whole clusters: minutes, as AWS says.
SECONDS = 1800.0


def under_way(known: Global, target: Member, *, healthy: bool) -> bool:
    """Whether this very hand-over was begun before. Raises `Refused` during another one, and, when
    it needs a `healthy` global database, during any other change."""
    if known.heading == target.arn:
        return True
    if known.heading is not None or (healthy and known.status != AVAILABLE):
        raise Refused(
            f"{known.id} is {known.status}, not available: nothing was begun.",
            hint=f"Wait, then try again: aws rds describe-global-clusters "
            f"--global-cluster-identifier {known.id}",
        )
    return False


async def settle(site: Site, database: str, target: Member, *, seconds: float) -> JSON:
    """Waits until `target` is the writer and read back as such: {"region", "writer", ...}.

    `writer` is the server that writes now. Raises `TimedOut`: the hand-over itself goes on.
    """

    async def settled() -> str | None:
        """The new writer's identifier. A moment without a writer or an answer is waited through."""
        try:
            known = await databases.read(site, database, target.region)
            if not known.settled(target.arn):
                return None
            document = await databases.cluster(site, database, target.region)
        except (Unavailable, NotFound):
            return None
        return databases.writer_of(document) if document["Status"] == AVAILABLE else None

    identifier = site.names.global_cluster(database)
    writer = await wait_until(
        site.cloud.clock,
        settled,
        what=f"{target.region} to be the writer of {identifier}",
        seconds=seconds,
        every=site.cloud.pause,
        hint=f"It goes on: aws rds describe-global-clusters "
        f"--global-cluster-identifier {identifier} --region {target.region}",
    )
    node = site.node(writer, database)
    if node is None:
        raise OperationFailed(
            f"{writer} writes {database} in {target.region}, and is not in the topology.",
            hint="regionctl infra plan shows what should exist",
        )
    return {"database": database, "region": target.region, "writer": node}
