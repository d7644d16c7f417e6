"""Traces: one order through services, databases, stream and consumer, as a collector gets them."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.types import Receive, Scope, Send

from runtime import checks, tracing
from runtime.settings import Settings
from tests.runtime.conftest import Platform
from tests.runtime.customers import place, register, sign_in, until_recorded
from tests.runtime.platform_server import served

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT_SPAN = "00f067aa0ba902b7"
EXPORT_SECONDS = 5  # of one attempt: who waits for a collector waits at least as long


@dataclass
class Collector:
    """Takes spans as an OpenTelemetry collector does (OTLP over HTTP, protobuf)."""

    spans: list[Span] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"] == "/v1/traces"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        if dict(scope["headers"]).get(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for instrumented in resource.scope_spans:
                self.spans += instrumented.spans
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def named(self, prefix: str) -> list[Span]:
        return [
            span
            for span in self.spans
            if span.name.startswith(prefix) and span.trace_id.hex() == TRACE
        ]


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tracing, "STOP_SECONDS", 0.2)
    yield
    tracing.stop()


def settings(endpoint: str) -> Settings:
    return Settings("orders", "orders.x", "us-east-1", "a", Path(), "", "", otlp_endpoint=endpoint)


def follow(collector: Collector, span: Span) -> Span | None:
    """The parent, which must be in the trace unless it is the client."""
    if span.parent_span_id.hex() == CLIENT_SPAN:
        return None
    return next(each for each in collector.spans if each.span_id == span.parent_span_id)


@pytest.mark.process
async def test_one_trace_leads_from_the_request_to_the_consumer(
    platform: Platform, catalog_db: checks.Database
) -> None:
    user = await register(platform)
    collector = Collector()
    async with served(collector) as port:
        endpoint = f"http://127.0.0.1:{port}"

        def of(name: str) -> Settings:
            return replace(platform.settings(name), otlp_endpoint=endpoint)

        async with (
            platform.service("orders", settings=of("orders")) as orders,
            platform.service("inventory", settings=of("inventory")),
        ):
            await sign_in(platform, orders, user)
            sent = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"}
            assert (await place(orders, user, "one", headers=sent)).status_code == 201
            await until_recorded(catalog_db, 1)
            # Spans leave in a thread of their own, whose server is this loop.
            await asyncio.to_thread(flush)
    (request,) = collector.named("POST")
    assert request.kind == Span.SPAN_KIND_SERVER
    assert request.parent_span_id.hex() == CLIENT_SPAN
    written = [
        each for each in collector.named("database s1") if follow(collector, each) is request
    ]
    assert written
    (published, *_) = collector.named("publish events")
    assert published.kind == Span.SPAN_KIND_PRODUCER
    assert follow(collector, published) is request
    (consumed, *_) = collector.named("process inventory")
    assert consumed.kind == Span.SPAN_KIND_CONSUMER
    assert follow(collector, consumed) is published
    stock = collector.named("database catalog")
    assert any(follow(collector, each) is consumed for each in stock)


def flush() -> None:
    assert tracing._provider is not None
    assert tracing._provider.force_flush()


async def test_polling_makes_no_traces_of_its_own() -> None:
    tracing.start(settings("http://127.0.0.1:9"))
    with tracing.span("database s1", "client"):
        assert tracing.trace_id() is None


async def test_a_batch_has_a_span_for_each_event_in_the_events_own_trace() -> None:
    tracing.start(settings("http://127.0.0.1:9"))
    parents = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    with tracing.spans("process x", "consumer", parents) as here:
        assert [each and each.split("-")[1] for each in here] == [f"{n:032x}" for n in (1, 2)]
        assert not set(here) & set(parents)
        assert tracing.trace_id() == f"{1:032x}"


async def test_without_an_endpoint_what_came_in_is_passed_on() -> None:
    parents = [f"00-{1:032x}-{1:016x}-01", None]
    with tracing.spans("process x", "consumer", parents) as here:
        assert list(here) == parents


@pytest.mark.parametrize("answers", [True, False], ids=["hangs", "refuses"])
async def test_a_collector_that_is_away_slows_neither_requests_nor_shutdown(
    answers: bool,
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if answers:
            listener.listen()
        tracing.start(settings(f"http://127.0.0.1:{listener.getsockname()[1]}"))
        began = time.perf_counter()
        for _ in range(3000):
            with tracing.span("GET", "server"), tracing.span("database s1", "client"):
                pass
        assert time.perf_counter() - began < EXPORT_SECONDS
        began = time.perf_counter()
        tracing.stop()
        assert time.perf_counter() - began < EXPORT_SECONDS
