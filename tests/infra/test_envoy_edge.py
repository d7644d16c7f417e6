"""What the edge refuses, adds, takes off and keeps, by a real Envoy."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runtime.objects import INVOICES, Objects
from runtime.settings import Settings
from tests.infra.echo import Echo
from tests.infra.frontdoor import SITE, FrontDoor, front_door
from tests.infra.processes import eventually
from tests.runtime.seaweed import KEY, SECRET, Seaweed

pytestmark = pytest.mark.process
ORDERS = "/api/v1/orders"
PRODUCTS = "/api/v1/products"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    with front_door(tmp_path_factory.mktemp("edge")) as door:
        yield door


@pytest.fixture(scope="module")
def client(door: FrontDoor) -> Iterator[httpx.Client]:
    with door.client() as client:
        yield client


def is_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    document = answer.json()
    assert document["status"] == status
    assert all(document[name] for name in ("type", "title", "detail"))


def raw(door: FrontDoor, request: bytes) -> int:
    """The status that the bytes of `request` are answered with."""
    trust = ssl.create_default_context(cafile=str(door.folder / "ca" / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", door.edge), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("method", ["PUT", "TRACE", "PROPFIND"])
def test_other_methods_are_refused_with_those_that_are_allowed(
    client: httpx.Client, method: str
) -> None:
    answer = client.request(method, ORDERS)
    is_problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD, POST, PATCH, DELETE, OPTIONS"


@pytest.mark.parametrize(
    "path",
    ["/api/v1/users%2f7", "/api/v1/users%5c7", f"{PRODUCTS}%00", f"{PRODUCTS}?q=a%00b", "/..x/y"],
)
def test_paths_that_could_be_read_in_two_ways_are_refused(client: httpx.Client, path: str) -> None:
    is_problem(client.get(path), 400)


def test_a_path_is_straightened_before_anything_looks_at_it(
    door: FrontDoor, client: httpx.Client
) -> None:
    host = f"Host: 127.0.0.1:{door.edge}\r\n".encode()
    for path in (b"/static/../api/v1/orders", b"//api//v1/orders", b"/static/%2e%2e/api/v1/orders"):
        assert raw(door, b"GET " + path + b" HTTP/1.1\r\n" + host + b"\r\n") == 401


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /api/v1/pro\x00ducts HTTP/1.1",
        b"GET /api/v1/products#part HTTP/1.1",
        b"GET /api/v1/products\xff HTTP/1.1",
        b"get /api/v1/products HTTP/1.1",
    ],
)
def test_a_malformed_request_line_is_refused(door: FrontDoor, request_line: bytes) -> None:
    assert raw(door, request_line + b"\r\nHost: a\r\n\r\n") == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"Content-Length: 4\r\nContent-Length: 5\r\n", 400),
        (b"Content-Length: -1\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 501),
    ],
)
def test_a_body_with_two_possible_ends_is_refused(
    door: FrontDoor, headers: bytes, status: int
) -> None:
    head = b"POST /api/v1/users HTTP/1.1\r\nHost: a\r\n"
    assert raw(door, head + headers + b"\r\n0\r\n\r\n") == status


def test_a_tunnel_is_refused(door: FrontDoor) -> None:
    assert raw(door, b"CONNECT evil:443 HTTP/1.1\r\nHost: evil:443\r\n\r\n") in (403, 405)
    upgrade = b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert raw(door, b"GET /api/v1/products HTTP/1.1\r\n" + upgrade) == 403


def test_what_is_too_large_is_refused(door: FrontDoor, client: httpx.Client) -> None:
    is_problem(client.get(f"{PRODUCTS}?q={'a' * 8200}"), 414)
    assert client.get(f"{PRODUCTS}?q={'a' * 8100}").status_code == 200
    is_problem(client.get(PRODUCTS, headers={f"x-{n}": "1" for n in range(101)}), 431)
    is_problem(client.get(PRODUCTS, headers={"x-a": "1" * 40_000}), 431)
    asked = door.echo.asked["/api/v1/users"]
    form = {"Content-Type": "application/json"}
    is_problem(client.post("/api/v1/users", content=b" " * (2 << 20), headers=form), 413)
    assert door.echo.asked["/api/v1/users"] == asked


def test_headers_with_an_underscore_are_refused(client: httpx.Client) -> None:
    is_problem(client.get(PRODUCTS, headers={"x_regionctl_subject": "1"}), 400)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_none_belongs_is_refused(client: httpx.Client, method: str) -> None:
    is_problem(client.request(method, PRODUCTS, content=b"{}"), 400)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/merge-patch+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/xml", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_content_that_nothing_reads_is_refused(
    client: httpx.Client, content: str, status: int
) -> None:
    answer = client.post("/api/v1/users", content=b"{}", headers={"Content-Type": content})
    assert answer.status_code == status
    if status == 415:
        is_problem(answer, 415)


def test_a_client_cannot_pass_for_another_address_or_for_the_edge(
    door: FrontDoor, client: httpx.Client
) -> None:
    honest = client.get(ORDERS, headers=door.bearer()).json()["headers"]["x-forwarded-for"]
    assert honest == "127.0.0.1"
    spoofed = [
        *door.bearer().items(),
        *(("X-Forwarded-For", address) for address in ("6.6.6.6", "7.7.7.7, 8.8.8.8")),
        *(("X-Envoy-Retry-On", "5xx"), ("X-Envoy-Max-Retries", "9"), ("X-Envoy-Anything", "1")),
        *(("X-Envoy-External-Address", "6.6.6.6"), ("X-Envoy-Original-Path", "/")),
        *(("X-Real-Ip", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"), ("X-Forwarded-Proto", "http")),
        *(("X-Regionctl-Subject", "1"), ("X-Regionctl-Role", "admin")),
        *(("X-Forwarded-Host", "evil.example"), ("X-Original-Url", "/admin")),
        ("X-Regionctl-Position", "s1:7"),
    ]
    seen = client.get(ORDERS, headers=spoofed).json()["headers"]
    assert seen["x-forwarded-for"] == honest
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-regionctl-position"] == "s1:7"
    assert {name for name in seen if name.startswith(("x-", "forwarded"))} == {
        "x-envoy-external-address",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-regionctl-position",
        "x-request-id",
    }
    assert "6.6.6.6" not in seen["x-envoy-external-address"]


def test_every_answer_says_how_a_browser_should_treat_it(
    door: FrontDoor, client: httpx.Client
) -> None:
    for answer in (client.get(ORDERS, headers=door.bearer()), client.get("/no-such-path")):
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("x-envoy")]


def test_scripts_of_allowed_sites_may_call_and_others_may_not(
    door: FrontDoor, client: httpx.Client
) -> None:
    asked = door.echo.asked[ORDERS]
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    preflight = client.options(ORDERS, headers={"Origin": SITE, **ask})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == SITE
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    assert door.echo.asked[ORDERS] == asked
    answer = client.get(ORDERS, headers={"Origin": SITE, **door.bearer()})
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "ETag" in answer.headers["access-control-expose-headers"]
    for method in ("OPTIONS", "GET"):
        other = {"Origin": "https://evil.example", **ask, **door.bearer()}
        answer = client.request(method, ORDERS, headers=other)
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", [PRODUCTS, "/openapi.json", "/static/app.js"])
def test_a_public_document_is_kept_as_long_as_it_says(
    door: FrontDoor, client: httpx.Client, path: str
) -> None:
    asked = door.echo.asked[path]
    assert client.get(path).status_code == 200
    assert client.get(path).status_code == 200
    assert door.echo.asked[path] == asked + 2
    door.echo.headers[path] = {"Cache-Control": "public, max-age=60", "ETag": '"one"'}
    answers = [client.get(path, headers={"X-Request-Id": f"r{n}"}) for n in range(3)]
    assert door.echo.asked[path] == asked + 3
    assert {answer.json()["count"] for answer in answers} == {asked + 3}
    assert [answer.headers["x-request-id"] for answer in answers] == ["r0", "r1", "r2"]
    assert "age" in answers[2].headers
    assert answers[2].headers["strict-transport-security"]
    known = client.get(path, headers={"If-None-Match": '"one"'})
    assert (known.status_code, known.headers["etag"], known.content) == (304, '"one"', b"")


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"{PRODUCTS}/sku-1", {}),
        (f"{PRODUCTS}?limit=5", {}),
        ("/static/app.css?v=2", {}),
        ("/static/deep/app.css", {}),
        ("/api/v1/products", {"Host": "evil.example"}),
        ("/openapi.json", {"Authorization": "token"}),
        (ORDERS, {"Authorization": "token"}),
    ],
)
def test_nothing_else_is_kept(
    door: FrontDoor, client: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    plain = path.partition("?")[0]
    door.echo.headers[plain] = {"Cache-Control": "public, max-age=60"}
    if "Authorization" in headers:
        headers = door.bearer()
    asked = door.echo.asked[plain]
    for _ in range(2):
        assert "age" not in client.get(path, headers=headers).headers
    assert door.echo.asked[plain] == asked + 2


def test_a_flood_from_one_address_is_held_back(tmp_path: Path) -> None:
    door = FrontDoor(tmp_path, per_second=1, burst=10)
    try:
        door.start()
        with door.client() as client:
            answers = [
                client.get("/health/ready", headers={"X-Forwarded-For": f"6.6.6.{n}"})
                for n in range(20)
            ]
        statuses = Counter(answer.status_code for answer in answers)
        assert 10 <= statuses[200] <= 12
        is_problem(answers[-1], 429)
        assert answers[-1].json()["type"] == "urn:regionctl:problem:TooManyRequests"
        assert answers[-1].headers["retry-after"] == "1"
    finally:
        door.end()


def test_spans_of_edge_and_gateway_continue_the_clients_trace(tmp_path: Path) -> None:
    spans = Echo()
    door = FrontDoor(tmp_path, spans=spans)
    try:
        door.start()
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        with door.client() as client:
            headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", **door.bearer()}
            seen = client.get(ORDERS, headers=headers).json()["headers"]["traceparent"]
        assert seen.split("-")[1] == trace
        assert seen.split("-")[2] != "00f067aa0ba902b7"
        assert eventually(lambda: spans.asked["/v1/traces"] >= 2, 10)
    finally:
        door.end()
        spans.end()


async def test_a_signed_url_reads_an_object_through_edge_and_gateway(tmp_path: Path) -> None:
    store = Seaweed(tmp_path / "objects")
    door = FrontDoor(tmp_path, objects=store.port)
    try:
        store.start()
        await asyncio.to_thread(door.start)
        secrets = {"objectsKey": KEY, "objectsSecret": SECRET}
        settings = Settings(
            "payments", "payments.us-east-1a", "us-east-1", "a", Path("map"), "", "",
            entry_url=door.url, secrets=secrets, objects=store.url,
        )  # fmt: skip
        objects = Objects(settings)
        await objects.ensure([INVOICES])
        await objects.put(INVOICES, "2026/11/7 a.txt", b"paid", "text/plain")
        url = objects.sign(INVOICES, "2026/11/7 a.txt", 60)
        with door.client() as client:
            for headers in ({}, door.bearer()):
                assert client.get(url, headers=headers).content == b"paid"
            for other in (url[:-1] + "x", url.replace("7%20a", "8"), url.partition("?")[0]):
                assert client.get(other).status_code in (403, 404)
    finally:
        store.stop()
        door.end()
