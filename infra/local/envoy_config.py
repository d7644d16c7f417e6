"""The parts of Envoy's configuration, as plain JSON values. Pure.

Figures that were measured, and why they are so:
- `min_retry_concurrency` 128 and `max_retries` 1024: the default of 3 concurrent retries turns a
  killed server into thousands of errors;
- the upstream `idle_timeout` of 30 s is below the servers' keep-alive of 75 s, else a request meets
  a connection that is being closed;
- `per_try_timeout`: neither health checks nor outlier detection free a request from a server that
  hangs;
- `update_merge_window` 0: by default the second change of health within a second reaches the
  workers at the end of that second, and meanwhile every retry goes to the dead server;
- `no_traffic_interval`: by default a cluster without traffic is checked once a minute only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON = dict[str, Any]

TYPES = "type.googleapis.com/envoy"
RETRYABLE: tuple[JSON, ...] = (
    {"headers": [{"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}]},
    {"headers": [{"name": "idempotency-key", "present_match": True}]},
)


@dataclass(frozen=True)
class Retries:
    """When a repeatable request is tried again, and how long it may take; seconds.

    `hedge`: after `per_try_timeout` another try starts beside the first, whose answer still counts.
    """

    retry_on: str
    timeout: float
    per_try_timeout: float | None
    hedge: bool = False


@dataclass(frozen=True)
class Health:
    """How a server is asked whether it is well; seconds. Without a path it must only listen."""

    path: str = "/health/ready"
    interval: float = 0.25
    timeout: float = 0.3


SERVICE_RETRIES = Retries("connect-failure,refused-stream,reset,gateway-error", 12.0, 2.0)
# Twice the requests in flight that a lost instance must not fail. More would let a slow platform
# be buried under its own retries.
RETRIES_AT_ONCE = 128
GATEWAY_RETRIES = Retries("connect-failure,refused-stream,reset", 14.0, 3.0, hedge=True)
SERVICE_HEALTH = Health()
GATEWAY_HEALTH = Health()
TCP_HEALTH = Health(path="")
# LEAST_REQUEST prefers a dead server, which has no requests: of two it takes the live one in a
# quarter of its draws. So many draws miss it in one of 400 retries; 5 do in one of 6.
HOST_ATTEMPTS = 20
# Room for the edge's pattern of a URL that is too long; Envoy's default is 100.
REGEX_SIZE = 20_000
SAFE = "connect-failure,refused-stream,reset-before-request"


def discovery(resources: Sequence[Mapping[str, Any]]) -> JSON:
    """A discovery response: the whole content of an xDS file."""
    return {"version_info": "1", "resources": list(resources)}


def bootstrap(folder: Path, node: str, role: str, admin_port: int) -> JSON:
    where = folder.resolve()
    monitor = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": f"{TYPES}.extensions.resource_monitors.downstream_connections.v3"
            ".DownstreamConnectionsConfig",
            "max_active_downstream_connections": 4096,
        },
    }
    # A client that opens streams only to reset them loses its connection (HTTP/2 rapid reset).
    limits = {
        "http.max_requests_per_io_cycle": 8,
        "overload.premature_reset_total_stream_count": 500,
        "overload.premature_reset_min_stream_lifetime_seconds": 1,
        "re2.max_program_size.error_level": REGEX_SIZE,
    }
    return {
        "node": {"id": node, "cluster": role},
        "layered_runtime": {"layers": [{"name": "limits", "static_layer": limits}]},
        "admin": {"address": address("127.0.0.1", admin_port)},
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": f"{TYPES}.extensions.bootstrap.internal_listener.v3.InternalListener"
                },
            }
        ],
        "dynamic_resources": {
            "cds_config": file_source(where / "cds.json"),
            "lds_config": file_source(where / "lds.json"),
        },
        "overload_manager": {"resource_monitors": [monitor]},
    }


def address(host: str, port: int) -> JSON:
    return {"socket_address": {"address": host, "port_value": port}}


def file_source(path: Path) -> JSON:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path.resolve())}}


def assignment(service: str, endpoints: Sequence[tuple[str, int]]) -> JSON:
    servers = [{"endpoint": {"address": address(host, port)}} for host, port in endpoints]
    return {
        "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": service,
        "endpoints": [{"lb_endpoints": servers}] if servers else [],
    }


def cluster(name: str, endpoints: Path, health: Health) -> JSON:
    """A set of servers: health checks, ejection of outliers, room for retries."""
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "eds_cluster_config": {"eds_config": file_source(endpoints)},
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"update_merge_window": "0s"},
        "typed_extension_protocol_options": {
            protocol: {
                "@type": f"type.googleapis.com/{protocol}",
                "common_http_protocol_options": {"idle_timeout": "30s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1024,
                    "max_pending_requests": 1024,
                    "max_requests": 1024,
                    "max_retries": 1024,
                    "retry_budget": {
                        "budget_percent": {"value": 25},
                        "min_retry_concurrency": RETRIES_AT_ONCE,
                    },
                }
            ]
        },
        "health_checks": [
            {
                "timeout": f"{health.timeout}s",
                "interval": f"{health.interval}s",
                "no_traffic_interval": f"{health.interval}s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                **_question(health.path),
            }
        ],
        "outlier_detection": {
            "interval": "0.5s",
            "base_ejection_time": "1s",
            "max_ejection_time": "5s",
            "max_ejection_percent": 50,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
        },
    }


def _question(path: str) -> JSON:
    return {"http_health_check": {"path": path}} if path else {"tcp_health_check": {}}


def routes(name: str, match: Mapping[str, Any], retries: Retries) -> list[JSON]:
    """The routes of one cluster: repeatable requests first, then those that must be sent once."""
    again = _retry_policy(retries.retry_on, retries.per_try_timeout)
    hedge: JSON = {"hedge_policy": {"hedge_on_per_try_timeout": True}} if retries.hedge else {}
    once = _retry_policy(SAFE, None)
    timeout = f"{retries.timeout}s"
    found: list[JSON] = [
        {
            "match": {**match, **condition},
            "route": {"cluster": name, "timeout": timeout, "retry_policy": again, **hedge},
        }
        for condition in RETRYABLE
    ]
    found.append(
        {
            "match": dict(match),
            "route": {"cluster": name, "timeout": timeout, "retry_policy": once},
        }
    )
    return found


def _retry_policy(retry_on: str, per_try_timeout: float | None) -> JSON:
    predicate = "envoy.retry_host_predicates.previous_hosts"
    policy: JSON = {
        "retry_on": retry_on,
        "num_retries": 5,
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
        "host_selection_retry_max_attempts": HOST_ATTEMPTS,
        "retry_host_predicate": [
            {
                "name": predicate,
                "typed_config": {
                    "@type": f"{TYPES}.extensions.retry.host.previous_hosts.v3"
                    ".PreviousHostsPredicate"
                },
            }
        ],
    }
    if per_try_timeout:
        policy["per_try_timeout"] = f"{per_try_timeout}s"
    return policy


def tls(certificate: Path, key: Path) -> JSON:
    """A server's side of TLS 1.2 or 1.3, with HTTP/2 where the client can."""
    files = {
        "certificate_chain": {"filename": str(certificate.resolve())},
        "private_key": {"filename": str(key.resolve())},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPES}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [files],
            },
        },
    }
