"""Who comes: everybody sometimes, the first more often, and where it is hot those of one shard."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import isclose

from loadtests import profiles
from loadtests.arrivals import Plan, arrivals
from loadtests.cast import Cast, User
from loadtests.guests import Guests
from loadtests.journeys import Visit

CAST = Cast(
    "run7",
    tuple(User(str(number), "s1" if number % 3 else "s2") for number in range(30)),
    ("tea", "ink", "cup"),
)


def visits(plan: Plan) -> list[Visit]:
    guests = Guests(plan, CAST)
    return [guests.visit(arrival) for arrival in arrivals(plan)]


def test_each_visit_has_a_key_of_its_own_and_all_users_and_products_are_taken() -> None:
    found = visits(profiles.named("smoke", 1.0, None, 1))
    assert len({visit.key for visit in found}) == len(found)
    assert {visit.user for visit in found} == {user.id for user in CAST.users}
    assert {visit.sku for visit in found} == set(CAST.skus)
    assert {visit.quantity for visit in found} == {1, 2, 3}


def test_the_first_users_come_more_often_where_the_plan_is_skewed() -> None:
    plan = profiles.named("smoke", 1.0, None, 1)
    count = Counter(visit.user for visit in visits(replace(plan, skew=1.5)))
    assert count["0"] > 3 * count["9"]


def test_most_come_for_the_hot_shard_in_the_profile_of_that_name() -> None:
    found = visits(profiles.named("hot-shard", 1.0, None, 1))
    shard = {user.id: user.shard for user in CAST.users}
    share = sum(shard[visit.user] == "s1" for visit in found) / len(found)
    # Four of five by the plan, and two thirds of the rest, as of all users.
    assert isclose(share, 0.8 + 0.2 * 2 / 3, abs_tol=0.03)
