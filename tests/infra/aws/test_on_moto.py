"""What moto has of RDS and ministack has not: a restore to a moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from infra.aws.clients import Cloud
from infra.aws.operate import restore
from infra.aws.site import Site
from tests.infra.aws import emulators

EAST = "us-east-1"


@pytest.fixture(scope="module")
def alone(cloud: Cloud) -> Site:
    """The cluster of s1 without its global database, which moto cannot restore from."""
    moto = Cloud({"*": cloud.endpoints["*"]}, pause=emulators.PAUSE)
    made = replace(emulators.site(moto, "alone"), cloud=moto)
    moto.client("rds", EAST).create_db_cluster(
        DBClusterIdentifier=made.names.cluster("s1", EAST),
        Engine=emulators.ENGINE,
        MasterUsername="regionctl",
        MasterUserPassword="emulated-only",
        BackupRetentionPeriod=35,
    )
    return made


@pytest.mark.shows("rds.restore_db_cluster_to_point_in_time", "rds.create_db_instance", on="moto")
def test_a_database_is_restored_beside_itself_once(alone: Site) -> None:
    for changed in (True, False):
        made = asyncio.run(restore.restore(alone, "s1", EAST, id="r1"))
        assert (made["cluster"], made["changed"]) == ("r1", changed)
    found = asyncio.run(restore.find(alone, EAST, "r1"))
    assert found is not None
    assert [each["DBInstanceIdentifier"] for each in found["DBClusterMembers"]] == ["r1-1"]
