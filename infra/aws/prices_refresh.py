"""New list prices from AWS: `python -m infra.aws.prices_refresh --out FILE [--region R]…`.

Asks the Price List API (`pricing:GetProducts`, which stands in us-east-1) for each sku that the
price file or this table knows, in each region. What AWS does not answer keeps its old row with its
old date; nothing is made up. stdout is one line of JSON: what changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.aws import prices
from infra.aws.prices import Price
from runtime.errors import Invalid, Problem, Refused, Unauthorized

JSON = dict[str, Any]
API_REGION = "us-east-1"
SOURCE = "AWS Price List API, {service}, sku {sku}"
CREDENTIALS = "aws sso login, or AWS_PROFILE; it needs pricing:GetProducts"


@dataclass(frozen=True)
class Ask:
    """Which product a sku is: the service, and attributes that all must match.

    `usage` is how the usage type ends, without the region's prefix; `per` how many of AWS' units
    one of ours is.
    """

    service: str
    usage: str
    attributes: Mapping[str, str]
    per: float = 1.0


MILLION = 1e6
ASKS: Mapping[str, Ask] = {
    "fargate-x86-vcpu": Ask("AmazonECS", "Fargate-vCPU-Hours:perCPU", {}),
    "fargate-x86-memory": Ask("AmazonECS", "Fargate-GB-Hours", {}),
    "fargate-arm-vcpu": Ask("AmazonECS", "Fargate-ARM-vCPU-Hours:perCPU", {}),
    "fargate-arm-memory": Ask("AmazonECS", "Fargate-ARM-GB-Hours", {}),
    "aurora-storage": Ask("AmazonRDS", "Aurora:StorageUsage", {}),
    "aurora-io": Ask("AmazonRDS", "Aurora:StorageIOUsage", {}, MILLION),
    "aurora-iopt1-storage": Ask("AmazonRDS", "Aurora:IO-OptimizedStorageUsage", {}),
    "aurora-backup": Ask("AmazonRDS", "Aurora:BackupUsage", {}),
    "alb": Ask("AWSELB", "LoadBalancerUsage", {"productFamily": "Load Balancer-Application"}),
    "alb-lcu": Ask("AWSELB", "LCUUsage", {"productFamily": "Load Balancer-Application"}),
    "nat-gateway": Ask("AmazonEC2", "NatGateway-Hours", {}),
    "nat-gateway-data": Ask("AmazonEC2", "NatGateway-Bytes", {}),
    "vpc-endpoint": Ask("AmazonVPC", "VpcEndpoint-Hours", {}),
    "public-ipv4": Ask("AmazonVPC", "PublicIPv4:InUseAddress", {}),
    "kms-key": Ask("awskms", "KMS-Keys", {}),
    "secret": Ask("AWSSecretsManager", "AWSSecretsManager-Secrets", {}),
    "s3-storage": Ask("AmazonS3", "TimedStorage-ByteHrs", {"storageClass": "General Purpose"}),
    "logs-ingestion": Ask("AmazonCloudWatch", "DataProcessing-Bytes", {}),
    "logs-storage": Ask("AmazonCloudWatch", "TimedStorage-ByteHrs", {}),
    "ecr-storage": Ask("AmazonECR", "TimedStorage-ByteHrs", {}),
}


def ask_for(sku: str) -> Ask | None:
    """How to ask for a sku; None when this does not know."""
    kind, _, name = sku.partition("/")
    if kind == "aurora-instance":
        engine = {"databaseEngine": "Aurora PostgreSQL"}
        return Ask("AmazonRDS", f"InstanceUsage:{short(name)}", engine)
    if kind == "aurora-iopt1-instance":
        engine = {"databaseEngine": "Aurora PostgreSQL"}
        return Ask("AmazonRDS", f"InstanceUsageIOOptimized:{short(name)}", engine)
    if kind == "valkey-node":
        return Ask("AmazonElastiCache", f"NodeUsage:{name}", {"cacheEngine": "Valkey"})
    return ASKS.get(sku)


def short(instance_class: str) -> str:
    """As usage types abbreviate sizes: db.r6g.2xlarge → db.r6g.2xl."""
    return instance_class.replace("xlarge", "xl")


def fetch(client: Any, sku: str, region: str) -> tuple[Price, ...]:
    """The tiers of a sku in a region as AWS lists them today; none when it lists no such thing.

    `client` is boto3's of the service pricing. Raises botocore's errors.
    """
    wanted = ask_for(sku)
    if wanted is None:
        return ()
    filters = [
        {"Type": "TERM_MATCH", "Field": key, "Value": value}
        for key, value in {"regionCode": region, **wanted.attributes}.items()
    ]
    token: JSON = {}
    while True:
        page = client.get_products(ServiceCode=wanted.service, Filters=filters, **token)
        for text in page["PriceList"]:
            product = json.loads(text)
            if _is(product, wanted):
                return tuple(_rows(product, wanted, sku, region))
        if not page.get("NextToken"):
            return ()
        token = {"NextToken": page["NextToken"]}


def _is(product: Mapping[str, Any], wanted: Ask) -> bool:
    usage = str(product["product"]["attributes"].get("usagetype", ""))
    # "USW2-InstanceUsage:db.r6g.large"; in us-east-1 often without a prefix.
    return usage == wanted.usage or usage.partition("-")[2] == wanted.usage


def _rows(product: Mapping[str, Any], wanted: Ask, sku: str, region: str) -> Iterator[Price]:
    today = datetime.now(UTC).date().isoformat()
    source = SOURCE.format(service=wanted.service, sku=product["product"]["sku"])
    found = []
    for term in product["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            begin = float(dimension.get("beginRange") or 0)
            found.append((begin, float(dimension["pricePerUnit"]["USD"]), dimension["unit"]))
    for begin, usd, unit in sorted(found):
        yield Price(
            sku=sku,
            region=region,
            unit=unit if wanted.per == 1 else "million",
            usd=round(usd * wanted.per, 9),
            source=source,
            date=today,
            above=begin / wanted.per,
        )


def refreshed(old: Sequence[Price], new: Sequence[Price]) -> list[Price]:
    """`old`, where AWS has answered replaced by `new`; units keep the names that they had. Pure."""
    units = {row.sku: row.unit for row in old}
    answered = {(row.sku, row.region) for row in new}
    kept = [row for row in old if (row.sku, row.region) not in answered]
    named = [
        Price(
            row.sku,
            row.region,
            units.get(row.sku, row.unit),
            row.usd,
            row.source,
            row.date,
            row.above,
        )
        for row in new
    ]
    return sorted([*kept, *named], key=lambda row: (row.sku, row.region, row.above))


def run(client: Any, file: Path, out: Path, regions: Sequence[str], skus: Sequence[str]) -> JSON:
    """Refreshes `file` into `out`. Raises botocore's errors; then nothing is written."""
    known = prices.load(file)
    wanted = sorted({row.sku for row in known.rows} | set(skus))
    found = [row for sku in wanted for region in regions for row in fetch(client, sku, region)]
    rows = refreshed(known.rows, found)
    prices.Prices(rows)  # tiers rise from 0, or nothing is written
    document = json.loads(file.read_text(encoding="utf-8"))
    document["prices"] = [row.document() for row in rows]
    answered = {row.region for row in found}
    document["sameAs"] = [
        each for each in document.get("sameAs", ()) if each["region"] not in answered
    ]
    out.write_text(prices.text(document), encoding="utf-8")
    before = {(row.sku, row.region, row.above): row.usd for row in known.rows}
    changed = [row for row in found if before.get((row.sku, row.region, row.above)) != row.usd]
    return {
        "asked": len(wanted) * len(regions),
        "answered": len({(row.sku, row.region) for row in found}),
        "changed": [row.document() for row in changed],
        "unknown": [sku for sku in wanted if ask_for(sku) is None],
        "file": str(out),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.aws.prices_refresh")
    parser.add_argument("--file", type=Path, default=prices.BUILT_IN)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--region", action="append", required=True)
    parser.add_argument("--sku", action="append", default=[])
    given = parser.parse_args()
    try:
        result = run(_client(), given.file, given.out, given.region, given.sku)
    except Problem as problem:
        sys.stdout.write(json.dumps(problem.document()) + "\n")
        return int(problem.exit)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _client() -> Any:
    try:
        import boto3
    except ImportError as error:
        raise Refused("AWS' prices need boto3.", hint="pip install 'regionctl[aws]'") from error
    session = boto3.Session()
    if session.get_credentials() is None:
        raise Unauthorized("AWS tells prices only to somebody it knows.", hint=CREDENTIALS)
    return _Told(session.client("pricing", region_name=API_REGION))


class _Told:
    """The client, with AWS' refusals as problems."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get_products(self, **asked: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._client.get_products(**asked)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if "Denied" in code or "Token" in code:
                raise Unauthorized(f"AWS does not tell: {error}", hint=CREDENTIALS) from error
            raise Invalid(f"AWS does not understand: {error}") from error
        except BotoCoreError as error:
            raise Refused(f"AWS' price list cannot be asked: {error}", hint=CREDENTIALS) from error


if __name__ == "__main__":
    sys.exit(main())
