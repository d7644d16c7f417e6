"""What everything is called on AWS. Pure.

Names are explicit, never made up by the provider: so a plan without an account knows them, a
Pulumi program and boto3 verbs agree on them, and an operator can type them. Every name begins with
the stem `PROJECT-ENVIRONMENT`, so that two environments share an account without meeting.

Limits of AWS that shape them: load balancers and target groups 32 characters (they get the short
form of a region, "use1"), ElastiCache replication groups 40, database identifiers, buckets and
roles 63 or 64. `AwsSpec` allows no project and environment that would exceed one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GATEWAY, CONTROL_PLANE = "gateway", "control-plane"
CONTROL = "control"
# The secret with the root token of the control plane's API.
ROOT = "root"
# The secret with those of the client programs (`infra/oauth_clients.py`), by name.
CLIENTS = "clients"
CACHE, QUEUE = "cache", "queue"
OBJECTS, LOGS = "objects", "logs"
_DIRECTION = re.compile(r"north|south|east|west|central")


def short(region: str) -> str:
    """ "us-east-1" → "use1", "ap-southeast-2" → "apse2": one for each region of AWS."""
    area, *middle, number = region.split("-")
    words = [word for part in middle for word in (_DIRECTION.findall(part) or [part])]
    letters = "".join(word[0] for word in words)
    return f"{area}{letters}{number}"


@dataclass(frozen=True)
class Names:
    """`domain` is the public one; clients call `api.DOMAIN`."""

    project: str
    environment: str
    domain: str

    @property
    def stem(self) -> str:
        return f"{self.project}-{self.environment}"

    # Databases. `database` is "s1", "catalog" (global) or "control" (of one region).

    def global_cluster(self, database: str) -> str:
        return f"{self.stem}-{database}"

    def cluster(self, database: str, region: str) -> str:
        return f"{self.stem}-{database}-{region}"

    def instance(self, database: str, region: str, zone: str) -> str:
        """The server of `database` in that zone; topology id "DATABASE.REGIONZONE"."""
        return f"{self.stem}-{database}-{region}{zone}"

    def subnet_group(self, region: str) -> str:
        return f"{self.stem}-data-{region}"

    def parameter_group(self, family: str, region: str) -> str:
        return f"{self.stem}-{family.replace('.', '-')}-{region}"

    # Cache and queue. `kind` is "cache" or "queue".

    def replication_group(self, kind: str, region: str) -> str:
        """Its members are PRIMARY-001 and -002: AWS appends that itself."""
        return f"{self.stem}-{kind}-{short(region)}"

    # Compute. `component` is a service, "gateway" or "control-plane".

    def ecs_cluster(self, region: str) -> str:
        return f"{self.stem}-{region}"

    def ecs_service(self, component: str) -> str:
        """Unique within its ECS cluster."""
        return component

    def task_family(self, component: str, region: str) -> str:
        return f"{self.stem}-{component}-{region}"

    def scaling_target(self, component: str, region: str) -> str:
        """The ResourceId of Application Auto Scaling."""
        return f"service/{self.ecs_cluster(region)}/{self.ecs_service(component)}"

    def repository(self) -> str:
        """The image repository, of the same name in each region."""
        return f"{self.project}/{self.environment}/platform"

    def namespace(self, region: str) -> str:
        """The private DNS domain of a region's services: orders.NAMESPACE."""
        return f"{short(region)}.{self.environment}.{self.project}.internal"

    # Entry.

    def balancer(self, region: str) -> str:
        return f"{self.stem}-{short(region)}"

    def target_group(self, region: str) -> str:
        return f"{self.stem}-{short(region)}-gw"

    def entry(self) -> str:
        """What clients call: an alias of the CloudFront distribution."""
        return f"api.{self.domain}"

    def origin(self) -> str:
        """The failover pair of records: whichever region serves."""
        return f"origin.{self.domain}"

    def region_origin(self, region: str) -> str:
        """One region's load balancer, whichever region serves; what health checks ask."""
        return f"{region}.origin.{self.domain}"

    def record_set(self, region: str) -> str:
        """The SetIdentifier of a region's half of the failover pair."""
        return region

    def health_check(self, region: str) -> str:
        """Its tag Name and the start of its CallerReference: health checks have no name."""
        return f"{self.stem}-{region}"

    def web_acl(self, scope: str) -> str:
        """`scope`: "edge", or a region."""
        return f"{self.stem}-{scope}"

    # Storage, keys, secrets.

    def bucket(self, purpose: str, region: str) -> str:
        """`purpose` is "objects" or "logs". Names of buckets are unique in the world: the domain is
        the reader's own."""
        return f"{self.domain.replace('.', '-')}-{self.environment}-{purpose}-{short(region)}"

    def key_alias(self, purpose: str) -> str:
        """`purpose` is "data" or "logs"; the same in each region, as the key has the same id."""
        return f"alias/{self.stem}-{purpose}"

    def secret(self, purpose: str) -> str:
        """Of the same name in the primary region and in its replicas."""
        return f"{self.project}/{self.environment}/{purpose}"

    def administrator(self, database: str) -> str:
        """The purpose of the secret of a database's administrator."""
        return f"administrator-{database}"

    def parameter(self, what: str) -> str:
        """In the parameter store of each region: an address that AWS makes up, such as "cache"."""
        return f"/{self.project}/{self.environment}/{what}"

    # Backup, watching, access, money.

    def vault(self, region: str) -> str:
        return f"{self.stem}-{region}"

    def backup_plan(self, region: str) -> str:
        return f"{self.stem}-{region}"

    def restore_test(self, region: str) -> str:
        """Letters, digits and underscores only."""
        return f"{self.stem}_{region}".replace("-", "_")

    def log_group(self, component: str, region: str) -> str:
        return f"/{self.project}/{self.environment}/{region}/{component}"

    def alarm(self, what: str, region: str) -> str:
        return f"{self.stem}-{region}-{what}"

    def dashboard(self, region: str) -> str:
        return f"{self.stem}-{region}"

    def topic(self, severity: str, region: str) -> str:
        """SNS topic; `severity` is "critical" or "warning"."""
        return f"{self.stem}-{severity}-{region}"

    def role(self, purpose: str, region: str = "") -> str:
        return "-".join(
            part for part in (self.stem, purpose, short(region) if region else "") if part
        )

    def boundary(self) -> str:
        return f"{self.stem}-boundary"

    def budget(self, what: str) -> str:
        return f"{self.stem}-{what}"
