"""Compute of a region: one ECS service on Fargate for each component, all from one image."""

from __future__ import annotations

import pulumi_aws as aws

from infra.aws.program.groups import Groups
from infra.aws.program.here import Here, Part, document, trust
from infra.aws.program.keys import Keys
from infra.aws.program.network import Network
from infra.aws.spec import TaskSpec

SCALE_AT_PERCENT = 70


class Tasks(Part):
    def __init__(self, here: Here, network: Network, groups: Groups, keys: Keys) -> None:
        super().__init__(here, "Tasks")
        self._network, self._groups = network, groups
        self.cluster = aws.ecs.Cluster(
            self.called("cluster"),
            name=here.names.ecs_cluster(here.region.name),
            settings=[aws.ecs.ClusterSettingArgs(name="containerInsights", value="enhanced")],
            opts=self.inside(),
        )
        self._execution = aws.iam.Role(
            self.called("role-execution"),
            name=here.names.role("execution", here.region.name),
            assume_role_policy=trust("ecs-tasks.amazonaws.com"),
            opts=self.inside(),
        )
        for task in here.region.tasks:
            self._service(task)
        self.register_outputs({})

    def _service(self, task: TaskSpec) -> None:
        names, region = self.here.names, self.here.region.name
        definition = aws.ecs.TaskDefinition(
            self.called(f"task-{task.component}"),
            family=names.task_family(task.component, region),
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(task.cpu),
            memory=str(task.memory),
            execution_role_arn=self._execution.arn,
            container_definitions=document(name=task.component),
            opts=self.inside(),
        )
        service = aws.ecs.Service(
            self.called(f"service-{task.component}"),
            name=names.ecs_service(task.component),
            cluster=self.cluster.arn,
            task_definition=definition.arn,
            launch_type="FARGATE",
            desired_count=task.minimum,
            deployment_circuit_breaker=aws.ecs.ServiceDeploymentCircuitBreakerArgs(
                enable=True, rollback=True
            ),
            network_configuration=aws.ecs.ServiceNetworkConfigurationArgs(
                subnets=[subnet.id for subnet in self._network.private],
                security_groups=[self._groups.by["service"].id],
                assign_public_ip=False,
            ),
            opts=self.inside(ignore_changes=["desiredCount"]),
        )
        target = aws.appautoscaling.Target(
            self.called(f"scaling-{task.component}"),
            service_namespace="ecs",
            scalable_dimension="ecs:service:DesiredCount",
            resource_id=names.scaling_target(task.component, region),
            min_capacity=task.minimum,
            max_capacity=task.maximum,
            opts=self.inside(depends_on=[service]),
        )
        aws.appautoscaling.Policy(
            self.called(f"scaling-{task.component}-cpu"),
            name=f"{task.component}-cpu",
            policy_type="TargetTrackingScaling",
            service_namespace=target.service_namespace,
            scalable_dimension=target.scalable_dimension,
            resource_id=target.resource_id,
            target_tracking_scaling_policy_configuration=(
                aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs(
                    target_value=SCALE_AT_PERCENT,
                    predefined_metric_specification=aws.appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationPredefinedMetricSpecificationArgs(
                        predefined_metric_type="ECSServiceAverageCPUUtilization"
                    ),
                    scale_in_cooldown=300,
                    scale_out_cooldown=30,
                )
            ),
            opts=self.inside(),
        )
