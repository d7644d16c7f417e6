"""How many requests the services of a region have answered, from their own counters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import httpx

from infra.local.site import Site

SECONDS = 1.0
COUNTER = re.compile(r'regionctl_request_seconds_count\{.*status="(\d+)".*\} ([0-9.e+]+)')


async def answers(site: Site, region: str) -> tuple[int, int] | None:
    """(answers, those with a 5xx) of the region's orders services; None: one does not say."""
    specs = site.topology.instances(component="orders", region=region)
    urls = [
        f"http://{end.host}:{end.port}/metrics"
        for end in (site.endpoint(spec.id) for spec in specs)
    ]
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        try:
            pages = await asyncio.gather(*(client.get(url) for url in urls))
        except httpx.HTTPError:
            return None
    return count(page.text for page in pages)


def count(pages: Iterable[str]) -> tuple[int, int]:
    """(answers, those with a 5xx) in these services' metrics."""
    found = [match for page in pages for match in COUNTER.findall(page)]
    failed = sum(float(value) for status, value in found if status.startswith("5"))
    return round(sum(float(value) for _, value in found)), round(failed)
