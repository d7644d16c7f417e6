"""The one address that clients know: CloudFront before the regions.

Every request goes to the region that serves; answers that may be kept, and only to GET, come from
the edge, and from the other region when the first one fails, for a reading needs no primary. All
of it is TLS 1.2 or better, and the headers of safety are those of the local edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.aws.naming import LOGS
from infra.aws.program.balancer import PROOF
from infra.aws.program.dns import certified
from infra.aws.program.firewall import EDGE_REGION
from infra.aws.program.here import Here, Part
from infra.aws.program.storage import Storage
from infra.local.envoy_edge import KEPT, SAFETY

# Of AWS's own policies, by their published ids: nothing is kept; every header goes on.
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
ALL_VIEWER = "216adef6-5c7f-47e4-b989-5492eafa07d3"
SERVING, READING = "serving", "reading"
READS = ["GET", "HEAD", "OPTIONS"]
ALL_METHODS = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
# What answers differ by, of what may be kept.
VARIES = ["Authorization", "Origin", "X-Regionctl-Position"]
FAILED = [500, 502, 503, 504]
READ_SECONDS, KEEP_ALIVE_SECONDS = 30, 60


class Edge(Part):
    def __init__(
        self,
        here: Here,
        zone: aws.route53.Zone,
        storage: Storage,
        acl: aws.wafv2.WebAcl,
        proof: pulumi.Output[str],
        after: Sequence[pulumi.Resource],
    ) -> None:
        super().__init__(here, "Edge")
        names = here.names
        origins = {SERVING: names.origin()}
        origins |= {one.name: names.region_origin(one.name) for one in here.platform.waiting}
        safe = self._safety().id
        self.distribution = aws.cloudfront.Distribution(
            self.called("edge"),
            comment=names.entry(),
            enabled=True,
            is_ipv6_enabled=True,
            http_version="http2and3",
            price_class="PriceClass_All",
            aliases=[names.entry()],
            web_acl_id=acl.arn,
            origins=[self._origin(id, host, proof) for id, host in origins.items()],
            origin_groups=self._group(list(origins)),
            default_cache_behavior=aws.cloudfront.DistributionDefaultCacheBehaviorArgs(
                target_origin_id=SERVING,
                viewer_protocol_policy="https-only",
                allowed_methods=ALL_METHODS,
                cached_methods=["GET", "HEAD"],
                cache_policy_id=CACHING_DISABLED,
                origin_request_policy_id=ALL_VIEWER,
                response_headers_policy_id=safe,
                compress=True,
            ),
            ordered_cache_behaviors=self._kept(READING if len(origins) > 1 else SERVING, safe),
            viewer_certificate=aws.cloudfront.DistributionViewerCertificateArgs(
                acm_certificate_arn=certified(
                    self, "entry", names.entry(), zone, region=EDGE_REGION
                ),
                ssl_support_method="sni-only",
                minimum_protocol_version="TLSv1.2_2021",
            ),
            restrictions=aws.cloudfront.DistributionRestrictionsArgs(
                geo_restriction=aws.cloudfront.DistributionRestrictionsGeoRestrictionArgs(
                    restriction_type="none"
                )
            ),
            logging_config=aws.cloudfront.DistributionLoggingConfigArgs(
                bucket=storage.by[LOGS].bucket_regional_domain_name,
                prefix="edge/",
                include_cookies=False,
            ),
            opts=self.inside(protect=True, depends_on=[*after, *storage.ready[LOGS]]),
        )
        for kind in ("A", "AAAA"):
            aws.route53.Record(
                self.called(f"record-entry-{kind.lower()}"),
                zone_id=zone.zone_id,
                name=names.entry(),
                type=kind,
                aliases=[
                    aws.route53.RecordAliasArgs(
                        name=self.distribution.domain_name,
                        zone_id=self.distribution.hosted_zone_id,
                        evaluate_target_health=False,
                    )
                ],
                opts=self.inside(),
            )
        self.register_outputs({})

    def _origin(
        self, id: str, host: str, proof: pulumi.Output[str]
    ) -> aws.cloudfront.DistributionOriginArgs:
        """A region that is asked for the same thing by many edges is asked once (origin shield)."""
        shield = self.here.region.name if id == SERVING else id
        return aws.cloudfront.DistributionOriginArgs(
            origin_id=id,
            domain_name=host,
            connection_attempts=2,
            connection_timeout=3,
            custom_headers=[
                aws.cloudfront.DistributionOriginCustomHeaderArgs(name=PROOF, value=proof)
            ],
            custom_origin_config=aws.cloudfront.DistributionOriginCustomOriginConfigArgs(
                http_port=80,
                https_port=443,
                origin_protocol_policy="https-only",
                origin_ssl_protocols=["TLSv1.2"],
                origin_read_timeout=READ_SECONDS,
                origin_keepalive_timeout=KEEP_ALIVE_SECONDS,
            ),
            origin_shield=aws.cloudfront.DistributionOriginOriginShieldArgs(
                enabled=True, origin_shield_region=shield
            ),
        )

    def _group(self, origins: list[str]) -> list[aws.cloudfront.DistributionOriginGroupArgs]:
        """Two origins at most, as AWS has it."""
        if len(origins) < 2:
            return []
        criteria = aws.cloudfront.DistributionOriginGroupFailoverCriteriaArgs(status_codes=FAILED)
        return [
            aws.cloudfront.DistributionOriginGroupArgs(
                origin_id=READING,
                failover_criteria=criteria,
                members=[
                    aws.cloudfront.DistributionOriginGroupMemberArgs(origin_id=id)
                    for id in origins[:2]
                ],
            )
        ]

    def _kept(
        self, target: str, safe: pulumi.Output[str]
    ) -> list[aws.cloudfront.DistributionOrderedCacheBehaviorArgs]:
        """Kept as long as the services' own Cache-Control says, an hour at most."""
        inputs = aws.cloudfront.CachePolicyParametersInCacheKeyAndForwardedToOriginArgs
        headers = (
            aws.cloudfront.CachePolicyParametersInCacheKeyAndForwardedToOriginHeadersConfigArgs
        )
        items = aws.cloudfront.CachePolicyParametersInCacheKeyAndForwardedToOriginHeadersConfigHeadersArgs  # noqa: E501
        cookies = (
            aws.cloudfront.CachePolicyParametersInCacheKeyAndForwardedToOriginCookiesConfigArgs
        )
        queries = (
            aws.cloudfront.CachePolicyParametersInCacheKeyAndForwardedToOriginQueryStringsConfigArgs
        )
        policy = aws.cloudfront.CachePolicy(
            self.called("kept"),
            name=f"{self.here.names.stem}-kept",
            comment="As long as the services say",
            min_ttl=0,
            default_ttl=0,
            max_ttl=3600,
            parameters_in_cache_key_and_forwarded_to_origin=inputs(
                cookies_config=cookies(cookie_behavior="none"),
                headers_config=headers(header_behavior="whitelist", headers=items(items=VARIES)),
                query_strings_config=queries(query_string_behavior="all"),
                enable_accept_encoding_gzip=True,
                enable_accept_encoding_brotli=True,
            ),
            opts=self.inside(),
        )
        return [
            aws.cloudfront.DistributionOrderedCacheBehaviorArgs(
                path_pattern=path,
                target_origin_id=target,
                viewer_protocol_policy="https-only",
                allowed_methods=READS,
                cached_methods=["GET", "HEAD"],
                cache_policy_id=policy.id,
                origin_request_policy_id=ALL_VIEWER,
                response_headers_policy_id=safe,
                compress=True,
            )
            for path in (*KEPT, "/static/*")
        ]

    def _safety(self) -> aws.cloudfront.ResponseHeadersPolicy:
        args = aws.cloudfront
        age, *flags = SAFETY["strict-transport-security"].split("; ")
        return args.ResponseHeadersPolicy(
            self.called("safety"),
            name=f"{self.here.names.stem}-safety",
            comment="The headers of the local edge",
            security_headers_config=args.ResponseHeadersPolicySecurityHeadersConfigArgs(
                strict_transport_security=(
                    args.ResponseHeadersPolicySecurityHeadersConfigStrictTransportSecurityArgs(
                        access_control_max_age_sec=int(age.partition("=")[2]),
                        include_subdomains="includeSubDomains" in flags,
                        override=True,
                    )
                ),
                content_type_options=(
                    args.ResponseHeadersPolicySecurityHeadersConfigContentTypeOptionsArgs(
                        override=True
                    )
                ),
                referrer_policy=args.ResponseHeadersPolicySecurityHeadersConfigReferrerPolicyArgs(
                    referrer_policy=SAFETY["referrer-policy"], override=True
                ),
            ),
            opts=self.inside(),
        )
