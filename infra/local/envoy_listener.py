"""A listener: one port, its HTTP connection manager, and the filters that requests pass.

Plain JSON values. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.local import envoy_replies as replies
from infra.local.envoy_config import JSON, TYPES, address, file_source

OTLP = "otlp"
# No address is one whose word is taken: Envoy would trust private ones with x-envoy- headers.
NOBODY = {"address_prefix": "255.255.255.255", "prefix_len": 32}
CLIENT = {"x-forwarded-for": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}


@dataclass(frozen=True)
class Tracing:
    """Where spans go: an OTLP collector by plain HTTP. `percent` of the requests that bring no
    `traceparent` start a trace; one that is sampled already is continued."""

    host: str
    port: int
    path: str = "/v1/traces"
    percent: float = 100.0


def listener(
    name: str,
    port: int | None,
    table: Path | JSON,
    *,
    edge: bool,
    filters: Sequence[JSON] = (),
    mappers: Sequence[JSON],
    tls: JSON | None = None,
    tracing: Tracing | None = None,
    taken_off: Sequence[str] = (),
) -> JSON:
    """A port on 127.0.0.1; without one only this Envoy itself gets there. `table` holds the routes,
    or is the file that does.

    The edge meets clients: it takes off headers that would steer Envoy and
    writes down the client's address; a gateway believes what the edge says about the client.

    `taken_off` are request headers that nothing here or behind gets to see, nor any x-envoy-.
    X-Forwarded-For then is the address of the connection alone, whatever was sent: what Envoy
    itself appends is its own address when the client is on this machine.
    """
    manager: JSON = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "use_remote_address": edge,
        "skip_xff_append": True,
        "internal_address_config": {"cidr_ranges": [NOBODY]},
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": replies.MAX_HEADERS_KB,
        "request_timeout": "15s",
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "30s",
        "common_http_protocol_options": {
            "idle_timeout": "60s",
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": replies.MAX_HEADERS,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 1 << 16,
            "initial_connection_window_size": 1 << 20,
        },
        "local_reply_config": {"mappers": list(mappers)},
        "access_log": [replies.trouble_log()],
        "http_filters": [*filters, _router()],
    }
    if isinstance(table, Path):
        manager["rds"] = {"route_config_name": name, "config_source": file_source(table)}
    else:
        manager["route_config"] = table
    if taken_off:
        manager["early_header_mutation_extensions"] = [_without(taken_off)]
    if tracing:
        manager["tracing"] = _spans(name, tracing)
    chain: JSON = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if tls:
        chain["transport_socket"] = tls
        chain["transport_socket_connect_timeout"] = "5s"
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": name,
        **({"address": address("127.0.0.1", port)} if port else {"internal_listener": {}}),
        "per_connection_buffer_limit_bytes": replies.MAX_BODY,
        "filter_chains": [chain],
    }


def http_filter(name: str, kind: str, config: Mapping[str, object]) -> JSON:
    """The filter `name`; `kind` is its message below envoy.extensions.filters.http."""
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{TYPES}.extensions.filters.http.{kind}", **config},
    }


def route_table(name: str, found: Sequence[JSON], host: Mapping[str, object] | None = None) -> JSON:
    """All routes of a listener, the first that matches wins; `host` adds to its virtual host."""
    virtual = {"name": name, "domains": ["*"], "routes": list(found), **(host or {})}
    return {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": [virtual],
        "response_headers_to_remove": ["server"],
    }


def collector(tracing: Tracing) -> JSON:
    """The cluster that spans are sent to."""
    server = {"endpoint": {"address": address(tracing.host, tracing.port)}}
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": OTLP,
        "type": "STRICT_DNS",
        "connect_timeout": "0.25s",
        "load_assignment": {"cluster_name": OTLP, "endpoints": [{"lb_endpoints": [server]}]},
    }


def inner_cluster(name: str) -> JSON:
    """The cluster of the listener `name` of this Envoy itself, which has no port."""
    kinds = f"{TYPES}.extensions.transport_sockets"
    raw = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": f"{kinds}.raw_buffer.v3.RawBuffer"},
    }
    inner = f"{kinds}.internal_upstream.v3.InternalUpstreamTransport"
    server = {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": name}}}}
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [server]}]},
        "transport_socket": {
            "name": "envoy.transport_sockets.internal_upstream",
            "typed_config": {"@type": inner, "transport_socket": raw},
        },
    }


def _spans(name: str, tracing: Tracing) -> JSON:
    url = f"http://{tracing.host}:{tracing.port}{tracing.path}"
    return {
        "random_sampling": {"value": tracing.percent},
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": f"{TYPES}.config.trace.v3.OpenTelemetryConfig",
                "service_name": name,
                "http_service": {"http_uri": {"uri": url, "cluster": OTLP, "timeout": "1s"}},
            },
        },
    }


def _without(headers: Sequence[str]) -> JSON:
    kind = "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{TYPES}.{kind}",
            "mutations": [
                *({"remove": header} for header in headers),
                {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
                *({"append": header} for header in replies.set_headers(CLIENT)),
            ],
        },
    }


def _router() -> JSON:
    return http_filter("router", "router.v3.Router", {"suppress_envoy_headers": True})
