"""Emulators of AWS on loopback, and a platform in them as the Pulumi program would have made it.

Neither emulator runs anything: they keep what they are told and answer with it. ministack has the
global databases, moto Route 53, load balancers and scaling; which has what: docs/aws-emulation.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.aws.clients import GLOBAL_REGION, Cloud
from infra.aws.naming import CACHE, GATEWAY, OBJECTS, QUEUE, Names
from infra.aws.site import Site
from infra.aws.spec import platform
from infra.topology import Topology, load
from tests.ports import free_ports

# Which emulator answers for a service; moto for all others.
MINISTACK = ("rds", "ecs", "elasticache", "s3", "cloudwatch")
# The newest that ministack knows; what is deployed is in the topology.
ENGINE, VERSION = "aurora-postgresql", "18.4"
PAUSE = 0.02
KEY = "emulated"


@dataclass(frozen=True)
class Emulators:
    ministack: str
    moto: str

    def endpoints(self) -> dict[str, str]:
        return {"*": self.moto, **dict.fromkeys(MINISTACK, self.ministack)}


@contextmanager
def keys() -> Iterator[None]:
    """Keys that no AWS knows, so that nothing here can reach a real account."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@contextmanager
def running(folder: Path) -> Iterator[Emulators]:
    """Both serve until the block ends; they are ended by their own process ids."""
    one, two = free_ports(2)
    programs = Path(sys.executable).parent
    home = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
    settings = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(one),
        "STATE_DIR": str(folder / "state"),
        "S3_DATA_DIR": str(folder / "s3"),
        "LOG_LEVEL": "WARNING",
    }
    with (folder / "emulators.log").open("wb") as log:
        started = [
            subprocess.Popen(
                [str(programs / name), *arguments],
                env=home | settings,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for name, *arguments in (
                ["ministack"],
                ["moto_server", "-H", "127.0.0.1", "-p", str(two)],
            )
        ]
        try:
            made = Emulators(f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}")
            _await(f"{made.ministack}/_ministack/health", folder)
            _await(f"{made.moto}/moto-api/data.json", folder)
            yield made
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(timeout=20)


def _await(url: str, folder: Path, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise AssertionError((folder / "emulators.log").read_text()[-2000:])
        time.sleep(0.05)


def topology(environment: str, remote: tuple[str, ...] = ("a", "b")) -> Topology:
    """Two regions, one shard, two services: as small as it goes. `remote`: the other region's
    zones."""
    whole = load("aws-two-regions")
    assert whole.aws is not None
    aws = replace(
        whole.aws,
        environment=environment,
        domain=f"{environment}.example.com",
        services=replace(whole.aws.services, minimum=3, maximum=8, standby=2),
        gateway=replace(whole.aws.gateway, minimum=2, maximum=8, standby=2),
    )
    first, second = whole.regions
    regions = (first, replace(second, zones=remote))
    return replace(whole, regions=regions, shards=("s1",), services=("orders", "payments"), aws=aws)


def site(cloud: Cloud, environment: str, remote: tuple[str, ...] = ("a", "b")) -> Site:
    """Platforms of different environments share the emulators, as they share an account."""
    what = topology(environment, remote)
    assert what.aws is not None
    return Site(what, Names(what.aws.project, environment, what.aws.domain), cloud)


def build(site: Site) -> None:
    """Everything that `infra up` makes and the verbs work on."""
    for database in site.topology.databases:
        make_database(site, database)
    for region in site.topology.regions:
        make_region(site, region.name)
    make_route(site)


def make_database(site: Site, database: str) -> None:
    """A global database: a cluster in each region, a server in each zone, the primary first."""
    names = site.names
    for region in site.topology.regions:
        rds = site.cloud.client("rds", region.name)
        first = region.role == "primary"
        if first:
            rds.create_global_cluster(
                GlobalClusterIdentifier=names.global_cluster(database),
                Engine=ENGINE,
                EngineVersion=VERSION,
                StorageEncrypted=True,
            )
        credentials = {"MasterUsername": "regionctl", "MasterUserPassword": "emulated-only"}
        rds.create_db_cluster(
            DBClusterIdentifier=names.cluster(database, region.name),
            GlobalClusterIdentifier=names.global_cluster(database),
            Engine=ENGINE,
            EngineVersion=VERSION,
            StorageEncrypted=True,
            BackupRetentionPeriod=35,
            **(credentials if first else {}),
        )
        for zone in region.zones:
            rds.create_db_instance(
                DBInstanceIdentifier=names.instance(database, region.name, zone),
                DBClusterIdentifier=names.cluster(database, region.name),
                DBInstanceClass="db.r6g.large",
                Engine=ENGINE,
                AvailabilityZone=f"{region.name}{zone}",
            )


def make_region(site: Site, region: str) -> None:
    """Network, load balancer, tasks, cache, queue and bucket of a region."""
    names = site.names
    vpc, subnets, group = _network(site, region)
    _balancer(site, region, vpc, subnets)
    # moto scales what it knows, ministack runs it: the cluster is in both.
    for ecs in (site.cloud.client("ecs", region), _moto(site, "ecs", region)):
        _tasks(site, region, ecs, {"subnets": subnets, "securityGroups": [group]})
    _scaling(site, region)
    for kind in (CACHE, QUEUE):
        site.cloud.client("elasticache", region).create_replication_group(
            ReplicationGroupId=names.replication_group(kind, region),
            ReplicationGroupDescription=kind,
            Engine="valkey",
            CacheNodeType="cache.r7g.large",
            NumCacheClusters=2,
            AutomaticFailoverEnabled=True,
            MultiAZEnabled=True,
            PreferredCacheClusterAZs=[
                f"{region}{zone}" for zone in site.topology.region(region).zones
            ],
        )
    where = {} if region == GLOBAL_REGION else {"LocationConstraint": region}
    site.cloud.client("s3", region).create_bucket(
        Bucket=names.bucket(OBJECTS, region),
        **({"CreateBucketConfiguration": where} if where else {}),
    )


def _moto(site: Site, service: str, region: str) -> Any:
    return _motos(site.cloud.endpoints["*"]).client(service, region)


@cache
def _motos(endpoint: str) -> Cloud:
    return Cloud({"*": endpoint})


def _network(site: Site, region: str) -> tuple[str, list[str], str]:
    """The network, its subnets, and the group of the services."""
    ec2 = site.cloud.client("ec2", region)
    vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{n}.0/24", AvailabilityZone=f"{region}{z}")[
            "Subnet"
        ]["SubnetId"]
        for n, z in enumerate(site.topology.region(region).zones)
    ]
    groups = {
        who: ec2.create_security_group(
            GroupName=f"{site.names.stem}-{who}", Description=who, VpcId=vpc
        )["GroupId"]
        for who in ("service", "control", "database")
    }
    for source in ("service", "control"):
        pair = {"GroupId": groups[source], "Description": f"from {source}"}
        ec2.authorize_security_group_ingress(
            GroupId=groups["database"],
            IpPermissions=[
                {"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "UserIdGroupPairs": [pair]}
            ],
        )
    ways = [
        {"CidrIp": block}
        for other in platform(site.topology, "").regions
        if other.name != region
        for block in other.database
    ]
    ec2.authorize_security_group_egress(
        GroupId=groups["service"],
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 5432, "ToPort": 5432, "IpRanges": ways}],
    )
    return vpc, subnets, groups["service"]


