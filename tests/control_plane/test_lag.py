"""What a lost region can take with it is bounded by what was seen, not by what was reported."""

from __future__ import annotations

from datetime import UTC, datetime

from control_plane.lag import safe_until
from infra.provider import Follower, InstanceView, Observed, PostgresView
from infra.topology import load

TOPOLOGY = load("two-regions")
REMOTE = "us-west-2a"


def look(**lacks: tuple[int, int] | None) -> Observed:
    """Each database: (what its primary has written, bytes that the remote replica lacks), or no
    replica."""
    views = {}
    for database in TOPOLOGY.databases:
        given = lacks.get(database, (100, 0))
        followers = (
            (Follower(f"{database}.{REMOTE}", True, False, given[1], None),) if given else ()
        )
        shown = PostgresView("primary", position=given[0] if given else 100, followers=followers)
        primary = f"{database}.us-east-1a"
        views[primary] = InstanceView(primary, "running", 1, None, shown)
    return Observed(datetime(2026, 1, 1, tzinfo=UTC), views, None, frozenset(), {})


def test_nothing_lacking_is_safe_up_to_the_look() -> None:
    assert safe_until(TOPOLOGY, [(5.0, look())], "us-east-1") == 5.0


def test_one_look_at_a_replica_that_lacks_something_shows_nothing() -> None:
    assert safe_until(TOPOLOGY, [(5.0, look(s1=(100, 1)))], "us-east-1") is None


def test_what_was_written_at_a_look_is_safe_when_a_later_one_sees_it_confirmed() -> None:
    looks = [
        (5.0, look(s1=(100, 10))),
        (6.0, look(s1=(120, 30))),
        (7.0, look(s1=(200, 80))),
        (8.0, look(s1=(300, 170))),
    ]
    assert safe_until(TOPOLOGY, looks[:2], "us-east-1") is None
    assert safe_until(TOPOLOGY, looks, "us-east-1") == 6.0


def test_the_slowest_database_decides_and_a_missing_replica_leaves_it_unknown() -> None:
    looks = [(5.0, look(s1=(100, 10))), (6.0, look(s1=(120, 10)))]
    assert safe_until(TOPOLOGY, looks, "us-east-1") == 5.0
    assert safe_until(TOPOLOGY, [(5.0, look(s2=None))], "us-east-1") is None


def test_a_region_without_primaries_loses_nothing_that_could_be_bounded() -> None:
    assert safe_until(TOPOLOGY, [(5.0, look())], "us-west-2") is None
