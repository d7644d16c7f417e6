"""New prices from AWS' price list, against botocore's own model of that API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from infra.aws import prices, prices_refresh
from infra.aws.prices import Price

JSON = dict[str, Any]


def product(usage: str, *tiers: tuple[str, str], unit: str = "Hrs") -> str:
    dimensions = {
        str(index): {"unit": unit, "beginRange": begin, "pricePerUnit": {"USD": usd}}
        for index, (begin, usd) in enumerate(tiers)
    }
    return json.dumps(
        {
            "product": {"sku": "ABC", "attributes": {"usagetype": usage}},
            "terms": {"OnDemand": {"ABC.1": {"priceDimensions": dimensions}}},
        }
    )


@pytest.fixture
def client() -> Any:
    return boto3.client(
        "pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


def asked(service: str, region: str, **attributes: str) -> JSON:
    filters = [
        {"Type": "TERM_MATCH", "Field": key, "Value": value}
        for key, value in {"regionCode": region, **attributes}.items()
    ]
    return {"ServiceCode": service, "Filters": filters}


def test_a_price_is_found_by_its_usage_type_on_whichever_page(client: Any) -> None:
    wanted = asked("AmazonRDS", "us-west-2", databaseEngine="Aurora PostgreSQL")
    other = product("USW2-InstanceUsageIOOptimized:db.r6g.large", ("0", "0.338"))
    right = product("USW2-InstanceUsage:db.r6g.large", ("0", "0.26"))
    with Stubber(client) as stub:
        stub.add_response("get_products", {"PriceList": [other], "NextToken": "more"}, wanted)
        stub.add_response("get_products", {"PriceList": [right]}, {**wanted, "NextToken": "more"})
        (row,) = prices_refresh.fetch(client, "aurora-instance/db.r6g.large", "us-west-2")
        stub.assert_no_pending_responses()
    assert (row.usd, row.region, row.above) == (0.26, "us-west-2", 0.0)
    assert "Price List API" in row.source


def test_tiers_and_units_are_ours(client: Any) -> None:
    page = product("Aurora:StorageIOUsage", ("0", "0.0000002000"), unit="IOs")
    with Stubber(client) as stub:
        stub.add_response("get_products", {"PriceList": [page]}, asked("AmazonRDS", "us-east-1"))
        (row,) = prices_refresh.fetch(client, "aurora-io", "us-east-1")
    assert (row.usd, row.unit) == (0.2, "million")


def test_a_sku_that_nobody_knows_is_not_asked_for(client: Any) -> None:
    with Stubber(client):
        assert prices_refresh.fetch(client, "managed-grafana", "us-east-1") == ()


def test_what_aws_does_not_answer_keeps_its_row_and_its_date() -> None:
    old = [Price("a", "r", "hour", 1.0, "s", "2025-01-01"), Price("b", "r", "h", 2.0, "s", "2025")]
    new = [Price("a", "r", "Hrs", 3.0, "AWS", "2026-01-01")]
    first, second = prices_refresh.refreshed(old, new)
    assert (first.usd, first.unit, first.date) == (3.0, "hour", "2026-01-01")
    assert second == old[1]


def test_a_refresh_writes_a_whole_file_and_drops_what_was_only_assumed(
    client: Any, tmp_path: Path
) -> None:
    file, out = tmp_path / "old.json", tmp_path / "new.json"
    row = Price("kms-key", "us-east-1", "month", 9.0, "old", "2025-01-01").document()
    same = {"region": "us-west-2", "as": "us-east-1", "source": "guess", "date": "2025-01-01"}
    file.write_text(prices.text({"currency": "USD", "sameAs": [same], "prices": [row]}))
    with Stubber(client) as stub:
        for region, usage in (("us-east-1", "KMS-Keys"), ("us-west-2", "USW2-KMS-Keys")):
            page = {"PriceList": [product(usage, ("0", "1.0"))]}
            stub.add_response("get_products", page, asked("awskms", region))
        result = prices_refresh.run(client, file, out, ["us-east-1", "us-west-2"], [])
    assert (result["asked"], result["answered"], len(result["changed"])) == (2, 2, 2)
    known = prices.load(out)
    assert known.tiers("kms-key", "us-west-2")[0].usd == 1.0
    assert known.same_as == {}
