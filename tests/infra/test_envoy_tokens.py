"""The gateway's check of access tokens, by a real Envoy."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.infra.echo import JWKS, Echo, Signer
from tests.infra.frontdoor import FrontDoor, front_door
from tests.infra.processes import eventually

pytestmark = pytest.mark.process
ORDERS = "/api/v1/orders"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    with front_door(tmp_path_factory.mktemp("tokens"), with_edge=False) as door:
        yield door


@pytest.fixture(scope="module")
def client(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.inside() as client:
        yield client


def refused(answer: httpx.Response) -> str:
    """The challenge of an answer that says 401 as a problem document."""
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["type"], document["status"]) == ("urn:regionctl:problem:Unauthorized", 401)
    assert document["hint"]
    return str(answer.headers["www-authenticate"])


def unsigned(door: FrontDoor) -> str:
    _, claims, _ = door.signer.token().split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "at+jwt"}).encode())
    return f"{header.decode().rstrip('=')}.{claims}."


def changed(door: FrontDoor) -> str:
    """A token that says more than was signed."""
    header, claims, signature = door.signer.token().split(".")
    said = json.loads(base64.urlsafe_b64decode(claims + "=="))
    more = base64.urlsafe_b64encode(json.dumps({**said, "role": "admin"}).encode())
    return f"{header}.{more.decode().rstrip('=')}.{signature}"


def test_a_good_token_is_let_in_and_passed_on(door: FrontDoor, client: httpx.Client) -> None:
    token = door.signer.token()
    for scheme in ("Bearer", "bearer"):
        answer = client.get(ORDERS, headers={"Authorization": f"{scheme} {token}"})
        assert answer.status_code == 200
        assert answer.json()["headers"]["authorization"] == f"{scheme} {token}"


def test_a_token_within_the_leeway_is_let_in(door: FrontDoor, client: httpx.Client) -> None:
    late = door.bearer(exp=int(time.time()) - 20)
    early = door.bearer(nbf=int(time.time()) + 20)
    assert [client.get(ORDERS, headers=each).status_code for each in (late, early)] == [200, 200]


@pytest.mark.parametrize(
    "bad",
    [
        lambda door: door.signer.token(exp=int(time.time()) - 40),
        lambda door: door.signer.token(nbf=int(time.time()) + 60),
        lambda door: door.signer.token(aud="somebody-else"),
        lambda door: door.signer.token(iss="https://evil.example"),
        lambda door: Signer(door.url).token(),
        lambda door: Signer(door.url, "unknown").token(),
        unsigned,
        changed,
        lambda door: "nonsense",
    ],
    ids=["expired", "early", "audience", "issuer", "forged", "key", "none", "changed", "nonsense"],
)
def test_a_bad_token_is_refused_even_where_none_is_needed(
    door: FrontDoor, client: httpx.Client, bad: object
) -> None:
    assert callable(bad)
    headers = door.bearer(bad(door))
    for path in (ORDERS, "/api/v1/products"):
        challenge = refused(client.get(path, headers=headers))
        assert challenge == 'Bearer realm="regionctl", error="invalid_token"'


def test_a_missing_token_is_refused_without_repeating_the_url(
    door: FrontDoor, client: httpx.Client
) -> None:
    challenge = refused(client.get(ORDERS, params={"access_token": door.signer.token()}))
    assert challenge == 'Bearer realm="regionctl"'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/oauth/token"),
        ("POST", "/oauth/revoke"),
        ("GET", JWKS),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("POST", "/api/v1/users"),
        ("GET", "/api/v1/products"),
        ("GET", "/api/v1/products/sku-1"),
        ("GET", "/static/app.js"),
        ("GET", "/openapi.json"),
        ("POST", "/api/v1/payments/webhook"),
        ("GET", "/health/ready"),
        ("GET", "/invoices/7.txt?X-Amz-Signature=abc"),
    ],
)
def test_public_paths_need_no_token(client: httpx.Client, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/oauth/keys"),
        ("GET", "/api/v1/users"),
        ("GET", "/api/v1/users/7"),
        ("PATCH", "/api/v1/products/sku-1"),
        ("GET", "/api/v1/audit"),
        ("GET", "/api/v1/orders/7/invoice"),
        ("GET", "/api/v1/productsx"),
    ],
)
def test_everything_else_needs_one(client: httpx.Client, method: str, path: str) -> None:
    refused(client.request(method, path))


def test_a_signed_url_goes_to_the_object_store_as_it_was_signed(
    door: FrontDoor, client: httpx.Client
) -> None:
    url = "/invoices/2026/7.txt?X-Amz-Credential=key%2F20260101%2Fs3&X-Amz-Signature=abc"
    answer = client.get(url, headers={"Host": "shop.example:8443", **door.bearer()})
    seen = answer.json()
    assert (seen["path"], seen["headers"]["host"]) == (url, "shop.example:8443")
    assert "authorization" not in seen["headers"]
    assert client.get("/invoices/2026/7.txt").status_code == 404
    assert client.put(url).status_code == 404


def failed_fetches(door: FrontDoor) -> int:
    name = "http.gateway.jwt_authn.jwks_fetch_failed"
    url = f"http://127.0.0.1:{door.gateway_admin}/stats?filter=^{name}$"
    return int(httpx.get(url, trust_env=False).text.rpartition(":")[2] or 0)


def test_tokens_are_checked_while_auth_is_away_and_new_keys_come_when_it_is_back(
    door: FrontDoor, client: httpx.Client
) -> None:
    port = door.auth.address[1]
    fetched = door.auth.asked[JWKS]
    door.auth.end()
    assert eventually(lambda: failed_fetches(door) > 0, 10)
    fresh = door.bearer(jti="never seen before")
    assert client.get(ORDERS, headers=fresh).status_code == 200
    later = Signer(door.url, "k2")
    refused(client.get(ORDERS, headers=door.bearer(later.token())))
    door.auth = Echo(port)
    door.auth.keys = [door.signer.public, later.public]
    assert fetched >= 1
    assert eventually(
        lambda: client.get(ORDERS, headers=door.bearer(later.token())).status_code == 200, 10
    )
    assert client.get(ORDERS, headers=fresh).status_code == 200


def test_a_gateway_that_starts_before_auth_serves_and_recovers(tmp_path: Path) -> None:
    door = FrontDoor(tmp_path)
    port = door.auth.address[1]
    door.auth.end()
    try:
        door.start(with_edge=False)
        with door.inside() as client:
            assert client.get("/api/v1/products").status_code == 200
            refused(client.get(ORDERS))
            answer = client.get(ORDERS, headers=door.bearer())
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:regionctl:problem:Unavailable"
            assert answer.headers["retry-after"] == "1"
            door.auth = Echo(port)
            door.auth.keys = [door.signer.public]
            assert eventually(
                lambda: client.get(ORDERS, headers=door.bearer()).status_code == 200, 5
            )
    finally:
        door.end()
