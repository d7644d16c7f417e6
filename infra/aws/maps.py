"""The shard map of each region: an object of its bucket that its services read.

Written only over the very object that was read before (If-Match), so two operations that publish at
the same time cannot leave the older map behind.
"""

from __future__ import annotations

import asyncio
import json

from infra.aws.naming import OBJECTS
from infra.aws.site import Site
from runtime.errors import Forbidden, NotFound, OperationFailed, Refused, Unavailable
from runtime.shardmap import ShardMap

TRIES = 10
SILENT = "silent"
# Of S3's conditional writes: the object is not the one that was read, or is just being written.
OVERTAKEN = ("PreconditionFailed", "ConditionalRequestConflict")


def key(region: str) -> str:
    """With the region in it: the buckets copy everything to each other."""
    return f"control/{region}/shard-map.json"


async def versions(site: Site) -> dict[str, int]:
    """region → the version of the map that it has; without the regions that have none."""
    found = await asyncio.gather(*(_fetch(site, region) for region in site.regions))
    pairs = zip(site.regions, found, strict=True)
    return {region: _version(text) for region, (text, _) in pairs if text is not None}


async def newest(site: Site) -> ShardMap:
    """The newest map that any region has. Raises `Unavailable` when no region has one."""
    found: ShardMap | None = None
    for text, _ in await asyncio.gather(*(_fetch(site, region) for region in site.regions)):
        try:
            read = ShardMap.from_json(json.loads(text or ""))
        except (ValueError, KeyError, TypeError):
            continue
        if found is None or read.version > found.version:
            found = read
    if found is None:
        raise Unavailable(
            "No shard map is published yet.",
            hint="The control plane in AWS publishes the first one when it provisions.",
        )
    return found


async def publish(site: Site, shard_map: ShardMap) -> None:
    """Every region that answers has this map, or a newer one."""
    await asyncio.gather(*(_publish(site, region, shard_map) for region in site.regions))


async def _publish(site: Site, region: str, shard_map: ShardMap) -> None:
    text = json.dumps(shard_map.to_json()).encode()
    for _ in range(TRIES):
        known, tag = await _fetch(site, region)
        if tag == SILENT or (known is not None and _version(known) >= shard_map.version):
            return
        try:
            await site.cloud.call(
                "s3",
                region,
                "put_object",
                Bucket=site.names.bucket(OBJECTS, region),
                Key=key(region),
                Body=text,
                ContentType="application/json",
                **({"IfMatch": tag} if tag else {"IfNoneMatch": "*"}),
            )
        except Unavailable:
            return
        except (OperationFailed, Refused) as failed:
            if failed.extra.get("code") not in OVERTAKEN:
                raise
        else:
            return
    raise OperationFailed(
        f"The shard map of {region} changes faster than it can be written.", hint="Try again."
    )


def _version(text: bytes) -> int:
    """That of a map; a damaged one is older than every other."""
    try:
        return int(json.loads(text)["version"])
    except (ValueError, KeyError, TypeError):
        return 0


async def _fetch(site: Site, region: str) -> tuple[bytes | None, str]:
    """The object and its tag; the tag is "" when there is none, SILENT when nobody answers.

    Whoever may not list the bucket is told of an object that is not there that he may not see it
    ("GetObject", Amazon S3 API Reference). Nothing is lost by that: a map is written over nothing
    only where there is nothing.
    """
    bucket = site.names.bucket(OBJECTS, region)
    try:
        answer = await site.cloud.call("s3", region, "get_object", Bucket=bucket, Key=key(region))
    except (NotFound, Forbidden):
        return None, ""
    except Unavailable:
        return None, SILENT
    return await asyncio.to_thread(answer["Body"].read), str(answer["ETag"])