def _balancer(site: Site, region: str, vpc: str, subnets: list[str]) -> None:
    elb = site.cloud.client("elbv2", region)
    target = elb.create_target_group(
        Name=site.names.target_group(region), Protocol="HTTPS", Port=8443, VpcId=vpc
    )["TargetGroups"][0]["TargetGroupArn"]
    balancer = elb.create_load_balancer(Name=site.names.balancer(region), Subnets=subnets)
    elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancers"][0]["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": target}],
    )


def _tasks(site: Site, region: str, ecs: Any, network: dict[str, list[str]]) -> None:
    names = site.names
    ecs.create_cluster(clusterName=names.ecs_cluster(region))
    for component in (*site.topology.services, GATEWAY):
        family = names.task_family(component, region)
        ecs.register_task_definition(
            family=family,
            containerDefinitions=[{"name": component, "image": "platform", "memory": 128}],
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
        )
        ecs.create_service(
            cluster=names.ecs_cluster(region),
            serviceName=names.ecs_service(component),
            taskDefinition=family,
            desiredCount=2,
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": network},
        )


def _scaling(site: Site, region: str) -> None:
    scaling = site.cloud.client("application-autoscaling", region)
    for component in (*site.topology.services, GATEWAY):
        scaling.register_scalable_target(
            ServiceNamespace="ecs",
            ResourceId=site.names.scaling_target(component, region),
            ScalableDimension="ecs:service:DesiredCount",
            MinCapacity=2,
            MaxCapacity=8,
        )


def make_route(site: Site) -> None:
    """The hosted zone, a health check a region, and the failover pair of `origin.DOMAIN`."""
    names, dns = site.names, site.cloud.client("route53", GLOBAL_REGION)
    zone = dns.create_hosted_zone(Name=f"{names.domain}.", CallerReference=names.stem)["HostedZone"]
    changes = []
    for region in site.topology.regions:
        check = dns.create_health_check(
            CallerReference=names.health_check(region.name),
            HealthCheckConfig={
                "Type": "HTTPS",
                "FullyQualifiedDomainName": names.region_origin(region.name),
                "ResourcePath": "/health/ready",
                "Port": 443,
            },
        )["HealthCheck"]["Id"]
        record = {
            "Name": f"{names.origin()}.",
            "Type": "CNAME",
            "TTL": 60,
            "SetIdentifier": names.record_set(region.name),
            "Failover": "PRIMARY" if region.role == "primary" else "SECONDARY",
            "HealthCheckId": check,
            "ResourceRecords": [{"Value": names.region_origin(region.name)}],
        }
        changes.append({"Action": "CREATE", "ResourceRecordSet": record})
    dns.change_resource_record_sets(HostedZoneId=zone["Id"], ChangeBatch={"Changes": changes})


def fall_behind(
    site: Site, database: str, region: str, milliseconds: float, source: str = ""
) -> None:
    """CloudWatch says that the database's cluster in `region` is so far behind (`source`)."""
    dimensions = [{"Name": "DBClusterIdentifier", "Value": site.names.cluster(database, region)}]
    if source:
        dimensions.append({"Name": "SourceRegion", "Value": source})
    datum = {
        "MetricName": "AuroraGlobalDBReplicationLag",
        "Dimensions": dimensions,
        "Value": milliseconds,
        "Unit": "Milliseconds",
    }
    site.cloud.client("cloudwatch", region).put_metric_data(Namespace="AWS/RDS", MetricData=[datum])
