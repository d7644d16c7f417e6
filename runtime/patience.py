"""How long a request may wait for a database that is away.

Who waits keeps a processor busy with attempts, and a slot of its service and gateway taken: more
and more of them would take the other shards' customers down too ("bulkhead": M. Nygard, Release
It!, chapter 5). A failover takes less than the budget of a request, so it is waited for.
"""

from __future__ import annotations

AWAY_SECONDS = 0.5


def patience(away: float, budget: float) -> float:
    """Seconds that a request with this `budget` waits for a database that was `away` so long."""
    return budget if away < budget else min(budget, AWAY_SECONDS)


class Absences:
    """Which databases are away, and since when. Times are monotonic seconds."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._known: dict[str, tuple[float, float]] = {}  # lost at, and last found so

    def lost(self, name: str, now: float) -> None:
        """It could not be reached, or went away; nobody saying so for a while ends an absence."""
        since, seen = self._known.get(name, (now, now))
        self._known[name] = (now if now - seen > self._budget else since, now)

    def found(self, name: str) -> None:
        self._known.pop(name, None)

    def patience(self, name: str, now: float) -> float:
        since, seen = self._known.get(name, (now, now))
        return patience(now - since if now - seen <= self._budget else 0.0, self._budget)
