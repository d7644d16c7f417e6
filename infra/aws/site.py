"""A topology on AWS: what is what there. The other modules ask here, and nobody else for names."""

from __future__ import annotations

from dataclasses import dataclass

from infra.aws.clients import Cloud
from infra.aws.naming import Names
from infra.topology import InstanceSpec, Topology
from runtime.errors import Invalid, NotFound


@dataclass(frozen=True)
class Site:
    topology: Topology
    names: Names
    cloud: Cloud

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(region.name for region in self.topology.regions)

    def spec(self, instance: str, kind: str) -> InstanceSpec:
        """Raises `NotFound` for an unknown instance, and for one of another kind."""
        spec = self.topology.instance(instance)
        if spec.kind != kind:
            raise NotFound(f"{instance} is no {kind}, but a {spec.kind}.", hint="regionctl status")
        return spec

    def server(self, spec: InstanceSpec) -> str:
        """The identifier of a database server."""
        return self.names.instance(spec.component, spec.region, spec.zone)

    def node(self, identifier: str, database: str) -> str | None:
        """The instance of the topology that the database server `identifier` is."""
        for spec in self.topology.database_nodes(database):
            if self.server(spec) == identifier:
                return spec.id
        return None

    def cluster_region(self, arn: str) -> str:
        """ "arn:aws:rds:us-west-2:…" → "us-west-2"."""
        return arn.split(":")[3]

    def group(self, who: str) -> str:
        """The security group of `who` ("service", "database"), of the same name in each region."""
        return f"{self.names.stem}-{who}"


def site_of(topology: Topology, cloud: Cloud | None = None) -> Site:
    """Raises `Invalid` for a topology that is not on AWS."""
    aws = topology.aws
    if aws is None:
        raise Invalid(
            f"The topology {topology.name} is for the provider {topology.provider}.",
            hint="regionctl infra plan --topology aws-two-regions",
        )
    return Site(topology, Names(aws.project, aws.environment, aws.domain), cloud or Cloud())
