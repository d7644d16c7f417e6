"""Who may speak to whom in a region: security groups that name each other.

Nothing names an address range but the entry, for which AWS keeps lists of who may come, the way to
the databases of another region, whose groups cannot be named here, and the two services that speak
to systems of somebody else.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part
from infra.aws.program.network import ANYWHERE, Network
from infra.aws.spec import GATEWAY_PORT, POSTGRES_PORT, SERVICE_PORT, VALKEY_PORT, RegionSpec

EDGE_LIST = "com.amazonaws.global.cloudfront.origin-facing"
CHECKERS_LIST = "com.amazonaws.{region}.route53-healthchecks"
HTTPS = 443
WHO = {
    "balancer": "The load balancer: reached from CloudFront only",
    "checked": "The load balancer: asked by Route 53's health checkers",
    "gateway": "Envoy: reached from the load balancer",
    "service": "The services: reached from Envoy",
    "outside": "Who speaks to systems of somebody else, or to AWS elsewhere",
    "control": "The control plane",
    "database": "Aurora: reached from the services and the control plane",
    "cache": "Valkey: reached from the services",
    "endpoint": "Endpoints of AWS services",
}
ALLOWED = (
    ("balancer", "gateway", GATEWAY_PORT),
    ("gateway", "service", SERVICE_PORT),
    ("service", "database", POSTGRES_PORT),
    ("control", "database", POSTGRES_PORT),
    ("service", "cache", VALKEY_PORT),
    ("gateway", "endpoint", HTTPS),
    ("service", "endpoint", HTTPS),
    ("control", "endpoint", HTTPS),
)
TASKS = ("gateway", "service", "control")


class Groups(Part):
    """`by` has the security groups by who is in them."""

    def __init__(self, here: Here, network: Network) -> None:
        super().__init__(here, "Groups")
        self.by = {who: self._group(network, who, what) for who, what in WHO.items()}
        for source, target, port in ALLOWED:
            self._allow(source, target, port)
        self._allow_edge()
        self._allow_storage()
        for other in here.platform.regions:
            if other.name != here.region.name:
                self._allow_region(other)
        for port in self._ports_outside():
            aws.vpc.SecurityGroupEgressRule(
                self.called(f"allow-outside-{port}"),
                security_group_id=self.by["outside"].id,
                cidr_ipv4=ANYWHERE,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description="systems of somebody else",
                opts=self.inside(),
            )
        self.register_outputs({})

    def _group(self, network: Network, who: str, what: str) -> aws.ec2.SecurityGroup:
        name = f"{self.here.names.stem}-{who}"
        return aws.ec2.SecurityGroup(
            self.called(f"group-{who}"),
            name=name,
            description=what,
            vpc_id=network.vpc.id,
            tags={"Name": name},
            opts=self.inside(),
        )

    def _allow(self, source: str, target: str, port: int) -> None:
        """`source` may open connections to `port` of `target`: one rule at each end."""
        aws.vpc.SecurityGroupEgressRule(
            self.called(f"allow-{source}-{target}-out"),
            security_group_id=self.by[source].id,
            referenced_security_group_id=self.by[target].id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=f"to {target}",
            opts=self.inside(),
        )
        aws.vpc.SecurityGroupIngressRule(
            self.called(f"allow-{source}-{target}-in"),
            security_group_id=self.by[target].id,
            referenced_security_group_id=self.by[source].id,
            ip_protocol="tcp",
            from_port=port,
            to_port=port,
            description=f"from {source}",
            opts=self.inside(),
        )

    def _allow_edge(self) -> None:
        """A list of AWS counts as many rules as it may have entries, CloudFront's as nearly all
        that a group may have: so the load balancer is in two groups."""
        checkers = CHECKERS_LIST.format(region=self.here.region.name)
        for who, group, listed in (
            ("edge", "balancer", EDGE_LIST),
            ("checkers", "checked", checkers),
        ):
            aws.vpc.SecurityGroupIngressRule(
                self.called(f"allow-{who}-{group}-in"),
                security_group_id=self.by[group].id,
                prefix_list_id=self._prefix_list(listed),
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                description=f"from {listed}",
                opts=self.inside(),
            )

    def _allow_storage(self) -> None:
        """S3 is reached by its gateway endpoint, which has the region's list of addresses. Images
        come from there too."""
        storage = self._prefix_list(f"com.amazonaws.{self.here.region.name}.s3")
        for source in TASKS:
            aws.vpc.SecurityGroupEgressRule(
                self.called(f"allow-{source}-storage-out"),
                security_group_id=self.by[source].id,
                prefix_list_id=storage,
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                description="to S3",
                opts=self.inside(),
            )

    def _allow_region(self, other: RegionSpec) -> None:
        """Tasks here and there reach each other's databases: a writer may be in either region."""
        for letter, inner, data in zip(other.letters(), other.private, other.database, strict=True):
            for source in ("service", "control"):
                aws.vpc.SecurityGroupEgressRule(
                    self.called(f"allow-{source}-{other.name}{letter}-out"),
                    security_group_id=self.by[source].id,
                    cidr_ipv4=data,
                    ip_protocol="tcp",
                    from_port=POSTGRES_PORT,
                    to_port=POSTGRES_PORT,
                    description=f"to the databases of {other.name}{letter}",
                    opts=self.inside(),
                )
            aws.vpc.SecurityGroupIngressRule(
                self.called(f"allow-{other.name}{letter}-database-in"),
                security_group_id=self.by["database"].id,
                cidr_ipv4=inner,
                ip_protocol="tcp",
                from_port=POSTGRES_PORT,
                to_port=POSTGRES_PORT,
                description=f"from the tasks of {other.name}{letter}",
                opts=self.inside(),
            )

    def _prefix_list(self, name: str) -> pulumi.Output[str]:
        options = pulumi.InvokeOutputOptions(parent=self)
        return aws.ec2.get_managed_prefix_list_output(name=name, opts=options).id

    def _ports_outside(self) -> list[int]:
        """Those of the payment gateway and the mail server."""
        smtp = self.here.platform.topology.external.smtp
        return sorted({HTTPS, *([int(smtp.rpartition(":")[2])] if smtp else [])})
