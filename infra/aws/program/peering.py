"""The way between two regions' networks, within AWS: tasks of one reach databases of the other."""

from __future__ import annotations

import pulumi_aws as aws

from infra.aws.program.here import Here, Part
from infra.aws.program.network import Network


class Peering(Part):
    """Asked for by `here` and accepted by `there`."""

    def __init__(self, here: Here, network: Network, there: Here, other: Network) -> None:
        super().__init__(here, "Peering", f"peering-{there.region.name}")
        name = f"{here.names.stem}-{here.region.name}-{there.region.name}"
        link = aws.ec2.VpcPeeringConnection(
            self.called(f"peering-{there.region.name}"),
            vpc_id=network.vpc.id,
            peer_vpc_id=other.vpc.id,
            peer_region=there.region.name,
            auto_accept=False,
            tags={"Name": name},
            opts=self.inside(),
        )
        accepted = aws.ec2.VpcPeeringConnectionAccepter(
            self.called(f"peering-{there.region.name}-accepted"),
            vpc_peering_connection_id=link.id,
            auto_accept=True,
            tags={"Name": name},
            opts=self.inside(provider=there.provider),
        )
        self._route(network, there, here.provider, accepted)
        self._route(other, here, there.provider, accepted)
        self.register_outputs({})

    def _route(
        self,
        network: Network,
        target: Here,
        provider: aws.Provider,
        link: aws.ec2.VpcPeeringConnectionAccepter,
    ) -> None:
        """From every private and database subnet of `network` to the network of `target`."""
        letters = network.here.region.letters()
        tables = dict(zip(letters, network.private_tables, strict=True))
        tables["database"] = network.database_table
        for kind, table in tables.items():
            aws.ec2.Route(
                f"{network.here.region.name}-route-{kind}-{target.region.name}",
                route_table_id=table.id,
                destination_cidr_block=target.region.cidr,
                vpc_peering_connection_id=link.vpc_peering_connection_id,
                opts=self.inside(provider=provider),
            )


def join(places: list[tuple[Here, Network]]) -> None:
    """Every region with every other one."""
    for index, (here, network) in enumerate(places):
        for there, other in places[index + 1 :]:
            Peering(here, network, there, other)
