"""What a topology promises and how it is kept up: objectives, service levels, failover, backups,
history, scaling, and the systems of somebody else; each as it is used and as it is written in YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from infra import topology_faults
from infra.topology_instances import Service


@dataclass(frozen=True)
class ObjectiveSpec:
    """One row of the disaster-recovery table; times in seconds."""

    scenario: str
    rto_seconds: float
    rpo_seconds: float
    procedure: str


@dataclass(frozen=True)
class ServiceLevels:
    availability_percent: float = 99.99
    p99_milliseconds: float = 100.0
    error_rate_percent: float = 1.0
    concurrent_users: int = 100_000


@dataclass(frozen=True)
class FailoverPolicy:
    """`quiet_period_seconds`: no second automatic failover of a database within this time unless
    an operator acknowledges the first."""

    automatic: bool = True
    quiet_period_seconds: float = 3600.0


@dataclass(frozen=True)
class BackupPolicy:
    """How often each database is backed up, how many full backups with what builds on them are
    kept, and how much WAL may wait on disk while the object storage is away."""

    full_every_seconds: float = 604_800.0
    incremental_every_seconds: float = 86_400.0
    keep_full: int = 4
    spool_megabytes: int = 2048


@dataclass(frozen=True)
class HistoryPolicy:
    """How long what is over is remembered: operations with their steps and reports, and events.
    The newest `keep_last` of each are kept however old they are."""

    operation_days: float = 90.0
    event_days: float = 30.0
    keep_last: int = 500


@dataclass(frozen=True)
class ScalingPolicy:
    """How many instances of a service a zone has: between `min_instances` and `max_instances`.

    When `automatic`, one more or several are started after the mean use of a processor core was
    above `cpu_percent` for `hold_seconds`, and stopped again after it was below `idle_percent` for
    `cool_seconds`. A service process is a Python process, which has one core at most: 100 is all.
    Of a service in `cpu_limits` an instance has no more than that part of a core, which is its 100.
    """

    automatic: bool = True
    min_instances: int = 1
    max_instances: int = 4
    cpu_percent: float = 70.0
    idle_percent: float = 25.0
    hold_seconds: float = 60.0
    cool_seconds: float = 300.0
    cpu_limits: tuple[tuple[str, float], ...] = ()

    def cpu_limit(self, service: str) -> float:
        """The part of a core that one instance may use."""
        return dict(self.cpu_limits).get(service, 1.0)


@dataclass(frozen=True)
class ExternalSpec:
    """Systems of somebody else. Where an address is given, no stand-in runs.

    `payment_gateway` is a base URL, `smtp` "host:port". `secrets` is the path of a JSON object,
    read at `up`, of what they ask for: gatewayKey, webhookSecret, smtpUser, smtpPassword.
    """

    payment_gateway: str = ""
    smtp: str = ""
    smtp_tls: str = "starttls"
    secrets: str = ""


class Wire(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=False
    )


class ObjectiveWire(Wire):
    scenario: Literal["service-outage", "database-failure", "region-failure", "data-corruption"]
    rto_seconds: Annotated[float, Field(gt=0)]
    rpo_seconds: Annotated[float, Field(ge=0)]
    procedure: str


class FailoverWire(Wire):
    automatic: bool = True
    quiet_period_seconds: Annotated[float, Field(ge=0)] = 3600.0


class LevelsWire(Wire):
    availability_percent: Annotated[float, Field(gt=0, le=100)] = 99.99
    p99_milliseconds: Annotated[float, Field(gt=0)] = 100.0
    error_rate_percent: Annotated[float, Field(gt=0, le=100)] = 1.0
    concurrent_users: Annotated[int, Field(gt=0)] = 100_000


class BackupsWire(Wire):
    full_every_seconds: Annotated[float, Field(ge=60)] = 604_800.0
    incremental_every_seconds: Annotated[float, Field(ge=60)] = 86_400.0
    keep_full: Annotated[int, Field(ge=1)] = 4
    spool_megabytes: Annotated[int, Field(ge=64)] = 2048


class HistoryWire(Wire):
    operation_days: Annotated[float, Field(ge=1)] = 90.0
    event_days: Annotated[float, Field(ge=1)] = 30.0
    keep_last: Annotated[int, Field(ge=50)] = 500


class ScalingWire(Wire):
    automatic: bool = True
    min_instances: Annotated[int, Field(ge=1, le=100)] = 1
    max_instances: Annotated[int, Field(ge=1, le=100)] = 4
    # With the tolerance of a tenth a process must be able to use more than that.
    cpu_percent: Annotated[float, Field(ge=1, le=90)] = 70.0
    idle_percent: Annotated[float, Field(ge=0, le=100)] = 25.0
    hold_seconds: Annotated[float, Field(ge=5, le=3600)] = 60.0
    cool_seconds: Annotated[float, Field(ge=5, le=86_400)] = 300.0
    # The kernel gives nobody less than a millisecond at a time (`infra.local.quota`).
    cpu_limits: dict[Service, Annotated[float, Field(ge=0.05, le=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> ScalingWire:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"minInstances is {self.min_instances}, which is more than maxInstances, "
                f"{self.max_instances}"
            )
        if self.idle_percent >= self.cpu_percent:
            raise ValueError(
                f"idlePercent is {self.idle_percent:g}; it must be less than cpuPercent, "
                f"{self.cpu_percent:g}, or a service would grow and shrink by turns"
            )
        return self

    def spec(self) -> ScalingPolicy:
        known = self.model_dump() | {"cpu_limits": tuple(sorted(self.cpu_limits.items()))}
        return ScalingPolicy(**known)


class ExternalWire(Wire):
    payment_gateway: Annotated[str, Field(pattern=topology_faults.URL)] | None = None
    smtp: Annotated[str, Field(pattern=topology_faults.HOST_PORT)] | None = None
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    secrets: Annotated[str, Field(pattern=topology_faults.ABSOLUTE)] | None = None

    def spec(self) -> ExternalSpec:
        return ExternalSpec(
            payment_gateway=(self.payment_gateway or "").rstrip("/"),
            smtp=self.smtp or "",
            smtp_tls=self.smtp_tls,
            secrets=self.secrets or "",
        )
