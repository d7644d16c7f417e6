"""What should exist: regions, zones, databases, servers, services, objectives.

A topology is read from YAML and checked whole; an error names the file, the line, the field and
what is allowed there. `Topology.instances()` is the full list of servers in the order in which
they are started; their ids (`s1.us-east-1a`, `orders.us-east-1b`, `edge`) are the names that every
other part uses. The second instance of a service in a zone is `orders-2.us-east-1b`, and so on:
how many there are changes while the platform runs (`with_instances`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from infra import topology_aws, topology_faults, topology_instances
from infra.topology_aws import AwsSpec, AwsWire
from infra.topology_instances import EDGE as EDGE
from infra.topology_instances import MAILBOX as MAILBOX
from infra.topology_instances import PAYMENT_GATEWAY as PAYMENT_GATEWAY
from infra.topology_instances import InstanceSpec as InstanceSpec
from infra.topology_instances import Kind as Kind
from infra.topology_instances import RegionSpec as RegionSpec
from infra.topology_instances import Role as Role
from infra.topology_instances import Service as Service
from infra.topology_policies import (
    BackupPolicy,
    BackupsWire,
    ExternalSpec,
    ExternalWire,
    FailoverPolicy,
    FailoverWire,
    HistoryPolicy,
    HistoryWire,
    LevelsWire,
    ObjectiveSpec,
    ObjectiveWire,
    ScalingPolicy,
    ScalingWire,
    ServiceLevels,
    Wire,
)
from runtime.errors import Invalid, NotFound
from runtime.shardmap import CATALOG

BUILT_IN = Path(__file__).parent / "topologies"
SERVICES: tuple[Service, ...] = get_args(Service)
MOST_SHARDS = 64


@dataclass(frozen=True)
class Topology:
    """`inter_region_latency_milliseconds` is one way; the local platform makes it real on the
    replication path, so that what an asynchronous replica lacks is not made up.
    `allowed_origins` are the web origins whose pages may call the API, `otlp_endpoint` the base
    URL of the OpenTelemetry collector (OTLP over HTTP) that is sent traces; empty: none are made.
    `aws` is there exactly when `provider` is "aws".
    """

    name: str
    provider: str
    regions: tuple[RegionSpec, ...]
    shards: tuple[str, ...]
    services: tuple[str, ...]
    failover: FailoverPolicy
    objectives: tuple[ObjectiveSpec, ...]
    service_levels: ServiceLevels
    inter_region_latency_milliseconds: float = 0.0
    external: ExternalSpec = field(default_factory=ExternalSpec)
    allowed_origins: tuple[str, ...] = ()
    otlp_endpoint: str = ""
    backups: BackupPolicy = field(default_factory=BackupPolicy)
    history: HistoryPolicy = field(default_factory=HistoryPolicy)
    scaling: ScalingPolicy = field(default_factory=ScalingPolicy)
    counts: tuple[tuple[str, int], ...] = ()
    aws: AwsSpec | None = None

    @property
    def primary_region(self) -> RegionSpec:
        return next(region for region in self.regions if region.role == "primary")

    @property
    def databases(self) -> tuple[str, ...]:
        """Every database: the shards, then the catalog."""
        return (*self.shards, CATALOG)

    def region(self, name: str) -> RegionSpec:
        """Raises `NotFound`, with the names that exist."""
        for region in self.regions:
            if region.name == name:
                return region
        names = ", ".join(region.name for region in self.regions)
        raise NotFound(f"There is no region {name!r}.", hint=f"Regions: {names}")

    @cached_property
    def by_id(self) -> dict[str, InstanceSpec]:
        return {
            spec.id: spec
            for spec in (
                topology_instances.on_aws(self)
                if self.aws
                else topology_instances.on_this_machine(self)
            )
        }

    def instance(self, id: str) -> InstanceSpec:
        """Raises `NotFound`."""
        try:
            return self.by_id[id]
        except KeyError:
            raise NotFound(
                f"There is no instance {id!r}.", hint="regionctl status lists them all."
            ) from None

    def instances(
        self,
        *,
        kind: Kind | None = None,
        component: str | None = None,
        region: str | None = None,
        zone: str | None = None,
    ) -> tuple[InstanceSpec, ...]:
        """The instances that match every given property, in starting order."""
        return tuple(
            spec
            for spec in self.by_id.values()
            if (kind is None or spec.kind == kind)
            and (component is None or spec.component == component)
            and (region is None or spec.region == region)
            and (zone is None or spec.zone == zone)
        )

    def in_growing_order(self) -> tuple[InstanceSpec, ...]:
        """Every instance but `further` ones, in an order to which one more shard only appends."""
        databases = (CATALOG, *self.shards)
        nodes = [node for name in databases for node in self.database_nodes(name)]
        others = (spec for spec in self.by_id.values() if spec.kind != "postgres")
        return (*(spec for spec in others if spec.number == 1), *nodes)

    def further(self) -> tuple[tuple[int, InstanceSpec], ...]:
        """The second, third... instances of services, each with its place among all that there
        could be: the same however many of them there are."""
        groups = {group: place for place, group in enumerate(self._groups())}
        return tuple(
            (groups[spec.component, spec.region, spec.zone] + len(groups) * (spec.number - 2), spec)
            for spec in self.by_id.values()
            if spec.number > 1
        )

    @property
    def most_further(self) -> int:
        """How many such places there are."""
        return len(self._groups()) * (self.scaling.max_instances - 1)

    def _groups(self) -> list[tuple[str, str, str]]:
        return [
            (service, region.name, zone)
            for region in self.regions
            for zone in region.zones
            for service in self.services
        ]

    def count(self, service: str, zone: str) -> int:
        """How many instances of `service` should run in `zone` ("us-east-1a")."""
        policy = self.scaling
        wanted = dict(self.counts).get(f"{service}.{zone}", policy.min_instances)
        return min(max(wanted, policy.min_instances), policy.max_instances)

    def with_instances(self, service: str, zone: str, count: int) -> Topology:
        """The same with `count` instances of `service` in `zone` ("us-east-1a").

        Raises `NotFound` for a service or zone that does not exist, `Invalid` for a count beyond
        the bounds of `scaling`.
        """
        if service not in self.services:
            known = ", ".join(self.services)
            raise NotFound(f"There is no service {service!r}.", hint=f"Services: {known}")
        zones = [region.name + letter for region in self.regions for letter in region.zones]
        if zone not in zones:
            raise NotFound(f"There is no zone {zone!r}.", hint=f"Zones: {', '.join(zones)}")
        least, most = self.scaling.min_instances, self.scaling.max_instances
        if not least <= count <= most:
            raise Invalid(
                f"A zone has {least} to {most} instances of a service, not {count}.",
                hint="The bounds are scaling.minInstances and scaling.maxInstances of the topology",
            )
        known_counts = {**dict(self.counts), f"{service}.{zone}": count}
        changed = {key: value for key, value in known_counts.items() if value != least}
        return replace(self, counts=tuple(sorted(changed.items())))

    def with_shards(self, count: int) -> Topology:
        """The same with `count` shards. Raises `Invalid` for a count that no topology may have."""
        if not 1 <= count <= MOST_SHARDS:
            raise Invalid(
                f"There are 1 to {MOST_SHARDS} shards, not {count}.",
                hint="regionctl shard plan --to 4",
            )
        return replace(self, shards=_shards(count))

    def database_nodes(self, database: str) -> tuple[InstanceSpec, ...]:
        """The nodes of one database: first primary, synchronous standby, then the DR replicas."""
        return self.instances(kind="postgres", component=database)

    def designed_primary(self, database: str) -> InstanceSpec:
        return self.database_nodes(database)[0]

    def digest(self) -> str:
        """SHA-256 over everything that a proof depends on; a report quotes it.

        How many instances a service has at the moment is not among it: that comes and goes.
        """
        known = asdict(replace(self, counts=()))
        document = {name: value for name, value in known.items() if value is not None}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]


class _Region(Wire):
    name: Name
    role: Role
    zones: Annotated[list[Annotated[str, Field(pattern=r"^[a-z]$")]], Field(min_length=1)]


class _Document(Wire):
    api_version: Literal["regionctl/v1"]
    kind: Literal["Topology"]
    name: Name
    provider: Literal["local", "memory", "aws"]
    regions: Annotated[list[_Region], Field(min_length=1)]
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)]
    services: list[Service] = Field(default_factory=lambda: list(SERVICES))
    failover: FailoverWire = FailoverWire()
    objectives: Annotated[list[ObjectiveWire], Field(min_length=1)]
    service_levels: LevelsWire = LevelsWire()
    inter_region_latency_milliseconds: Annotated[float, Field(ge=0, le=1000)] = 0.0
    external: ExternalWire = ExternalWire()
    allowed_origins: list[Annotated[str, Field(pattern=topology_faults.ORIGIN)]] = Field(
        default_factory=list
    )
    otlp_endpoint: Annotated[str, Field(pattern=topology_faults.URL)] | None = None
    backups: BackupsWire = BackupsWire()
    history: HistoryWire = HistoryWire()
    scaling: ScalingWire = ScalingWire()
    aws: AwsWire | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Document:
        names = [region.name for region in self.regions]
        if len(set(names)) != len(names):
            raise ValueError("regions: two regions have the same name")
        primaries = [region for region in self.regions if region.role == "primary"]
        if len(primaries) != 1:
            raise ValueError(
                f"regions: exactly one region has role primary, here {len(primaries)} have"
            )
        for region in self.regions:
            if len(set(region.zones)) != len(region.zones):
                raise ValueError(f"regions: {region.name} names a zone twice")
        if len(primaries[0].zones) < 2:
            raise ValueError(
                f"regions: {primaries[0].name} needs two zones; the second holds the synchronous "
                "standby, without which a failover would lose acknowledged orders"
            )
        if len(set(self.services)) != len(self.services):
            raise ValueError("services: a service is named twice")
        scenarios = [objective.scenario for objective in self.objectives]
        if len(set(scenarios)) != len(scenarios):
            raise ValueError("objectives: a scenario is named twice")
        if self.provider == "aws" and self.scaling.cpu_limits:
            raise ValueError("scaling: on AWS a task has its size (aws.services), not cpuLimits")
        topology_aws.check(self.provider, {r.name: r.zones for r in self.regions}, self.aws)
        return self


def load(name_or_path: str) -> Topology:
    """The built-in topology of that name, or the one in that file.

    Raises `NotFound` when there is neither and `Invalid` when the document is wrong.
    """
    return parse(*read(name_or_path))


def read(name_or_path: str) -> tuple[str, str]:
    """The text of a topology, and its file. Raises `NotFound`."""
    path = Path(name_or_path)
    if not path.suffix:
        path = BUILT_IN / f"{name_or_path}.yaml"
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(sorted(file.stem for file in BUILT_IN.glob("*.yaml")))
        why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        missing = f"No topology {name_or_path!r} is built in."
        raise NotFound(
            missing if path.parent == BUILT_IN else f"Cannot read the topology {path}: {why}.",
            hint=f"Built in: {known}. A file of your own needs the suffix .yaml.",
        ) from error


def parse(text: str, source: str) -> Topology:
    """The topology written in `text`; `source` is the file named in errors. Raises `Invalid`."""
    example = str(BUILT_IN / "two-regions.yaml")
    try:
        document = yaml.safe_load(text)
        if isinstance(document, dict) and document.get("provider") == "aws":
            example = str(BUILT_IN / "aws-two-regions.yaml")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise topology_faults.not_yaml(error, source, example) from error
    try:
        wire = _Document.model_validate(document)
    except ValidationError as error:
        raise topology_faults.explain(error, _Document, root, source, example) from error
    return Topology(
        name=wire.name,
        provider=wire.provider,
        regions=tuple(RegionSpec(r.name, r.role, tuple(r.zones)) for r in wire.regions),
        shards=_shards(wire.shards),
        services=tuple(wire.services),
        failover=FailoverPolicy(**wire.failover.model_dump()),
        objectives=tuple(ObjectiveSpec(**o.model_dump()) for o in wire.objectives),
        service_levels=ServiceLevels(**wire.service_levels.model_dump()),
        inter_region_latency_milliseconds=wire.inter_region_latency_milliseconds,
        external=wire.external.spec(),
        allowed_origins=tuple(wire.allowed_origins),
        otlp_endpoint=(wire.otlp_endpoint or "").rstrip("/"),
        backups=BackupPolicy(**wire.backups.model_dump()),
        history=HistoryPolicy(**wire.history.model_dump()),
        scaling=wire.scaling.spec(),
        aws=wire.aws.spec() if wire.aws else None,
    )


def _shards(count: int) -> tuple[str, ...]:
    return tuple(f"s{number}" for number in range(1, count + 1))
