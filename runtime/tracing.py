"""Traces over gateway, service, database, stream and consumer (OpenTelemetry, W3C Trace Context).

Spans are made only when an OTLP endpoint is set; the SDK is not even imported otherwise. The
`traceparent` that a client or gateway sent is passed on to events either way, so that a consumer
with tracing can continue a trace that came through a service without.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

from runtime.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext, Tracer

STOP_SECONDS = 2.0

Kind = Literal["server", "client", "producer", "consumer", "internal"]
Attributes = Mapping[str, str | int | float | bool]

# Of the request or event that is being handled; both also stand in every line of the log.
request_id: ContextVar[str] = ContextVar("request_id", default="")
incoming: ContextVar[str | None] = ContextVar("incoming_traceparent", default=None)

_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_NOTHING: AbstractContextManager[None] = nullcontext()


def start(settings: Settings) -> None:
    """Spans of this process go to `settings.otlp_endpoint`; without one nothing happens."""
    global _provider, _tracer
    if not settings.otlp_endpoint or _provider is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": settings.service,
            "service.namespace": "regionctl",
            "service.instance.id": settings.instance,
            "cloud.region": settings.region,
            "cloud.availability_zone": settings.region + settings.zone,
        }
    )
    exporter = OTLPSpanExporter(f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=5)
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("regionctl")


def stop() -> None:
    """Sends what is left, waiting `STOP_SECONDS` at most: what a collector that is away does not
    get then is lost."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        # The SDK itself would wait for as long as its last attempt takes.
        last = threading.Thread(target=provider.shutdown, daemon=True)
        last.start()
        last.join(STOP_SECONDS)


def span(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: str | None = None,
) -> AbstractContextManager[None]:
    """A span around the `with` block, a child of the current one or of the traceparent `parent`.

    An error that leaves the block marks the span. Costs a function call when nobody traces.
    A client span or an internal one is made only within another: what no request and no event has
    caused, as the polling of a table, is no trace.
    """
    if _tracer is None or (kind in ("client", "internal") and not parent and not _within()):
        return _NOTHING
    return _span(_tracer, name, kind, attributes or {}, parent)


def spans(
    name: str, kind: Kind, parents: Sequence[str | None], attributes: Attributes | None = None
) -> AbstractContextManager[Sequence[str | None]]:
    """One span a traceparent around the `with` block, which gets the traceparents of the spans:
    for a batch whose parts have causes of their own. What is done in the block counts as the
    first one's."""
    if _tracer is None or not parents:
        return nullcontext(parents)
    return _spans(_tracer, name, kind, parents, attributes or {})


@contextmanager
def _spans(
    tracer: Tracer,
    name: str,
    kind: Kind,
    parents: Sequence[str | None],
    attributes: Attributes,
) -> Iterator[Sequence[str | None]]:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode, use_span

    made = [
        tracer.start_span(
            name,
            context=_remote(parent) if parent else Context(),
            kind=SpanKind[kind.upper()],
            attributes=dict(attributes),
        )
        for parent in parents
    ]
    try:
        with use_span(made[0], record_exception=False, set_status_on_exception=False):
            yield [_text(each.get_span_context()) for each in made]
    except BaseException as error:
        for each in made:
            each.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        for each in made:
            each.end()


def _within() -> bool:
    from opentelemetry.trace import get_current_span

    return get_current_span().get_span_context().is_valid


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: Kind, attributes: Attributes, parent: str | None
) -> Iterator[None]:
    from opentelemetry.trace import SpanKind

    with tracer.start_as_current_span(
        name,
        context=_remote(parent) if parent else None,
        kind=SpanKind[kind.upper()],
        attributes=dict(attributes),
    ):
        yield


def annotate(attributes: Attributes) -> None:
    """Adds to the current span what is known only later, as the route and the status."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    get_current_span().set_attributes(dict(attributes))


def traceparent() -> str | None:
    """What to pass on: of the current span, or else what came in."""
    if _tracer is None:
        return incoming.get()
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    if not context.is_valid:
        return incoming.get()
    return _text(context)


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_id() -> str | None:
    """The 32 hexadecimal digits that a log line and a trace have in common."""
    found = traceparent()
    return found.split("-")[1] if found else None


def valid(text: str) -> str | None:
    """`text` if it is a traceparent (version 00) with ids that are not zero."""
    parts = text.split("-")
    if len(parts) != 4 or [len(part) for part in parts] != [2, 32, 16, 2] or parts[0] != "00":
        return None
    try:
        numbers = [int(part, 16) for part in parts]
    except ValueError:
        return None
    return text if numbers[1] and numbers[2] and text == text.lower() else None


def _remote(parent: str) -> Context:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    _, trace, span, flags = parent.split("-")
    context = SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(context))
