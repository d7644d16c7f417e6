"""Bad input that a schema cannot describe ends in a 4xx problem document, never in a 500."""

from __future__ import annotations

import json
from collections.abc import Mapping

import httpx
import pytest

from runtime.app import BODY_LIMIT
from tests.runtime.conftest import Platform
from tests.runtime.customers import PASSWORD, register
from tests.runtime.platform_server import whole
from tests.runtime.tokens import bearer

pytestmark = pytest.mark.process

ORDERS = "/api/v1/orders"
USERS = "/api/v1/users"
TOKEN = "/oauth/token"
HUGE = "9" * 5000
DEEP = "[" * 100_000 + "]" * 100_000
FORM = "application/x-www-form-urlencoded"


def order(sku: str = '"MUG-ONCALL"', quantity: str = "1", more: str = "") -> bytes:
    return f'{{"items":[{{"sku":{sku},"quantity":{quantity}}}]{more}}}'.encode()


def user(name: str = '"Ada"', email: str = '"b@example.org"', more: str = "") -> bytes:
    return f'{{"email":{email},"name":{name},"password":"{PASSWORD}"{more}}}'.encode()


BODIES: Mapping[str, tuple[str, bytes]] = {
    "lone surrogate in a SKU": (ORDERS, order(sku=r'"\ud800"')),
    "lone surrogate in a name": (USERS, user(name=r'"\udfff"')),
    "lone surrogate in an e-mail": (USERS, user(email=r'"a\ud800@example.org"')),
    "lone surrogate in a field's name": (USERS, user(more=r',"\ud800":1')),
    "NUL in a SKU": (ORDERS, order(sku=r'"a\u0000b"')),
    "NUL in a name": (USERS, user(name=r'"a\u0000b"')),
    "NUL in an e-mail": (USERS, user(email=r'"a\u0000@example.org"')),
    "quantity beyond 64 bits": (ORDERS, order(quantity=str(2**64))),
    "quantity of 5000 digits": (ORDERS, order(quantity=HUGE)),
    "quantity below zero": (ORDERS, order(quantity="-1")),
    "quantity as a fraction": (ORDERS, order(quantity="1.5")),
    "quantity not a number": (ORDERS, order(quantity="NaN")),
    "quantity infinite": (ORDERS, order(quantity="1e999")),
    "user beyond 63 bits": (ORDERS, order(more=f',"user_id":"{2**63}"')),
    "user in other digits": (ORDERS, order(more=',"user_id":"١٢"')),
    "user of 5000 digits": (ORDERS, order(more=f',"user_id":"{HUGE}"')),
    "deep JSON": (ORDERS, DEEP.encode()),
    "deep JSON in a field": (ORDERS, order(more=f',"x":{DEEP}')),
    "twice the same field": (ORDERS, order(more=',"items":[]')),
    "not UTF-8": (USERS, b'{"name":"\xff\xfe"}'),
    "UTF-16": (USERS, '{"name":"a"}'.encode("utf-16")),
    "no JSON": (ORDERS, b"{"),
    "JSON of another kind": (ORDERS, b"null"),
    "nothing": (ORDERS, b""),
    "too large": (USERS, user(name=json.dumps("x" * (BODY_LIMIT + 1)))),
    "e-mail too long": (USERS, user(email=json.dumps("a" * 300 + "@example.org"))),
    "webhook without a signature": ("/api/v1/payments/webhook", b"{}"),
}


def check_problem(answer: httpx.Response, what: str) -> None:
    assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json", what
    assert answer.json()["status"] == answer.status_code, what


