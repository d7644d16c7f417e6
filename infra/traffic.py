"""What a front door counts: requests, those it could not serve, and how long they took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Counts of one region, or of the edge, since they began; they begin anew when it restarts.

    `errors` are answers with a 5xx. `buckets` are pairs (upper bound in milliseconds, how many
    requests took at most that long), ascending and cumulative; the last one has every request that
    was timed. The bounds of one front door never change.
    """

    requests: int
    errors: int
    buckets: tuple[tuple[float, int], ...] = ()
