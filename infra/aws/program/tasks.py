"""Compute of a region: one ECS service on Fargate for each component, all from one image.

A deployment that does not become healthy is taken back by itself (circuit breaker); a service
grows when its tasks use 70 % of their CPU. Scaling changes the number of tasks, so Pulumi leaves it
alone.
"""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws import images, permissions
from infra.aws.naming import CONTROL_PLANE, GATEWAY
from infra.aws.program.balancer import Balancer
from infra.aws.program.groups import Groups
from infra.aws.program.here import Here, Part, policy, text, trust
from infra.aws.program.keys import Keys
from infra.aws.program.network import Network
from infra.aws.spec import TaskSpec

SCALE_AT_PERCENT = 70
SCALE_OUT_SECONDS, SCALE_IN_SECONDS = 30, 300
GRACE_SECONDS = 60
DNS_SECONDS = 5
# Who speaks to systems of somebody else, or to AWS in other regions.
OUTSIDE = frozenset({"payments", "notifications", CONTROL_PLANE})
MEMBERS = {GATEWAY: "gateway", CONTROL_PLANE: "control"}


class Tasks(Part):
    """`services` by component. `boundary` is the policy that no role here goes beyond."""

    def __init__(
        self,
        here: Here,
        network: Network,
        groups: Groups,
        keys: Keys,
        balancer: Balancer,
        boundary: pulumi.Output[str],
        after: list[pulumi.Resource],
    ) -> None:
        super().__init__(here, "Tasks")
        self._network, self._groups, self._keys = network, groups, keys
        self._balancer, self._boundary, self._after = balancer, boundary, after
        self._sessions = self._log("sessions")
        self.cluster = self._cluster()
        self._namespace = aws.servicediscovery.PrivateDnsNamespace(
            self.called("namespace"),
            name=here.names.namespace(here.region.name),
            vpc=network.vpc.id,
            opts=self.inside(),
        )
        self.services: dict[str, aws.ecs.Service] = {}
        for task in here.region.tasks:
            self.services[task.component] = self._service(task)
            if task.maximum > task.minimum:
                self._scale(task, self.services[task.component])
        self.register_outputs({})

    def _cluster(self) -> aws.ecs.Cluster:
        """Sessions of operators in a task are recorded, and encrypted."""
        logging = aws.ecs.ClusterConfigurationExecuteCommandConfigurationArgs(
            kms_key_id=self._keys.logs,
            logging="OVERRIDE",
            log_configuration=aws.ecs.ClusterConfigurationExecuteCommandConfigurationLogConfigurationArgs(
                cloud_watch_encryption_enabled=True,
                cloud_watch_log_group_name=self._sessions.name,
            ),
        )
        cluster = aws.ecs.Cluster(
            self.called("cluster"),
            name=self.here.names.ecs_cluster(self.here.region.name),
            settings=[aws.ecs.ClusterSettingArgs(name="containerInsights", value="enhanced")],
            configuration=aws.ecs.ClusterConfigurationArgs(execute_command_configuration=logging),
            opts=self.inside(),
        )
        aws.ecs.ClusterCapacityProviders(
            self.called("capacity"),
            cluster_name=cluster.name,
            capacity_providers=["FARGATE"],
            default_capacity_provider_strategies=[
                aws.ecs.ClusterCapacityProvidersDefaultCapacityProviderStrategyArgs(
                    capacity_provider="FARGATE", base=1, weight=1
                )
            ],
            opts=self.inside(),
        )
        return cluster

    def _log(self, component: str) -> aws.cloudwatch.LogGroup:
        return aws.cloudwatch.LogGroup(
            self.called(f"logs-{component}"),
            name=self.here.names.log_group(component, self.here.region.name),
            retention_in_days=self.here.platform.aws.log_days,
            kms_key_id=self._keys.logs,
            opts=self.inside(),
        )

    def _role(self, task: TaskSpec, purpose: str, statements: list[dict[str, Any]]) -> aws.iam.Role:
        what = f"{task.component}-{purpose}"
        role = aws.iam.Role(
            self.called(f"role-{what}"),
            name=self.here.names.role(what, self.here.region.name),
            assume_role_policy=trust(
                "ecs-tasks.amazonaws.com",
                StringEquals={"aws:SourceAccount": self.here.account},
                ArnLike={"aws:SourceArn": self.here.arn("ecs", "*")},
            ),
            permissions_boundary=self._boundary,
            opts=self.inside(),
        )
        aws.iam.RolePolicy(
            self.called(f"role-{what}"),
            name=purpose,
            role=role.name,
            policy=policy(*statements),
            opts=self.inside(),
        )
        return role

    def _definition(self, task: TaskSpec) -> aws.ecs.TaskDefinition:
        here = self.here
        platform, region, account = here.platform, here.region, here.account
        logs = self._log(task.component)
        log_arn = here.log_arn(task.component)
        starting = permissions.starting(platform, region, task, account, log_arn)
        acting = permissions.acting(platform, region, task, account)
        if task.component == CONTROL_PLANE:
            acting += permissions.recording(platform, region, account, here.log_arn("sessions"))
        group = here.names.log_group(task.component, region.name)
        container = images.container(platform, region, task, account, group)
        return aws.ecs.TaskDefinition(
            self.called(f"task-{task.component}"),
            family=here.names.task_family(task.component, region.name),
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(task.cpu),
            memory=str(task.memory),
            runtime_platform=aws.ecs.TaskDefinitionRuntimePlatformArgs(
                cpu_architecture=platform.aws.architecture, operating_system_family="LINUX"
            ),
            execution_role_arn=self._role(task, "start", starting).arn,
            task_role_arn=self._role(task, "task", acting).arn,
            volumes=[aws.ecs.TaskDefinitionVolumeArgs(name=images.VOLUME)],
            container_definitions=text([container]),
            opts=self.inside(depends_on=[logs, *self._after]),
        )

    def _service(self, task: TaskSpec) -> aws.ecs.Service:
        entry = task.component == GATEWAY
        groups = [self._groups.by[MEMBERS.get(task.component, "service")].id]
        if task.component in OUTSIDE:
            groups.append(self._groups.by["outside"].id)
        registered = self._register(task)
        behind = aws.ecs.ServiceLoadBalancerArgs(
            target_group_arn=self._balancer.targets.arn,
            container_name=task.component,
            container_port=task.port,
        )
        return aws.ecs.Service(
            self.called(f"service-{task.component}"),
            name=self.here.names.ecs_service(task.component),
            cluster=self.cluster.arn,
            task_definition=self._definition(task).arn,
            launch_type="FARGATE",
            platform_version="1.4.0",
            desired_count=task.minimum,
            # It starts a task more before it ends one: not where one is all that may run.
            availability_zone_rebalancing=(
                "ENABLED" if task.component != CONTROL_PLANE else "DISABLED"
            ),
            deployment_minimum_healthy_percent=100 if task.component != CONTROL_PLANE else 0,
            deployment_maximum_percent=200 if task.component != CONTROL_PLANE else 100,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(
                enable=True, rollback=True
            ),
            enable_ecs_managed_tags=True,
            propagate_tags="SERVICE",
            enable_execute_command=task.component == CONTROL_PLANE,
            health_check_grace_period_seconds=GRACE_SECONDS if entry else None,
            load_balancers=[behind] if entry else [],
            service_registries=(
                aws.ecs.ServiceServiceRegistriesArgs(registry_arn=registered.arn)
                if registered
                else None
            ),
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=[subnet.id for subnet in self._network.private],
                security_groups=groups,
                assign_public_ip=False,
            ),
            opts=self.inside(
                ignore_changes=["desiredCount"],
                depends_on=[self._balancer.rule] if entry else None,
            ),
        )

    def _register(self, task: TaskSpec) -> aws.servicediscovery.Service | None:
        """Where gateways find the tasks of a service; nobody looks for the others so."""
        if task.component in MEMBERS:
            return None
        record = aws.servicediscovery.ServiceDnsConfigDnsRecordArgs(type="A", ttl=DNS_SECONDS)
        return aws.servicediscovery.Service(
            self.called(f"registry-{task.component}"),
            name=task.component,
            dns_config=aws.servicediscovery.ServiceDnsConfigArgs(
                namespace_id=self._namespace.id,
                routing_policy="MULTIVALUE",
                dns_records=[record],
            ),
            opts=self.inside(),
        )

    def _scale(self, task: TaskSpec, service: aws.ecs.Service) -> None:
        target = aws.appautoscaling.Target(
            self.called(f"scaling-{task.component}"),
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=self.here.names.scaling_target(task.component, self.here.region.name),
            min_capacity=task.minimum,
            max_capacity=task.maximum,
            # A region that takes over needs more tasks from one moment to the next.
            opts=self.inside(depends_on=[service], ignore_changes=["minCapacity"]),
        )
        tracked = aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs
        metric = aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationPredefinedMetricSpecificationArgs  # noqa: E501
        aws.appautoscaling.Policy(
            self.called(f"scaling-{task.component}"),
            name=f"{task.component}-cpu",
            policy_type="TargetTrackingScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            target_tracking_scaling_policy_configuration=tracked(
                target_value=SCALE_AT_PERCENT,
                scale_out_cooldown=SCALE_OUT_SECONDS,
                scale_in_cooldown=SCALE_IN_SECONDS,
                predefined_metric_specification=metric(
                    predefined_metric_type="ECSServiceAverageCPUUtilization"
                ),
            ),
            opts=self.inside(),
        )
