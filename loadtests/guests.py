"""Who comes for what: turns an arrival's draws into a user, a product and a key. Pure."""

from __future__ import annotations

from loadtests.arrivals import Arrival, Plan, pick, zipf
from loadtests.cast import Cast, User
from loadtests.journeys import Visit

MOST_PIECES = 3


class Guests:
    """The users of a run, by the plan's skew and its share for one shard."""

    def __init__(self, plan: Plan, cast: Cast) -> None:
        self._hot = plan.hot
        self._cast = cast
        self._hot_users = cast.hot() if plan.hot else []
        self._shares = zipf(len(cast.users), plan.skew)
        self._hot_shares = zipf(len(self._hot_users), plan.skew) if self._hot_users else []

    def visit(self, arrival: Arrival) -> Visit:
        who, what, many = arrival.draws
        return Visit(
            user=self._user(who).id,
            sku=self._cast.skus[int(what * len(self._cast.skus))],
            quantity=1 + int(many * MOST_PIECES),
            key=f"load-{self._cast.run}-order-{arrival.n}",
        )

    def _user(self, draw: float) -> User:
        """A draw below the hot share says one of the hot shard, one above it one of all."""
        if draw < self._hot:
            return self._hot_users[pick(self._hot_shares, draw / self._hot)]
        return self._cast.users[pick(self._shares, (draw - self._hot) / (1 - self._hot))]
