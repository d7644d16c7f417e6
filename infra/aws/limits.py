"""What AWS cannot do, or lets nobody do, and why: the words of every refusal, and of the docs."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.errors import Refused

# By the verb of `infra.provider.Provider`, or "inject KIND". A verb that is not here works.
REASONS: Mapping[str, str] = {
    "set_shards": "a shard is a global database of its own, which `infra up` makes",
    "remove_region": "what Pulumi made, `infra down` removes",
    "set_instances": "ECS spreads a service's tasks over the zones of a region by itself, and "
    "Application Auto Scaling adds and takes away by their CPU",
    "ensure_stopped": "what Pulumi made runs; a region's services are ended by its fence",
    "stop_database": "Aurora stops no single server and no cluster of a global database; "
    "a switchover stops the writes itself, waits, and changes roles in one request",
    "remove_database": "servers are protected against deletion; `infra up` without them does it",
    "rewind": "a server of Aurora has no history of its own: it reads its cluster's volume, and a "
    "lost region's volume is made anew by AWS when the region is back",
    "salvage": "what only a lost region had is in a snapshot that AWS takes when it is back "
    "(rds:unplanned-global-failover-…); it is restored beside and compared",
    "moves": "a reshard copies by logical replication between databases, which is built for the "
    "local platform only",
    "repairs": "rows are compared with a restored copy on the local platform only",
    "restore_into": "Aurora restores into a new cluster, never in place",
    "verify": "no page of a snapshot can be read; AWS Backup's restore testing restores one",
    "mark_point": "Aurora restores each database to a time, and no two of them to one commit",
    "prune": "AWS removes backups when their retention ends",
    "traffic": "load balancers count by the minute in CloudWatch, not since they began",
    "queues": "the streams are read inside the network; ElastiCache has no API for them",
    "inject freeze": "nobody can stop a server's process on AWS without ending it",
    "inject kill-zone": "no API takes a zone away; the Fault Injection Service has a scenario for "
    "it, which is started there",
    "inject cut-link": "the regions' copying is inside AWS",
    "inject slow-link": "the regions' copying is inside AWS",
    "inject drop-cache": "only a session inside the network can empty a cache",
    "inject drop-queue": "only a session inside the network can empty a queue",
    "inject corrupt": "it is done by SQL in a rehearsal's own copy, not in a global database",
}


def refused(what: str, hint: str | None = None) -> Refused:
    """The refusal of `what`, which REASONS has."""
    return Refused(f"Not on AWS ({what}): {REASONS[what]}.", hint=hint or "docs/aws-emulation.md")
