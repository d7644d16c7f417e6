"""A region's network: three kinds of subnet in each zone, and the ways out.

Public subnets have the load balancer and the NAT gateways, private ones every task, database ones
the databases and caches, without any way out. What stays within AWS goes by endpoints.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part, policy, trust

ANYWHERE = "0.0.0.0/0"
GATEWAY_ENDPOINTS = ("s3",)
INTERFACE_ENDPOINTS = (
    "data-servicediscovery",
    "ecr.api",
    "ecr.dkr",
    "kms",
    "logs",
    "secretsmanager",
    "ssm",
    "ssmmessages",
)


class Network(Part):
    def __init__(self, here: Here, logs_key: pulumi.Output[str]) -> None:
        super().__init__(here, "Network")
        region = here.region
        self.vpc = aws.ec2.Vpc(
            self.called("vpc"),
            cidr_block=region.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags={"Name": here.names.ecs_cluster(region.name)},
            opts=self.inside(),
        )
        self.public = self._subnets("public", region.public)
        self.private = self._subnets("private", region.private)
        self.database = self._subnets("database", region.database)
        self.private_tables, self.database_table = self._routes()
        self._record_flows(logs_key)
        self._close_default_group()
        self.register_outputs({"vpc": self.vpc.id})

    def _subnets(self, kind: str, blocks: tuple[str, ...]) -> list[aws.ec2.Subnet]:
        return [
            aws.ec2.Subnet(
                self.called(f"{kind}-{letter}"),
                vpc_id=self.vpc.id,
                cidr_block=block,
                availability_zone=zone,
                map_public_ip_on_launch=False,
                tags={"Name": f"{self.here.names.stem}-{kind}-{zone}", "tier": kind},
                opts=self.inside(),
            )
            for block, zone, letter in zip(
                blocks, self.here.region.zones, self.here.region.letters(), strict=True
            )
        ]

    def _routes(self) -> tuple[list[aws.ec2.RouteTable], aws.ec2.RouteTable]:
        """One table for the public subnets, one a zone for the private ones, one for databases."""
        gateway = aws.ec2.InternetGateway(
            self.called("internet"), vpc_id=self.vpc.id, opts=self.inside()
        )
        public = self._table("public", self.public)
        self._route("public", public, gateway_id=gateway.id)
        tables = []
        for subnet, outside, letter in zip(
            self.private, self.public, self.here.region.letters(), strict=True
        ):
            table = self._table(f"private-{letter}", [subnet])
            nat = self._nat(letter, outside, gateway)
            self._route(f"private-{letter}", table, nat_gateway_id=nat.id)
            tables.append(table)
        return tables, self._table("database", self.database)

    def _table(self, kind: str, subnets: list[aws.ec2.Subnet]) -> aws.ec2.RouteTable:
        table = aws.ec2.RouteTable(
            self.called(f"routes-{kind}"), vpc_id=self.vpc.id, opts=self.inside()
        )
        letters = self.here.region.letters()
        for index, subnet in enumerate(subnets):
            suffix = f"-{letters[index]}" if len(subnets) > 1 else ""
            aws.ec2.RouteTableAssociation(
                self.called(f"routes-{kind}{suffix}"),
                subnet_id=subnet.id,
                route_table_id=table.id,
                opts=self.inside(),
            )
        return table

    def _route(
        self,
        kind: str,
        table: aws.ec2.RouteTable,
        *,
        gateway_id: pulumi.Output[str] | None = None,
        nat_gateway_id: pulumi.Output[str] | None = None,
    ) -> None:
        aws.ec2.Route(
            self.called(f"route-{kind}"),
            route_table_id=table.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway_id,
            nat_gateway_id=nat_gateway_id,
            opts=self.inside(),
        )

    def _nat(
        self, letter: str, subnet: aws.ec2.Subnet, gateway: aws.ec2.InternetGateway
    ) -> aws.ec2.NatGateway:
        address = aws.ec2.Eip(
            self.called(f"nat-{letter}"), domain="vpc", opts=self.inside(depends_on=[gateway])
        )
        return aws.ec2.NatGateway(
            self.called(f"nat-{letter}"),
            allocation_id=address.id,
            subnet_id=subnet.id,
            opts=self.inside(depends_on=[gateway]),
        )

    def _close_default_group(self) -> None:
        """What names no group is in this one, which lets nothing in or out."""
        aws.ec2.DefaultSecurityGroup(
            self.called("default"),
            vpc_id=self.vpc.id,
            ingress=[],
            egress=[],
            opts=self.inside(),
        )

    def _record_flows(self, key: pulumi.Output[str]) -> None:
        """What was refused and what was let through, a line a connection and minute."""
        here = self.here
        group = aws.cloudwatch.LogGroup(
            self.called("logs-flows"),
            name=here.names.log_group("flows", here.region.name),
            retention_in_days=here.platform.aws.log_days,
            kms_key_id=key,
            opts=self.inside(),
        )
        role = aws.iam.Role(
            self.called("role-flows"),
            name=here.names.role("flows", here.region.name),
            assume_role_policy=trust("vpc-flow-logs.amazonaws.com"),
            opts=self.inside(),
        )
        aws.iam.RolePolicy(
            self.called("role-flows"),
            name="write",
            role=role.name,
            policy=policy(
                {
                    "Effect": "Allow",
                    "Action": [
                        "logs:CreateLogStream",
                        "logs:DescribeLogStreams",
                        "logs:PutLogEvents",
                    ],
                    "Resource": here.log_arn("flows"),
                }
            ),
            opts=self.inside(),
        )
        aws.ec2.FlowLog(
            self.called("flows"),
            vpc_id=self.vpc.id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=60,
            opts=self.inside(),
        )

    def add_endpoints(self, group: aws.ec2.SecurityGroup) -> None:
        """Ways to AWS's own services that leave the network nowhere; `group` may be asked."""
        region = self.here.region.name
        for service in GATEWAY_ENDPOINTS:
            aws.ec2.VpcEndpoint(
                self.called(f"endpoint-{service}"),
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Gateway",
                route_table_ids=[table.id for table in self.private_tables],
                opts=self.inside(),
            )
        for service in INTERFACE_ENDPOINTS:
            aws.ec2.VpcEndpoint(
                self.called(f"endpoint-{service}"),
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=[subnet.id for subnet in self.private],
                security_group_ids=[group.id],
                policy=policy(
                    {
                        "Effect": "Allow",
                        "Principal": "*",
                        "Action": "*",
                        "Resource": "*",
                        "Condition": {"StringEquals": {"aws:PrincipalAccount": self.here.account}},
                    }
                ),
                opts=self.inside(),
            )
