"""Cache and queue of a region: Valkey in two zones each, with TLS and a password.

The settings are those of the local platform (`infra/local/valkey.py`), as far as ElastiCache has
them. The cache may lose everything, so it forgets the least recently used and keeps no snapshot.
The queue may not: it refuses writes when it is full, and is saved every day. ElastiCache has no
append-only file for Valkey; what a lost queue held comes back from the outboxes.
"""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.naming import CACHE, QUEUE
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here, Part
from infra.aws.program.network import Network
from infra.aws.spec import VALKEY_PORT

ENGINE = "valkey"
POLICY = {CACHE: "allkeys-lru", QUEUE: "noeviction"}
SNAPSHOT_WINDOW = "02:00-03:00"
MAINTENANCE_WINDOW = "sun:05:30-sun:06:30"


class Caches(Part):
    """`by` has the replication groups by what they are: "cache" or "queue"; `addresses` are the
    parameters that tell tasks where they are."""

    def __init__(
        self,
        here: Here,
        network: Network,
        groups: Groups,
        key: pulumi.Output[str],
        logs_key: pulumi.Output[str],
        token: pulumi.Output[str],
    ) -> None:
        super().__init__(here, "Caches")
        self._subnets = aws.elasticache.SubnetGroup(
            self.called("cache-subnets"),
            name=here.names.subnet_group(here.region.name),
            description="Caches, in every zone",
            subnet_ids=[subnet.id for subnet in network.database],
            opts=self.inside(),
        )
        self._group, self._key, self._logs_key, self._token = (
            groups.by["cache"],
            key,
            logs_key,
            token,
        )
        self.by = {kind: self._store(kind) for kind in (CACHE, QUEUE)}
        self.addresses: list[pulumi.Resource] = [
            aws.ssm.Parameter(
                self.called(f"address-{kind}"),
                name=here.names.parameter(kind),
                description=f"Where the {kind} takes writes",
                type="String",
                value=pulumi.Output.concat(store.primary_endpoint_address, f":{VALKEY_PORT}"),
                opts=self.inside(),
            )
            for kind, store in self.by.items()
        ]
        self.register_outputs({})

    def _store(self, kind: str) -> aws.elasticache.ReplicationGroup:
        here = self.here
        size = here.platform.aws.cache
        keeps = kind == QUEUE
        logs = aws.cloudwatch.LogGroup(
            self.called(f"logs-{kind}"),
            name=here.names.log_group(kind, here.region.name),
            retention_in_days=here.platform.aws.log_days,
            kms_key_id=self._logs_key,
            opts=self.inside(),
        )
        return aws.elasticache.ReplicationGroup(
            self.called(kind),
            replication_group_id=here.names.replication_group(kind, here.region.name),
            description=f"{here.names.stem}: {kind}",
            engine=ENGINE,
            engine_version=size.engine_version,
            node_type=size.node_type,
            num_cache_clusters=2,
            preferred_cache_cluster_azs=list(here.region.zones[:2]),
            automatic_failover_enabled=True,
            multi_az_enabled=True,
            port=VALKEY_PORT,
            parameter_group_name=self._parameters(kind).name,
            subnet_group_name=self._subnets.name,
            security_group_ids=[self._group.id],
            at_rest_encryption_enabled=True,
            kms_key_id=self._key,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            auth_token_wo=self._token,
            auth_token_wo_version=1,
            auth_token_update_strategy="ROTATE",  # noqa: S106 (a way, not a password)
            snapshot_retention_limit=size.queue_snapshot_days if keeps else 0,
            snapshot_window=SNAPSHOT_WINDOW if keeps else None,
            final_snapshot_identifier=(
                f"{here.names.replication_group(kind, here.region.name)}-final" if keeps else None
            ),
            maintenance_window=MAINTENANCE_WINDOW,
            auto_minor_version_upgrade=False,
            apply_immediately=False,
            log_delivery_configurations=[
                aws.elasticache.ReplicationGroupLogDeliveryConfigurationArgs(
                    destination=logs.name,
                    destination_type="cloudwatch-logs",
                    log_format="json",
                    log_type=log_type,
                )
                for log_type in ("slow-log", "engine-log")
            ],
            opts=self.inside(protect=keeps, ignore_changes=["numCacheClusters"]),
        )

    def _parameters(self, kind: str) -> aws.elasticache.ParameterGroup:
        here = self.here
        family = f"{ENGINE}{here.platform.aws.cache.engine_version.partition('.')[0]}"
        return aws.elasticache.ParameterGroup(
            self.called(f"{kind}-parameters"),
            name=here.names.parameter_group(f"{kind}-{family}", here.region.name),
            family=family,
            description=f"The settings of the local platform's {kind}",
            parameters=[
                aws.elasticache.ParameterGroupParameterArgs(
                    name="maxmemory-policy", value=POLICY[kind]
                ),
                aws.elasticache.ParameterGroupParameterArgs(name="tcp-keepalive", value="10"),
            ],
            opts=self.inside(),
        )
