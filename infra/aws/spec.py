"""What a topology means on AWS: addresses, sizes, which task runs where and what it is told. Pure.

The Pulumi program (`infra/aws/program`) turns this into resources and decides nothing itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from infra.aws.naming import CONTROL, CONTROL_PLANE, GATEWAY, Names
from infra.needs import EXTERNAL, NEEDS
from infra.topology import Topology
from infra.topology_aws import AwsSpec, TaskSize
from runtime.errors import Invalid

POSTGRES_PORT, VALKEY_PORT = 5432, 6379
GATEWAY_PORT, SERVICE_PORT, CONTROL_PORT = 8443, 8080, 18000
LIVE, READY = "/health/live", "/health/ready"
# Each region gets a /16 of 10.0.0.0/8, its subnets a /20 each: 4091 addresses, of which every task
# takes one.
FIRST_NETWORK = 20
SUBNET_PREFIX = 20


@dataclass(frozen=True)
class TaskSpec:
    """Tasks of one component in one region. `cpu` in 1/1024 vCPU, `memory` in MiB; between
    `minimum` and `maximum` of them run, by load."""

    component: str
    cpu: int
    memory: int
    minimum: int
    maximum: int
    port: int
    health_path: str


@dataclass(frozen=True)
class RegionSpec:
    """`zones` are whole names ("us-east-1a"). Subnets are CIDR blocks, one a zone."""

    name: str
    role: str
    zones: tuple[str, ...]
    cidr: str
    public: tuple[str, ...]
    private: tuple[str, ...]
    database: tuple[str, ...]
    tasks: tuple[TaskSpec, ...]

    @property
    def serves(self) -> bool:
        return self.role == "primary"

    def letters(self) -> tuple[str, ...]:
        """The zones without the region: "a", "b"."""
        return tuple(zone.removeprefix(self.name) for zone in self.zones)


@dataclass(frozen=True)
class Platform:
    """`text` is the topology as it was written, for the control plane's own use. `databases` are
    the global ones. The control plane's own database stands in `control_region`:
    the region that survives, and knows what to do, when the one that serves is lost."""

    topology: Topology
    text: str
    aws: AwsSpec
    names: Names
    regions: tuple[RegionSpec, ...]
    databases: tuple[str, ...]
    control_region: str

    @property
    def primary(self) -> RegionSpec:
        return next(region for region in self.regions if region.serves)

    @property
    def waiting(self) -> tuple[RegionSpec, ...]:
        return tuple(region for region in self.regions if not region.serves)

    @property
    def every_database(self) -> tuple[str, ...]:
        return (*self.databases, CONTROL)

    @property
    def project(self) -> str:
        """Pulumi's project."""
        return self.aws.project

    @property
    def stack(self) -> str:
        """Pulumi's stack: one an environment of a topology."""
        return f"{self.topology.name}.{self.aws.environment}"

    def databases_in(self, region: str) -> tuple[str, ...]:
        """Every database with a cluster there."""
        return (*self.databases, CONTROL) if region == self.control_region else self.databases

    def tags(self, region: str) -> dict[str, str]:
        """On everything that can have tags, by the provider of `region`."""
        return {
            "project": self.aws.project,
            "environment": self.aws.environment,
            "topology": self.topology.name,
            "region": region,
            "owner": self.aws.owner,
            "cost-centre": self.aws.cost_centre,
        }


def secrets_of(service: str) -> dict[str, bool]:
    """What `service` reads from its secret, by name; True: made here, False: for a person to put
    there, since it is what a system of somebody else asks for. Files in S3 need none: a task's
    role opens them."""
    wanted = [name for name in NEEDS.get(service, ()) if not name.startswith("objects")]
    return {"database": True} | {name: name not in EXTERNAL for name in wanted}


def platform(topology: Topology, text: str) -> Platform:
    """Raises `Invalid` when the topology is not one for AWS."""
    aws = topology.aws
    if aws is None:
        raise Invalid(
            f"The topology {topology.name} is for the provider {topology.provider}.",
            hint="regionctl infra plan --topology aws-two-regions",
        )
    waiting = [region.name for region in topology.regions if region.role == "dr"]
    control_region = waiting[0] if waiting else topology.primary_region.name
    regions = []
    for index, region in enumerate(topology.regions):
        network = IPv4Network(f"10.{FIRST_NETWORK + index}.0.0/16")
        blocks = [str(block) for block in network.subnets(new_prefix=SUBNET_PREFIX)]
        count = len(region.zones)
        regions.append(
            RegionSpec(
                name=region.name,
                role=region.role,
                zones=tuple(f"{region.name}{zone}" for zone in region.zones),
                cidr=str(network),
                public=tuple(blocks[:count]),
                private=tuple(blocks[count : 2 * count]),
                database=tuple(blocks[2 * count : 3 * count]),
                tasks=_tasks(
                    topology, aws, region.role == "primary", region.name == control_region
                ),
            )
        )
    return Platform(
        topology=topology,
        text=text,
        aws=aws,
        names=Names(aws.project, aws.environment, aws.domain),
        regions=tuple(regions),
        databases=topology.databases,
        control_region=control_region,
    )


def _tasks(topology: Topology, aws: AwsSpec, serves: bool, controls: bool) -> tuple[TaskSpec, ...]:
    found = [
        _task(service, aws.services, serves, SERVICE_PORT, READY) for service in topology.services
    ]
    found.append(_task(GATEWAY, aws.gateway, serves, GATEWAY_PORT, READY))
    if controls:
        found.append(_task(CONTROL_PLANE, aws.control_plane, True, CONTROL_PORT, LIVE))
    return tuple(found)


def _task(component: str, size: TaskSize, serves: bool, port: int, path: str) -> TaskSpec:
    minimum = size.minimum if serves else size.standby
    return TaskSpec(component, size.cpu, size.memory, minimum, size.maximum, port, path)
