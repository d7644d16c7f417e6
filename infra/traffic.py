"""What a front door counts: requests, those it could not serve, and how long they took. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

# Bounds (ms) of a front door that has no others of its own.
BOUNDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)


@dataclass(frozen=True)
class Traffic:
    """Counts of one gateway, or of the edge, since it began; a restart begins them anew.

    `errors` are answers with a 5xx. `buckets` are pairs (upper bound in milliseconds, how many
    requests took at most that long), ascending and cumulative; the last one has every request that
    was timed. What is timed may be counted a few seconds later than what is answered. `serves`:
    not of an edge that lets no client in at the moment, and then has no counts.
    """

    requests: int = 0
    errors: int = 0
    buckets: tuple[tuple[float, int], ...] = ()
    serves: bool = True

    def with_request(self, milliseconds: float, *, failed: bool) -> Traffic:
        """The same after one more request."""
        counts = dict(self.buckets) or dict.fromkeys(map(float, BOUNDS), 0)
        bounds = list(counts)
        for bound in bounds[min(bisect_left(bounds, milliseconds), len(bounds) - 1) :]:
            counts[bound] += 1
        return Traffic(self.requests + 1, self.errors + failed, tuple(counts.items()))
