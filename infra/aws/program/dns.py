"""Names: the hosted zone, certificates, and which region answers, by health checks.

`origin.DOMAIN` is a pair of records: the region that serves, and the one that stands in when the
first one's health check says so. `regionctl` changes what the check says to change the region (see
`infra/aws/route.py`), so its switches are left alone here once they exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.aws.program.here import Here, Part
from infra.aws.spec import READY

CHANGED_BY_FAILOVER = ["disabled", "invertHealthcheck"]
CHECKERS = ["us-east-1", "us-west-1", "us-west-2", "eu-west-1", "ap-southeast-1"]
CHECK_SECONDS, CHECK_FAILURES = 10, 3
VALIDATION_SECONDS = 300


class Zone(Part):
    def __init__(self, here: Here) -> None:
        super().__init__(here, "Zone")
        self.zone = aws.route53.Zone(
            self.called("zone"),
            name=here.names.domain,
            comment=f"{here.names.stem}: its parent must delegate to it",
            force_destroy=False,
            opts=self.inside(protect=True),
        )
        self.register_outputs({})


def certified(
    part: Part,
    purpose: str,
    host: str,
    zone: aws.route53.Zone,
    *,
    alternatives: Sequence[str] = (),
    region: str | None = None,
) -> pulumi.Output[str]:
    """A certificate for `host` that AWS renews by itself, proven by records in the zone.

    `region` when it is for another region than the part's. Two regions that certify one name prove
    it by one and the same record, so it may be there already.
    """
    certificate = aws.acm.Certificate(
        part.called(f"certificate-{purpose}"),
        domain_name=host,
        subject_alternative_names=list(alternatives),
        validation_method="DNS",
        key_algorithm="EC_prime256v1",
        region=region,
        opts=part.inside(),
    )
    options = certificate.domain_validation_options
    records = [
        aws.route53.Record(
            part.called(f"certificate-{purpose}-{index}"),
            zone_id=zone.zone_id,
            name=options[index].resource_record_name,
            type=options[index].resource_record_type,
            records=[options[index].resource_record_value],
            ttl=VALIDATION_SECONDS,
            allow_overwrite=True,
            opts=part.inside(),
        )
        for index in range(1 + len(alternatives))
    ]
    return aws.acm.CertificateValidation(
        part.called(f"certificate-{purpose}"),
        certificate_arn=certificate.arn,
        validation_record_fqdns=[record.fqdn for record in records],
        region=region,
        opts=part.inside(),
    ).certificate_arn


class Routing(Part):
    """A region's own name, its health check, and its half of the pair: "PRIMARY", "SECONDARY", or
    none where there are more than two regions."""

    def __init__(
        self,
        here: Here,
        zone: aws.route53.Zone,
        balancer: aws.lb.LoadBalancer,
        half: str | None,
    ) -> None:
        super().__init__(here, "Routing")
        names, region = here.names, here.region
        target = aws.route53.RecordAliasArgs(
            name=balancer.dns_name, zone_id=balancer.zone_id, evaluate_target_health=False
        )
        aws.route53.Record(
            self.called("record-region"),
            zone_id=zone.zone_id,
            name=names.region_origin(region.name),
            type="A",
            aliases=[target],
            opts=self.inside(),
        )
        self.check = aws.route53.HealthCheck(
            self.called("health"),
            reference_name=names.health_check(region.name)[:27],
            type="HTTPS",
            fqdn=names.region_origin(region.name),
            port=443,
            resource_path=READY,
            enable_sni=True,
            failure_threshold=CHECK_FAILURES,
            request_interval=CHECK_SECONDS,
            measure_latency=True,
            regions=CHECKERS,
            disabled=False,
            invert_healthcheck=False,
            tags={"Name": names.health_check(region.name)},
            opts=self.inside(ignore_changes=CHANGED_BY_FAILOVER),
        )
        if half:
            self._record_half(zone, target, half)
        self.register_outputs({})

    def _record_half(
        self, zone: aws.route53.Zone, target: aws.route53.RecordAliasArgs, half: str
    ) -> None:
        aws.route53.Record(
            self.called("record-origin"),
            zone_id=zone.zone_id,
            name=self.here.names.origin(),
            type="A",
            set_identifier=self.here.names.record_set(self.here.region.name),
            failover_routing_policies=[aws.route53.RecordFailoverRoutingPolicyArgs(type=half)],
            health_check_id=self.check.id,
            aliases=[target],
            opts=self.inside(),
        )
