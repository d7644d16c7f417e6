"""More instances of a service: their names, their ports, what is on record of them."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local import layout, ports, scaling
from infra.local.layout import Layout
from infra.local.site import Site
from infra.topology import Topology, load, parse
from infra.topology_policies import ScalingPolicy
from runtime.errors import Invalid, NotFound, Refused

TOPOLOGY = load("two-regions")
ZONES = ("us-east-1a", "us-east-1b", "us-west-2a")
CHANGES = st.lists(
    st.tuples(st.sampled_from(TOPOLOGY.services), st.sampled_from(ZONES), st.integers(1, 4)),
    max_size=12,
)


def changed(changes: list[tuple[str, str, int]], topology: Topology = TOPOLOGY) -> Topology:
    for service, zone, count in changes:
        topology = topology.with_instances(service, zone, count)
    return topology


@given(changes=CHANGES, shards=st.integers(1, 64))
def test_a_further_instance_has_a_port_of_its_own_and_changes_no_others(
    changes: list[tuple[str, str, int]], shards: int
) -> None:
    before = ports.table(TOPOLOGY.with_shards(shards)).all()
    topology = changed(changes, TOPOLOGY.with_shards(shards))
    table = ports.table(topology)
    assert len(set(table.instances.values())) == len(table.instances)
    assert {port: table.all()[port] for port in before} == before
    assert set(table.all().values()) - set(before.values()) == {
        spec.id for _, spec in topology.further()
    }


@given(changes=CHANGES)
def test_an_instance_keeps_its_port_whatever_else_comes_and_goes(
    changes: list[tuple[str, str, int]],
) -> None:
    full = changed([(service, zone, 4) for service in TOPOLOGY.services for zone in ZONES])
    known = ports.table(full).instances
    some = ports.table(changed(changes)).instances
    assert some.items() <= known.items()


def test_instances_are_numbered_and_known_by_service_and_zone() -> None:
    topology = TOPOLOGY.with_instances("orders", "us-east-1b", 3)
    found = topology.instances(component="orders", zone="b")
    assert [spec.id for spec in found] == [
        *("orders.us-east-1b", "orders-2.us-east-1b", "orders-3.us-east-1b"),
    ]
    assert [spec.number for spec in found] == [1, 2, 3]
    assert topology.count("orders", "us-east-1b") == 3
    assert topology.with_instances("orders", "us-east-1b", 1) == TOPOLOGY
    assert topology.digest() == TOPOLOGY.digest()


def test_where_the_least_is_two_each_zone_begins_with_two() -> None:
    text = "scaling: {minInstances: 2, maxInstances: 3}"
    document = (Path(__file__).parents[2] / "infra/topologies/two-regions.yaml").read_text()
    begin, end = document.index("scaling:"), document.index("coolSeconds: 300}")
    mine = document[:begin] + text + document[end + len("coolSeconds: 300}") :]
    topology = parse(mine, "mine.yaml")
    assert len(topology.instances(component="auth", region="us-east-1")) == 4
    assert topology.counts == ()
    assert topology.with_instances("auth", "us-east-1a", 3).counts == (("auth.us-east-1a", 3),)


@pytest.mark.parametrize(("count", "bounds"), [(1, (2, 4)), (9, (1, 4))])
def test_a_count_on_record_beyond_the_bounds_is_brought_within_them(
    count: int, bounds: tuple[int, int]
) -> None:
    policy = ScalingPolicy(min_instances=bounds[0], max_instances=bounds[1])
    topology = replace(TOPOLOGY, scaling=policy, counts=(("orders.us-east-1a", count),))
    assert topology.count("orders", "us-east-1a") == min(max(count, bounds[0]), bounds[1])


@pytest.mark.parametrize(
    ("problem", "asked"),
    [
        (NotFound, ("order", "us-east-1a", 2)),
        (NotFound, ("orders", "us-east-1", 2)),
        (NotFound, ("cache", "us-east-1a", 2)),
        (Invalid, ("orders", "us-east-1a", 5)),
        (Invalid, ("orders", "us-east-1a", 0)),
    ],
)
def test_what_there_cannot_be_is_refused(
    problem: type[Exception], asked: tuple[str, str, int]
) -> None:
    with pytest.raises(problem):
        TOPOLOGY.with_instances(*asked)


def test_more_instances_than_there_are_ports_are_refused_before_anything_is_made() -> None:
    ports.table(replace(TOPOLOGY, scaling=ScalingPolicy(max_instances=9)))
    with pytest.raises(Invalid, match="ports for 9 instances"):
        ports.table(replace(TOPOLOGY, scaling=ScalingPolicy(max_instances=10)))


def test_how_many_there_are_is_on_record(tmp_path: Path) -> None:
    where = Layout(tmp_path)
    assert scaling.read(where) == ()
    topology = TOPOLOGY.with_instances("orders", "us-east-1a", 3)
    scaling.record(where, topology)
    assert scaling.read(where) == topology.counts
    where.instances.write_text("[1")
    with pytest.raises(Refused, match=r"instances\.json is damaged"):
        scaling.read(where)


def test_a_new_instance_needs_a_port_that_is_free(tmp_path: Path) -> None:
    secrets = layout.read_secrets(Layout(tmp_path))
    with socket.socket() as foreign:
        foreign.bind((ports.HOST, 0))
        foreign.listen()
        wanted = TOPOLOGY.with_instances("orders", "us-east-1a", 2)
        offset = foreign.getsockname()[1] - ports.table(wanted).instances["orders-2.us-east-1a"]
        table = ports.table(TOPOLOGY, offset)
        site = Site(TOPOLOGY, Layout(tmp_path), table, secrets, None, Path("/nowhere"))
        with pytest.raises(ports.PortTaken, match=r"orders-2\.us-east-1a"):
            scaling.changed(site, wanted)
    assert scaling.changed(site, wanted).port("orders-2.us-east-1a") == offset + 18252
