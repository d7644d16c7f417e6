"""The databases of a region: Aurora clusters with a server in two zones each.

Every shard and the catalog is an Aurora global database: its writer is in the region that serves,
and its storage is copied to the other regions within a second or so. Within a region the storage
itself has six copies in three zones, so the reader needs no copying to take over.

Pulumi makes them and does not fail them over: the fields that a failover changes are left alone
once they exist (`ignore_changes`), and `regionctl` fails over by the API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from infra.aws.aurora import ADMINISTRATOR, DATABASE, ENGINE, LOGS, cluster_parameters, family
from infra.aws.program.backup import BACKED_UP
from infra.aws.program.here import Here, Part, trust
from infra.aws.program.network import Network
from infra.aws.spec import POSTGRES_PORT

# What a switchover, failover, upgrade or restore changes behind Pulumi's back.
CHANGED_BY_FAILOVER = [
    "databaseName",
    "engineVersion",
    "globalClusterIdentifier",
    "masterUsername",
    "replicationSourceIdentifier",
    "sourceRegion",
]
INSIGHTS_DAYS = 7
MONITORING_SECONDS = 60
BACKUP_WINDOW = "03:00-04:00"
MAINTENANCE_WINDOW = "sun:04:30-sun:05:30"


class GlobalDatabases(Part):
    """What joins a database's clusters in all regions. Stands in the region that serves."""

    def __init__(self, here: Here) -> None:
        super().__init__(here, "GlobalDatabases")
        size = here.platform.aws.database
        self.by_name = {
            database: aws.rds.GlobalCluster(
                self.called(f"global-{database}"),
                global_cluster_identifier=here.names.global_cluster(database),
                engine=ENGINE,
                engine_version=size.engine_version,
                storage_encrypted=True,
                deletion_protection=True,
                force_destroy=False,
                opts=self.inside(protect=True, ignore_changes=["engineVersion"]),
            )
            for database in here.platform.databases
        }
        self.register_outputs({})


class Databases(Part):
    """`after` are the servers, by database, that must be there before a cluster can follow them."""

    def __init__(
        self,
        here: Here,
        network: Network,
        group: aws.ec2.SecurityGroup,
        key: pulumi.Input[str],
        joined: Mapping[str, aws.rds.GlobalCluster],
        passwords: Mapping[str, pulumi.Input[str]],
        after: Mapping[str, Sequence[pulumi.Resource]],
    ) -> None:
        super().__init__(here, "Databases")
        self._key = key
        self._group = group
        self._subnets = aws.rds.SubnetGroup(
            self.called("data-subnets"),
            name=here.names.subnet_group(here.region.name),
            description="Databases, in every zone",
            subnet_ids=[subnet.id for subnet in network.database],
            opts=self.inside(),
        )
        self._parameters = self._parameter_group()
        self._monitoring = self._monitoring_role()
        self.clusters: dict[str, aws.rds.Cluster] = {}
        self.servers: dict[str, list[aws.rds.ClusterInstance]] = {}
        for database in here.platform.databases_in(here.region.name):
            cluster = self._cluster(
                database, joined.get(database), passwords.get(database), after.get(database, ())
            )
            self.clusters[database] = cluster
            self.servers[database] = self._servers(database, cluster)
        self.register_outputs({})

    def _parameter_group(self) -> aws.rds.ClusterParameterGroup:
        size = self.here.platform.aws.database
        version = size.engine_version
        return aws.rds.ClusterParameterGroup(
            self.called("data-parameters"),
            name=self.here.names.parameter_group(family(version), self.here.region.name),
            family=family(version),
            description="The settings of the local platform, as far as Aurora has them",
            parameters=[
                aws.rds.ClusterParameterGroupParameterArgs(
                    name=name, value=value, apply_method=method
                )
                for name, value, method in cluster_parameters(size.instance_class)
            ],
            opts=self.inside(),
        )

    def _monitoring_role(self) -> aws.iam.Role:
        role = aws.iam.Role(
            self.called("data-monitoring"),
            name=self.here.names.role("monitoring", self.here.region.name),
            assume_role_policy=trust("monitoring.rds.amazonaws.com"),
            opts=self.inside(),
        )
        aws.iam.RolePolicyAttachment(
            self.called("data-monitoring"),
            role=role.name,
            policy_arn="arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole",
            opts=self.inside(),
        )
        return role

    def _cluster(
        self,
        database: str,
        whole: aws.rds.GlobalCluster | None,
        password: pulumi.Input[str] | None,
        after: Sequence[pulumi.Resource],
    ) -> aws.rds.Cluster:
        """The first cluster of a global database has its administrator and its name; the others
        get both by replication."""
        region, names = self.here.region, self.here.names
        size = self.here.platform.aws.database
        follows = whole is not None and not region.serves
        return aws.rds.Cluster(
            self.called(f"cluster-{database}"),
            cluster_identifier=names.cluster(database, region.name),
            global_cluster_identifier=whole.global_cluster_identifier if whole else None,
            engine=ENGINE,
            engine_version=size.engine_version,
            storage_type=None if size.storage == "aurora" else size.storage,
            database_name=None if follows else DATABASE,
            master_username=None if follows else ADMINISTRATOR,
            master_password_wo=None if follows else password,
            master_password_wo_version=None if follows else 1,
            port=POSTGRES_PORT,
            db_subnet_group_name=self._subnets.name,
            vpc_security_group_ids=[self._group.id],
            db_cluster_parameter_group_name=self._parameters.name,
            storage_encrypted=True,
            kms_key_id=self._key,
            backup_retention_period=size.backup_days,
            preferred_backup_window=BACKUP_WINDOW,
            preferred_maintenance_window=MAINTENANCE_WINDOW,
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            delete_automated_backups=False,
            skip_final_snapshot=False,
            final_snapshot_identifier=f"{names.cluster(database, region.name)}-final",
            enabled_cloudwatch_logs_exports=list(LOGS),
            iam_database_authentication_enabled=True,
            apply_immediately=False,
            tags={BACKED_UP: "daily"},
            opts=self.inside(
                protect=True, ignore_changes=CHANGED_BY_FAILOVER, depends_on=list(after)
            ),
        )

    def _servers(self, database: str, cluster: aws.rds.Cluster) -> list[aws.rds.ClusterInstance]:
        """One in each of two zones. Equal tiers: either may become the writer."""
        region, names = self.here.region, self.here.names
        size = self.here.platform.aws.database
        found: list[aws.rds.ClusterInstance] = []
        for letter, zone in list(zip(region.letters(), region.zones, strict=True))[:2]:
            found.append(
                aws.rds.ClusterInstance(
                    self.called(f"server-{database}-{letter}"),
                    identifier=names.instance(database, region.name, letter),
                    cluster_identifier=cluster.id,
                    engine=aws.rds.EngineType.AURORA_POSTGRESQL,
                    instance_class=size.instance_class,
                    availability_zone=zone,
                    promotion_tier=0,
                    publicly_accessible=False,
                    auto_minor_version_upgrade=False,
                    ca_cert_identifier="rds-ca-rsa2048-g1",
                    monitoring_interval=MONITORING_SECONDS,
                    monitoring_role_arn=self._monitoring.arn,
                    performance_insights_enabled=True,
                    performance_insights_kms_key_id=self._key,
                    performance_insights_retention_period=INSIGHTS_DAYS,
                    copy_tags_to_snapshot=True,
                    # The first becomes the writer.
                    opts=self.inside(protect=True, depends_on=list(found)),
                )
            )
        return found
