"""A real platform in a real account: `pytest -m aws`, with credentials and the platform deployed.

    REGIONCTL_AWS_TOPOLOGY=aws-two-regions pytest -m aws tests/infra/aws/test_live.py

Without credentials everything here is skipped. Nothing is changed, but for one switchover there and
back, and that only with REGIONCTL_AWS_SWITCHOVER=TOPOLOGY.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from infra.aws import databases
from infra.aws.observe import observe
from infra.aws.operate.switchover import switchover
from infra.aws.provider import AwsProvider
from infra.topology import load
from tests.infra.aws import emulators

pytestmark = pytest.mark.aws
NAMED = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


@pytest.fixture
def live() -> AwsProvider:
    if not any(os.environ.get(name) for name in NAMED):
        pytest.skip(f"no AWS credentials: none of {', '.join(NAMED)} is set")
    if os.environ.get("AWS_ACCESS_KEY_ID") == emulators.KEY:
        pytest.skip("the keys are those of the emulators: run pytest -m aws by itself")
    name = os.environ.get("REGIONCTL_AWS_TOPOLOGY")
    if not name:
        pytest.skip("REGIONCTL_AWS_TOPOLOGY does not name the topology that is deployed")
    provider = AwsProvider(load(name))
    if provider.mode != "applied":
        pytest.skip("AWS_ENDPOINT_URL leads to an emulator, which proves nothing here")
    return provider


def test_a_deployed_platform_is_seen_whole(live: AwsProvider) -> None:
    observed = asyncio.run(observe(live.site))
    assert not observed.unreachable
    assert [id for id, view in observed.instances.items() if view.state != "running"] == []
    assert observed.route == live.topology.primary_region.name


def test_cloudwatch_knows_how_far_behind_every_database_is(live: AwsProvider) -> None:
    for region in live.topology.regions:
        if region.role == "dr":
            lags = asyncio.run(databases.lags(live.site, live.topology.databases, region.name))
            assert set(lags) == set(live.topology.databases)


def test_a_switchover_there_and_back_loses_no_region(live: AwsProvider) -> None:
    if os.environ.get("REGIONCTL_AWS_SWITCHOVER") != live.topology.name:
        pytest.skip("REGIONCTL_AWS_SWITCHOVER does not name the topology: nothing is switched over")
    home = live.topology.primary_region.name
    away = next(region.name for region in live.topology.regions if region.name != home)
    database = live.topology.databases[0]
    try:
        assert asyncio.run(switchover(live.site, database, away))["region"] == away
    finally:
        assert asyncio.run(switchover(live.site, database, home))["region"] == home
