"""What a capacity costs is arithmetic over dated prices, and says what it leaves out."""

from __future__ import annotations

import pytest

from infra.aws import prices
from infra.aws.sized import monthly
from infra.topology import load

AWS = load("aws-two-regions")


def test_twice_the_instances_cost_twice_the_compute_and_no_more_database() -> None:
    known = prices.load()
    one = monthly(AWS, known, instances=10, shards=2)
    two = monthly(AWS, known, instances=20, shards=2)
    assert two["computeUsd"] == pytest.approx(2 * one["computeUsd"], abs=0.02)
    assert two["databaseUsd"] == one["databaseUsd"]
    # 60 tasks of 1 vCPU and 2 GiB; 3 databases, 2 servers each in 2 regions.
    assert one["computeUsd"] == pytest.approx(60 * 730 * (0.04048 + 2 * 0.004445), abs=0.01)
    assert one["databaseUsd"] == pytest.approx(12 * 730 * 0.26, abs=0.01)
    assert one["unpriced"] == []


def test_what_has_no_price_is_named_and_never_nothing() -> None:
    cost = monthly(AWS, prices.Prices(()), instances=1, shards=1)
    assert (cost["computeUsd"], cost["databaseUsd"]) == (None, None)
    assert len(cost["unpriced"]) == 3