async def test_bad_requests_are_answered_with_problem_documents(platform: Platform) -> None:
    id = await register(platform)
    token = await bearer(platform, user_id=id)
    service = await bearer(platform, role="service")
    secrets = {**platform.settings("payments").secrets, "webhookSecret": "whsec_c2VjcmV0cw=="}
    async with (
        whole(platform, secrets=secrets) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        json_type = {**service, "content-type": "application/json"}
        for what, (path, body) in BODIES.items():
            check_problem(await client.post(path, content=body, headers=json_type), what)
        await _wrong_types(client, service)
        await _bad_forms(client)
        await _bad_headers(client, token)
        await _bad_addresses(client, service)


async def _wrong_types(client: httpx.AsyncClient, token: Mapping[str, str]) -> None:
    for kind in ("text/plain", "application/xml", FORM, "multipart/form-data; boundary=x", "\xe9"):
        headers = [*token.items(), ("content-type", kind)]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        check_problem(await client.post(ORDERS, content=order(), headers=raw), kind)
        if kind != FORM:
            form = b"grant_type=password"
            sent = [(b"content-type", kind.encode("latin-1"))]
            check_problem(await client.post(TOKEN, content=form, headers=sent), kind)


async def _bad_forms(client: httpx.AsyncClient) -> None:
    forms = [
        b"", b"%", b"grant_type", b"grant_type=password&grant_type=password", b"\xff=\xff",
        b"grant_type=password&username=%ff&password=x", b"grant_type=password&username=a%00b",
        b"grant_type=refresh_token&refresh_token=" + b"A" * 4000,
        b"grant_type=refresh_token&refresh_token=%F0%9F%98%80.1.2",
        b"&".join(b"a%d=1" % number for number in range(3000)),
        b"grant_type=password&username=a%40b.c&password=" + b"p" * 4000,
        b"grant_type=client_credentials&client_id=%ed%a0%80&client_secret=x",
    ]  # fmt: skip
    for form in forms:
        answer = await client.post(TOKEN, content=form, headers={"content-type": FORM})
        check_problem(answer, repr(form[:60]))
    for header in ("Basic", "Basic ====", "Basic 4pyT", "Basic OnNlY3JldA=="):
        headers = {"content-type": FORM, "authorization": header}
        answer = await client.post(TOKEN, content=b"grant_type=client_credentials", headers=headers)
        check_problem(answer, header)


async def _bad_headers(client: httpx.AsyncClient, token: Mapping[str, str]) -> None:
    for name, value in {
        "authorization": b"Bearer " + b"a" * 20_000,
        "Authorization": b"Bearer \xff\xfe",
        "AUTHORIZATION": b"Bearer a.b.c",
        "x-regionctl-position": b"s1.999999999999999999999.1",
        "X-Regionctl-Position": b"\xff",
    }.items():
        sent = {each.lower(): text.encode() for each, text in token.items()} | {name.lower(): value}
        raw = [(each.encode(), text) for each, text in sent.items()]
        check_problem(await client.get(ORDERS, headers=raw), f"{name} {value[:30]!r}")
    for key in (b"", b"a b", b"\xff", b"k" * 201):
        raw = [(each.encode(), text.encode()) for each, text in token.items()]
        raw += [(b"idempotency-key", key), (b"content-type", b"application/json")]
        check_problem(await client.post(ORDERS, content=order(), headers=raw), repr(key[:9]))
    answer = await client.get(ORDERS, headers={**token, "if-none-match": "x" * 40_000})
    check_problem(answer, "a long header")


async def _bad_addresses(client: httpx.AsyncClient, token: Mapping[str, str]) -> None:
    for path in (
        f"{ORDERS}/0", f"{ORDERS}/-1", f"{ORDERS}/{2**63}", f"{ORDERS}/{HUGE}", f"{ORDERS}/%00",
        f"{ORDERS}/%ff", f"{ORDERS}/%D9%A1", f"{USERS}/%ed%a0%80", f"{USERS}/1%2F2",
        f"{ORDERS}?user_id=%00", f"{ORDERS}?user_id={HUGE}", f"{ORDERS}?limit=0&user_id=1",
        f"{ORDERS}?limit={HUGE}&user_id=1", f"{ORDERS}?cursor=-1&user_id=1",
        f"{ORDERS}/search?q=%00", f"{ORDERS}/search?q=", f"{ORDERS}/search?q=" + "a" * 201,
        f"{ORDERS}/search", "/api/v1/products/%00", "/api/v1/products/%ff", "/static/..%2Fapp.py",
        "/api/v1/audit", "/api/v2/orders", f"{USERS}?cursor=x", f"{ORDERS}/1/invoice",
        f"{ORDERS}/{HUGE}/payment", f"{ORDERS}/{HUGE}/notifications",
    ):  # fmt: skip
        check_problem(await client.get(path, headers=dict(token)), path[:60])
