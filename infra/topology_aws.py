"""What a topology with `provider: aws` says beyond regions and shards: sizes, limits, whose it is.

Nothing here belongs to one account: no account number, no identifier that AWS makes up. As it is
used (`AwsSpec`) and as it is written in YAML (`AwsWire`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from infra import topology_faults as faults
from infra.topology_policies import Wire

Architecture = Literal["X86_64", "ARM64"]
# By vCPU units (1024 are one): the memory that Fargate allows with it, in MiB; whole GiB steps.
FARGATE: dict[int, range] = {
    256: range(512, 2049, 512),
    512: range(1024, 4097, 1024),
    1024: range(2048, 8193, 1024),
    2048: range(4096, 16_385, 1024),
    4096: range(8192, 30_721, 1024),
}


@dataclass(frozen=True)
class TaskSize:
    """`cpu` in units of 1/1024 vCPU, `memory` in MiB. `minimum` and `maximum` tasks in the region
    that serves; a region that waits runs `standby` of them until it is needed."""

    cpu: int
    memory: int
    minimum: int
    maximum: int
    standby: int


@dataclass(frozen=True)
class DatabaseSize:
    """`instance_class` of every server of every database; `backup_days` of continuous backup."""

    engine_version: str
    instance_class: str
    backup_days: int
    storage: str


@dataclass(frozen=True)
class CacheSize:
    engine_version: str
    node_type: str
    queue_snapshot_days: int


@dataclass(frozen=True)
class Alerts:
    """E-mail addresses that the two SNS topics of each region and the budgets tell."""

    critical: tuple[str, ...]
    warning: tuple[str, ...]


@dataclass(frozen=True)
class AwsSpec:
    """`image_digest` ("sha256:…") pins the image of every task; without it `image_tag` does, which
    the repository lets nobody move. `budget_usd` is for a month.
    """

    project: str
    environment: str
    owner: str
    cost_centre: str
    domain: str
    image_tag: str
    image_digest: str
    architecture: Architecture
    database: DatabaseSize
    cache: CacheSize
    services: TaskSize
    gateway: TaskSize
    control_plane: TaskSize
    log_days: int
    backup_vault_days: int
    budget_usd: int
    alerts: Alerts
    block_known_bad: bool


class TaskWire(Wire):
    cpu: Literal[256, 512, 1024, 2048, 4096]
    memory: Annotated[int, Field(ge=512, le=30_720)]
    minimum: Annotated[int, Field(ge=1, le=500)]
    maximum: Annotated[int, Field(ge=1, le=1000)]
    standby: Annotated[int, Field(ge=1, le=500)]

    def spec(self) -> TaskSize:
        return TaskSize(**self.model_dump())

    def fault(self) -> str | None:
        """What is wrong with the fields together."""
        allowed = FARGATE[self.cpu]
        if self.memory not in allowed:
            return (
                f"{self.memory} MiB do not go with cpu {self.cpu}: Fargate allows "
                f"{allowed[0]} to {allowed[-1]} in steps of {allowed.step}"
            )
        if not self.standby <= self.maximum or not self.minimum <= self.maximum:
            return f"minimum and standby may not exceed maximum, {self.maximum}"
        return None


class DatabaseWire(Wire):
    engine_version: Annotated[str, Field(pattern=faults.VERSION)] = "18.6"
    instance_class: Annotated[str, Field(pattern=faults.INSTANCE_CLASS)] = "db.r6g.large"
    backup_days: Annotated[int, Field(ge=7, le=35)] = 35
    storage: Literal["aurora", "aurora-iopt1"] = "aurora"


class CacheWire(Wire):
    engine_version: Annotated[str, Field(pattern=faults.VERSION)] = "8.2"
    node_type: Annotated[str, Field(pattern=faults.NODE_TYPE)] = "cache.r7g.large"
    queue_snapshot_days: Annotated[int, Field(ge=1, le=35)] = 7


class AlertsWire(Wire):
    critical: Annotated[list[Annotated[str, Field(pattern=faults.EMAIL)]], Field(min_length=1)]
    warning: Annotated[list[Annotated[str, Field(pattern=faults.EMAIL)]], Field(min_length=1)]


class AwsWire(Wire):
    project: Annotated[str, Field(pattern=faults.STEM)] = "regionctl"
    environment: Annotated[str, Field(pattern=faults.ENVIRONMENT)]
    owner: Annotated[str, Field(pattern=faults.TAG)]
    cost_centre: Annotated[str, Field(pattern=faults.TAG)]
    domain: Annotated[str, Field(pattern=faults.DOMAIN, max_length=40)]
    image_tag: Annotated[str, Field(pattern=faults.IMAGE_TAG)]
    image_digest: Annotated[str, Field(pattern=faults.DIGEST)] | None = None
    architecture: Architecture = "X86_64"
    database: DatabaseWire = DatabaseWire()
    cache: CacheWire = CacheWire()
    services: TaskWire
    gateway: TaskWire
    control_plane: TaskWire
    nat_gateways: bool = True
    log_days: Literal[7, 14, 30, 60, 90, 180, 365, 400, 731] = 90
    backup_vault_days: Annotated[int, Field(ge=7, le=3650)] = 90
    budget_usd: Annotated[int, Field(ge=1)]
    alerts: AlertsWire
    block_known_bad: bool = True

    def spec(self) -> AwsSpec:
        return AwsSpec(
            project=self.project,
            environment=self.environment,
            owner=self.owner,
            cost_centre=self.cost_centre,
            domain=self.domain,
            image_tag=self.image_tag,
            image_digest=self.image_digest or "",
            architecture=self.architecture,
            database=DatabaseSize(**self.database.model_dump()),
            cache=CacheSize(**self.cache.model_dump()),
            services=self.services.spec(),
            gateway=self.gateway.spec(),
            control_plane=self.control_plane.spec(),
            log_days=self.log_days,
            backup_vault_days=self.backup_vault_days,
            budget_usd=self.budget_usd,
            alerts=Alerts(tuple(self.alerts.critical), tuple(self.alerts.warning)),
            block_known_bad=self.block_known_bad,
        )


def check(provider: str, zones: Mapping[str, Sequence[str]], aws: AwsWire | None) -> None:
    """Raises `ValueError`, beginning with the field at fault. `zones` by region."""
    if provider != "aws":
        if aws:
            raise ValueError("aws: this is for provider aws only")
        return
    if not aws:
        raise ValueError("provider: provider aws needs the field aws: sizes, domain, owner, alerts")
    for region, letters in zones.items():
        if not re.fullmatch(faults.REGION, region):
            raise ValueError(f"regions: {region} is not a region of AWS, such as eu-central-1")
        if len(letters) < 2:
            raise ValueError(
                f"regions: {region} needs two zones on AWS; what has one server in a region "
                "would be away with its zone"
            )
    if not aws.nat_gateways:
        raise ValueError(
            "aws: natGateways: false leaves the control plane without a way to the APIs of AWS in "
            "the other regions, which it asks all the time; leave it true"
        )
    sizes = (
        ("services", aws.services),
        ("gateway", aws.gateway),
        ("controlPlane", aws.control_plane),
    )
    for name, size in sizes:
        if fault := size.fault():
            raise ValueError(f"aws: {name}: {fault}")
