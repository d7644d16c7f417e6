"""On AWS all objects are in one bucket of S3 itself, in folders, opened by the task's role."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from runtime.objects import INVOICES, Objects
from runtime.settings import Settings, load

SETTINGS = Settings(
    "payments", "payments.us-west-2a", "us-west-2", "a", Path("map"), "", "",
    entry_url="https://api.shop.example.com", objects="https://s3.us-west-2.amazonaws.com",
    objects_bucket="shop-objects",
)  # fmt: skip


@pytest.fixture(autouse=True)
def role(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a task's role gives to whoever asks in its place."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")


def test_a_signed_url_leads_to_s3_itself_into_the_folder() -> None:
    url = urlsplit(Objects(SETTINGS).sign(INVOICES, "7/42.pdf", 60))
    assert (url.scheme, url.path) == ("https", "/invoices/7/42.pdf")
    assert url.netloc == "shop-objects.s3.us-west-2.amazonaws.com"
    signed = parse_qs(url.query)
    assert signed["X-Amz-Expires"] == ["60"]
    assert "/us-west-2/s3/" in signed["X-Amz-Credential"][0]


async def test_no_bucket_is_made_where_folders_do() -> None:
    await Objects(replace(SETTINGS, objects="http://127.0.0.1:1")).ensure([INVOICES])


def test_the_variable_says_which_bucket(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.json"
    secrets.write_text("{}")
    found = load(
        {f"REGIONCTL_{name}": "x" for name in ("SERVICE", "INSTANCE", "REGION", "ZONE")}
        | {"REGIONCTL_SHARD_MAP": "map", "REGIONCTL_SECRETS": str(secrets)}
        | {"REGIONCTL_OBJECTS_BUCKET": "shop-objects", "REGIONCTL_TLS_CA": "/ca.pem"}
    )
    assert (found.objects_bucket, found.tls_ca) == ("shop-objects", "/ca.pem")
